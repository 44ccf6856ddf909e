"""The plain config of the benchmarks is the real one, and what they import needs no more than torch and its like."""

import subprocess
import sys
from pathlib import Path

import pytest
from plain_config import DEFAULTS, plain_config

from segcore.config import TrainConfig

ROOT = Path(__file__).resolve().parents[1]

ABSENT = ("ray", "wandb", "albumentations", "optuna", "pydantic", "click", "rich", "yadisk", "tenacity", "platformdirs")

BLOCKER = f"""
import sys
from importlib.abc import MetaPathFinder
class Absent(MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {ABSENT!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Absent())
"""


def test_the_plain_defaults_are_the_types_defaults() -> None:
    expected = TrainConfig().model_dump()
    expected["data"].pop("synthetic")
    assert expected == {**DEFAULTS, "threshold": "auto"}


def test_a_changed_key_must_exist() -> None:
    assert plain_config({"model.arch": "attention_unet", "threshold": 0.5}).model.arch == "attention_unet"
    assert plain_config({"data.image_size": (32, 64)}).data.image_hw == (32, 64)
    with pytest.raises(KeyError, match=r"no key 'model\.kind'"):
        plain_config({"model.kind": "x"})


@pytest.mark.slow
def test_training_and_its_benchmarks_need_only_torch_timm_numpy_pyarrow_and_opencv() -> None:
    names = ("gpu", "step", "precision", "threshold", "packing", "compile", "checkpoint")
    script = f"""{BLOCKER}
import runpy, segcore.training.loop, segcore.data.pixels.cache
for name in {names!r}:
    runpy.run_path(f"tests/benchmarks/{{name}}.py", run_name="imported")
"""
    done = subprocess.run(
        [sys.executable, "-P", "-c", script], cwd=ROOT, env={"PYTHONPATH": f"{ROOT}:{ROOT / 'tests' / 'support'}"},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
