import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from segcore.checkpoint.files import drop_state, drop_weights
from segcore.checkpoint.state import (
    BestModel,
    Tensors,
    TrainingState,
    first_readable,
    load_checkpoint,
    read_best,
    read_checkpoint,
    read_images,
    read_state,
    save_checkpoint,
    write_best,
    write_progress,
)
from segcore.config import LRSchedulerConfig, ModelConfig, OptimizerConfig
from segcore.errors import TrainingError
from segcore.models.build import build_model
from segcore.scores.image_counts import ImageCounts
from segcore.training.groups import build_optimizer
from segcore.training.schedule import build_lr_scheduler
from segcore.training.step import build_ema

LAST = ["weights.safetensors", "state.pt", "progress.json"]
BEST = ["best.safetensors", "best.json", "curve.json", "overlays.npz", "images.npz"]
FILES = [*LAST, *BEST]
OPTIONAL = ("images.npz", None)  # missing in checkpoints of earlier versions


def new_state(seed: int, ema_decay: float = 0.9) -> TrainingState:
    """A tiny model after two steps on noise, with everything that a checkpoint keeps."""
    torch.manual_seed(seed)
    model = build_model(ModelConfig(base_channels=2, depth=1))
    optimizer = build_optimizer(model, OptimizerConfig(lr=0.1))
    schedule = build_lr_scheduler(optimizer, LRSchedulerConfig(name="cosine"), 5, 2)
    ema = build_ema(model, ema_decay)
    for _ in range(2):
        model(torch.rand(2, 3, 16, 16) * 255).mean().backward()
        optimizer.step()
        schedule.step()
        if ema is not None:
            ema.update_parameters(model)
    overlays = {
        "images": np.full((1, 16, 16, 3), seed, np.uint8),
        "targets": np.ones((1, 16, 16), np.uint8),
        "probs": np.zeros((1, 16, 16), np.float16),
    }
    metrics = {"val/iou": 0.5 + seed / 100, "val/threshold": 0.25}
    counts = np.array([[40, 30 + seed]])
    images = ImageCounts(np.array([0.0, 0.5]), counts, 2 * counts, np.array([40]))
    best = BestModel.copy_of(model, 3, metrics, {"threshold": [0.0, 1.0]}, overlays, images)
    return TrainingState(model, optimizer, schedule, torch.amp.GradScaler("cpu", enabled=False), ema, 4, best)


def same(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor]) -> bool:
    return left.keys() == right.keys() and all(torch.equal(left[k], right[k]) for k in left)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("saved")
    save_checkpoint(folder, new_state(1))
    return folder


@pytest.fixture
def folder(saved: Path, tmp_path: Path) -> Path:
    """A saved checkpoint that the test may damage."""
    return Path(shutil.copytree(saved, tmp_path / "checkpoint_000003"))


@pytest.fixture(scope="module")
def other_state() -> TrainingState:
    """A state to load into."""
    return new_state(2)


def test_everything_comes_back(folder: Path) -> None:
    saved, other = new_state(1), new_state(2)
    assert not same(saved.model.state_dict(), other.model.state_dict())
    load_checkpoint(read_checkpoint(folder), other)
    assert same(saved.model.state_dict(), other.model.state_dict())
    assert saved.ema is not None
    assert other.ema is not None
    assert same(saved.ema.state_dict(), other.ema.state_dict())
    assert other.lr_schedule.state_dict() == saved.lr_schedule.state_dict()
    assert other.lr_schedule.lr == saved.lr_schedule.lr
    for left, right in zip(
        saved.optimizer.state_dict()["state"].values(), other.optimizer.state_dict()["state"].values(), strict=True
    ):
        assert all(torch.equal(left[key], right[key]) for key in left)
    assert other.epoch == 4
    assert other.best is not None
    assert saved.best is not None
    assert (other.best.epoch, other.best.metrics, other.best.curve) == (3, saved.best.metrics, saved.best.curve)
    assert same(other.best.weights, saved.best.weights)
    assert set(other.best.overlays) == {"images", "targets", "probs"}
    for name, array in saved.best.overlays.items():
        assert np.array_equal(other.best.overlays[name], array)
        assert other.best.overlays[name].dtype == array.dtype
    assert other.best.images is not None
    assert other.best.images.true_positive.tolist() == [[40, 31]]


def test_a_run_without_averaged_weights_comes_back_without(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, new_state(1, ema_decay=0.0))
    other = new_state(2, ema_decay=0.0)
    load_checkpoint(read_checkpoint(tmp_path), other)
    assert other.ema is None
    assert other.epoch == 4


def test_the_files_are_those_named_and_no_temporary_ones(folder: Path) -> None:
    assert sorted(path.name for path in folder.iterdir()) == sorted(FILES)


def test_the_best_weights_are_a_copy_that_training_cannot_change() -> None:
    state = new_state(1)
    assert state.best is not None
    before = {name: value.clone() for name, value in state.best.weights.items()}
    with torch.no_grad():
        for parameter in state.model.parameters():
            parameter.add_(1.0)
    assert same(before, state.best.weights)


def test_a_later_save_replaces_the_files(folder: Path) -> None:
    save_checkpoint(folder, new_state(2))
    assert read_best(folder).metrics["val/iou"] == 0.52
    assert read_images(folder).true_positive.tolist() == [[40, 32]]
    assert sorted(path.name for path in folder.iterdir()) == sorted(FILES)


def test_nothing_can_be_saved_before_the_first_epoch(tmp_path: Path) -> None:
    state = new_state(1)
    state.best = None
    with pytest.raises(ValueError, match="nothing to save before the first epoch"):
        save_checkpoint(tmp_path, state)


def test_the_best_epoch_can_be_written_and_read_alone(tmp_path: Path) -> None:
    best = new_state(1).best
    assert best is not None
    write_best(tmp_path / "new" / "folder", best)
    again = read_best(tmp_path / "new" / "folder")
    assert same(again.weights, best.weights)
    assert again.metrics == best.metrics


def cut(path: Path, share: float) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "share"),
    [(name, share) for name in FILES for share in (None, 0.0, 0.02, 0.5, 0.98) if (name, share) != OPTIONAL],
)
def test_a_missing_or_cut_off_file_is_told_and_the_next_checkpoint_taken(
    folder: Path, other_state: TrainingState, name: str, share: float | None
) -> None:
    """`None`: the file is not there; else only that share of its bytes."""
    whole = folder.with_name("checkpoint_000002")
    shutil.copytree(folder, whole)
    if share is None:
        (folder / name).unlink()
    else:
        cut(folder / name, share)
    with pytest.raises(TrainingError, match=r"checkpoint .*checkpoint_000003 cannot be read"):
        load_checkpoint(read_checkpoint(folder), other_state)
    assert first_readable([folder, whole]).folder == whole  # type: ignore[union-attr]
    assert first_readable([folder]) is None
    epoch = int(read_state(whole)["epoch"])
    assert first_readable([folder, whole], last_epoch=epoch).folder == whole  # type: ignore[union-attr]
    assert first_readable([folder, whole], last_epoch=epoch - 1) is None, "its report never arrived"
    if name in LAST:
        assert read_best(folder).epoch == 3  # the model is not lost with the state
    else:
        with pytest.raises(TrainingError, match="cannot be read"):
            read_best(folder)


def test_a_checkpoint_of_an_earlier_version_has_no_counts_and_is_linked_without(
    folder: Path, other_state: TrainingState, tmp_path: Path
) -> None:
    (folder / "images.npz").unlink()
    assert first_readable([folder]).folder == folder  # type: ignore[union-attr]
    load_checkpoint(read_checkpoint(folder), other_state)
    assert other_state.best is not None
    assert other_state.best.images is None
    with pytest.raises(TrainingError, match=r"counts per image in .*images.npz cannot be read"):
        read_images(folder)
    newer = tmp_path / "checkpoint_000004"
    newer.mkdir()
    Tensors.of(other_state).write(newer)
    write_progress(newer, other_state, folder)
    assert sorted(path.name for path in newer.iterdir()) == sorted(set(FILES) - {"images.npz"})
    assert (newer / "best.json").samefile(folder / "best.json")
    assert read_best(newer).images is None


def test_a_best_epoch_without_counts_leaves_none_of_another(folder: Path) -> None:
    state = new_state(2)
    assert state.best is not None
    state.best = replace(state.best, images=None)
    save_checkpoint(folder, state)
    assert read_best(folder).images is None


def test_counts_outlive_the_weights_and_are_linked(folder: Path, tmp_path: Path) -> None:
    state = new_state(1)
    newer = tmp_path / "checkpoint_000004"
    newer.mkdir()
    Tensors.of(state).write(newer)
    write_progress(newer, state, folder)
    assert (newer / "images.npz").samefile(folder / "images.npz")
    drop_state(newer)
    drop_weights(newer)
    drop_weights(newer)
    assert sorted(path.name for path in newer.iterdir()) == sorted(set(BEST) - {"best.safetensors"})
    assert read_images(newer).true_positive.tolist() == [[40, 31]]
    with pytest.raises(TrainingError, match="cannot be read"):
        read_best(newer)


def test_a_file_that_needs_unpickling_is_refused(folder: Path) -> None:
    torch.save({"epoch": Path("/")}, folder / "state.pt")
    with pytest.raises(TrainingError, match=r"cannot be read: .*[Ww]eights.only"):
        read_state(folder)


def test_another_models_checkpoint_is_refused(folder: Path) -> None:
    state = new_state(1)
    state.model = build_model(ModelConfig(base_channels=4, depth=1))
    with pytest.raises(TrainingError, match=r"cannot be read: .*\s*size mismatch"):
        load_checkpoint(read_checkpoint(folder), state)
