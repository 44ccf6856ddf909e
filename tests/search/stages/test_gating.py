"""The gate as a user meets it: in `check`, before a run, in the run's folder, and switched off."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image
from rich.console import Console

from search.cli.group import main
from search.config.load import load_config
from search.errors import GateError
from search.runs.paths import RunPaths, read_json, write_json
from search.space.search import Search
from search.stages.checks.check import Preparation
from search.stages.checks.contents import one_batch
from search.stages.gating import keep, render_gate
from segcore.data.pairs.samples import DatasetIndex
from segcore.data.synthetic import draw_sample
from segcore.gate.report import Figures, Finding, GateReport

pytestmark = pytest.mark.slow

MODEL = "model: {base_channels: 8, depth: 2}\ntrain: {epochs: 1, batch_size: 8}\noptimizer: {lr: 3e-3}\n"
DATA = "data: {root: d, image_size: 32}\n"
SPACE = "space: {optimizer.lr: {loguniform: [1e-3, 1e-2]}}\n"
FIGURES = Figures(8, 32, 48, 1.4, 0.3, 0.5, 0.9, 0.41, 0.93, 24, 1.5, 3.0, "overfitted")
ERROR = Finding("lr_zero", "error", "the learning rate is 0", {"groups": 4}, "set optimizer.lr")
WARNING = Finding("inverted_masks", "warning", "may be swapped", {"share": 0.8}, "look at the [picture]")


def report_of(*findings: Finding) -> GateReport:
    return GateReport(findings, FIGURES, np.zeros((20, 30, 3), np.uint8))


@pytest.fixture
def cli(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))

    def invoke(*arguments: str) -> Result:
        return CliRunner().invoke(main, list(arguments))

    return invoke


def write_pairs(root: Path, *, inverted: bool = False) -> None:
    for number in range(20):
        image, mask = draw_sample(np.random.default_rng(number), "disk", 0.2)
        for kind, array in (("images", image), ("masks", (mask ^ inverted).astype(np.uint8) * 255)):
            path = root / kind / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(array).save(path)


def test_check_tells_what_it_tried_and_where_the_picture_is(cli: Callable[..., Result], tmp_path: Path) -> None:
    write_pairs(tmp_path / "d")
    (tmp_path / "c.yaml").write_text(DATA + MODEL)
    result = cli("check", "c.yaml", "--picture", "batch.png")
    assert result.exit_code == 0, result.output
    for fragment in ("8 images at 32x32 px", "IoU", "picture: batch.png", "fit for a run"):
        assert fragment in result.output
    assert Image.open(tmp_path / "batch.png").height > 300


def test_a_fault_in_the_data_ends_check_and_run_and_leaves_no_run(cli: Callable[..., Result], tmp_path: Path) -> None:
    write_pairs(tmp_path / "d", inverted=True)
    (tmp_path / "c.yaml").write_text(DATA + MODEL + SPACE)
    for command in ("check", "run", "train"):
        result = cli(command, "c.yaml")
        assert result.exit_code == 2, result.output
        assert "Traceback" not in result.output
        assert "inverted_masks: foreground and background are swapped" in " ".join(result.output.split())
        assert "--no-gate" in result.output
    assert not (tmp_path / "results").exists()
    assert len(list(tmp_path.glob("segsearch-c-gate-*.png"))) == 3


def test_without_the_gate_nothing_is_trained(cli: Callable[..., Result], tmp_path: Path) -> None:
    write_pairs(tmp_path / "d", inverted=True)
    (tmp_path / "c.yaml").write_text(DATA + MODEL)
    for arguments in (("--no-gate",), ("--set", "search.gate=false")):
        result = cli("check", "c.yaml", *arguments)
        assert result.exit_code == 0, result.output
        assert "picture" not in result.output


def test_a_picture_that_cannot_be_written_is_one_message(cli: Callable[..., Result], tmp_path: Path) -> None:
    write_pairs(tmp_path / "d")
    (tmp_path / "c.yaml").write_text(DATA + MODEL)
    result = cli("check", "c.yaml", "--picture", "none/batch.png")
    assert result.exit_code == 2
    assert "the picture none/batch.png cannot be written" in " ".join(result.output.split())


def test_errors_stop_and_warnings_are_lines_of_the_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "c.yaml").write_text(DATA + MODEL)
    job = Preparation(Search.of(load_config(tmp_path / "c.yaml")), "train", Console(quiet=True))
    job.index, job.cache_path = DatasetIndex(tmp_path, "flat", (), ()), tmp_path
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr("search.stages.gating.inspect", lambda *_: report_of(ERROR, WARNING))
    with pytest.raises(GateError, match=r"lr_zero: the learning rate is 0 \(groups 4\); set optimizer.lr"):
        one_batch(job)
    monkeypatch.setattr("search.stages.gating.inspect", lambda *_: report_of(WARNING))
    caplog.clear()
    with caplog.at_level("INFO", logger="segsearch"):
        one_batch(job)
    assert job.gate is not None
    assert job.gate.warnings == (WARNING,)
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"]
    assert "IoU 0.900 at threshold 0.500" in caplog.text


def test_the_runs_folder_keeps_verdict_and_picture(tmp_path: Path) -> None:
    paths = RunPaths(tmp_path)
    write_json(paths.run, {"name": "x", "status": "running"})
    keep(report_of(WARNING), paths)
    record = json.loads(json.dumps(read_json(paths.run)["gate"]))
    assert record["passed"] is True
    assert record["findings"][0]["code"] == "inverted_masks"
    assert record["figures"]["best_threshold"] == 0.41
    assert Image.open(paths.gate).size == (30, 20)


def test_the_summary_shows_text_as_it_is() -> None:
    console = Console(width=200, record=True, quiet=False, file=open("/dev/null", "w"))  # noqa: SIM115, PTH123
    for part in render_gate(report_of(ERROR, WARNING)):
        console.print(part, markup=False)
    text = console.export_text()
    assert "\nerror lr_zero: the learning rate is 0" in text
    assert "24 steps in 1.5 s (the batch was learned)" in text
    assert "look at the [picture]" in text
