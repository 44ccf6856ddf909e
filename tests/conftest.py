"""Fixtures that several test files share."""

import os
from pathlib import Path

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
os.environ.setdefault("RAY_AUTH_MODE", "disabled")
os.environ.setdefault("WANDB_SILENT", "true")

import pytest

SHARED = Path(__file__).resolve().parents[2] / "shared"


def _shared(relative: str) -> Path:
    path = SHARED / relative
    if not path.exists():
        pytest.skip(f"real data absent: no {relative} in a folder `shared` beside the checkout")
    return path


@pytest.fixture(scope="session")
def shared_dir() -> Path:
    return _shared("")


@pytest.fixture(scope="session")
def horses_dir() -> Path:
    return _shared("data/horses")


@pytest.fixture(scope="session")
def nuclei_dir() -> Path:
    return _shared("data/nuclei")


@pytest.fixture(scope="session")
def lite0_weights() -> Path:
    return _shared("weights/tf_efficientnet_lite0.safetensors")


@pytest.fixture(autouse=True)
def _no_real_accounts(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test may use a token of the machine it runs on."""
    for name in ("WANDB_API_KEY", "WANDB_BASE_URL", "WANDB_MODE", "YADISK_TOKEN"):
        monkeypatch.delenv(name, raising=False)
