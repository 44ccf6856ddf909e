"""The list of checks: how it is gone through, that every job goes through it, and what each of its entries says."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yadisk
from click.testing import CliRunner, Result
from command_results import SPACE, SYNTHETIC, refused
from rich.console import Console
from servers.wandb_server import API_KEY, WandbServer
from servers.yandex_disk import TOKEN, YandexDiskServer

from search.cli.group import main
from search.config.load import load_config
from search.errors import CheckError, ConfigError, ResourceError, RunError, SegsearchError
from search.runs.folder import absolute_paths, create_run, update_run
from search.space.search import Search
from search.stages import job
from search.stages.checks import accounts, contents, machines, places
from search.stages.checks.check import (
    Check,
    Checked,
    Failed,
    NotChecked,
    Outcome,
    Preparation,
    go_through,
    line_of,
)
from search.stages.checks.listing import CHECKS
from search.tune.cluster.resources import known_nodes

ONE = "model: {base_channels: 4, depth: 2}\n"


@pytest.fixture
def cli(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return lambda *arguments: CliRunner().invoke(main, list(arguments))


@pytest.fixture
def prepared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Preparation]:
    """A search that is about to be checked, with changes of its config."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "c.yaml").write_text(SYNTHETIC + SPACE)

    def prepare(*overrides: str) -> Preparation:
        config = absolute_paths(load_config(tmp_path / "c.yaml", overrides))
        return Preparation(Search.of(config), "search", Console(quiet=True))

    return prepare


def passing(text: str) -> Callable[[Preparation], Checked]:
    return lambda _: Checked(text)


def failing(error: SegsearchError) -> Callable[[Preparation], Checked]:
    def look(_: Preparation) -> Checked:
        raise error

    return look


def test_what_is_wrong_is_told_together_and_nothing_long_begins(prepared: Callable[..., Preparation]) -> None:
    checks = (
        Check("a", passing("is fine")),
        Check("b", failing(RunError("b is wrong"))),
        Check("c", passing("never"), after=("b",)),
        Check("d", failing(ConfigError("d is wrong"))),
        Check("e", passing("never"), is_long=True),
        Check("f", lambda _: NotChecked("there is none")),
        Check("g", passing("never"), kinds=frozenset({"train"})),
        Check("h", passing("never"), moments=frozenset({"resume"})),
    )
    lines: list[str] = []
    with pytest.raises(CheckError, match=r"2 things are wrong\n1\. b is wrong\n2\. d is wrong") as caught:
        go_through(checks, prepared(), lambda check, outcome: lines.append(line_of(check, outcome)))
    assert caught.value.exit_code == 2
    assert lines == [
        "checked: a, is fine",
        "failed: b",
        "not checked: c, b failed",
        "failed: d",
        "not checked: e, what failed above comes first",
        "not checked: f, there is none",
    ]
    with pytest.raises(ConfigError, match=r"^d is wrong$"):
        go_through(checks[3:], prepared())


def test_the_names_that_a_check_waits_for_are_names_of_checks_before_it() -> None:
    seen: set[str] = set()
    for check in CHECKS:
        assert set(check.after) <= seen, check.name
        assert check.name not in seen
        seen.add(check.name)


def test_every_job_goes_through_the_one_list(
    cli: Callable[..., Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "c.yaml").write_text(SYNTHETIC + SPACE)
    sentinel = Check("a new one", failing(RunError("the new check says no")))
    monkeypatch.setattr(job, "CHECKS", (sentinel,))
    for command in ("check", "run", "train"):
        refused(cli(command, "c.yaml"), "the new check says no")
    assert not (tmp_path / "results").exists()
    paths = create_run(absolute_paths(load_config(tmp_path / "c.yaml")), "search")
    update_run(paths, status="interrupted")
    refused(cli("resume", "c"), "the new check says no")
    refused(cli("extend", "c", "--num-samples", "2"), "the new check says no")


@pytest.mark.parametrize(
    ("override", "key"),
    [("gpus_per_trial=1", "resources.gpus_per_trial"), ("cpus_per_trial=9999", "resources.cpus_per_trial")],
)
def test_a_trial_that_no_node_can_run(
    prepared: Callable[..., Preparation], monkeypatch: pytest.MonkeyPatch, override: str, key: str
) -> None:
    monkeypatch.setattr("ray.is_initialized", lambda: False)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    with pytest.raises(ResourceError, match=f"no node can run a trial that asks for .*{key}"):
        machines.resources(prepared(f"resources.{override}"))
    machines.resources(prepared())


def test_a_ray_of_our_own_will_have_this_machines_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ray.is_initialized", lambda: False)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    [node] = known_nodes("local")
    assert node["GPU"] == 0
    assert 1 <= node["CPU"] <= (os.cpu_count() or 1)


def test_a_name_that_is_taken(prepared: Callable[..., Preparation], tmp_path: Path) -> None:
    work = prepared()
    assert places.run_folder(work).found == f"{tmp_path / 'results' / 'c'} is free and can be written"
    assert not (tmp_path / "results").exists()
    update_run(create_run(work.search.config, "search"), status="done")
    with pytest.raises(RunError, match=r"the run 'c' is there already .*segsearch show c.*--name"):
        places.run_folder(work)


def test_results_that_cannot_be_written(prepared: Callable[..., Preparation], tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("a file")
    with pytest.raises(RunError, match=r"results: the run's folder .*taken/deep/c cannot be written: .*taken"):
        places.run_folder(prepared("results=taken/deep"))


def test_no_room_on_the_disk(prepared: Callable[..., Preparation]) -> None:
    if not os.access("/dev/full", os.W_OK):
        pytest.skip("no /dev/full here")
    with pytest.raises(RunError, match="cannot be written"):
        places.run_folder(prepared("results=/dev/full"))


@pytest.mark.parametrize("token", [TOKEN, "y0_wrong"])
def test_the_token_of_a_target_is_tried(
    prepared: Callable[..., Preparation], monkeypatch: pytest.MonkeyPatch, token: str
) -> None:
    work = prepared("export.targets=[{yandex_disk: /models/x}]")
    monkeypatch.setenv("YADISK_TOKEN", token)
    with YandexDiskServer() as disk:
        monkeypatch.setattr(yadisk.settings, "BASE_API_URL", disk.url)
        if token == TOKEN:
            assert places.targets_answer(work) == Checked("yandex_disk:/models/x answers")
        else:
            with pytest.raises(ConfigError, match=r"yandex_disk:/models/x: .*YADISK_TOKEN was refused \(401\)"):
                places.targets_answer(work)
        assert len(disk.requests) == 1
    outcome = places.targets_answer(work)
    assert isinstance(outcome, NotChecked)
    assert "no connection to http://127.0.0.1" in outcome.why


def online(monkeypatch: pytest.MonkeyPatch, url: str, key: str) -> None:
    monkeypatch.setenv("WANDB_BASE_URL", url)
    monkeypatch.setenv("WANDB_API_KEY", key)
    monkeypatch.setattr("search.tracking.wandb_service.server_and_key", lambda: (url, None))


def test_the_key_of_wandb_is_tried(prepared: Callable[..., Preparation], monkeypatch: pytest.MonkeyPatch) -> None:
    with WandbServer() as server:
        online(monkeypatch, server.url, API_KEY)
        assert accounts.wandb_key(prepared()) == Checked(f"{server.url} takes the key")
        server.fault = "unauthorized"
        said = f"{server.url} refuses the API key, so trials would be logged offline"
        assert accounts.wandb_key(prepared()) == Checked(said)
        with pytest.raises(ConfigError, match="refuses the API key; set WANDB_API_KEY"):
            accounts.wandb_key(prepared("tracking.wandb.mode=online"))
    outcome = accounts.wandb_key(prepared())
    assert isinstance(outcome, NotChecked)
    assert "cannot be reached" in outcome.why


def test_without_a_key_it_is_said(
    prepared: Callable[..., Preparation], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("HOME", "WANDB_CONFIG_DIR"):
        monkeypatch.setenv(name, str(tmp_path))
    monkeypatch.delenv("NETRC", raising=False)

    def line(*overrides: str) -> str:
        outcome: Outcome = accounts.wandb_key(prepared(*overrides))
        return line_of(next(check for check in CHECKS if check.name == "W&B"), outcome)

    assert line() == "not checked: W&B, no key is set"
    assert line("tracking.wandb.mode=offline") == "not checked: W&B, tracking.wandb.mode is offline"
    with pytest.raises(ConfigError, match="it is online, but no W&B key is set"):
        line("tracking.wandb.mode=online")


def test_an_encoder_that_is_seldom_drawn_is_built_too(
    prepared: Callable[..., Preparation], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of 300 weights, 64 random points would miss most."""
    built: list[str] = []
    monkeypatch.setattr("segcore.models.build.build_model", lambda model: built.append(model.encoder_weights))
    names = [f"/w/{number}.safetensors" for number in range(300)]
    space = {"model.encoder_weights": {"choice": names}}
    job = prepared("model.encoder=timm:resnet18", f"space={json.dumps(space)}")
    assert contents.models(job) == Checked("301 encoders built")
    assert {*names} < {*built}


@pytest.mark.slow
def test_check_prints_what_it_checked_and_what_not(cli: Callable[..., Result], tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text(SYNTHETIC + SPACE + ONE)
    lines = cli("check", "c.yaml", "--no-gate").output.splitlines()
    expected: list[Any] = [
        f"checked: the run's folder, {tmp_path / 'results' / 'c'} is free and can be written",
        "not checked: export targets, export.targets is empty",
        "not checked: one batch, search.gate is false",
    ]
    assert [line for line in expected if line not in lines] == []
    assert {line.partition(": ")[2].partition(",")[0] for line in lines if "checked: " in line} == {
        check.name for check in CHECKS
    }
    assert isinstance(Failed(RunError("x")), Outcome)
