"""Every config that we ship loads, is accepted by the schema, and spans a space whose every point is valid."""

import json
import re
from pathlib import Path

import jsonschema
import optuna
import pytest
from places import ROOT

from search.config.file import read_config
from search.config.load import (
    dump_config,
    json_schema,
    load_config,
    main,
)
from search.config.tree import SearchConfig
from search.space.effects import idle_nodes
from search.space.parse import apply, parse_space
from search.space.reader import REFUSED
from segcore.config import TrainConfig
from segcore.data.pairs.discovery import discover

SCHEMA = ROOT / "configs" / "schema.json"
CONFIGS = sorted((ROOT / "configs").rglob("*.y*ml"))


def test_the_four_configs_are_found() -> None:
    assert {path.stem for path in CONFIGS} >= {"quickstart", "attention", "encoders", "full"}


@pytest.fixture(params=CONFIGS, ids=[path.stem for path in CONFIGS])
def path(request: pytest.FixtureRequest) -> Path:
    found: Path = request.param
    return found


def test_it_loads_under_its_own_name_and_reads_back(path: Path, tmp_path: Path) -> None:
    config = load_config(path)
    assert config.name == path.stem
    assert path.read_text(encoding="utf-8").startswith("# yaml-language-server: $schema=schema.json\n")
    copy = tmp_path / "config.yaml"
    copy.write_text(dump_config(config), encoding="utf-8")
    assert load_config(copy) == config


def test_the_threshold_comes_from_the_curve_and_costs_no_trial(path: Path) -> None:
    config = load_config(path)
    assert config.threshold == "auto"
    assert "threshold" not in parse_space(config.space, config.train_config()).keys()  # noqa: SIM118


def test_no_searched_key_is_idle_in_any_branch(path: Path) -> None:
    config = load_config(path)
    base = config.train_config()
    assert idle_nodes(parse_space(config.space, base).nodes, base) == []


def test_the_schema_accepts_it(path: Path) -> None:
    schema = json.loads(SCHEMA.read_text(encoding="utf-8"))
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.Draft202012Validator(schema).validate(read_config(path).values)


def test_two_hundred_samples_are_valid_and_conditional_keys_come_with_their_branch(path: Path) -> None:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    config = load_config(path)
    base = config.train_config()
    space = parse_space(config.space, base)
    assert space
    always = {row.key for row in space.describe() if row.depth == 0}
    branches: dict[str, set[str]] = {}
    for row in space.describe():
        if row.when:
            branches.setdefault(row.when, set()).add(row.key)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    for _ in range(200):
        trial = study.ask()
        flat = space.suggest(trial)
        taken = {key for when, keys in branches.items() for key in keys if _holds(when, flat)}
        assert set(flat) == always | taken
        assert space.from_params(trial.params) == flat
        assert apply(base, flat) != base or flat == space.defaults(base)


def _holds(when: str, flat: dict[str, object]) -> bool:
    key, _, value = when.partition(" = ")
    return key in flat and str(flat[key]) == value


def test_the_search_starts_from_the_config_itself(path: Path) -> None:
    config = load_config(path)
    base = config.train_config()
    defaults = parse_space(config.space, base).defaults(base)
    assert defaults is not None
    assert apply(base, defaults) == base


def test_the_full_config_searches_every_key_that_matters() -> None:
    config = load_config(ROOT / "configs" / "full.yaml")
    every = {key for key in _leaves() if not any(key == no or key.startswith(f"{no}.") for no in REFUSED)}
    searched = set(parse_space(config.space, config.train_config()).keys())
    assert every - searched == {
        "loss.bce",
        "threshold",
        "train.precision",
        "train.compile",
        "train.micro_batch_size",
    }  # the unit of the mix; free on the curve; speed, not quality
    written = read_config(ROOT / "configs" / "full.yaml").values
    assert set(SearchConfig.model_fields) - set(written) == {"optimizer", "lr_scheduler"}  # all searched


def _leaves() -> set[str]:
    tree = TrainConfig().model_dump()
    return {f"{section}.{key}" for section, keys in tree.items() if isinstance(keys, dict) for key in keys} | {
        "threshold"
    }


PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def test_the_configs_in_readme_and_docs_load(tmp_path: Path) -> None:
    blocks = [
        block
        for page in PAGES
        for block in re.findall(r"^```yaml\n(.*?)^```", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    ]
    assert len(blocks) >= 5
    for number, block in enumerate(blocks):
        (tmp_path / f"{number}.yaml").write_text(block, encoding="utf-8")
        assert load_config(tmp_path / f"{number}.yaml").space


def test_every_link_in_readme_and_docs_leads_somewhere() -> None:
    dead = [
        f"{page.name}: {target}"
        for page in [*PAGES, ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", ROOT / "results" / "README.md"]
        for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8"))
        if "://" not in target and not (page.parent / target).exists()
    ]
    assert dead == []


def test_the_quickstart_needs_nothing_but_this_machine(tmp_path: Path) -> None:
    config = load_config(ROOT / "configs" / "quickstart.yaml", [f"data.cache_dir={tmp_path}"])
    assert config.data.root == "synthetic"
    assert config.model.encoder == "none"
    assert config.resources.gpus_per_trial == 0
    counts = discover(config.data).counts()
    assert counts["train"] >= config.train.batch_size
    assert counts["val"] > 0


def test_the_committed_schema_is_the_types_own(tmp_path: Path) -> None:
    main([str(tmp_path / "schema.json")])
    current = (tmp_path / "schema.json").read_text(encoding="utf-8")
    assert SCHEMA.read_text(encoding="utf-8") == current, "run: python -m search.config.load"
    assert json.loads(current) == json_schema()
    assert list(tmp_path.iterdir()) == [tmp_path / "schema.json"]


@pytest.mark.parametrize(
    "values",
    [
        {"modl": {}},
        {"model": {"arch": "unett"}},
        {"optimizer": {"lr": 0}},
        {"space": {"optimizer.lrr": {"uniform": [0, 1]}}},
        {"space": {"data.root": {"choice": ["a"]}}},
        {"space": {"optimizer.lr": {"uniform": [0]}}},
        {"space": {"optimizer.lr": {"normal": [0, 1]}}},
        {"space": {"loss": {"choice": ["bce"]}}},
        {"space": {"optimizer.lr": {"uniform": [0.1, 1], "prior": 0.5}}},
        {"space": {"optimizer.lr": {"uniform": [0.1, 1], "prior": {"width": 0.5}}}},
        {"space": {"optimizer.lr": {"uniform": [0.1, 1], "prior": {"center": 0.5, "width": 0}}}},
        {"space": {"optimizer": {"choice": ["adamw", "sgd"], "prior": {"center": "sgd", "width": 1.5}}}},
        {"space": {"optimizer.lr": {"uniform": [0.1, 1]}, "forbid": "optimizer.lr > 0.5"}},
        {"search": {"enqueue": ["optimizer.lr"]}},
        {"export": {"targets": [{"local": "a", "yandex_disk": "/b"}]}},
        {"export": {"targets": [{"ftp": "a"}]}},
    ],
)
def test_the_schema_refuses_what_the_loader_refuses(values: dict[str, object]) -> None:
    assert not jsonschema.Draft202012Validator(json_schema()).is_valid(values)


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"space": {"optimizer": {"lr": {"loguniform": [1e-5, 1e-2]}}}},
        {"space": {"optimizer": {"choice": {"sgd": {"momentum": {"uniform": [0, 0.9]}}, "adamw": None}}}},
        {"space": {"model.depth": {"int": [2, 4], "step": 2}, "threshold": {"choice": ["auto", 0.5]}}},
        {"space": {"optimizer.lr": {"loguniform": [1e-5, 1e-2], "prior": {"center": 1e-3, "width": 0.5}}}},
        {"space": {"optimizer": {"choice": {"sgd": {}, "adamw": None}, "prior": {"center": "sgd"}}}},
        {"space": {"model.depth": {"int": [2, 4], "prior": {"center": 3}}, "forbid": ["model.depth > 3"]}},
        {"search": {"enqueue": [{"optimizer.lr": 0.1}, {"optimizer": {"lr": 0.2}}]}},
        {"threshold": 0.5, "data": {"image_size": [64, 96]}, "model": {"decoder_channels": [8, 8]}},
    ],
)
def test_the_schema_accepts_what_the_loader_accepts(values: dict[str, object]) -> None:
    jsonschema.Draft202012Validator(json_schema()).validate(values)
