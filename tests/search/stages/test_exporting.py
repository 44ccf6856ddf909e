"""What exporting a sealed model again does to its run."""

import io
from pathlib import Path

import pytest
from report_runs import write_run
from rich.console import Console

from search.config.load import dump_config, load_config
from search.runs.folder import update_run
from search.runs.paths import RunPaths, write_text
from search.runs.records import Status, read_exports, read_run
from search.stages.exporting import EXIT_DONE, EXIT_EXPORT_FAILED, export_again, targets_without_model
from segcore.sealed.card import WEIGHTS_FILE, FileEntry, read_card, sha256, write_card

pytestmark = pytest.mark.slow

QUIET = Console(file=io.StringIO())


@pytest.fixture
def paths(tmp_path: Path) -> RunPaths:
    """An ended run whose config names a target; what is in the weights does not matter here."""
    paths = write_run(tmp_path / "results")
    weights = paths.best / WEIGHTS_FILE
    weights.write_bytes(b"weights")
    entry = FileEntry(sha256=sha256(weights), size=weights.stat().st_size)
    write_card(paths.best, read_card(paths.best).but(files={WEIGHTS_FILE: entry}))
    (tmp_path / "taken").write_text("a file, so no folder can be made there")
    overrides = [f'export.targets=[{{"local": "{tmp_path / "own"}"}}]']
    write_text(paths.config, dump_config(load_config(paths.config, overrides)))
    return paths


def export(paths: RunPaths, *targets: str) -> int:
    return export_again(paths.name, paths.root.parent, list(targets), QUIET)


@pytest.mark.parametrize("status", ["done", "interrupted", "failed"])
def test_an_export_to_elsewhere_changes_nothing_of_how_the_run_ended(
    paths: RunPaths, tmp_path: Path, status: Status
) -> None:
    update_run(paths, status=status, error="as it was" if status == "failed" else None)
    before = read_run(paths)
    assert export(paths, f"local:{tmp_path / 'taken'}") == EXIT_EXPORT_FAILED
    assert export(paths, f"local:{tmp_path / 'free'}") == EXIT_DONE
    after = read_run(paths)
    assert (after.status, after.error, after.worker) == (before.status, before.error, before.worker)
    assert [(each.location, each.status) for each in read_exports(paths)] == [
        (str(tmp_path / "taken"), "failed"), (str(tmp_path / "free"), "done"),
    ]  # fmt: skip
    assert f"export to local:{tmp_path / 'taken'} failed" in paths.log.read_text()


def test_an_export_to_elsewhere_leaves_a_failed_export_what_it_is(paths: RunPaths, tmp_path: Path) -> None:
    update_run(paths, status="export_failed", error="local: no space")
    assert export(paths, f"local:{tmp_path / 'free'}") == EXIT_DONE
    assert (read_run(paths).status, read_run(paths).error) == ("export_failed", "local: no space")


def test_the_runs_own_targets_decide_how_it_ended(paths: RunPaths, tmp_path: Path) -> None:
    (tmp_path / "own").write_text("in the way")
    assert export(paths) == EXIT_EXPORT_FAILED
    assert read_run(paths).status == "export_failed"
    assert "is a file" in str(read_run(paths).error)
    (tmp_path / "own").unlink()
    assert export(paths) == EXIT_DONE
    assert (read_run(paths).status, read_run(paths).error) == ("done", None)


@pytest.mark.parametrize("own", [True, False])
def test_a_run_that_is_to_be_resumed_stays_so(paths: RunPaths, tmp_path: Path, own: bool) -> None:
    update_run(paths, status="interrupted")
    assert export(paths, *([] if own else [f"local:{tmp_path / 'free'}"])) == EXIT_DONE
    assert read_run(paths).status == "interrupted"


def test_the_targets_without_the_model_are_those_that_do_not_hold_it_as_it_is(paths: RunPaths) -> None:
    config = load_config(paths.config)
    assert [spec.kind for spec in targets_without_model(config, paths)] == ["local"]
    assert export(paths) == EXIT_DONE
    assert targets_without_model(config, paths) == []
    (paths.best / WEIGHTS_FILE).write_bytes(b"others")
    entry = FileEntry(sha256=sha256(paths.best / WEIGHTS_FILE), size=6)
    write_card(paths.best, read_card(paths.best).but(files={WEIGHTS_FILE: entry}))
    assert [spec.kind for spec in targets_without_model(config, paths)] == ["local"]
