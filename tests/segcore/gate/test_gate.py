"""Every injected fault is named, by its own code alone; no healthy config is."""

import json
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from gate_faults import FAULTS, HEALTHY, LITE0, Fault, cache_of, config_of, with_targets
from PIL import Image

from segcore.data.loader import Batch
from segcore.gate.gate import run_gate
from segcore.gate.pipeline import build_pipeline

pytestmark = pytest.mark.slow

QUICK = {"unet, adamw, cosine, light", "sigmoid in the model", "metric's arguments swapped"}
"""Those that `make quick` runs too."""


@pytest.fixture(scope="session")
def cache_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("gate")


def cases(names: list[str]) -> list[object]:
    return [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in names]


@pytest.mark.parametrize("name", cases([fault.name for fault in FAULTS]))
def test_a_fault_is_named_and_nothing_else_is(name: str, cache_dir: Path) -> None:
    fault: Fault = next(fault for fault in FAULTS if fault.name == name)
    config = config_of(fault.changes or {}, cache_dir)
    with cache_of(config) as cache:
        pipeline = build_pipeline(config, cache)
        fault.inject(pipeline)
        report = run_gate(config, cache, num_cpus=1, pipeline=pipeline)
    assert [finding.code for finding in report.findings] == [fault.code], report.findings


@pytest.mark.parametrize("name", cases(list(HEALTHY)))
def test_a_healthy_config_passes(name: str, cache_dir: Path) -> None:
    config = config_of(HEALTHY[name], cache_dir)
    started = time.perf_counter()
    with cache_of(config) as cache:
        report = run_gate(config, cache, num_cpus=1)
    assert report.findings == ()
    assert report.figures.best_iou > 0.8
    assert report.figures.final_loss < report.figures.initial_loss
    assert time.perf_counter() - started < 60


def test_there_are_enough_of_both() -> None:
    assert len(FAULTS) >= 15
    assert len(HEALTHY) >= 10
    assert len({fault.name for fault in FAULTS}) == len(FAULTS)


@pytest.mark.slow
@pytest.mark.shared
@pytest.mark.parametrize("data", ["horses", "nuclei"])
def test_real_data_passes(data: str, cache_dir: Path, request: pytest.FixtureRequest) -> None:
    root, weights = request.getfixturevalue(f"{data}_dir"), request.getfixturevalue("lite0_weights")
    changes = {
        **LITE0, "data.root": str(root), "data.image_size": 96, "model.encoder_weights": str(weights),
        "optimizer.lr": 1e-3,
    }  # fmt: skip
    config = config_of(changes, cache_dir)
    with cache_of(config) as cache:
        assert run_gate(config, cache, num_cpus=1).findings == ()


@pytest.mark.slow
@pytest.mark.shared
def test_wrong_numbers_for_pretrained_weights_are_an_error(
    horses_dir: Path, lite0_weights: Path, cache_dir: Path
) -> None:
    changes = {
        **LITE0, "data.root": str(horses_dir), "data.image_size": 64, "model.encoder_weights": str(lite0_weights)
    }  # fmt: skip
    config = config_of(changes, cache_dir)
    with cache_of(config) as cache:
        pipeline = build_pipeline(config, cache)
        pipeline.model.get_buffer("std").fill_(0.2)
        report = run_gate(config, cache, num_cpus=1, pipeline=pipeline)
    assert [finding.code for finding in report.errors] == ["wrong_normalisation"]


@pytest.mark.slow
def test_masks_of_pure_noise_are_a_warning_and_no_error(cache_dir: Path) -> None:
    config = config_of({}, cache_dir)

    def noise(batch: Batch) -> torch.Tensor:
        rows = [np.random.default_rng(index).random(batch.targets.shape[1:]) < 0.5 for index in batch.indices.tolist()]
        return torch.from_numpy(np.stack(rows)).byte()

    with cache_of(config) as cache:
        pipeline = build_pipeline(config, cache)
        with_targets(pipeline, noise)
        report = run_gate(config, cache, num_cpus=1, pipeline=pipeline)
    assert report.errors == ()
    assert "shuffled_masks" in {finding.code for finding in report.warnings}


@pytest.mark.slow
def test_the_report_is_plain_json_and_a_picture(cache_dir: Path, tmp_path: Path) -> None:
    config = config_of({"data.image_size": 32}, cache_dir)
    before = torch.get_num_threads()
    with cache_of(config) as cache:
        pipeline = build_pipeline(config, cache)
        with_targets(pipeline, lambda batch: torch.zeros_like(batch.targets))
        report = run_gate(config, cache, num_cpus=2, pipeline=pipeline)
    assert torch.get_num_threads() == before
    record = json.loads(json.dumps(report.to_dict(), allow_nan=False))
    assert record["passed"] is False
    assert record["findings"][0]["code"] == "constant_target"
    assert record["figures"]["num_images"] == 8
    report.write_picture(tmp_path / "gate.png")
    picture = np.asarray(Image.open(tmp_path / "gate.png"))
    assert picture.shape == report.picture.shape
    assert picture.shape[0] > 4 * 128


@pytest.mark.slow
def test_the_same_config_gives_the_same_numbers(cache_dir: Path) -> None:
    config = config_of({"data.image_size": 32}, cache_dir)
    with cache_of(config) as cache:
        one, other = (run_gate(config, cache, num_cpus=1) for _ in range(2))
    assert one.figures.final_loss == other.figures.final_loss
    assert one.figures.num_steps == other.figures.num_steps
    assert (one.picture == other.picture).all()


def test_large_images_are_shrunk_and_small_ones_are_not(cache_dir: Path) -> None:
    sizes = {}
    for size, changes in ((160, {"model.base_channels": 1}), (40, {}), ((64, 96), {"model.base_channels": 1})):
        config = config_of({"data.image_size": size, **changes}, cache_dir)
        with cache_of(config) as cache:
            sizes[size] = build_pipeline(config, cache).cache.hw
    assert sizes == {160: (128, 128), 40: (40, 40), (64, 96): (64, 96)}


def test_a_batch_is_not_split_into_single_images(cache_dir: Path) -> None:
    changes = {"model.depth": 5, "model.base_channels": 1, "data.image_size": 32, "train.micro_batch_size": 1}
    config = config_of(changes, cache_dir)
    with cache_of(config) as cache:
        pipeline = build_pipeline(config, cache)
        pipeline.step(pipeline.read(cache.indices("train")[:8]))
