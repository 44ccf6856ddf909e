"""Options that several layouts read."""

from segcore.component import Option

MASK_SUFFIX = Option("mask_suffix", str, "_mask", "For layout `suffix`: what a mask's stem ends with.", min_length=1)
