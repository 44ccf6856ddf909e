import json
import logging
import os
import re
import shutil
from collections.abc import Mapping
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import plotly.graph_objects as go
import pytest
from click.testing import CliRunner
from earlier_runs import unpack_earlier_runs
from report_runs import write_curve, write_run
from rerun_records import ledger, tie
from rich.console import Console

from search.cli.group import main
from search.config.load import load_config
from search.config.tree import SearchConfig
from search.errors import RunError
from search.report.build import report_record, write_report
from search.report.figures import trial_label
from search.runs.journal import EventLog
from search.runs.paths import RunPaths, write_json
from search.stages import job
from search.study.observations import COST_ATTR
from search.study.storage import close_study, open_study

pytestmark = pytest.mark.slow

SELF_CLOSING = frozenset({"meta", "link", "img"})


class Page(HTMLParser):
    """What a page shows and fetches, and whether its tags are closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.titles: list[str] = []
        self.sources: list[str] = []
        self.figures: list[dict[str, Any]] = []
        self.words = ""
        self._is_figure = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self.sources += [str(found[key]) for key in ("src", "href") if key in found]
        self._is_figure = tag == "script" and found.get("type") == "application/json"
        if tag not in SELF_CLOSING:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] == "script":
            if self._is_figure:
                self.figures.append(json.loads(data))
        elif self.open and self.open[-1] != "style":
            self.words += data
            if self.open[-1] == "h2":
                self.titles.append(data)


def page_of(paths: RunPaths) -> Page:
    page = Page(write_report(paths).read_text(encoding="utf-8"))
    assert page.open == []
    return page


def test_a_searchs_page_has_every_section_that_applies_and_fetches_nothing(tmp_path: Path) -> None:
    paths = write_run(tmp_path)
    page = page_of(paths)
    assert page.titles == [
        "How it went", "Best trials", "Failed trials", "Parameters", "What the threshold would have cost",
        "Where the trials came from", "What it sees", "Config and versions",
    ]  # fmt: skip
    assert page.sources
    assert [source for source in page.sources if not source.startswith("data:")] == []
    assert len(page.figures) == 5
    for figure in page.figures:
        go.Figure(figure)  # raises on a property that plotly does not have
    assert "0.6000" in page.words
    assert "no </script> in .../x.png" in page.words
    assert paths.report == tmp_path / "birds" / "report.html"


def test_no_path_of_the_machine_is_on_the_page(tmp_path: Path) -> None:
    paths = write_run(tmp_path)
    text = write_report(paths).read_text(encoding="utf-8")
    for private in (str(tmp_path), "/home/somebody", "private folder"):
        assert private not in text
        assert private not in json.dumps(report_record(paths))
    assert "root: '.../birds'" in Page(text).words


def test_a_training_run_has_what_applies(tmp_path: Path) -> None:
    page = page_of(write_run(tmp_path, kind="train"))
    assert page.titles == ["How it went", "What the threshold would have cost", "What it sees", "Config and versions"]
    assert len(page.figures) == 2


def test_a_run_that_has_only_begun_has_a_page(tmp_path: Path) -> None:
    paths = write_run(tmp_path)
    for path in (paths.trials, paths.epochs, paths.study, paths.best / "card.json"):
        path.unlink()
    shutil.rmtree(paths.tune)
    assert page_of(paths).titles == ["Config and versions"]
    assert not paths.study.exists()


def test_a_confirmed_and_explained_run_has_both_sections_and_its_headline_tells_of_the_tie(tmp_path: Path) -> None:
    paths = write_run(tmp_path)
    write_json(paths.confirmation, tie())
    write_json(paths.ledger, ledger(failed=["loss with seed 2: no file /home/somebody/data/x.png"]))
    page = page_of(paths)
    assert page.titles[:4] == [
        "How it went", "Best trials", "The best trials with fresh seeds", "What the gain is made of",
    ]  # fmt: skip
    assert page.words.index("trials 9 and 0 are a tie; 0 is smaller") < page.words.index("How it went")
    assert len(page.figures) == 7
    for figure in page.figures:
        go.Figure(figure)
    assert "no file .../x.png" in page.words
    record = report_record(paths)
    assert (record["confirmation"], record["ledger"]["trial"]) == (tie(), 9)


def test_a_search_without_tables_is_read_from_its_study(tmp_path: Path) -> None:
    paths = write_run(tmp_path)
    paths.trials.unlink()
    paths.epochs.unlink()
    record = report_record(paths)
    assert record["headline"]["states"] == {"complete": 1, "failed": 1, "pruned": 1}


def seal_again(paths: RunPaths, *, seed: int) -> None:
    """Seals trial 0, trained again: two epochs, and a checkpoint with a curve of its own."""
    log = EventLog(paths.reruns.events)
    paths.reruns.root.mkdir()
    for epoch, value in ((1, 0.35), (2, 0.45)):
        log.epoch(3, epoch, {"val/iou": value, "val/dice": value + 0.1, "val/threshold": 0.375, "time/train_s": 1.0})
    log.close()
    checkpoint = paths.reruns.tune / "session-1" / "trial_00003" / "checkpoint_000002"
    write_curve(checkpoint, [0.0, 0.5, 1.0], [0.2, 0.3, 0.0], (0.375, 0.45))
    card = json.loads((paths.best / "card.json").read_text())
    origin = {**card["origin"], "trial": 0, "seed": seed, "rerun": 3}
    threshold = {**card["threshold"], "auto_would_be": 0.375, "val_iou_at_auto": 0.45}
    write_json(paths.best / "card.json", {**card, "origin": origin, "threshold": threshold})


def test_where_a_trial_was_trained_again_everything_is_of_the_training_that_is_sealed(tmp_path: Path) -> None:
    paths = write_run(tmp_path)
    seal_again(paths, seed=1234567)
    record = report_record(paths)
    assert record["headline"]["sealed"] == {"trial": 0, "epoch": 2, "seed": 1234567}
    assert [curve["values"] for curve in record["history"]["curves"] if curve["is_winner"]] == [[0.35, 0.45]]
    assert (record["threshold"]["best_threshold"], record["threshold"]["iou_at_best"]) == (0.375, 0.45)
    (row,) = [row for row in record["best_trials"] if row.get("seed") == 1234567]
    assert (row["number"], row["value"], row["val/threshold"], row["epochs"]) == (0, 0.45, 0.375, 2)
    page = write_report(paths).read_text(encoding="utf-8")
    words = Page(page).words
    for place in (
        "sealed modeltrial 0, trained again with seed 1234567, epoch 2",
        "Blue: trial 0, trained again with seed 1234567, which is sealed.",
        "the curve of trial 0, trained again with seed 1234567, its best epoch.",
        "complete, trained again with seed 12345670.4500",
    ):
        assert place in words, place
    shown = CliRunner().invoke(main, ["show", "birds", "--results", str(tmp_path)]).output
    assert "sealed model: trial 0, trained again with seed 1234567, epoch 2" in " ".join(shown.split()), (
        "as in a terminal"
    )


def give_costs(paths: RunPaths, costs: Mapping[int, float]) -> None:
    """Has every trial report another `cost/parameters`, as its study and its journal say."""
    events = [json.loads(line) for line in paths.events.read_text().splitlines()]
    for event in events:
        if event["event"] == "epoch":
            event["metrics"]["cost/parameters"] = costs[event["number"]]
    paths.events.write_text("".join(f"{json.dumps(event)}\n" for event in events))
    study = open_study(paths.storage_url, paths.name, mode="max", sampler=None)
    for trial in study.get_trials():
        if trial.number in costs:
            study._storage.set_trial_user_attr(trial._trial_id, COST_ATTR, costs[trial.number])
    close_study(study)


@pytest.mark.parametrize("name", ["killed", "running"])
def test_a_search_without_tables_has_its_pareto_front(tmp_path: Path, name: str) -> None:
    results = unpack_earlier_runs(tmp_path)
    paths = RunPaths(results / "killed")
    config = paths.config.read_text()
    assert "second_metric: null" in config
    paths.config.write_text(config.replace("second_metric: null", "second_metric: cost/parameters"))
    give_costs(paths, {0: 100.0, 1: 90.0, 2: 80.0, 3: 70.0, 4: 60.0})
    if name == "running":
        run = json.loads(paths.run.read_text())
        write_json(paths.run, {**run, "worker": {**run["worker"], "pid": os.getpid()}})
    assert not paths.trials.exists()
    record = report_record(paths)
    assert record["headline"]["status"] == {"killed": "stopped", "running": "running"}[name]
    points = {point["number"]: (point["value"], point["cost"]) for point in record["front"]["points"]}
    assert len(points) >= 4
    for number, (value, cost) in points.items():
        beaten = any(v >= value and c <= cost and (v, c) != (value, cost) for v, c in points.values())
        assert (number in {point["number"] for point in record["front"]["front"]}) == (not beaten)
    assert "val/iou against parameters" in page_of(paths).titles


def test_a_setting_cannot_leave_its_place_on_the_page() -> None:
    label = trial_label("trial 0", "complete", {"a": "<script>x"})
    assert "<script>" not in label
    assert "&lt;script&gt;x" in label


class TestCommand:
    def run(self, *arguments: str) -> Any:
        return CliRunner().invoke(main, ["report", *arguments])

    def test_writes_the_page_and_says_where(self, tmp_path: Path) -> None:
        paths = write_run(tmp_path)
        result = self.run("birds", "--results", str(tmp_path), "--open", "no")
        assert result.exit_code == 0, result.output
        assert result.output.strip() == str(paths.report)
        assert paths.report.is_file()

    def test_writes_it_elsewhere(self, tmp_path: Path) -> None:
        paths = write_run(tmp_path)
        out = tmp_path / "page.html"
        assert self.run("birds", "--results", str(tmp_path), "-o", str(out)).exit_code == 0
        assert out.is_file()
        assert not paths.report.exists()
        result = self.run("birds", "--results", str(tmp_path), "-o", str(tmp_path / "none" / "page.html"))
        assert result.exit_code == 2

    def test_json_is_the_record_and_no_page_is_made(self, tmp_path: Path) -> None:
        paths = write_run(tmp_path)
        result = self.run("birds", "--results", str(tmp_path), "--json")
        assert json.loads(result.output) == json.loads(json.dumps(report_record(paths)))
        assert json.loads(result.output)["headline"]["quoted"] == "test"
        assert not paths.report.exists()

    def test_an_unknown_run_is_named(self, tmp_path: Path) -> None:
        assert self.run("none", "--results", str(tmp_path)).exit_code == 2


def test_a_page_that_cannot_be_written_is_an_error_that_says_so(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="the report cannot be written"):
        write_report(write_run(tmp_path), tmp_path / "none" / "page.html")


TINY = {
    "name": "tiny", "model": {"base_channels": 4, "depth": 2}, "train": {"epochs": 2, "batch_size": 8},
    "tracking": {"wandb": {"mode": "disabled"}}, "resources": {"cpus_per_trial": 1, "gpus_per_trial": 0},
}  # fmt: skip


def tiny(tmp_path: Path, **sections: Any) -> SearchConfig:
    data = {
        "root": "synthetic",
        "image_size": 32,
        "synthetic": {"num_images": 32},
        "cache_dir": str(tmp_path / "cache"),
    }
    path = tmp_path / "tiny.yaml"
    path.write_text(json.dumps({**TINY, "results": str(tmp_path / "results"), "data": data, **sections}))
    return load_config(path)


class TestAtTheEndOfARun:
    def test_the_page_is_written(self, tmp_path: Path) -> None:
        paths = write_run(tmp_path)
        job.make_report(paths)
        assert paths.report.is_file()

    def test_a_failure_is_a_warning_of_one_line_that_names_the_command(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        paths = write_run(tmp_path)
        paths.report.mkdir()
        job.make_report(paths)
        (warning,) = [record for record in caplog.records if record.levelno == logging.WARNING]
        assert re.fullmatch(
            r"the report could not be made \(\w+: [^\n]+\); try again with: segsearch report birds --results \S+",
            warning.getMessage(),
        )
        assert list(paths.report.iterdir()) == []

    @pytest.mark.slow
    def test_a_real_training_run_ends_with_its_page(self, tmp_path: Path) -> None:
        outcome = job.train(tiny(tmp_path, search={"gate": False, "confirm": None}), Console(stderr=True, quiet=True))
        assert outcome.card is not None
        assert len(Page(outcome.paths.report.read_text(encoding="utf-8")).figures) == 2
        record = report_record(outcome.paths)
        cost, threshold = record["threshold"], outcome.card.threshold
        assert (cost["best_threshold"], cost["iou_at_best"]) == (
            threshold.auto_would_be,
            threshold.val_iou_at_auto,
        )
        assert cost["iou_at_best"] == max(cost["curve"]["iou"])
        assert record["headline"]["status"] == "done"
        assert [len(curve["values"]) for curve in record["history"]["curves"]] == [2]
        assert record["overlays"]["stored"] > 0


@pytest.mark.slow
@pytest.mark.usefixtures("ray_cluster")
def test_a_real_search_ends_with_a_page_of_the_trial_that_was_sealed(tmp_path: Path) -> None:
    config = tiny(
        tmp_path,
        space={"optimizer.lr": {"loguniform": [1e-3, 1e-2]}},
        search={"num_samples": 2, "scheduler": {"name": "none"}, "gate": False, "confirm": None},
    )
    outcome = job.run(config, Console(stderr=True, quiet=True))
    assert outcome.card is not None
    assert "Best trials" in Page(outcome.paths.report.read_text(encoding="utf-8")).titles
    record = report_record(outcome.paths)
    (origin,) = [entry["origin"] for entry in record["origins"] if entry["found_winner"]]
    assert origin == {0: "config", 1: "start"}[outcome.card.origin.trial]
    assert record["threshold"]["trial"] == outcome.card.origin.trial
    assert record["threshold"]["iou_at_best"] == pytest.approx(record["best_trials"][0]["value"])
    assert record["history"]["epochs"] == 4
    assert record["history"]["steps"][-1]["best"] == record["best_trials"][0]["value"]
