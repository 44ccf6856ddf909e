"""One new file is enough: a made-up choice beside ours, in an interpreter of its own."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

TARGET = '''
from pathlib import Path
from typing import Annotated

from pydantic import Field

from search.export.files import card_last, digest_of
from search.export.target import Destination, Receipt, destination


class Drawer:
    kind = "drawer"

    def __init__(self, location, context):
        self.location = location

    def check(self):
        """Always open."""

    def upload(self, files, *, progress=None):
        return Receipt(self.kind, self.location, {name: digest_of(files[name]) for name in card_last(files)}, None, 0.0)


COMPONENT = destination(
    "drawer",
    "A drawer's number.",
    Annotated[str, Field(pattern=r"^[0-9]+$")],
    Destination(open=Drawer, placeholder="NUMBER", secrets=("DRAWER_KEY",)),
)
'''

WITH_TARGET = """
import os
from search.config.load import dump_config, json_schema
from search.config.choices import secret_variables
from search.export.registry import build_target, parse_target
from search.report.privacy import without_private

os.environ["DRAWER_KEY"] = "hush-hush"
target = load("export: {targets: [{drawer: 7}, {local: x}]}\\n", ["export.targets=[{drawer: '7'}]"])
found = {
    "dumped": "drawer: '7'" in dump_config(target),
    "wrong": problem("export: {targets: [{drawer: top}]}\\n"),
    "unknown": problem("export: {targets: [{drawr: 7}]}\\n"),
    "schema": json_schema()["$defs"]["TargetSpec"]["properties"]["drawer"]["description"],
    "built": type(build_target(parse_target("drawer:7"))).__name__,
    "secret": problem("drawer_token: x\\n"),
    "redacted": without_private("a hush-hush b"),
}
"""

FRAME = """
import importlib, json, sys
from pathlib import Path
folder = Path(sys.argv[1])
importlib.import_module(sys.argv[2]).__path__.append(str(folder))
from search.config.load import load_config
from segcore.errors import ConfigError

def load(text, overrides=()):
    (folder / "made.yaml").write_text(text)
    return load_config(folder / "made.yaml", overrides)

def problem(text):
    try:
        load(text)
    except ConfigError as error:
        return str(error).splitlines()[1].strip()

{body}
print(json.dumps(found))
"""


def with_file(folder: Path, package: str, source: str, body: str) -> dict[str, Any]:
    """What a fresh interpreter finds when one file more lies in a package."""
    (folder / "made_up.py").write_text(source, encoding="utf-8")
    code = FRAME.replace("{body}", body)
    done = subprocess.run(
        [sys.executable, "-c", code, str(folder), package], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def test_a_new_target_is_one_file(tmp_path: Path) -> None:
    found = with_file(tmp_path, "search.export.targets", TARGET, WITH_TARGET)
    assert found["dumped"]
    assert found["wrong"] == "export.targets.0.drawer (line 1): found 'top'; valid: A drawer's number or null"
    assert "did you mean export.targets.0.drawer?" in found["unknown"]
    assert "valid here: local, yandex_disk, wandb_artifact, drawer" in found["unknown"]
    assert found["schema"] == "A drawer's number."
    assert found["built"] == "Drawer"
    assert "DRAWER_KEY / WANDB_API_KEY / YADISK_TOKEN" in found["secret"]
    assert found["redacted"] == "a *** b"
