"""The config of a search: the typed tree, its file, and every problem of that file at once.

`python -m search.config` writes `configs/schema.json`, which editors use for completion and checks.
"""

import copy
import json
import os
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import BeforeValidator, ConfigDict, Field, ValidationError, model_serializer, model_validator

from search.config_errors import Path as KeyPath
from search.config_errors import Problem, dotted, node_at, problems_of, take_secrets, value_problem
from search.config_file import RawConfig, apply_overrides, flatten_file_space, read_config
from search.errors import ConfigError
from search.space import read_space, space_schema
from segcore.config import (
    AugmentConfig,
    DataConfig,
    LoopConfig,
    LossConfig,
    LRSchedulerConfig,
    ModelConfig,
    OptimizerConfig,
    PositiveInt,
    Section,
    TrainConfig,
    UnitFloat,
)

Metric = Literal["val/iou", "val/dice", "val/iou_pooled", "val/dice_pooled", "val/loss"]
TargetKind = Literal["local", "yandex_disk", "wandb_artifact"]
Name = Annotated[
    str,
    BeforeValidator(lambda value: str(value) if type(value) is int else value),
    Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._\-]*$", max_length=100),
]


class SchedulerConfig(Section):
    """Which trials are stopped early."""

    name: Literal["asha", "none"] = Field(
        "asha", description="asha: stops the poor ones at rungs; none: stops nothing."
    )
    grace_period: PositiveInt = Field(2, description="Epochs that every trial gets: the first rung.")
    reduction_factor: Annotated[int, Field(ge=2)] = Field(3, description="One of so many trials passes a rung.")


class SearchSettings(Section):
    """How many trials, judged by what, proposed by whom."""

    num_samples: PositiveInt = Field(64, description="Trials.")
    metric: Metric = Field("val/iou", description="What a trial is judged by; means per image, or pooled over pixels.")
    mode: Literal["max", "min"] = Field("max", description="min for val/loss, max for the others.")
    sampler: Literal["tpe", "random"] = "tpe"
    scheduler: SchedulerConfig = SchedulerConfig()
    max_concurrent: Literal["auto"] | PositiveInt = Field(
        "auto", description="Trials side by side; auto: as many as fit."
    )
    time_budget_s: Annotated[float, Field(gt=0.0)] | None = Field(
        None, description="Seconds after which no trial starts."
    )
    seed: int = Field(0, description="Seed of the sampler.")

    @model_validator(mode="before")
    @classmethod
    def _mode_follows_metric(cls, raw: Any) -> Any:
        if isinstance(raw, Mapping) and raw.get("metric") == "val/loss" and "mode" not in raw:
            return {**raw, "mode": "min"}
        return raw

    @model_validator(mode="after")
    def _mode_fits_metric(self) -> Self:
        fitting = "min" if self.metric == "val/loss" else "max"
        if self.mode != fitting:
            raise ValueError(
                f"mode is {self.mode}, but {self.metric} is better when it is {fitting}; set mode: {fitting}"
            )
        return self


class ResourceConfig(Section):
    """What one trial takes of a node, and which cluster to join."""

    cpus_per_trial: Literal["auto"] | Annotated[float, Field(gt=0.0)] = Field("auto", description="CPU cores.")
    gpus_per_trial: Literal["auto"] | UnitFloat = Field(
        "auto", description="Share of one GPU, 0 for none: 0.25 runs four trials on each; auto: 1 where there is a GPU."
    )
    address: str | None = Field(
        None, min_length=1, description="A running Ray cluster, e.g. `auto`; null: this machine."
    )


class WandbConfig(Section):
    """Weights & Biases. The key comes from the environment: WANDB_API_KEY."""

    mode: Literal["auto", "online", "offline", "disabled"] = Field(
        "auto", description="auto: online with a key in the environment, offline without."
    )
    project: str = Field("segsearch", min_length=1)
    entity: str | None = Field(None, min_length=1, description="User or team; null: the key's own.")
    group: str | None = Field(None, min_length=1, description="Groups the trials; null: the run's name.")
    tags: tuple[str, ...] = ()


class TrackingConfig(Section):
    """Where trials are logged."""

    wandb: WandbConfig = WandbConfig()


class TargetSpec(Section):
    """One place that the sealed model is sent to: a map with exactly one key."""

    model_config = ConfigDict(json_schema_extra={"minProperties": 1, "maxProperties": 1})

    local: str | None = Field(None, min_length=1, description="A folder.")
    yandex_disk: str | None = Field(
        None, pattern=r"^(disk:|app:)?/.*[^/]$", description="An absolute path on the disk: /models/attention."
    )
    wandb_artifact: str | None = Field(
        None, pattern=r"^[A-Za-z0-9_.\-]+$", max_length=128, description="An artifact's name."
    )

    @model_validator(mode="after")
    def _exactly_one(self) -> Self:
        given = [kind for kind in type(self).model_fields if getattr(self, kind) is not None]
        if len(given) != 1:
            names = ", ".join(type(self).model_fields)
            raise ValueError(
                f"found {' and '.join(given) or 'no target'}; valid: exactly one of {names}, e.g. {{local: exported}}"
            )
        return self

    @model_serializer
    def _as_one_key(self) -> dict[str, str]:
        return {self.kind: self.location}

    @property
    def kind(self) -> TargetKind:
        """Which kind of place."""
        if self.local is not None:
            return "local"
        return "yandex_disk" if self.yandex_disk is not None else "wandb_artifact"

    @property
    def location(self) -> str:
        """Path or name at that place."""
        return self.local or self.yandex_disk or self.wandb_artifact or ""


class ExportConfig(Section):
    """Where the sealed model goes, besides the run's own folder."""

    targets: tuple[TargetSpec, ...] = ()

    @model_validator(mode="after")
    def _no_target_twice(self) -> Self:
        for i, target in enumerate(self.targets):
            if target in self.targets[:i]:
                raise ValueError(f"targets holds {target.kind}: {target.location} twice; keep one")
        return self


class SearchConfig(Section):
    """One search, complete: what a training run needs, and how to search over it."""

    name: Name = Field(description="The run's name and folder; default: the config file's name.")
    data: DataConfig = DataConfig()
    model: ModelConfig = ModelConfig()
    augment: AugmentConfig = AugmentConfig()
    loss: LossConfig = LossConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    lr_scheduler: LRSchedulerConfig = LRSchedulerConfig()
    threshold: Literal["auto"] | UnitFloat = Field(
        "auto", description=TrainConfig.model_fields["threshold"].description
    )
    train: LoopConfig = LoopConfig()
    space: dict[str, Any] = Field({}, description="What to vary: dotted key -> range or choice.")
    search: SearchSettings = SearchSettings()
    resources: ResourceConfig = ResourceConfig()
    tracking: TrackingConfig = TrackingConfig()
    export: ExportConfig = ExportConfig()
    results: str = Field("results", min_length=1, description="Folder that holds the folders of the runs.")

    def train_config(self) -> TrainConfig:
        """The part that one training run needs."""
        return TrainConfig(**{key: getattr(self, key) for key in TrainConfig.model_fields})


def load_config(path: Path, overrides: Sequence[str] = ()) -> SearchConfig:
    """Reads, overrides and checks a config file.

    Args:
        path: A YAML file.
        overrides: `key=value` with a dotted key and a YAML value, applied in order.

    Raises:
        ConfigError: every problem of the file and of the overrides, a line each.
    """
    path = Path(path)
    raw = read_config(path)
    problems = flatten_file_space(raw)
    problems += apply_overrides(raw, overrides)
    flatten_file_space(raw)
    problems += take_secrets(raw.values)
    raw.values.setdefault("name", _folder_safe(path.stem))
    values = _prepared(raw.values)
    config, found = _validated(values)
    problems += found
    wrong = tuple(problem.key for problem in problems)
    if isinstance(values["space"], dict):
        _, in_space = read_space(values["space"], config.train_config())
        problems += in_space
    problems += [problem for problem in _between_sections(config) if not problem.key.startswith(wrong)]
    if problems:
        raise ConfigError(_report(path, raw, problems))
    return _grace_period_within_epochs(config)


def dump_config(config: SearchConfig) -> str:
    """The config as YAML that `load_config` reads back to the same config."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True, width=120)


def json_schema() -> dict[str, Any]:
    """The JSON schema of a config file."""
    schema = SearchConfig.model_json_schema()
    space, definitions = space_schema()
    schema["properties"]["space"] |= space
    schema["$defs"] |= definitions
    del schema["required"]  # the name has the file's name as its default
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema, "title": "segsearch config"}


def _folder_safe(stem: str) -> str:
    return re.sub(r"[^A-Za-z0-9._\-]+", "-", stem).strip("-._")[:100] or "search"


def _prepared(raw: Mapping[str, Any]) -> dict[str, Any]:
    """A copy in which sections left empty in the file are as good as absent."""
    values: dict[str, Any] = copy.deepcopy(dict(raw))

    def drop_empty(level: dict[str, Any], path: KeyPath) -> None:
        for key in list(level):
            kind = (node_at(SearchConfig, (*path, key)) or {}).get("type") if isinstance(key, str) else None
            if level[key] is None and kind in ("object", "array"):
                del level[key]
            elif isinstance(level[key], dict) and key != "space":
                drop_empty(level[key], (*path, key))

    drop_empty(values, ())
    values.setdefault("space", {})
    return values


def _validated(values: dict[str, Any]) -> tuple[SearchConfig, list[Problem]]:
    """The config and its problems; with problems, the config is what remains when the wrong keys are left out."""
    try:
        config = SearchConfig.model_validate(values)
        return config, _booleans_for_numbers(config, values)
    except ValidationError as error:
        found = problems_of(SearchConfig, values, error)
    keys = copy.deepcopy(values)
    for path in sorted(found, key=len, reverse=True):
        _delete(keys, path)
    sections = {key: value for key, value in values.items() if key not in {path[0] for path in found}}
    for attempt in (keys, sections):
        try:
            config = SearchConfig.model_validate({"name": "x", **attempt})
        except ValidationError:
            continue
        return config, [*found.values(), *_booleans_for_numbers(config, attempt)]
    return SearchConfig(name="x"), list(found.values())


def _delete(tree: Any, path: KeyPath) -> None:
    for part in path[:-1]:
        tree = tree[part]
    if isinstance(tree, dict):
        tree.pop(path[-1], None)
    else:
        tree.clear()


def _booleans_for_numbers(model: Section, raw: Mapping[str, Any], path: KeyPath = ()) -> list[Problem]:
    """Pydantic takes `true` for 1; in a file it is a slip."""
    problems: list[Problem] = []
    for key, value in raw.items():
        taken = getattr(model, key, None)
        if isinstance(taken, Section) and isinstance(value, Mapping):
            problems += _booleans_for_numbers(taken, value, (*path, key))
        elif isinstance(value, bool) and not isinstance(taken, bool):
            problems.append(Problem(dotted((*path, key)), value_problem(SearchConfig, (*path, key), value)))
    return problems


def _between_sections(config: SearchConfig) -> list[Problem]:
    problems: list[Problem] = []
    scheduler, epochs = config.search.scheduler, config.train.epochs
    if scheduler.name == "asha" and scheduler.grace_period > epochs and "grace_period" in scheduler.model_fields_set:
        found = f"found {scheduler.grace_period}, but a trial has only train.epochs={epochs}"
        message = f"{found}; valid: 1 to {epochs}, or scheduler name none"
        problems.append(Problem("search.scheduler.grace_period", message))
    losses = [key for key in config.space if key == "loss" or key.startswith("loss.")]
    if config.search.metric == "val/loss" and losses:
        message = (
            f"val/loss cannot rank trials whose loss itself is searched ({', '.join(losses)}); valid: val/iou, val/dice"
        )
        problems.append(Problem("search.metric", message))
    return problems


def _grace_period_within_epochs(config: SearchConfig) -> SearchConfig:
    """A grace period that the file did not set gives way to a shorter training."""
    search, epochs = config.search, config.train.epochs
    if search.scheduler.grace_period <= epochs:
        return config
    scheduler = search.scheduler.model_copy(update={"grace_period": epochs})
    return config.model_copy(update={"search": search.model_copy(update={"scheduler": scheduler})})


def _report(path: Path, raw: RawConfig, problems: Sequence[Problem]) -> str:
    unique = sorted(dict.fromkeys(problems), key=lambda problem: raw.line(problem.key) or 0)
    lines = [f"{path}: {len(unique)} problem{'s' if len(unique) > 1 else ''}"]
    for problem in unique:
        origin = raw.origin(problem.key)
        lines.append(f"  {problem.key}{f' ({origin})' if origin else ''}: {problem.message}")
    return "\n".join(lines)


def main(arguments: Sequence[str]) -> None:
    """Writes the JSON schema to the given path."""
    path = Path(arguments[0]) if arguments else Path("configs") / "schema.json"
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    beside.write_text(json.dumps(json_schema(), indent=2) + "\n", encoding="utf-8")
    beside.replace(path)


if __name__ == "__main__":
    main(sys.argv[1:])
