"""Options that several schedules read."""

from segcore.component import Option

WARMUP_EPOCHS = Option("warmup_epochs", float, 1.0, "linear warm-up.", ge=0.0, order=20)
MIN_LR_FACTOR = Option("min_lr_factor", float, 0.01, "floor as a share of lr.", ge=0.0, le=1.0, order=30)
