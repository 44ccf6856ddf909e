"""The typed tree of a search: what a training run needs, and how to search over it. No logic beyond validation."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import (
    BeforeValidator,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    ValidationInfo,
    field_validator,
    model_serializer,
    model_validator,
)

from search.config.choices import SAMPLERS, SCHEDULERS, TARGETS, choices_described
from segcore.config import (
    AugmentConfig,
    DataConfig,
    LocalPath,
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
from segcore.objective import Objective
from segcore.scores.scorer import METRICS, scorer_of

if TYPE_CHECKING:
    Metric = str
    SchedulerName = str
    SamplerName = str
else:
    Metric = METRICS.literal
    SchedulerName = SCHEDULERS.literal
    SamplerName = SAMPLERS.literal
_LOWER_IS_BETTER = [metric.name for metric in METRICS if metric.build.mode == "min"]
Name = Annotated[
    str,
    Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._\-]*$", max_length=100),
    BeforeValidator(lambda value: str(value) if type(value) is int else value),
]


class SchedulerConfig(Section):
    """Which trials are stopped early. Each scheduler has options of its own; those of another are refused."""

    name: SchedulerName = Field("asha", description=choices_described(SCHEDULERS))

    @model_serializer(mode="wrap")
    def _without_unused_options(self, as_map: SerializerFunctionWrapHandler) -> dict[str, Any]:
        unused = SCHEDULERS.unused_by(self.name)
        return {key: value for key, value in as_map(self).items() if key not in unused}

    @property
    def makes_forks(self) -> bool:
        """Whether trials change their settings while they train, so that none can be made again."""
        return SCHEDULERS[self.name].build.population is not None

    if TYPE_CHECKING:

        def __getattr__(self, option: str) -> Any:
            """The options are those that the schedulers declare."""


if not TYPE_CHECKING:
    SchedulerConfig = SCHEDULERS.section(SchedulerConfig, says_readers=True)


class PlateauConfig(Section):
    """When little more is to be expected of a search."""

    trials: PositiveInt = Field(20, description="How many further trials are judged together.")
    floor: Annotated[float, Field(gt=0.0)] = Field(
        0.001, description="The search ends when these trials would be expected to gain less, in units of the metric."
    )
    min_trials: Annotated[int, Field(ge=5)] = Field(
        20, description="Never before so many trials have ended without failing."
    )


class ConfirmConfig(Section):
    """The best trials again, from nothing and with other seeds, before one of them is called the best."""

    top_k: PositiveInt = Field(3, description="How many of the best trials; 1 only measures how much seeds matter.")
    seeds: Annotated[int, Field(ge=2)] = Field(
        3, description="Trainings of each, all of them to the last epoch; they are ranked by the mean."
    )


class SearchSettings(Section):
    """How many trials, judged by what, proposed by whom."""

    num_samples: PositiveInt = Field(64, description="Trials.")
    metric: Metric = Field("val/iou", description="What a trial is judged by; means per image, or pooled over pixels.")
    mode: Literal["max", "min"] = Field(
        "max", description=f"min for {', '.join(_LOWER_IS_BETTER)}, max for the others."
    )
    second_metric: Literal["cost/parameters", "cost/latency_ms"] | None = Field(
        None,
        description="A cost to keep low beside the metric: what the search finds is then a front, from the best model "
        "to the cheapest. cost/parameters; cost/latency_ms: milliseconds an image takes; null: off.",
    )
    sampler: SamplerName = Field("auto", description=choices_described(SAMPLERS))
    scheduler: SchedulerConfig = SchedulerConfig()
    max_concurrent: Literal["auto"] | PositiveInt = Field(
        "auto", description="Trials side by side; auto: as many as fit."
    )
    time_budget_s: Annotated[float, Field(gt=0.0)] | None = Field(
        None,
        description="Seconds of search, those of earlier sessions included, after which it ends; running trials are "
        "stopped and keep their best epoch.",
    )
    target: float | None = Field(
        None, description="Value of the metric that is good enough: the search ends when an epoch reaches it."
    )
    plateau: PlateauConfig | None = Field(
        None, description="Ends the search when little more is to be expected; `{}` for the defaults, null: off."
    )
    seed: int = Field(0, description="Seed of the sampler.")
    gate: bool = Field(
        True,
        description="Before a search or a training, one batch is overfitted with the config as it stands, and what "
        "keeps it from being learned is named; what is certainly wrong ends the run there.",
    )
    confirm: ConfirmConfig | None = Field(
        ConfirmConfig(),
        description="The best trials are trained again with other seeds, and the best mean wins; of those that cannot "
        "be told from it, the smallest model. Not with the scheduler pbt. null: the best value of the search wins.",
    )
    enqueue: tuple[dict[str, Any], ...] = Field(
        (), description="Known-good points to try first: maps of searched keys; a key left out is the config's own."
    )

    @property
    def objective(self) -> Objective:
        """What trials are compared by."""
        return Objective(self.metric, self.mode, self.second_metric)

    @model_validator(mode="before")
    @classmethod
    def _mode_follows_metric(cls, raw: Any) -> Any:
        if isinstance(raw, Mapping) and str(raw.get("metric")) in METRICS and "mode" not in raw:
            return {**raw, "mode": scorer_of(str(raw["metric"])).mode}
        return raw

    @field_validator("target")
    @classmethod
    def _target_within_metric(cls, target: float | None, info: ValidationInfo) -> float | None:
        metric = info.data.get("metric")
        if target is not None and metric is not None and not (scorer := scorer_of(metric)).can_be(target):
            raise ValueError(f"found {target:g}, a value that {metric} cannot have; valid: {scorer.range_text}")
        return target

    @model_validator(mode="after")
    def _mode_fits_metric(self) -> Self:
        fitting = scorer_of(self.metric).mode
        if self.mode != fitting:
            raise ValueError(
                f"mode is {self.mode}, but {self.metric} is better when it is {fitting}; set mode: {fitting}"
            )
        return self


class ResourceConfig(Section):
    """What one trial takes of a node, and which cluster to join."""

    cpus_per_trial: Literal["auto"] | Annotated[float, Field(gt=0.0)] = Field("auto", description="CPU cores.")
    gpus_per_trial: Literal["auto"] | UnitFloat = Field(
        "auto",
        description="Share of one GPU, 0 for none: 0.25 runs four trials on each; auto: the largest configuration of "
        "the space is measured, and as many share a GPU as fit and get more done together than one alone.",
    )
    retry_out_of_memory: bool = Field(
        False,
        description="A trial that runs out of memory on a share of a GPU continues once more, alone on a whole one, "
        "when nothing else is left to start.",
    )
    checkpoints_gb: Annotated[float, Field(gt=0.0)] | None = Field(
        20.0,
        description="Gigabytes for the checkpoints of all trials together; beyond, those of the worst ended ones go. "
        "The best, and what may continue, always stay; null: no limit.",
    )
    address: str | None = Field(
        None,
        min_length=1,
        description="null: a Ray of our own, unless RAY_ADDRESS is set in the environment; `local`: one of our own "
        "in any case; `auto`: the one that runs on this machine; HOST:PORT: that one.",
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

    @model_validator(mode="after")
    def _exactly_one(self) -> Self:
        given = [kind for kind in TARGETS.names if getattr(self, kind) is not None]
        if len(given) != 1:
            names = ", ".join(TARGETS.names)
            raise ValueError(
                f"found {' and '.join(given) or 'no target'}; valid: exactly one of {names}, e.g. {{local: exported}}"
            )
        return self

    @model_serializer
    def _as_one_key(self) -> dict[str, str]:
        return {self.kind: self.location}

    @property
    def kind(self) -> str:
        """Which kind of place."""
        return next(kind for kind in TARGETS.names if getattr(self, kind) is not None)

    @property
    def location(self) -> str:
        """Path or name at that place."""
        return str(getattr(self, self.kind))

    @property
    def is_path(self) -> bool:
        """Whether the location is a path of this machine."""
        return bool(TARGETS[self.kind].build.is_path)

    def moved_to(self, location: str) -> "TargetSpec":
        """The same kind of place, elsewhere."""
        return TargetSpec(**{self.kind: location})


if not TYPE_CHECKING:
    TargetSpec = TARGETS.section(TargetSpec)  # a field for each target, as it declares its location


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

    name: Name = Field(
        description="The run's name and folder: letters, digits, `.`, `_`, `-`; default: the config file's name."
    )
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
    results: LocalPath = Field("results", min_length=1, description="Folder that holds the folders of the runs.")

    def train_config(self) -> TrainConfig:
        """The part that one training run needs."""
        return TrainConfig(**{key: getattr(self, key) for key in TrainConfig.model_fields})
