"""What the README shows in Python runs as it stands there, with a small config under the name that it uses."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from places import ROOT

QUICKSTART = """
data: {root: synthetic, image_size: 32, synthetic: {num_images: 24}}
model: {base_channels: 4, depth: 2}
train: {epochs: 2, batch_size: 8}
space: {optimizer.lr: {loguniform: [1.0e-3, 1.0e-2]}}
search: {gate: false, confirm: null, scheduler: {name: none}}
tracking: {wandb: {mode: disabled}}
"""


def python_blocks() -> list[str]:
    return re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)


def test_there_is_python_in_the_readme() -> None:
    (block,) = python_blocks()
    for shown in ("search.load_config", "search.run", "search.open_run", "segcore.load_model", "segcore.fit"):
        assert shown in block
    compile(block, "README.md", "exec")


@pytest.mark.slow
def test_the_readmes_python_runs(tmp_path: Path) -> None:
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "quickstart.yaml").write_text(QUICKSTART)
    checks = (
        "assert run.status == 'done', run.status\n"
        "assert [trial.number for trial in run.trials] == [0, 1, 2, 3]\n"
        "assert table.num_rows == 4 and 'param/optimizer.lr' in table.column_names\n"
        "assert mask.shape == (120, 160) and mask.dtype == np.uint8 and set(np.unique(mask)) <= {0, 1}\n"
        "assert [epoch.number for epoch in fitted.epochs] == [1, 2]\n"
        "assert (segcore.load_model('my_model').predict(image) == fitted.model.predict(image)).all()\n"
        "import logging\n"
        "log = logging.getLogger('segsearch')\n"
        "assert (log.handlers, log.level, log.propagate) == ([], 0, True)\n"
    )
    (tmp_path / "script.py").write_text("\n".join(python_blocks()) + checks)
    environment = {**os.environ, "RAY_ADDRESS": "", "XDG_CACHE_HOME": str(tmp_path / "cache")}
    done = subprocess.run(
        [sys.executable, "script.py"], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False,
        timeout=280,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "sealed trial" in done.stderr, "show=True"
    assert done.stdout.startswith("done ")
    assert json.loads((tmp_path / "results" / "birds" / "run.json").read_text())["status"] == "done"
    assert "sealed trial" in (tmp_path / "results" / "birds" / "segsearch.log").read_text()
