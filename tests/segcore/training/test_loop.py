import copy
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from segcore.checkpoint.state import read_checkpoint, save_checkpoint
from segcore.config import TrainConfig
from segcore.data.loader import build_loader
from segcore.data.pairs.discovery import discover
from segcore.data.pairs.samples import DatasetIndex
from segcore.data.pixels.cache import build_cache
from segcore.data.pixels.cache_file import SampleCache, open_cache
from segcore.errors import DataError, NonFiniteLossError, TrainingError
from segcore.losses.mix import build_loss
from segcore.models.build import build_model
from segcore.scores.scorer import IMAGE_SCORERS, METRICS
from segcore.sealed.predictor import Predictor
from segcore.task import BINARY
from segcore.training import loop as training
from segcore.training.device import begin_trial
from segcore.training.evaluation import evaluate
from segcore.training.loop import EpochResult, fit

CPU = torch.device("cpu")
BASE: dict[str, Any] = {
    "data": {"root": "synthetic", "image_size": 32, "synthetic": {"num_images": 24, "noise": 0.1}},
    "model": {"base_channels": 4, "depth": 2, "dropout": 0.2},
    "augment": {"policy": "light"},
    "train": {"epochs": 4, "batch_size": 4},
}


def config(**changes: Any) -> TrainConfig:
    """`BASE` with dotted keys replaced."""
    tree = copy.deepcopy(BASE)
    for key, value in changes.items():
        *sections, leaf = key.split("__")
        here = tree
        for section in sections:
            here = here.setdefault(section, {})
        here[leaf] = value
    return TrainConfig.model_validate(tree)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SampleCache]:
    """24 generated images of 32 px: 16 train, 4 val, 4 test."""
    data = config(data__cache_dir=str(tmp_path_factory.mktemp("cache"))).data
    with open_cache(build_cache(discover(data), data)) as opened:
        yield opened


def train(train_config: TrainConfig, cache: SampleCache, **options: Any) -> list[EpochResult]:
    return list(fit(train_config, cache, device=CPU, **options))


def without_times(metrics: dict[str, float]) -> dict[str, float]:
    return {key: value for key, value in metrics.items() if not key.startswith("time/")}


def assert_same_weights(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor]) -> None:
    assert left.keys() == right.keys()
    for name, value in left.items():
        assert torch.equal(value, right[name]), name


def test_the_same_config_and_seed_train_the_same_model_bit_by_bit(cache: SampleCache) -> None:
    first, second = train(config(train__epochs=2), cache), train(config(train__epochs=2), cache)
    assert [without_times(r.metrics) for r in first] == [without_times(r.metrics) for r in second]
    assert_same_weights(first[-1].state.model.state_dict(), second[-1].state.model.state_dict())


def test_another_seed_trains_another_model(cache: SampleCache) -> None:
    first, second = (train(config(train__epochs=1, train__seed=seed), cache)[-1] for seed in (0, 1))
    assert first.metrics["train/loss"] != second.metrics["train/loss"]


def test_what_ran_before_in_the_process_changes_nothing(cache: SampleCache) -> None:
    first = train(config(train__epochs=1), cache)[-1]
    torch.manual_seed(123)
    np.random.seed(123)
    torch.rand(17)
    second = train(config(train__epochs=1), cache)[-1]
    assert without_times(first.metrics) == without_times(second.metrics)


@pytest.mark.parametrize(
    ("schedule", "ema_decay", "stopped_after"),
    [("plateau", 0.0, 2), ("plateau", 0.9, 1), ("onecycle", 0.0, 1), ("onecycle", 0.9, 2)],
)
def test_a_resumed_run_equals_an_uninterrupted_one_bit_by_bit(
    cache: SampleCache, tmp_path: Path, schedule: str, ema_decay: float, stopped_after: int
) -> None:
    run = config(
        lr_scheduler__name=schedule, lr_scheduler__patience=0, train__ema_decay=ema_decay,
        optimizer__lr=0.02, augment__policy="medium", train__epochs=3,
    )  # fmt: skip
    whole = train(run, cache)
    for result in fit(run, cache, device=CPU):
        if result.epoch == stopped_after:
            save_checkpoint(tmp_path / "checkpoint", result.state)
            break
    rest = train(run, cache, checkpoint=read_checkpoint(tmp_path / "checkpoint"))

    assert [result.epoch for result in rest] == list(range(stopped_after + 1, 4))
    expected = whole[stopped_after:]
    assert [without_times(r.metrics) for r in rest] == [without_times(r.metrics) for r in expected]
    assert [(r.is_best, r.is_last) for r in rest] == [(r.is_best, r.is_last) for r in expected]
    left, right = whole[-1].state, rest[-1].state
    assert_same_weights(left.model.state_dict(), right.model.state_dict())
    assert left.best is not None
    assert right.best is not None
    assert left.best.epoch == right.best.epoch
    assert without_times(left.best.metrics) == without_times(right.best.metrics)
    assert left.best.curve == right.best.curve
    assert_same_weights(left.best.weights, right.best.weights)
    if ema_decay:
        assert left.ema is not None
        assert right.ema is not None
        assert_same_weights(left.ema.state_dict(), right.ema.state_dict())


def test_a_finished_checkpoint_has_nothing_left_to_train(cache: SampleCache, tmp_path: Path) -> None:
    run = config(train__epochs=1)
    save_checkpoint(tmp_path, train(run, cache)[-1].state)
    assert train(run, cache, checkpoint=read_checkpoint(tmp_path)) == []


def test_every_metric_is_a_finite_number_under_its_one_spelling(cache: SampleCache) -> None:
    result = train(config(train__epochs=1), cache)[0]
    assert set(result.metrics) == {
        "train/loss", "lr", "val/loss", "val/iou", "val/dice", "val/iou_pooled", "val/dice_pooled", "val/threshold",
        "val/iou_auto", "val/threshold_auto", "val/threshold_gap", "time/train_s", "time/val_s", "time/images_per_s",
        "time/loader_wait", "time/compiled",
    }  # fmt: skip
    assert all(isinstance(value, float) and np.isfinite(value) for value in result.metrics.values())
    assert set(METRICS.names) <= set(result.metrics)


def test_images_per_second_count_the_images_that_were_seen(cache: SampleCache) -> None:
    """16 images in one batch of at most 64."""
    metrics = train(config(train__epochs=1, train__batch_size=64), cache)[0].metrics
    assert metrics["time/images_per_s"] * metrics["time/train_s"] == pytest.approx(16)


@pytest.mark.parametrize("batch_size", [4, 64])
def test_a_loss_that_explodes_fails_with_epoch_and_cause(cache: SampleCache, batch_size: int) -> None:
    """Batches of 4: the second step sees ruined weights. One batch of all: only validation does."""
    run = config(
        optimizer__name="sgd", optimizer__lr=1e30, train__grad_clip=0.0, lr_scheduler__name="constant",
        train__batch_size=batch_size,
    )  # fmt: skip
    split = "training" if batch_size == 4 else "validation"
    cause = r"\(optimizer\.lr=1e\+30, loss=1\*bce\+1\*dice, .*b?float(16|32)"
    match = rf"epoch 1: the {split} loss became (nan|inf|-inf) {cause}"
    with pytest.raises(NonFiniteLossError, match=match):
        train(run, cache)


def test_a_nan_loss_in_a_later_epoch_names_that_epoch(cache: SampleCache, monkeypatch: pytest.MonkeyPatch) -> None:
    losses = iter([0.5, float("nan")])
    monkeypatch.setattr(training, "train_one_epoch", lambda *arguments: next(losses))
    epochs = fit(config(lr_scheduler__name="constant"), cache, device=CPU)  # nothing steps any other
    assert next(epochs).epoch == 1
    with pytest.raises(NonFiniteLossError, match="epoch 2: the training loss became nan"):
        next(epochs)


def evaluation_of(result: EpochResult, cache: SampleCache, threshold: float, split: str = "val") -> float:
    """Mean IoU over images of a result's model at a threshold, from numpy alone."""
    model = result.state.model.eval()
    values = []
    for i in cache.indices(split):
        image = torch.from_numpy(cache.image(i).copy()).permute(2, 0, 1)[None]
        with torch.inference_mode():
            pred = model(image).sigmoid()[0, 0].numpy() >= threshold
        target = cache.mask(i) > 0
        union = (pred | target).sum()
        values.append((pred & target).sum() / union if union else 1.0)
    return float(np.mean(values))


@pytest.mark.parametrize("threshold", [0.25, 0.3, 0.5, 0.617])
def test_a_given_threshold_is_the_one_that_scores(cache: SampleCache, threshold: float) -> None:
    result = train(config(threshold=threshold, train__epochs=1), cache)[0]
    metrics = result.metrics
    assert metrics["val/threshold"] == threshold
    assert metrics["val/iou"] == pytest.approx(evaluation_of(result, cache, threshold), abs=1e-12)
    assert metrics["val/iou_auto"] + metrics["val/threshold_gap"] >= metrics["val/iou"]
    if (threshold * 1024).is_integer():
        assert metrics["val/iou_auto"] >= metrics["val/iou"]


def test_auto_takes_the_threshold_that_scores_best(cache: SampleCache) -> None:
    result = train(config(train__epochs=1), cache)[0]
    metrics = result.metrics
    assert metrics["val/threshold"] == metrics["val/threshold_auto"]
    assert metrics["val/iou"] == metrics["val/iou_auto"]
    assert metrics["val/iou"] == pytest.approx(evaluation_of(result, cache, metrics["val/threshold"]), abs=1e-12)
    for threshold in np.linspace(0.05, 0.95, 10):
        assert metrics["val/iou"] + metrics["val/threshold_gap"] >= evaluation_of(result, cache, float(threshold))


@pytest.mark.parametrize(
    ("metric", "values", "best"),
    [
        ("val/iou", [0.2, 0.9, 0.4], 2),
        ("val/iou", [0.5, 0.5, 0.5], 1),  # of equals the earlier
        ("val/loss", [0.9, 0.2, 0.4], 2),
        ("val/dice", [0.1, 0.2, 0.3], 3),
    ],
)
def test_the_best_epoch_is_kept_not_the_last(
    cache: SampleCache, monkeypatch: pytest.MonkeyPatch, metric: str, values: list[float], best: int
) -> None:
    real = training.score
    given = iter(values)
    monkeypatch.setattr(training, "score", lambda *arguments: {**real(*arguments), metric: next(given)})
    weights = {}
    flags = []
    for result in fit(config(train__epochs=3), cache, metric=metric, device=CPU):
        weights[result.epoch] = copy.deepcopy(result.state.model.state_dict())
        flags.append(result.is_best)
    kept = result.state.best
    assert kept is not None
    assert kept.epoch == best
    assert kept.metrics[metric] == values[best - 1]
    assert_same_weights(kept.weights, weights[best])
    assert [epoch for epoch, flag in enumerate(flags, start=1) if flag][-1] == best


def test_the_kept_weights_earn_the_kept_score(cache: SampleCache) -> None:
    """With averaged weights, where what is validated is not what is trained."""
    run = config(train__ema_decay=0.9, threshold=0.5)
    result = train(run, cache)[-1]
    best = result.state.best
    assert best is not None
    result.state.model.load_state_dict(best.weights)
    assert evaluation_of(result, cache, 0.5) == pytest.approx(best.metrics["val/iou"], abs=1e-12)


@pytest.mark.parametrize("threshold", ["auto", 0.617])
def test_the_kept_counts_earn_the_kept_scores(cache: SampleCache, threshold: float | str) -> None:
    best = train(config(threshold=threshold), cache)[-1].state.best
    assert best is not None
    assert best.images is not None
    assert len(best.images.positive) == len(cache.indices("val"))
    for metric in IMAGE_SCORERS:
        mean = best.images.values(metric, best.metrics["val/threshold"]).mean()
        assert mean == pytest.approx(best.metrics[f"val/{metric}"], abs=1e-12)
    assert best.images.values("iou", "auto").mean() == pytest.approx(best.metrics["val/iou_auto"], abs=1e-12)
    assert best.images.positive.tolist() == [int((cache.mask(i) > 0).sum()) for i in cache.indices("val")]


def test_the_last_epoch_says_so(cache: SampleCache) -> None:
    assert [result.is_last for result in train(config(train__epochs=2), cache)] == [False, True]


@pytest.mark.parametrize("missing", ["train", "val"])
def test_an_empty_split_is_refused(tmp_path: Path, missing: str) -> None:
    run = config(data__cache_dir=str(tmp_path), data__synthetic={"num_images": 8})
    index = discover(run.data)
    rest = DatasetIndex(index.root, index.layout, tuple(s for s in index.samples if s.split != missing), ())
    with (
        open_cache(build_cache(rest, run.data)) as cache,
        pytest.raises(DataError, match=f"the {missing} split holds no images"),
    ):
        train(run, cache)


def test_validation_does_not_touch_the_model(cache: SampleCache) -> None:
    model = build_model(config().model)
    before = copy.deepcopy(model.state_dict())
    loader = build_loader(
        cache, "val", batch_size=3, augment=None, shuffle=False, drop_last=False, seed=0, num_workers=0,
        pin_memory=False,
    )  # fmt: skip
    loss = build_loss(config().loss)
    predictor = Predictor(model, BINARY, cache.hw, CPU)
    first, second = (evaluate(predictor, loader, loss) for _ in range(2))
    assert_same_weights(before, model.state_dict())
    assert first.loss == second.loss
    assert first.overlays["images"].shape == (4, 32, 32, 3)
    assert first.overlays["images"].dtype == np.uint8
    assert first.overlays["targets"].shape == first.overlays["probs"].shape == (4, 32, 32)
    assert np.array_equal(first.overlays["images"][1], cache.image(cache.indices("val")[1]))


def test_a_frozen_schedule_is_told_in_lr(cache: SampleCache) -> None:
    metrics = train(config(train__epochs=1, optimizer__lr=0.003, lr_scheduler__name="constant"), cache)[0].metrics
    assert metrics["lr"] == 0.003


def test_one_batch_can_be_learned_by_heart(tmp_path: Path) -> None:
    run = config(
        data__cache_dir=str(tmp_path), data__synthetic={"num_images": 12, "noise": 0.1}, augment__policy="none",
        model__base_channels=8, model__dropout=0.0, optimizer__lr=0.01, lr_scheduler__name="constant",
        train__epochs=40, train__batch_size=8,
    )  # fmt: skip
    with open_cache(build_cache(discover(run.data), run.data)) as cache:
        result = train(run, cache)[-1]
        assert evaluation_of(result, cache, 0.5, "train") > 0.9


def test_a_checkpoint_of_another_config_is_refused(cache: SampleCache, tmp_path: Path) -> None:
    save_checkpoint(tmp_path, train(config(train__epochs=1), cache)[-1].state)
    with pytest.raises(TrainingError, match="cannot be read"):
        train(config(model__base_channels=8), cache, checkpoint=read_checkpoint(tmp_path))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_a_gpu_learns_as_a_cpu_does(cache: SampleCache, precision: str) -> None:
    gpu = list(fit(config(train__precision=precision), cache, device=torch.device("cuda")))
    cpu = train(config(), cache)
    assert gpu[-1].metrics["train/loss"] < gpu[0].metrics["train/loss"]
    assert gpu[-1].metrics["train/loss"] == pytest.approx(cpu[-1].metrics["train/loss"], rel=0.25)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("arch", ["unet", "residual_attention_unet"])
def test_a_gpu_gives_the_same_bits_twice_where_it_is_asked_to(cache: SampleCache, arch: str) -> None:
    run = config(model__arch=arch, loss__lovasz=1.0, train__deterministic=True, train__epochs=2)
    first, second = (list(fit(run, cache, device=torch.device("cuda"))) for _ in range(2))
    assert [without_times(r.metrics) for r in first] == [without_times(r.metrics) for r in second]
    assert_same_weights(first[-1].state.model.state_dict(), second[-1].state.model.state_dict())
    assert first[0].applied is not None
    assert first[0].applied["train.deterministic"] is True


@pytest.mark.parametrize(
    ("compiled", "deterministic", "kind", "mode"),
    [
        ("auto", False, "cuda", "auto"),
        ("auto", True, "cuda", False),
        ("auto", False, "cpu", False),
        (True, True, "cpu", True),
        (False, False, "cuda", False),
    ],
)
def test_what_is_decided_by_timing_is_left_out_of_a_deterministic_run(
    compiled: Any, deterministic: bool, kind: str, mode: Any
) -> None:
    loop = config(train__compile=compiled, train__deterministic=deterministic).train
    assert training.compile_mode(loop, torch.device(kind)) == mode


FRESH = """
import sys, torch
from pathlib import Path
from segcore.config import TrainConfig
from segcore.data.pixels.cache import open_cache
from segcore.training.device import begin_trial
from segcore.training.loop import fit
run = TrainConfig.model_validate_json(Path(sys.argv[1]).read_text())
begin_trial(1, 0)
with open_cache(Path(sys.argv[2])) as cache:
    result = list(fit(run, cache, device=torch.device("cpu")))[-1]
torch.save({"weights": result.state.model.state_dict(), "best": result.state.best.weights}, sys.argv[3])
"""


@pytest.mark.slow
def test_a_fresh_process_trains_the_same_model_bit_by_bit(cache: SampleCache, tmp_path: Path) -> None:
    """Its memory, its hash seed and whatever ran before are others."""
    run = config(
        augment__policy="heavy", model__arch="residual_attention_unet", loss__lovasz=1.0, train__ema_decay=0.9,
        train__epochs=2,
    )  # fmt: skip
    (tmp_path / "run.json").write_text(run.model_dump_json())
    arguments = [str(tmp_path / "run.json"), str(cache.path), str(tmp_path / "weights.pt")]
    subprocess.run([sys.executable, "-c", FRESH, *arguments], check=True, timeout=120)
    elsewhere = torch.load(tmp_path / "weights.pt", weights_only=True)

    threads = torch.get_num_threads()
    begin_trial(1, 0)
    here = train(run, cache)[-1].state
    torch.set_num_threads(threads)
    assert here.best is not None
    assert_same_weights(here.model.state_dict(), elsewhere["weights"])
    assert_same_weights(here.best.weights, elsewhere["best"])


@pytest.mark.slow
def test_compiling_is_told_once(cache: SampleCache, monkeypatch: pytest.MonkeyPatch) -> None:
    real = torch.compile
    monkeypatch.setattr(torch, "compile", lambda model, **options: real(model, backend="eager"))
    results = train(config(train__epochs=3, train__compile=True), cache)
    assert [result.note for result in results] == ["compiling: train.compile is true", None, None]
    assert [result.metrics["time/compiled"] for result in results] == [1.0] * 3
    assert train(config(train__epochs=1), cache)[0].note is None  # on a CPU, auto leaves it
