"""Targets by name: their locations, secrets, and what the config takes."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from search.config.choices import TARGETS, secret_variables
from search.config.tree import TargetSpec as ConfigTarget
from search.export.registry import (
    build_target,
    check_targets,
    parse_target,
)
from search.export.target import Destination, TargetSpec, TrackingContext
from search.report.privacy import without_private
from segcore.component import Component
from segcore.errors import ConfigError

GOOD = {"local": "/tmp/x", "yandex_disk": "/segsearch/attention", "wandb_artifact": "attention-best"}


def test_every_kind_is_covered() -> None:
    assert set(GOOD) == set(TARGETS.names)


@pytest.mark.parametrize("kind", TARGETS.names)
def test_text_form(kind: str) -> None:
    spec = parse_target(f"{kind}:{GOOD[kind]}")
    assert spec == TargetSpec(kind, GOOD[kind])
    assert parse_target(str(spec)) == spec
    target = build_target(spec, TrackingContext(project="p", group="g", run_dir=Path("/tmp")))
    assert (target.kind, target.location) == (kind, GOOD[kind])


def test_location_may_hold_colons() -> None:
    assert parse_target("yandex_disk:disk:/a:b") == TargetSpec("yandex_disk", "disk:/a:b")


@pytest.mark.parametrize("text", ["", "ftp:/x", "/tmp/x", ":/x", "Local:/x"])
def test_unknown_kind(text: str) -> None:
    with pytest.raises(ConfigError, match="with a kind of local, yandex_disk, wandb_artifact, found"):
        parse_target(text)
    with pytest.raises(ConfigError, match="valid: local, yandex_disk, wandb_artifact"):
        build_target(TargetSpec(text.partition(":")[0], "/x"))


@pytest.mark.parametrize("text", ["local", "local:", "yandex_disk: "])
def test_missing_location(text: str) -> None:
    with pytest.raises(ConfigError, match="lacks its location"):
        parse_target(text)


@pytest.mark.parametrize(("kind", "location"), [("local", ""), ("yandex_disk", "/"), ("wandb_artifact", "a b")])
def test_bad_location_is_the_configs_fault(kind: str, location: str) -> None:
    with pytest.raises(ConfigError, match=kind):
        build_target(TargetSpec(kind, location))


def test_check_targets_says_what_is_missing_before_the_search(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine", encoding="utf-8")
    specs = [
        TargetSpec("local", str(tmp_path / "free")),
        TargetSpec("local", str(tmp_path)),
        TargetSpec("yandex_disk", "/x"),
        TargetSpec("wandb_artifact", "best"),
    ]
    problems = check_targets(specs, TrackingContext(mode="offline"))
    assert [problem.split(" ")[2] for problem in problems] == [
        f"local:{tmp_path}:",
        "yandex_disk:/x:",
        "wandb_artifact:best:",
    ]


WRONG = {"local": "", "yandex_disk": "models/x", "wandb_artifact": "a/b"}


@pytest.mark.parametrize("target", list(TARGETS), ids=TARGETS.names)
def test_what_a_target_declares_is_what_the_config_takes(target: Component[Destination]) -> None:
    spec = ConfigTarget.model_validate({target.name: GOOD[target.name]})
    assert (spec.kind, spec.location) == (target.name, GOOD[target.name])
    assert spec.model_dump() == {target.name: GOOD[target.name]}
    assert spec.is_path == target.build.is_path == (target.name == "local")
    with pytest.raises(ValidationError):
        ConfigTarget.model_validate({target.name: WRONG[target.name]})
    assert target.build.open(GOOD[target.name], TrackingContext()).kind == target.name


@pytest.mark.parametrize("target", list(TARGETS), ids=TARGETS.names)
def test_no_secret_of_a_target_is_told(target: Component[Destination], monkeypatch: pytest.MonkeyPatch) -> None:
    assert set(target.build.secrets) <= set(secret_variables())
    for variable in target.build.secrets:
        monkeypatch.setenv(variable, "hush-hush")
        told = without_private({"error": "403 for hush-hush", target.name: "hush-hush"})
        assert told == {"error": "403 for ***", target.name: "***"}
