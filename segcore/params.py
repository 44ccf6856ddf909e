"""The settings that a search gives a trial, by the dotted keys of the config.

Layer 0.
"""

from typing import Any, TypeAlias

ParamValue: TypeAlias = bool | int | float | str | list[Any] | tuple[Any, ...] | None
"""A leaf of a training config, as YAML or JSON gives it."""

Params: TypeAlias = dict[str, ParamValue]
"""Flat dotted config key -> value: `{"optimizer.name": "sgd", "optimizer.lr": 0.01}`.

For a point of a search space it holds every key that the point's branches search or set; `search.space.tree.flatten`
gives every key of a config. Functions that only read it take `Mapping[str, ParamValue]`.
"""
