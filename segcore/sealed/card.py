"""The card of a sealed model and the hashes of its files; without torch, so that `ls` and `export` start fast."""

import hashlib
import json
import os
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, ValidationError, field_validator

from segcore.errors import BundleError
from segcore.record import Record, why_unreadable, wrong_fields

if TYPE_CHECKING:
    from segcore.config import TrainConfig

FORMAT = 2
"""Format of `card.json`; format 1 held absolute paths of the machine."""
WEIGHTS_FILE = "model.safetensors"
CARD_FILE = "card.json"
VERSIONED_PACKAGES = ("segsearch", "torch", "timm", "numpy", "pillow", "albumentations", "ray", "optuna")


class Origin(Record):
    """Which training a sealed model comes from.

    Attributes:
        run: The run's name.
        epoch: The epoch whose weights are sealed.
        trial: The search's trial; None for a single training run.
        trials: How many trials the search had.
        seed: The seed, where a trial was trained again with another one.
        rerun: The number of that repeated training.
    """

    run: str = ""
    epoch: int | None = None
    trial: int | None = None
    trials: int | None = None
    seed: int | None = None
    rerun: int | None = None


class TaskNote(Record):
    """What a model predicts: the kind of task, its classes, and how its output is read, in words."""

    kind: str = ""
    classes: tuple[str, ...] = ()
    output: str = ""


class Threshold(Record):
    """The probability in [0, 1] from which a pixel is foreground, how it was chosen, and what val's curve says.

    Attributes:
        value: The threshold.
        chosen_by: What chose it.
        auto_would_be: The best of val's curve.
        val_iou_at_auto: The IoU there.
        gap_to_exact_optimum: What a threshold between two of the curve could add at most.
        flat: From where to where the IoU on val stays within `flat_within` of that at `value`.
        flat_within: A difference of IoU.
    """

    value: float
    chosen_by: str = ""
    auto_would_be: float | None = None
    val_iou_at_auto: float | None = None
    gap_to_exact_optimum: float | None = None
    flat: tuple[float, float] | None = None
    flat_within: float | None = None

    @field_validator("value")
    @classmethod
    def _is_probability(cls, value: float) -> float:
        if not 0.0 <= value <= 1.0:
            raise ValueError(f"must lie in [0, 1], found {value}")
        return value


class Scores(Record):
    """Scores of some images: fields named as in `segcore.scores.scoring`; `name` is set for a single image."""

    iou: float
    dice: float
    num_images: int | None = None
    name: str = ""

    def get(self, metric: str) -> float | None:
        """A score by its name; None where the card does not have it."""
        value = getattr(self, metric, None)
        return float(value) if isinstance(value, int | float) else None


class SplitScores(Scores):
    """Scores of one split.

    Attributes:
        iou_interval: Confidence interval of the mean IoU per image.
        chose: What was chosen on these images, which makes the scores optimistic.
        cross_fitted: The scores with the threshold of each half chosen on the other half.
        fresh_seeds: The mean scores of trainings of the same settings with seeds that chose nothing, cross-fitted.
        num_seeds: How many trainings these are the mean of.
        by_size: Scores by the size of the object.
        by_class: Scores by the class of the image.
        worst_images: Scores of the worst images, lowest IoU first.
    """

    iou_interval: tuple[float, float]
    chose: tuple[str, ...] = ()
    cross_fitted: "SplitScores | None" = None
    fresh_seeds: "SplitScores | None" = None
    num_seeds: int | None = None
    by_size: dict[str, Scores] = Field(default_factory=dict)
    by_class: dict[str, Scores] = Field(default_factory=dict)
    worst_images: list[Scores] = Field(default_factory=list)


class Optimism(Record):
    """How much an IoU that was claimed on val exceeds the one to quote.

    Attributes:
        val: The claim: what the search saw of the winner, or, where nothing was confirmed, the sealed model's own IoU.
        against: What the one to quote was earned on.
        honest: The one to quote.
        gap: The claim less the one to quote.
        interval: Confidence interval of the gap.
        claimed_by: Whose claim it is.
    """

    claimed_by: Literal["sealed model", "search"] = "sealed model"
    val: float
    against: str
    honest: float
    gap: float
    interval: tuple[float, float]


class Confirmed(Record):
    """The result of training the settings again with other seeds, as in `confirm.json`."""

    metric: str
    seeds: list[int]
    num_images: int | None = None
    confidence: float
    seed_sd: float | None = None
    tied: list[int]
    reason: str
    mean: float | None
    interval: tuple[float, float] | None = None


class InputNote(Record):
    """The model's input: `[height, width]` in pixels, color, how images are resized, and the normalisation."""

    image_size: tuple[int, int] | None = None
    color: str = ""
    resize: str = ""
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None


class DataNote(Record):
    """The training data: fingerprint, layout, number of images by split, and of similar images in several splits."""

    fingerprint: str = ""
    layout: str = ""
    images: dict[str, int] = Field(default_factory=dict)
    leaks: dict[str, int] = Field(default_factory=dict)


class FileEntry(Record):
    """The expected hash and size in bytes of a file of the model."""

    sha256: str
    size: int | None = None


class Card(Record):
    """`card.json`: what a sealed model is, how it scores and where it comes from, without paths of the machine.

    Attributes:
        format: Format of the card itself.
        config: The training's config, from `portable_config`.
        created: When it was sealed, UTC.
        origin: Which training it comes from.
        task: What it predicts, in words.
        threshold: The probability from which a pixel is foreground.
        input: Size, color and normalisation of the images.
        data: Fingerprint, layout and counts of the training data.
        validation_when_trained: What its epoch reported.
        applied: What was read back from the training before it began.
        confirmed: The result of training its settings again with other seeds.
        scores: Scores by split.
        optimism: How much the IoU on val exceeds an unbiased one.
        chosen_on: The metric that chose epoch and trial.
        versions: Versions of Python and of the packages that a result may depend on.
        files: Hashes of the other files, by name.
    """

    format: int = 1
    config: dict[str, Any] = Field(default_factory=dict)
    created: str = ""
    origin: Origin = Field(default_factory=Origin)
    task: TaskNote = Field(default_factory=TaskNote)
    threshold: Threshold | None = None
    input: InputNote = Field(default_factory=InputNote)
    data: DataNote = Field(default_factory=DataNote)
    validation_when_trained: dict[str, float] = Field(default_factory=dict)
    applied: dict[str, Any] | None = None
    confirmed: Confirmed | None = None
    scores: dict[str, SplitScores] = Field(default_factory=dict)
    optimism: Optimism | None = None
    chosen_on: str | None = None
    versions: dict[str, str] = Field(default_factory=dict)
    files: dict[str, FileEntry] = Field(default_factory=dict)


def portable_config(config: "TrainConfig") -> dict[str, Any]:
    """The config for a card: paths are reduced to their last part, and the cache folder is left out."""
    tree = config.model_dump(mode="json")
    data, model = tree["data"], tree["model"]
    data["root"] = Path(data["root"]).name or data["root"]
    data["cache_dir"] = None
    model["encoder_weights"] = Path(model["encoder_weights"]).name
    return tree


def write_card(folder: Path, card: Card) -> None:
    """Write a card atomically."""
    temporary = folder / f".{CARD_FILE}.tmp"
    temporary.write_text(json.dumps(card.tree(), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    os.replace(temporary, folder / CARD_FILE)


def read_card(folder: Path) -> Card:
    """Read only the card.

    Raises:
        BundleError: It is missing or damaged, or a newer version wrote it.
    """
    path = folder / CARD_FILE
    try:
        tree = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise BundleError(f"{folder} is no sealed model: it has no {CARD_FILE}") from error
    except (OSError, ValueError) as error:
        raise BundleError(f"{path} cannot be read: {error}") from error
    if not isinstance(tree, dict):
        raise BundleError(f"{path} should hold a JSON object, found {type(tree).__name__}")
    if (why := why_unreadable(path, tree, FORMAT)) is not None:
        raise BundleError(why)
    try:
        return Card.model_validate(tree)
    except ValidationError as error:
        raise BundleError(f"{path} cannot be read: {wrong_fields(error)}") from error


def verify_bundle(folder: Path) -> Card:
    """Check every file's sha256 against the card, and return the card.

    Raises:
        BundleError: A file is missing or altered, or the card has no hash of the weights.
    """
    card = read_card(folder)
    if WEIGHTS_FILE not in card.files:
        raise BundleError(f"{folder / CARD_FILE} has no sha256 of {WEIGHTS_FILE}, so the weights cannot be checked")
    for name, entry in card.files.items():
        path = folder / name
        if not path.is_file():
            raise BundleError(f"{folder}: {name} is missing; the model is incomplete")
        found = sha256(path)
        if found != entry.sha256:
            raise BundleError(
                f"{path} was altered or is damaged: its sha256 is {found[:12]}..., the card says {entry.sha256[:12]}..."
            )
    return card


def sha256(path: Path) -> str:
    """Hex digest of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def installed_versions() -> dict[str, str]:
    """Versions of the packages that a result may depend on."""
    versions = {}
    for name in VERSIONED_PACKAGES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    return versions
