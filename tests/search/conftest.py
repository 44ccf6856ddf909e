"""A study to work on, for the tests of everything that writes one."""

import shutil
from pathlib import Path

import pytest

from search.study.storage import close_study, open_study


@pytest.fixture(scope="session")
def empty_db(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A storage with its tables made, which takes longer than copying it."""
    path = tmp_path_factory.mktemp("study") / "study.db"
    close_study(open_study(f"sqlite:///{path}", "birds", mode="max", sampler=None))
    return path


@pytest.fixture
def url(empty_db: Path, tmp_path: Path) -> str:
    """Where an empty study is, one for each test."""
    return f"sqlite:///{shutil.copy(empty_db, tmp_path / 'study.db')}"
