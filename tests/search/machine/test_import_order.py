"""Our packages are imported, and nobody else's, whatever lies in the current folder or on PYTHONPATH."""

import os
import site
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest
from places import ROOT

from search.machine.import_order import import_order, trust_in_order
from search.machine.worker_imports import OrderedImports, worker_environment

STANDARD = sysconfig.get_path("stdlib")
INSTALLED = site.getsitepackages()[0]
HOSTILE = ("search", "random", "token", "types", "queue", "logging", "torch", "wandb", "numpy", "utils")
"""Names of ours, of the standard library and of what is installed, as people call their own scripts."""


def test_the_users_folders_come_last_and_stay(tmp_path: Path) -> None:
    theirs, more = str(tmp_path / "mine"), str(tmp_path / "more")
    order = import_order([theirs, more, STANDARD, INSTALLED, theirs])
    assert order == [STANDARD, INSTALLED, str(ROOT), theirs, more]


def test_a_checkout_comes_before_an_installed_copy_of_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The driver may run from a checkout beside an older version that is installed."""
    installed = tmp_path / "site-packages"
    (installed / "segcore").mkdir(parents=True)
    (installed / "segcore" / "__init__.py").touch()
    monkeypatch.setattr(site, "getsitepackages", lambda: [str(installed)])
    order = import_order([str(tmp_path), STANDARD, str(installed)])
    assert order == [STANDARD, str(ROOT), str(installed), str(tmp_path)]


def test_an_empty_entry_is_the_current_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert import_order(["", STANDARD])[-1] == str(tmp_path)


def test_a_process_orders_its_own_path_and_that_of_its_children(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", ["/theirs", STANDARD, INSTALLED])
    monkeypatch.delenv("PYTHONSAFEPATH", raising=False)
    trust_in_order()
    assert sys.path[0] == STANDARD
    assert sys.path[-1] == "/theirs"
    assert os.environ["PYTHONSAFEPATH"] == "1"


def test_a_rays_job_has_the_same_order_and_not_the_current_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", [STANDARD, INSTALLED])
    job = OrderedImports()
    job._py_driver_sys_path.append(str(tmp_path))  # as ray.init does with the current folder
    told = list(job._get_proto_job_config().py_driver_sys_path)
    assert told == [str(ROOT), INSTALLED, STANDARD]  # each is put in front of the ones before


def test_rays_processes_start_without_the_users_folders(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", "/theirs")
    monkeypatch.delenv("PYTHONSAFEPATH", raising=False)
    with worker_environment():
        assert "PYTHONPATH" not in os.environ
        assert os.environ["PYTHONSAFEPATH"] == "1"
    assert os.environ["PYTHONPATH"] == "/theirs"
    assert "PYTHONSAFEPATH" not in os.environ


@pytest.mark.slow
def test_a_search_runs_among_hostile_names(tmp_path: Path) -> None:
    """Such files lie in the current folder and in one of PYTHONPATH; each ends the process that imports it."""
    here, theirs = tmp_path / "here", tmp_path / "theirs"
    for folder in (here, theirs):
        (folder / "segcore").mkdir(parents=True)
        (folder / "segcore" / "__init__.py").write_text("raise SystemExit('not ours: segcore')")
    for name in HOSTILE:
        (here / f"{name}.py").write_text(f"raise SystemExit('not ours: {name}')")
    for name in ("search", "random", "torch", "numpy"):
        (theirs / f"{name}.py").write_text(f"raise SystemExit('not ours: {name}')")
    (here / "tiny.yaml").write_text(
        "data: {root: synthetic, image_size: 32, synthetic: {num_images: 8}}\n"
        "model: {base_channels: 4, depth: 2}\n"
        "train: {epochs: 1, batch_size: 2, num_workers: 1}\n"
        "space: {optimizer.lr: {loguniform: [1e-3, 1e-2]}}\n"
        "search: {num_samples: 1, gate: false, confirm: null, scheduler: {name: none}}\n"
        "tracking: {wandb: {mode: disabled}}\n"
    )
    done = subprocess.run(
        [sys.executable, str(ROOT / "segsearch.py"), "run", "tiny.yaml"],
        cwd=here, capture_output=True, text=True, timeout=180,
        env={**os.environ, "PYTHONPATH": str(theirs), "XDG_CACHE_HOME": str(tmp_path / "cache"), "RAY_ADDRESS": ""},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
    assert "not ours" not in done.stdout + done.stderr
    assert (here / "results" / "tiny" / "best" / "card.json").is_file()
