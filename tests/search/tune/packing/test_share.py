"""What is decided from measurements; the measurements themselves are in test_gpu_probe.py and test_gpu_sharing.py."""

import logging
from pathlib import Path
from typing import Any

import pytest

from search.config.tree import SearchConfig
from search.runs.paths import RunPaths, read_json, write_json
from search.space.search import Search
from search.tune.cluster.resources import TrialResources
from search.tune.packing import share as packing
from search.tune.packing.gpu_probe import GpuNode, ProbeResult
from search.tune.packing.rate import settle, share_of
from search.tune.packing.share import (
    CONTEXT_BYTES,
    cpus_of_each,
    gpu_share,
    most_trials,
    trials_that_fit,
)
from search.tune.retries import WholeGpu
from search.tune.specs import SpecMaker
from segcore.config import TrainConfig

GIB = 2**30
NODE = GpuNode("a", 16.0, 1.0)
SPACE = {"model.base_channels": {"int": [8, 64]}, "train.batch_size": {"choice": [8, 32]}}


def seen(peak_gib: float, free_gib: float = 80.0, **more: Any) -> ProbeResult:
    return ProbeResult(
        largest=0, estimate_bytes=GIB, peak_bytes=int(peak_gib * GIB), free_bytes=int(free_gib * GIB),
        total_bytes=80 * GIB, **more,
    )  # fmt: skip


class Probe:
    """Stands in for the GPU: gives what it was told, and counts."""

    def __init__(self, result: ProbeResult | Exception, rates: dict[int, float] | None = None) -> None:
        self.result, self.rates = result, rates or {}
        self.probed = 0
        self.measured: list[tuple[int, float]] = []
        self.configs: list[TrainConfig] = []

    def memory(self, candidates: list[TrainConfig], nodes: list[GpuNode]) -> ProbeResult:
        self.probed += 1
        if isinstance(self.result, Exception):
            raise self.result
        return self.result

    def rate(self, config: TrainConfig, cache: Path, count: int, cpus: float) -> float:
        self.measured.append((count, cpus))
        self.configs.append(config)
        return self.rates.get(count, 100.0 * count)


class Session:
    """One run's folder on pretended nodes."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.paths = RunPaths(folder)
        self.monkeypatch = monkeypatch
        write_json(self.paths.run, {"status": "running", "timings": {}})

    def share(self, probe: Probe, *nodes: GpuNode, **sections: Any) -> float:
        self.monkeypatch.setattr(packing, "gpu_nodes", lambda: list(nodes))
        tree = {"name": "x", "space": SPACE, "search": {"num_samples": 100}, **sections}
        config = SearchConfig.model_validate(tree)
        return gpu_share(Search.of(config), self.paths, Path("cache"), probe=probe.memory, measure=probe.rate)

    @property
    def record(self) -> dict[str, Any]:
        return dict(read_json(self.paths.run)["packing"])


@pytest.fixture
def session(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> Session:
    caplog.set_level(logging.INFO, "segsearch")
    return Session(tmp_path, monkeypatch)


@pytest.mark.parametrize(
    ("found", "most", "expected"),
    [
        (seen(5.0), 8, 8),
        (seen(8.0), 8, 7),  # 8 * (9.6 + 0.5) = 80.8 of 80; 7 * 10.1 = 70.7
        (seen(8.0, free_gib=60.0), 8, 5),
        (seen(8.0, overhead_bytes=2 * GIB), 8, 6),  # 6 * 12.1 = 72.6
        (seen(30.0), 8, 2),
        (seen(33.4), 8, 1),  # twice 40.08 is more than there is
        (seen(79.0), 8, 1),
        (seen(81.0), 8, 0),
        (seen(5.0), 3, 3),
        (seen(5.0, fits=False), 8, 0),
    ],
)
def test_as_many_fit_as_their_peaks_with_margin_and_contexts_leave_room_for(
    found: ProbeResult, most: int, expected: int
) -> None:
    assert CONTEXT_BYTES == GIB // 2
    assert trials_that_fit(found, most) == expected


def test_a_peak_beyond_the_share_of_the_whole_memory_does_not_fit_whatever_is_free() -> None:
    found = ProbeResult(0, 0, peak_bytes=34 * GIB, free_bytes=200 * GIB, total_bytes=80 * GIB)
    assert trials_that_fit(found, 8) == 1


@pytest.mark.parametrize(
    ("nodes", "sections", "expected"),
    [
        ([NODE], {}, 8),
        ([GpuNode("a", 6.0, 1.0)], {}, 6),
        ([GpuNode("a", 16.0, 4.0)], {}, 4),
        ([NODE, GpuNode("b", 2.0, 1.0)], {}, 2),
        ([GpuNode("a", 1.0, 2.0)], {}, 1),
        ([NODE], {"resources": {"cpus_per_trial": 5}}, 3),
        ([NODE], {"resources": {"cpus_per_trial": 0.1}}, 8),
        ([NODE], {"search": {"num_samples": 3}}, 3),
        ([GpuNode("a", 32.0, 2.0)], {"search": {"num_samples": 64, "max_concurrent": 6}}, 3),
        ([GpuNode("a", 32.0, 2.0)], {"search": {"num_samples": 64, "max_concurrent": 1}}, 1),
    ],
)
def test_no_more_share_a_gpu_than_have_cores_or_are_wanted(
    nodes: list[GpuNode], sections: dict[str, Any], expected: int
) -> None:
    config = SearchConfig.model_validate({"name": "x", "search": {"num_samples": 100}, **sections})
    assert most_trials(config, nodes) == expected


@pytest.mark.parametrize("count", range(1, 9))
def test_so_many_shares_make_no_more_than_a_gpu_in_rays_arithmetic(count: int) -> None:
    share = share_of(count)
    assert round(share * 10_000) == share * 10_000
    assert share * count <= 1
    assert int(1 / share) == count


@pytest.mark.parametrize(
    ("rates", "fitting", "expected"),
    [
        ({1: 100, 8: 250}, 8, (8, [1, 8])),
        ({1: 100, 8: 97}, 8, (8, [1, 8])),
        ({1: 100, 8: 96, 4: 110}, 8, (4, [1, 8, 4])),
        ({1: 100, 7: 50, 3: 60, 1.5: 0}, 7, (1, [1, 7, 3])),
        ({1: 100, 6: 50, 3: 101}, 6, (3, [1, 6, 3])),
        ({1: 100, 2: 10}, 2, (1, [1, 2])),
        ({}, 1, (1, [])),
    ],
)
def test_packing_that_measures_slower_is_halved_until_it_does_not(
    rates: dict[int, float], fitting: int, expected: tuple[int, list[int]]
) -> None:
    asked: list[int] = []

    def measure(count: int) -> float:
        asked.append(count)
        return rates[count]

    count, measured = settle(fitting, measure)
    assert (count, asked) == expected
    assert measured == {number: rates[number] for number in asked}


def test_what_is_probed_and_picked_is_said_and_kept(session: Session, caplog: pytest.LogCaptureFixture) -> None:
    probe = Probe(seen(8.0), {1: 100.0, 7: 320.0})
    assert session.share(probe, NODE) == share_of(7)
    said = caplog.text
    assert "7 trials a GPU fit: the largest of" in said
    assert "(model.base_channels=64, train.batch_size=8)" in said
    assert "peaks at 8.59 GB; with 20% margin" in said
    assert "7 trials a GPU kept; images/s in total by trials a GPU: 1: 100.0, 7: 320.0" in said
    assert "MPS does not run" in said
    assert session.record["trials_per_gpu"] == 7
    assert session.record["images_per_s"] == {"1": 100.0, "7": 320.0}
    assert [count for count, _ in probe.measured] == [1, 7]
    assert [cpus for _, cpus in probe.measured] == [16.0, 2.0]


def test_a_resume_on_the_same_nodes_measures_nothing(session: Session, caplog: pytest.LogCaptureFixture) -> None:
    probe = Probe(seen(30.0))
    first = session.share(probe, NODE)
    caplog.clear()
    assert session.share(probe, NODE) == first == 0.5
    assert (probe.probed, len(probe.measured)) == (1, 2)
    assert "2 trials a GPU, as measured when this run began" in caplog.text


@pytest.mark.parametrize(
    ("nodes", "sections"),
    [
        ([GpuNode("a", 8.0, 1.0)], {}),
        ([NODE], {"space": {"model.base_channels": {"int": [8, 128]}}}),
        ([NODE], {"data": {"image_size": 128}}),
        ([NODE], {"resources": {"cpus_per_trial": 2}}),
    ],
)
def test_other_nodes_or_another_space_are_measured_anew(
    session: Session, nodes: list[GpuNode], sections: dict[str, Any]
) -> None:
    probe = Probe(seen(30.0))
    session.share(probe, NODE)
    session.share(probe, *nodes, **sections)
    assert probe.probed == 2


def test_a_number_is_never_overridden(session: Session) -> None:
    probe = Probe(seen(79.0))
    assert session.share(probe, NODE, resources={"gpus_per_trial": 0.25}) == 0.25
    assert session.share(probe, NODE, resources={"gpus_per_trial": 0}) == 0.0
    assert session.share(probe) == 0.0, "no node has a GPU"
    assert probe.probed == 0
    assert "packing" not in read_json(session.paths.run)


def test_slower_together_is_turned_off_with_the_figures(session: Session, caplog: pytest.LogCaptureFixture) -> None:
    probe = Probe(seen(5.0), {1: 100.0, 8: 60.0, 4: 70.0, 2: 80.0})
    assert session.share(probe, NODE) == 1.0
    assert (
        "8 trials a GPU slower than one alone, so 1 a GPU; images/s in total by trials a GPU: 1: 100.0, 2: 80.0, "
        "4: 70.0, 8: 60.0 (tolerance 3%)"
    ) in caplog.text


def test_what_does_not_fit_a_whole_gpu_is_warned_of(session: Session, caplog: pytest.LogCaptureFixture) -> None:
    probe = Probe(seen(0.0, fits=False))
    assert session.share(probe, NODE) == 1.0
    (warning,) = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert "does not fit a whole GPU with 85.9 GB free" in warning.getMessage()
    assert "train.micro_batch_size" in warning.getMessage()
    assert probe.measured == []


def test_a_gpu_that_torch_does_not_see_is_shared_by_four_at_most(
    session: Session, caplog: pytest.LogCaptureFixture
) -> None:
    unknown = ProbeResult(largest=0, estimate_bytes=3 * 10**9, num_models=90, num_estimated=64)
    assert session.share(Probe(unknown), NODE) == 0.25
    assert "its memory is not known" in caplog.text
    assert "estimated at 3.00 GB" in caplog.text
    assert "(64 of their 90 models estimated)" in caplog.text
    assert session.share(Probe(unknown), GpuNode("a", 2.0, 1.0)) == 0.5


def test_a_probe_that_breaks_costs_the_packing_and_not_the_run(
    session: Session, caplog: pytest.LogCaptureFixture
) -> None:
    assert session.share(Probe(RuntimeError("first line\nno kernel image")), NODE) == 1.0
    assert "could not be measured (RuntimeError: no kernel image); one trial a GPU" in caplog.text
    assert session.record["error"] == "RuntimeError: no kernel image"


def test_mps_is_named_where_it_runs(session: Session, caplog: pytest.LogCaptureFixture) -> None:
    session.share(Probe(seen(30.0, mps="/tmp/nvidia-mps")), NODE)
    assert "NVIDIA MPS runs (/tmp/nvidia-mps)" in caplog.text


def test_cores_follow_the_number_of_trials_as_the_search_will_share_them() -> None:
    auto = SearchConfig(name="x")
    assert [cpus_of_each(auto, [NODE], count) for count in (1, 3, 8, 20)] == [16.0, 5.0, 2.0, 1.0]
    fixed = SearchConfig.model_validate({"name": "x", "resources": {"cpus_per_trial": 3}})
    assert cpus_of_each(fixed, [NODE], 8) == 3.0


@pytest.mark.parametrize(
    ("resources", "expected"),
    [
        (TrialResources(2.0, 0.25, 4, 2.0), WholeGpu(2.0)),
        (TrialResources(2.0, 0.25, 4, 0.0), None),  # no node has a whole GPU
        (TrialResources(2.0, 1.0, 1, 2.0), None),
        (TrialResources(2.0, 0.0, 1, 2.0), None),
    ],
)
def test_only_who_shares_a_gpu_can_get_a_whole_one(resources: TrialResources, expected: object, tmp_path: Path) -> None:
    maker = SpecMaker(RunPaths(tmp_path), "session-1", tmp_path, "val/iou", resources, retry_out_of_memory=True)
    assert maker.alone == expected
    assert maker(0, TrainConfig()).may_retry_alone == (expected is not None)
