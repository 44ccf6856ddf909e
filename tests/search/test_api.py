"""`import search` in a program: light, lazy, and nothing printed, kept or ended that is not asked for."""

import importlib.util
import logging
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from earlier_runs import unpack_earlier_runs

import search
import segcore
from search.errors import NothingToSearchError
from search.runs.paths import RunPaths
from search.stages import job
from search.stages.job import EXIT_INTERRUPTED, Outcome
from segcore.errors import ConfigError, SegsearchError

SYNTHETIC = "data: {root: synthetic, image_size: 32, synthetic: {num_images: 24}}\n"
SPACE = "space: {optimizer.lr: {loguniform: [1e-3, 1e-2]}}\n"


@pytest.fixture
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return unpack_earlier_runs(tmp_path)


@pytest.mark.parametrize("package", [search, segcore])
def test_what_is_offered_is_documented_and_hides_no_module(package: Any) -> None:
    for name in package.__all__:
        assert importlib.util.find_spec(f"{package.__name__}.{name}") is None, f"{name} is a module too"
        assert getattr(package, name).__doc__
        assert f"{package.__name__}.{name}" in package.__doc__
        assert name in dir(package)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = package.nothing


def test_importing_both_loads_nothing() -> None:
    code = (
        "import sys; before = set(sys.modules); import search, segcore\n"
        "print(sorted({name.split('.')[0] for name in set(sys.modules) - before} - sys.stdlib_module_names))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "['search', 'segcore']"


def test_reading_a_run_loads_nothing_heavy(results: Path) -> None:
    (results / "ended" / "trials.parquet").touch()  # as where a session ended by itself: tables after the journal
    code = (
        "import sys, search\nrun = search.open_run('ended')\nprint(len(run.trials), run.trials.best().number)\n"
        "search.load_config\n"
        "print({'torch', 'ray', 'wandb', 'optuna', 'cv2', 'timm', 'pandas'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=results.parent, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[0] == "4 0"
    assert done.stdout.splitlines()[1] == "set()"


def test_a_run_is_opened_by_name_and_by_folder(results: Path) -> None:
    for given in ("ended", str(results / "ended"), results / "ended"):
        run = search.open_run(given)
        assert run.status == "done"
        assert os.fspath(run) == str(results / "ended")
    with pytest.raises(SegsearchError, match="no run 'nothing'"):
        search.open_run("nothing")


def test_trials_are_rows_and_tables(results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trials = search.open_run("ended").trials
    table = trials.to_arrow()
    assert table.column("number").to_pylist() == [row.number for row in trials] == [0, 1, 2, 3]
    assert table.column("param/optimizer.lr").to_pylist() == [row.params["optimizer.lr"] for row in trials]
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ImportError, match=r"pandas is not installed: pip install pandas, or take to_arrow\(\)"):
        trials.to_pandas()
    monkeypatch.undo()
    pandas = pytest.importorskip("pandas")
    assert isinstance(trials.to_pandas(), pandas.DataFrame)


def test_overrides_are_a_mapping_or_what_set_takes(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text(SYNTHETIC + SPACE)
    asked = {"train.epochs": 7, "model.encoder": "none", "search.confirm": None, "name": "it's"}
    with pytest.raises(ConfigError, match="name"):
        search.load_config(tmp_path / "c.yaml", asked)
    config = search.load_config(str(tmp_path / "c.yaml"), {**asked, "name": "birds"})
    assert (config.train.epochs, config.search.confirm, config.name) == (7, None, "birds")
    assert search.load_config(tmp_path / "c.yaml", ["train.epochs=7"]).train.epochs == 7


def test_a_mistake_is_an_exception(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text(SYNTHETIC)
    with pytest.raises(NothingToSearchError, match="searches nothing"):
        search.run(tmp_path / "c.yaml")


@pytest.mark.parametrize("show", [False, True])
def test_it_is_quiet_unless_asked_and_leaves_the_logger_alone(
    results: Path, show: bool, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    log = logging.getLogger("segsearch")
    before = (list(log.handlers), log.level, log.propagate)

    def resume(paths: RunPaths, console: Any) -> Outcome:
        log.info("trial 3")
        log.warning("take care")
        console.print("a table")
        return Outcome(0, paths)

    monkeypatch.setattr(job, "resume", resume)
    run = search.resume(search.open_run("killed"), show=show)
    assert run.name == "killed"
    said = capfd.readouterr()
    assert said.out == ""
    for text in ("trial 3", "take care", "a table"):
        assert (text in said.err) == show
    assert (log.handlers, log.level, log.propagate) == before


def test_the_programs_own_log_gets_what_it_listens_to(
    results: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def resume(paths: RunPaths, console: Any) -> Outcome:
        logging.getLogger("segsearch").info("trial 3")
        logging.getLogger("segsearch").warning("take care")
        return Outcome(0, paths)

    monkeypatch.setattr(job, "resume", resume)
    monkeypatch.setattr(logging.getLogger("segsearch"), "handlers", [])  # what commands in other tests have left
    monkeypatch.setattr(logging.getLogger(), "level", logging.WARNING)
    search.resume("killed")
    assert [record.message for record in caplog.records] == ["take care"]


def test_an_interruption_stays_one(results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job, "resume", lambda paths, console: Outcome(EXIT_INTERRUPTED, paths))
    with pytest.raises(KeyboardInterrupt, match=r"killed was interrupted; nothing is lost: search\.resume"):
        search.resume("killed")


def test_a_run_can_be_given_for_its_model(results: Path) -> None:
    model = segcore.load_model(search.open_run("ended"))
    assert model.card.scores
