"""The typed tree of everything that one training run needs. No logic beyond validation.

The same tree is the upper part of a search's YAML file, so each dotted key here
(`optimizer.lr`, `model.arch`, ...) may be set with `--set` or be searched.
"""

import re
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from segcore.component import Option, with_options
from segcore.registries import ARCHITECTURES, LAYOUTS, LOSSES, OPTIMIZERS, SCHEDULES

PositiveInt = Annotated[int, Field(ge=1)]
NonNegativeFloat = Annotated[float, Field(ge=0.0)]
UnitFloat = Annotated[float, Field(ge=0.0, le=1.0)]
ForegroundValue = (
    Annotated[int, Field(strict=True)]
    | Annotated[str, Field(pattern=r"^#[0-9a-fA-F]{6}$", description="a colour as '#rrggbb'")]
)
ImageSide = Annotated[int, Field(ge=16, le=4096)]


def _no_url(path: str) -> str:
    matched = re.match(r"([A-Za-z][A-Za-z0-9+.\-]+):/", path)
    if matched is None:
        return path
    instead = (
        f"the path itself, /{path[matched.end() :].lstrip('/')}"
        if matched[1] == "file"
        else ("a folder of this machine, such as one where the storage is mounted")
    )
    raise ValueError(f"found {path}, but {matched[1]}: addresses are neither read nor written; valid: {instead}")


LocalPath = Annotated[str, AfterValidator(_no_url)]
"""The path of a file or folder; an address such as `s3://...` would become a folder named `s3:`."""


class Section(BaseModel):
    """Base of every config section: unknown keys are refused, values are frozen and finite."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, validate_default=True)


class _Part(Section):
    """What a section is made of: half of one, which is never validated by itself, and so costs no validator."""

    model_config = ConfigDict(defer_build=True)


_LOOKS = [layout.build.short for layout in LAYOUTS]

if TYPE_CHECKING:  # a type checker takes no names that are found at run time
    _ArchitectureName = str
    _LayoutName = str
    _OptimizerName = str
    _ScheduleName = str
else:
    _ArchitectureName = ARCHITECTURES.literal
    _LayoutName = Literal[("auto", *LAYOUTS.names)]
    _OptimizerName = OPTIMIZERS.literal
    _ScheduleName = SCHEDULES.literal


class _OptimizerChoice(_Part):
    name: _OptimizerName = "adamw"
    lr: Annotated[float, Field(gt=0.0)] = Field(1e-3, description="Peak learning rate of decoder and head.")
    weight_decay: NonNegativeFloat = Field(0.01, description="Not applied to norms and biases.")


class _LayoutChoice(_Part):
    root: LocalPath = Field("data", min_length=1, description="A folder, a .csv of pairs, or `synthetic`.")
    layout: _LayoutName = Field(
        "auto",
        description=f"How images and masks are paired: {', '.join(_LOOKS[:-1])}, or {_LOOKS[-1]}.",
    )


class _ModelChoice(_Part):
    arch: _ArchitectureName = "unet"


class _ScheduleChoice(_Part):
    name: _ScheduleName = "cosine"


if TYPE_CHECKING:

    class _LossOptions(BaseModel):
        def __getattr__(self, name: str) -> Any: ...

    class _LayoutOptions(_LayoutChoice):
        def __getattr__(self, name: str) -> Any: ...

    class _ModelOptions(_ModelChoice):
        def __getattr__(self, name: str) -> Any: ...

    class _OptimizerOptions(_OptimizerChoice):
        def __getattr__(self, name: str) -> Any: ...

    class _ScheduleOptions(_ScheduleChoice):
        def __getattr__(self, name: str) -> Any: ...

else:  # what the components declare
    _weights = (Option(term.name, float, term.build.default_weight, ge=0.0) for term in LOSSES)
    _LossOptions = with_options(_Part, (*_weights, *LOSSES.options.values()))
    _LayoutOptions = LAYOUTS.section(_LayoutChoice)
    _ModelOptions = ARCHITECTURES.section(_ModelChoice, says_readers=True)
    _OptimizerOptions = OPTIMIZERS.section(_OptimizerChoice, says_readers=True)
    _ScheduleOptions = SCHEDULES.section(_ScheduleChoice, says_readers=True)


class SyntheticConfig(Section):
    """The generated data set behind `data.root: synthetic`."""

    num_images: Annotated[int, Field(ge=8, le=100_000)] = Field(96, description="Images over all splits.")
    noise: UnitFloat = Field(0.25, description="Texture noise added to image and background, share of full scale.")


class DataConfig(_LayoutOptions, defer_build=False):
    """Where images and masks lie, how they are paired, sized and split."""

    image_size: ImageSide | tuple[ImageSide, ImageSide] = Field(
        256, description="Side in pixels, or [height, width], that every image is resized to."
    )
    val_fraction: Annotated[float, Field(gt=0.0, lt=1.0)] = Field(
        0.2, description="Share of the files used for validation when the data has no split of its own."
    )
    test_fraction: Annotated[float, Field(ge=0.0, lt=1.0)] | Literal["auto"] = Field(
        "auto",
        description="Share of the files held out for the final test when the data has no test split; auto: 0.15 where "
        "the data has no split of its own and that makes at least 50 images of at least 5 groups, else 0.",
    )
    group_by: str | None = Field(
        None,
        description="Regular expression on the image's relative path; files with the same first group "
        "(or whole match) stay in one split.",
    )
    group_duplicates: bool = Field(
        False,
        description="Keep identical and nearly identical images, mirrored ones too, in one split where we make the "
        "splits; costs decoding the images once more at each start.",
    )
    foreground: ForegroundValue | Annotated[tuple[ForegroundValue, ...], Field(min_length=1)] | None = Field(
        None,
        description="Values of the masks that are foreground, all others being background: a number as the files store "
        "it (a palette's entry), a colour as '#rrggbb', or a list; null: every value but 0 and every colour but black, "
        "unless the masks leave a doubt.",
    )
    seed: int = Field(0, description="Seed of the split and of the synthetic data.")
    cache_dir: LocalPath | None = Field(
        None, description="Folder of the decoded cache; default: the user's cache folder."
    )
    synthetic: SyntheticConfig = SyntheticConfig()

    @model_validator(mode="after")
    def _fractions_leave_training_data(self) -> Self:
        if self.test_fraction != "auto" and self.val_fraction + self.test_fraction >= 1.0:
            raise ValueError(
                f"val_fraction + test_fraction must stay below 1, found {self.val_fraction} + {self.test_fraction}"
            )
        return self

    @property
    def foreground_values(self) -> tuple[int | str, ...] | None:
        """`foreground` as a tuple."""
        return self.foreground if self.foreground is None or isinstance(self.foreground, tuple) else (self.foreground,)

    @property
    def image_hw(self) -> tuple[int, int]:
        """`(height, width)` in pixels."""
        return (self.image_size, self.image_size) if isinstance(self.image_size, int) else self.image_size


class ModelConfig(_ModelOptions, defer_build=False):
    """A U-Net: its architecture, its encoder and its size."""

    encoder: str = Field(
        "none",
        pattern=r"^(none|timm:[A-Za-z0-9_.\-]+)$",
        description="`none` for the plain convolutional encoder, or `timm:NAME` for any timm model with features.",
    )
    encoder_weights: str = Field(
        "none",
        min_length=1,
        description="`none`, `imagenet` (timm's hub), or the path of a local .safetensors file with timm's key names.",
    )
    base_channels: Annotated[int, Field(ge=1, le=1024)] = Field(32, description="Width of the plain encoder's stem.")
    depth: Annotated[int, Field(ge=1, le=7)] = Field(4, description="Downsampling stages of the plain encoder.")
    decoder_channels: tuple[PositiveInt, ...] | None = Field(
        None, description="Decoder width per stage, deepest first; default: follows the encoder."
    )
    dropout: Annotated[float, Field(ge=0.0, lt=1.0)] = Field(0.0, description="Channel dropout before the head.")
    in_channels: Literal[3] = 3
    num_classes: Literal[1] = Field(1, description="1 = binary. The masks' foreground is the one class.")

    @model_validator(mode="after")
    def _weights_need_an_encoder(self) -> Self:
        if self.encoder == "none" and self.encoder_weights != "none":
            raise ValueError(
                f"encoder_weights is {self.encoder_weights!r} but encoder is 'none'; "
                "name an encoder such as 'timm:resnet50' or set encoder_weights to 'none'"
            )
        return self


class AugmentConfig(Section):
    """Training-time augmentation; validation is never augmented."""

    policy: Literal["none", "flip", "light", "medium", "heavy"] = Field(
        "light", description="Fixed lists of increasing strength and cost."
    )
    probability: UnitFloat = Field(0.5, description="Chance of each transform of the policy.")
    vertical_flip: bool = Field(False, description="Also flip upside down; right for cells, wrong for horses.")
    scale: Annotated[float, Field(ge=0.0, lt=1.0)] = Field(0.2, description="Zoom range +-share, light and above.")
    rotate: Annotated[float, Field(ge=0.0, le=180.0)] = Field(15.0, description="Rotation range +-degrees.")
    color: UnitFloat = Field(0.2, description="Brightness and contrast range +-share.")


class LossConfig(_LossOptions, defer_build=False):
    """Weights of the loss mix; a weight of 0 leaves the term out. At least one must be positive."""

    @model_validator(mode="after")
    def _at_least_one_term(self) -> Self:
        if not any(getattr(self, name) for name in LOSSES.names):
            raise ValueError(f"all weights are 0; set at least one of {', '.join(LOSSES.names)} above 0")
        return self


class OptimizerConfig(_OptimizerOptions, defer_build=False):
    """The optimizer and its groups."""

    encoder_lr_factor: NonNegativeFloat = Field(
        1.0, description="Learning rate of a timm encoder as a multiple of lr; 0 freezes it."
    )


class LRSchedulerConfig(_ScheduleOptions, defer_build=False):
    """The learning-rate schedule; each name uses the parameters that its line names."""


class LoopConfig(Section):
    """The training loop."""

    epochs: PositiveInt = 25
    batch_size: PositiveInt = 16
    precision: Literal["auto", "fp32", "bf16", "fp16"] = Field(
        "auto", description="auto: bf16 where GPU or CPU computes it natively, else fp16 on a GPU, fp32 on a CPU."
    )
    micro_batch_size: PositiveInt | None = Field(
        None,
        description="Largest number of images that go through the model at once, for a batch_size that does not fit "
        "into memory: gradients are accumulated; null: the whole batch.",
    )
    compile: bool | Literal["auto"] = Field(
        "auto",
        description="torch.compile the model; auto: on a GPU, once the steps left are measured to pay for the warm-up.",
    )
    grad_clip: NonNegativeFloat = Field(1.0, description="Largest gradient norm; 0 = off.")
    ema_decay: Annotated[float, Field(ge=0.0, lt=1.0)] = Field(
        0.0, description="Exponential moving average of the weights, validated and kept instead of them; 0 = off."
    )
    num_workers: Annotated[int, Field(ge=0, le=64)] | Literal["auto"] = Field(
        "auto", description="Loader processes; auto: none on a CPU, the trial's CPUs on a GPU."
    )
    augment_on: Literal["auto", "loader", "device"] = Field(
        "auto",
        description="Where samples are augmented: in the loader, or whole batches on the device (not the policy "
        "`heavy`, which stays in the loader); auto: on the device when it is a GPU.",
    )
    deterministic: bool = Field(
        False,
        description="On a GPU, take only algorithms that give the same bits each time, at some cost of speed; on a CPU "
        "the same config and seed do so anyway.",
    )
    seed: int = Field(0, description="Seed of weights, shuffling, augmentation and dropout.")


class TrainConfig(Section):
    """One training run, complete."""

    data: DataConfig = DataConfig()
    model: ModelConfig = ModelConfig()
    augment: AugmentConfig = AugmentConfig()
    loss: LossConfig = LossConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    lr_scheduler: LRSchedulerConfig = LRSchedulerConfig()
    threshold: Literal["auto"] | UnitFloat = Field(
        "auto", description="Probability from which a pixel is foreground; auto: the best of val's exact curve."
    )
    train: LoopConfig = LoopConfig()
