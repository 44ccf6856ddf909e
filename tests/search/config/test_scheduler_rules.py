# ruff: noqa: E501 - a case a line
from pathlib import Path

import pytest

from search.config.load import dump_config, load_config
from segcore.errors import ConfigError

SPACE = "space: {optimizer.lr: {loguniform: [1e-4, 1e-2]}}\n"


def write(folder: Path, scheduler: str, epochs: int = 25, num_samples: int = 64, space: str = SPACE) -> Path:
    path = folder / "run.yaml"
    search = f"search: {{num_samples: {num_samples}, scheduler: {{{scheduler}}}}}\n"
    path.write_text(f"train: {{epochs: {epochs}}}\n{search}{space}")
    return path


def problems(path: Path) -> list[str]:
    with pytest.raises(ConfigError, match="problem") as caught:
        load_config(path)
    return [line.strip() for line in str(caught.value).splitlines()[1:]]


BAD = [
    ("name: median, reduction_factor: 3", {}, "search.scheduler.reduction_factor (line 2): belongs to asha and hyperband, but the scheduler is median, which uses grace_period, min_samples"),
    ("name: none, grace_period: 3", {}, "search.scheduler.grace_period (line 2): belongs to asha and hyperband and median, but the scheduler is none, which has no options; leave it out, or replace the whole map, e.g. --set 'search.scheduler={name: none}'"),
    ("brackets: 2", {}, "search.scheduler.brackets (line 2): belongs to hyperband, but the scheduler is asha"),
    ("name: hyperband, population: 8", {}, "search.scheduler.population (line 2): belongs to pbt"),
    ("grace_period: 25", {}, "search.scheduler.grace_period (line 2): found 25, but a trial has only train.epochs=25 and none could be stopped before its end; valid: 1 to 24, or scheduler name none"),
    ("name: hyperband, grace_period: 9", {"epochs": 9}, "search.scheduler.grace_period (line 2): found 9"),
    ("name: median, grace_period: 30", {}, "search.scheduler.grace_period (line 2): found 30"),
    ("name: hyperband, grace_period: 3, reduction_factor: 3, brackets: 3", {}, "search.scheduler.brackets (line 2): found 3, whose last bracket would have its first rung at grace_period * reduction_factor ** 2 = 27 of train.epochs=25; valid: 1 to 2"),
    ("name: median, min_samples: 6", {"num_samples": 6}, "search.scheduler.min_samples (line 2): found 6 other trials, but there are only search.num_samples=6 in all; valid: 1 to 5"),
    ("name: pbt, population: 3", {}, "search.scheduler.population (line 2): found 3; valid: a whole number of at least 4"),
    ("name: pbt, population: 9", {"num_samples": 8}, "search.scheduler.population (line 2): found 9, but there are only search.num_samples=8 trials; valid: 4 to 8"),
    ("name: pbt", {"num_samples": 3}, "search.num_samples (line 2): found 3, but pbt needs a population of at least 4 trials"),
    ("name: pbt, perturbation_interval: 5", {"epochs": 5}, "search.scheduler.perturbation_interval (line 2): found 5, but a trial has only train.epochs=5; valid: 1 to 4"),
    ("name: pbt", {"epochs": 1}, "train.epochs (line 1): found 1, but pbt compares trials before their end"),
    ("name: pbt, quantile: 0.6", {}, "search.scheduler.quantile (line 2): found 0.6; valid: a number above 0 and up to 0.5"),
    ("name: pbt", {"space": ""}, "space: is empty, but pbt alters settings in mid-training"),
    ("name: pbt", {"space": "space:\n  optimizer.lr: {uniform: [0.1, 0.2]}\n  model.depth: {int: [2, 4]}\n"}, "space.model.depth (line 5): cannot be searched with scheduler pbt: a fork continues with its parent's weights, which do not fit another model.depth"),
    ("name: pbt", {"space": "space:\n  model: {choice: {unet: {}, attention_unet: {dropout: {uniform: [0, 0.5]}}}}\n"}, "space.model.arch"),
]  # fmt: skip


@pytest.mark.parametrize(("scheduler", "changes", "expected"), BAD, ids=[case[0] for case in BAD])
def test_an_option_that_cannot_work_is_named_with_what_is_valid(
    scheduler: str, changes: dict[str, object], expected: str, tmp_path: Path
) -> None:
    lines = problems(write(tmp_path, scheduler, **changes))  # type: ignore[arg-type]
    assert any(line.startswith(expected) for line in lines), lines
    assert len(lines) == 1, lines


def test_all_problems_are_told_at_once(tmp_path: Path) -> None:
    space = "space: {model.arch: {choice: [unet, residual_unet]}, model.base_channels: {int: [4, 8]}}\n"
    path = write(tmp_path, "name: pbt, population: 9, perturbation_interval: 7, min_samples: 3", 5, 8, space)
    keys = [line.partition(" ")[0].rstrip(":") for line in problems(path)]
    assert sorted(keys) == [
        "search.scheduler.min_samples", "search.scheduler.perturbation_interval", "search.scheduler.population",
        "space.model.arch", "space.model.base_channels",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("scheduler", "epochs", "num_samples", "expected"),
    [
        ("name: asha", 2, 64, {"grace_period": 1, "reduction_factor": 3, "promote": True}),
        ("name: hyperband", 5, 64, {"grace_period": 2, "reduction_factor": 3, "brackets": 1}),
        ("name: hyperband", 25, 64, {"grace_period": 2, "reduction_factor": 3, "brackets": 3}),
        ("name: median", 1, 4, {"grace_period": 1, "min_samples": 3}),
        ("name: median", 1, 1, {"grace_period": 1, "min_samples": 1}),
        ("name: pbt", 2, 6, {"population": 6, "perturbation_interval": 1, "quantile": 0.25, "resample_probability": 0.25}),
        ("name: none", 1, 1, {}),
    ],
)  # fmt: skip
def test_what_the_file_leaves_out_gives_way_and_stays_so_when_read_back(
    scheduler: str, epochs: int, num_samples: int, expected: dict[str, float], tmp_path: Path
) -> None:
    config = load_config(write(tmp_path, scheduler, epochs, num_samples))
    assert config.search.scheduler.model_dump() == {"name": scheduler.partition(": ")[2], **expected}
    again = tmp_path / "again.yaml"
    again.write_text(dump_config(config))
    assert dump_config(load_config(again)) == dump_config(config)


def test_what_may_change_in_mid_training_can_be_searched_with_pbt(tmp_path: Path) -> None:
    space = (
        "space: {model.dropout: {uniform: [0, 0.5]}, train.batch_size: {choice: [4, 8]}, threshold: {uniform: [0.1, 0.9]},"
        " loss.dice: {uniform: [0, 1]}, optimizer: {choice: {adamw: {}, sgd: {momentum: {uniform: [0, 0.9]}}}},"
        " augment.rotate: {uniform: [0, 30]}, train.ema_decay: {choice: [0.0, 0.9]}}\n"
    )
    assert load_config(write(tmp_path, "name: pbt", space=space)).search.scheduler.population == 8


@pytest.mark.parametrize(
    ("scheduler", "key", "found"),
    [
        ("name: hyperband", "name", "hyperband"),
        ("name: median", "name", "median"),
        ("name: pbt", "name", "pbt"),
        ("promote: false", "promote", "promote: false"),
    ],
)
def test_a_second_metric_needs_a_scheduler_that_weighs_it(scheduler: str, key: str, found: str, tmp_path: Path) -> None:
    path = write(tmp_path, scheduler)
    load_config(path)  # without it, they are fine
    second = "search.second_metric=cost/parameters"
    with pytest.raises(ConfigError) as caught:
        load_config(path, [second])
    (line,) = [line.strip() for line in str(caught.value).splitlines()[1:]]
    assert line.startswith(f"search.scheduler.{key} (line 2): found {found}, which stops trials by search.metric alone")
    assert line.endswith("valid: asha with promote: true, none, or second_metric: null")


@pytest.mark.parametrize("scheduler", ["name: asha", "promote: true", "name: none"])
@pytest.mark.parametrize("second", ["cost/parameters", "cost/latency_ms"])
def test_a_second_metric_goes_with_asha_and_none(scheduler: str, second: str, tmp_path: Path) -> None:
    config = load_config(write(tmp_path, scheduler), [f"search.second_metric={second}"])
    assert config.search.second_metric == second
    copy = tmp_path / "copy.yaml"
    copy.write_text(dump_config(config), encoding="utf-8")
    assert load_config(copy).search.second_metric == second


def test_a_second_metric_that_there_is_not_is_told_with_those_there_are(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"search\.second_metric.*cost/params.*cost/parameters.*cost/latency_ms"):
        load_config(write(tmp_path, "name: asha"), ["search.second_metric=cost/params"])
