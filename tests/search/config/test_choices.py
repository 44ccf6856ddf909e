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

SCHEDULER = """
from search.config.problems import Problem
from search.schedulers.rule import KEY, SchedulerRule
from segcore.component import Component, Option


class Impatient:
    def __init__(self, floor):
        self.floor = floor

    def begins(self, number):
        pass

    def goes_on(self, report):
        return report.value >= self.floor

    def ends(self, number, *, is_finished):
        pass

    def fails(self, number):
        pass


def problems(options, asked):
    late = options.first_epoch >= asked.epochs and "first_epoch" in asked.given
    return [Problem(f"{KEY}.first_epoch", f"found {options.first_epoch} of {asked.epochs}")] if late else []


COMPONENT = Component(
    "impatient",
    "stops those below a floor",
    SchedulerRule(
        does="stops below `floor`",
        when="the floor is known",
        judge=lambda options, setting: Impatient(options.floor),
        decision_epochs=lambda options, max_epochs: (options.first_epoch,),
        limits=lambda options, asked: {"first_epoch": max(1, asked.epochs - 1)},
        problems=problems,
    ),
    (
        Option("floor", float, 0.5, "least value.", ge=0.0),
        Option("first_epoch", int, 9, "judged from here on.", ge=1),
    ),
)
"""

WITH_SCHEDULER = """
from search.config.load import dump_config, json_schema
from search.schedulers.build import build_judge, decision_epochs
from search.schedulers.rule import Judged
from search.schedulers.setting import Setting
from segcore.objective import Objective

SPACE = "space: {optimizer.lr: {loguniform: [1e-4, 1e-2]}}\\n"
FEW = "train: {epochs: 4}\\n"
config = load(FEW + "search: {scheduler: {name: impatient, floor: 0.3}}\\n" + SPACE)
options = config.search.scheduler
judge = build_judge(options, Setting(Objective("val/iou"), 4))
properties = json_schema()["$defs"]["SchedulerConfig"]["properties"]
found = {
    "options": options.model_dump(),
    "dumped": "name: impatient" in dump_config(config),
    "epochs": decision_epochs(options, 4),
    "judged": [judge.goes_on(Judged(0, 1, value)) for value in (0.2, 0.3)],
    "schema": [properties["name"]["enum"], properties["floor"]["description"]],
    "named": "impatient: stops those below a floor" in properties["name"]["description"],
    "unused": problem("search: {scheduler: {name: impatient, grace_period: 2}}\\n" + SPACE),
    "not for asha": problem("search: {scheduler: {floor: 0.2}}\\n" + SPACE),
    "range": problem("search: {scheduler: {name: impatient, floor: -1}}\\n" + SPACE),
    "own rule": problem(FEW + "search: {scheduler: {name: impatient, first_epoch: 4}}\\n" + SPACE),
    "second": problem("search: {second_metric: cost/parameters, scheduler: {name: impatient}}\\n" + SPACE),
    "heavy": sorted({"ray", "optuna", "torch", "yadisk", "wandb"} & set(sys.modules)),
}
"""

SAMPLER = """
from search.sampling.sampler import SamplerRule
from segcore.component import Component


class Middle:
    def __init__(self, setting):
        self.setting = setting

    def propose(self, question):
        return [self.setting.cube.point([0.5] * self.setting.cube.num_axes)]


COMPONENT = Component("middle", "the middle", SamplerRule("the middle", "never", build=Middle, learns=False))
"""

WITH_SAMPLER = """
from search.config.docs import components_page
from search.config.load import json_schema
from search.sampling.proposer import Proposer
from search.space.parse import parse_space
from segcore.objective import Objective

SPACE = "space: {optimizer.momentum: {uniform: [0.2, 0.6]}}\\n"
config = load("optimizer: {name: sgd}\\nsearch: {sampler: middle}\\n" + SPACE)
proposer = Proposer(
    parse_space(config.space, config.train_config()), config.search.sampler,
    seed=0, num_samples=9, max_epochs=4, objective=Objective("val/iou"),
)
found = {
    "proposed": proposer.propose(0),
    "wrong": problem("search: {sampler: midle}\\n" + SPACE),
    "described": json_schema()["$defs"]["SearchSettings"]["properties"]["sampler"]["description"],
    "page": "| `middle` | the middle | never |  |" in components_page(),
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


def test_a_new_scheduler_is_one_file(tmp_path: Path) -> None:
    found = with_file(tmp_path, "search.schedulers.rules", SCHEDULER, WITH_SCHEDULER)
    assert found["options"] == {"name": "impatient", "floor": 0.3, "first_epoch": 3}, "9 has given way to 4 epochs"
    assert found["dumped"]
    assert found["epochs"] == [3]
    assert found["judged"] == [False, True]
    names, floor = found["schema"]
    assert names == ["asha", "hyperband", "median", "pbt", "impatient", "none"]
    assert floor == "impatient: least value."
    assert found["named"]
    assert (
        "belongs to asha and hyperband and median, but the scheduler is impatient, which uses floor, first_epoch"
        in (found["unused"])
    )
    assert "belongs to impatient, but the scheduler is asha" in found["not for asha"]
    assert found["range"] == "search.scheduler.floor (line 1): found -1; valid: a number of at least 0"
    assert found["own rule"] == "search.scheduler.first_epoch (line 2): found 4 of 4"
    assert found["second"].startswith("search.scheduler.name (line 1): found impatient, which stops trials by")
    assert found["heavy"] == []


def test_a_new_sampler_is_one_file(tmp_path: Path) -> None:
    found = with_file(tmp_path, "search.sampling.samplers", SAMPLER, WITH_SAMPLER)
    assert found["proposed"] == [{"optimizer.momentum": 0.4}, "middle"]
    assert found["wrong"].endswith("random; did you mean middle?")
    assert "middle: the middle" in found["described"]
    assert found["page"]
