"""Fixtures that several test files share."""

import gc
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")  # tiny models, and tests that run side by side
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as the command line sets it, but before torch is there
os.environ.setdefault("RAY_AUTH_MODE", "disabled")
os.environ.setdefault("WANDB_SILENT", "true")
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
# Ray's workers import a test's own trainable from the test's module, and with it what that module imports.
os.environ["PYTHONPATH"] = os.pathsep.join(
    filter(None, [str(Path(__file__).parent / "support"), os.environ.get("PYTHONPATH")])
)

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


def pytest_collection_finish() -> None:
    """What is there before the first test stays: no collection of garbage need look through it, time and again."""
    gc.collect()
    gc.freeze()


def pytest_unconfigure() -> None:
    """At the interpreter's end everything is collected, or libraries complain that it leaked."""
    gc.unfreeze()


@pytest.fixture(scope="session", autouse=True)
def _migrations_are_read_once() -> Iterator[None]:
    """Optuna reads all its migration scripts twice for each new study: half a second that many tests would pay."""
    from optuna.storages._rdb.storage import _VersionManager

    read, found = _VersionManager._create_alembic_script, []

    def read_once(manager: Any) -> Any:
        if not found:
            found.append(read(manager))
        return found[0]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_VersionManager, "_create_alembic_script", read_once)
        yield


@pytest.fixture(autouse=True)
def _no_real_accounts(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test may use a token of the machine it runs on."""
    for name in ("WANDB_API_KEY", "WANDB_BASE_URL", "WANDB_MODE", "YADISK_TOKEN"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="session")
def ray_cluster() -> Iterator[None]:
    """One small Ray for the whole test session; code under test finds it running and leaves it so."""
    import ray

    ray.init(num_cpus=2, num_gpus=0, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    yield
    ray.shutdown()
