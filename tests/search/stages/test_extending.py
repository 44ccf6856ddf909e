"""More trials for a search that has ended: what is refused, and what a crash leaves."""

import logging
import shutil
from pathlib import Path

import pytest
from small_searches import TREE, add_trial, new_config, states

import search.stages.extending
from search.config.load import load_config
from search.errors import RunError
from search.runs.folder import create_run, update_run
from search.runs.paths import RunPaths, read_json
from search.space.search import Search
from search.stages.extending import begin_extension, plan_extension
from search.study.storage import open_study
from search.tune.search import run_search
from segcore.errors import ConfigError

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def ended_once(tmp_path_factory: pytest.TempPathFactory) -> RunPaths:
    """A search as it stands when two trials have ended, without a model."""
    config = new_config(tmp_path_factory.mktemp("ended"))
    paths = create_run(config, "search")
    add_trial(paths, config, {"optimizer.lr": 2e-3, "augment.policy": "none"}, 0.4)
    add_trial(paths, config, {"optimizer.lr": 8e-3, "augment.policy": "flip"}, 0.6)
    update_run(paths, status="done", stopped_by={"rule": "target", "detail": "reached"})
    return paths


@pytest.fixture
def ended(ended_once: RunPaths, tmp_path: Path) -> RunPaths:
    """Its copy, as if it had been searched here."""
    paths = RunPaths(tmp_path / "results" / ended_once.name)
    shutil.copytree(ended_once.root, paths.root)
    there, here = (str(paths.root.parents[1]) for paths in (ended_once, paths))
    assert there in paths.config.read_text()
    paths.config.write_text(paths.config.read_text().replace(there, here))
    return paths


def test_trials_are_added_to_those_that_were_begun(ended: RunPaths) -> None:
    extension = plan_extension(ended, 5, [])
    assert (extension.num_begun, extension.num_more, extension.config.search.num_samples) == (2, 5, 7)
    assert extension.changed == {}
    assert extension.num_outside == 0


@pytest.mark.parametrize(
    ("override", "reason"),
    [
        ("data.image_size=64", r"data\.image_size: the earlier trials saw other data"),
        ("train.epochs=5", r"train\.epochs: the earlier trials were trained that way"),
        ("search.metric=val/dice", r"search\.metric: the earlier trials were judged by it"),
        (
            "search.second_metric=cost/parameters",
            r"search\.second_metric: the earlier trials were chosen and judged with",
        ),
        ("search.num_samples=9", r"search\.num_samples: is set by --num-samples, which counts the trials to add"),
        ("model.depth=3", r"model\.depth: the earlier trials were trained with 2; to vary it, search it: --set 'space"),
        ("threshold=0.5", r"threshold: the earlier trials were trained with auto"),
        ("loss.dice=0.5", r"loss\.dice: the earlier trials"),
        ("name=other", r"name: a run keeps its name"),
        ("results=elsewhere", r"results: a run stays where it is"),
    ],
)
def test_what_would_make_trials_incomparable_is_refused(ended: RunPaths, override: str, reason: str) -> None:
    before = ended.config.read_bytes(), ended.run.read_bytes()
    with pytest.raises(ConfigError, match=f"'tiny' cannot be extended with these changes:\n  {reason}"):
        plan_extension(ended, 2, [override])
    assert (ended.config.read_bytes(), ended.run.read_bytes()) == before


def test_every_refusal_is_told_at_once(ended: RunPaths) -> None:
    with pytest.raises(ConfigError) as caught:
        plan_extension(ended, 2, ["train.epochs=5", "model.depth=3", "search.sampler=random", "data.seed=1"])
    assert [line.split(":")[0].strip() for line in str(caught.value).splitlines()[1:]] == [
        "data.seed", "model.depth", "train.epochs",
    ]  # fmt: skip


def test_a_mistake_in_a_change_is_told_as_in_any_config(ended: RunPaths) -> None:
    with pytest.raises(ConfigError, match=r"space\.optimizer\.lrr.*unknown key"):
        plan_extension(ended, 2, ["space.optimizer.lrr={uniform: [0, 1]}"])
    with pytest.raises(ConfigError, match="space: nothing would be searched"):
        plan_extension(ended, 2, ["space.optimizer.lr=null", "space.augment.policy=null"])


def test_a_key_set_to_what_it_is_changes_nothing(ended: RunPaths) -> None:
    assert plan_extension(ended, 2, ["train.epochs=2", "search.metric=val/iou"]).changed == {}


@pytest.mark.parametrize(
    ("override", "rule"),
    [
        ("search.target=0.6", "target"),
        ("search.plateau={min_trials: 5, floor: 1}", None),
        ("search.time_budget_s=50", "time_budget_s"),
    ],
)
def test_a_rule_that_is_met_already_is_refused_before_anything_is_written(
    ended: RunPaths, override: str, rule: str | None
) -> None:
    update_run(ended, timings={"search_s": 51.0})
    if rule is None:
        assert plan_extension(ended, 2, [override]).config.search.plateau is not None
        return
    with pytest.raises(ConfigError, match=rf"search\.{rule}: this rule would end .* --set search\.{rule}=null"):
        plan_extension(ended, 2, [override])


def test_a_training_run_cannot_be_extended(tmp_path: Path) -> None:
    paths = create_run(new_config(tmp_path), "train")
    update_run(paths, status="done")
    with pytest.raises(RunError, match="one training run, not a search"):
        plan_extension(paths, 2, [])


def test_a_run_that_is_being_worked_on_cannot_be_extended(ended: RunPaths) -> None:
    update_run(ended, status="running")
    with pytest.raises(RunError, match="is still running"):
        plan_extension(ended, 2, [])


def test_what_changed_is_noted_and_the_old_config_kept(ended: RunPaths, caplog: pytest.LogCaptureFixture) -> None:
    old = ended.config.read_text()
    overrides = ["space.optimizer.lr={loguniform: [5e-3, 5e-2]}", "search.sampler=random", "search.target=0.9"]
    with caplog.at_level(logging.INFO, "segsearch"):
        begin_extension(ended, plan_extension(ended, 3, overrides))
    assert ended.earlier_config(1).read_text() == old
    assert load_config(ended.config).search.num_samples == 5
    assert load_config(ended.config).space["optimizer.lr"] == {"loguniform": [5e-3, 5e-2]}
    record = read_json(ended.run)
    assert record["status"] == "interrupted"
    assert "stopped_by" not in record
    (note,) = record["extensions"]
    assert (note["trials_before"], note["num_samples"], note["config_before"]) == (2, 3, "config.1.yaml")
    assert note["stopped_by"] == {"rule": "target", "detail": "reached"}
    assert note["changed"] == {
        "space.optimizer.lr": [{"loguniform": [1e-3, 1e-2]}, {"loguniform": [5e-3, 5e-2]}],
        "search.sampler": ["auto", "random"],
        "search.target": [None, 0.9],
    }
    assert "extending tiny: 2 trials so far, 3 more, 5 in all" in caplog.text
    assert "1 earlier trials lie outside of the space now" in caplog.text


def test_a_crash_before_the_config_is_written_leaves_the_run_as_it_was(
    ended: RunPaths, monkeypatch: pytest.MonkeyPatch
) -> None:
    extension = plan_extension(ended, 3, ["search.sampler=random"])
    old, write_text = ended.config.read_text(), search.stages.extending.write_text

    def killed_at_the_config(path: Path, text: str) -> None:
        if path == ended.config:
            raise KeyboardInterrupt
        write_text(path, text)

    monkeypatch.setattr(search.stages.extending, "write_text", killed_at_the_config)
    with pytest.raises(KeyboardInterrupt):
        begin_extension(ended, extension)
    assert ended.config.read_text() == old
    assert read_json(ended.run)["status"] == "interrupted"
    monkeypatch.undo()
    begin_extension(ended, plan_extension(ended, 4, ["search.sampler=random"]))
    assert [note["num_samples"] for note in read_json(ended.run)["extensions"]] == [4]
    assert ended.earlier_config(1).read_text() == old
    assert load_config(ended.config).search.num_samples == 6


def test_a_second_extension_keeps_the_first_ones_config_too(ended: RunPaths) -> None:
    for sampler in ("random", "gp"):
        begin_extension(ended, plan_extension(ended, 3, [f"search.sampler={sampler}"]))
    assert load_config(ended.earlier_config(1)).search.sampler == "auto"
    assert load_config(ended.earlier_config(2)).search.sampler == "random"
    assert len(read_json(ended.run)["extensions"]) == 2


def test_time_that_earlier_sessions_used_up_ends_the_search_before_it_starts(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = new_config(tmp_path, search={**TREE["search"], "time_budget_s": 60})
    paths = create_run(config, "search")
    add_trial(paths, config, {"optimizer.lr": 2e-3, "augment.policy": "none"}, 0.4)
    study = open_study(paths.storage_url, paths.name, mode="max", sampler=None)
    study.ask()
    update_run(paths, timings={"search_s": 61.0})
    with caplog.at_level(logging.INFO, "segsearch"):
        assert run_search(Search.of(config), paths, tmp_path / "never read")
    assert "stopped by search.time_budget_s: its 60 s, all sessions together, are used up" in caplog.text
    assert read_json(paths.run)["stopped_by"]["rule"] == "time_budget_s"
    assert states(paths) == {"COMPLETE": 1, "FAIL": 1}


def test_an_extension_by_no_trials_needs_a_change_and_meets_no_rule(ended: RunPaths) -> None:
    with pytest.raises(ConfigError, match="--num-samples 0 without a change of 'tiny' would do nothing"):
        plan_extension(ended, 0, [])
    extension = plan_extension(ended, 0, ["search.confirm={top_k: 2, seeds: 2}", "search.target=0.1"])
    assert extension.config.search.num_samples == 2
    assert extension.config.search.confirm is not None
    with pytest.raises(ConfigError, match=r"search\.target: this rule would end the extension at once"):
        plan_extension(ended, 1, ["search.target=0.1"])
