# ruff: noqa: E501
"""The config file: what it takes, and what it says when something is wrong."""

import subprocess
import sys
from pathlib import Path

import pytest

from search.config.load import dump_config, load_config
from search.config.tree import SearchConfig, TargetSpec
from segcore.config import TrainConfig
from segcore.errors import ConfigError


def write(tmp_path: Path, text: str, name: str = "run.yaml") -> Path:
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    return path


def problems(path: Path, *overrides: str) -> list[str]:
    """The lines of the one error that loading gives, without the header."""
    with pytest.raises(ConfigError, match=r"problem|config file|YAML|folder|UTF-8|map|stands twice") as caught:
        load_config(path, overrides)
    header, *lines = str(caught.value).splitlines()
    assert str(path.parent) in header
    return [line.strip() for line in lines]


GOOD = "data: {root: synthetic}\n"

# (id, YAML, overrides, fragments that the one line of the problem holds)
BAD = [
    ("unknown section", "modl: {arch: unet}", [], ["modl (line 1): unknown key; did you mean model?", "valid here: name, data"]),
    ("unknown key", "optimizer: {learning_rat: 0.1, lr: 0.1}", [], ["optimizer.learning_rat (line 1): unknown key", "name, lr, weight_decay"]),
    ("results in a bucket", "results: s3://bucket/runs", [], ["results (line 1): found s3://bucket/runs, but s3: addresses are neither read", "valid: a folder of this machine"]),
    ("data in a bucket", "data: {root: 'gs://bucket/data'}", [], ["data.root (line 1): found gs://bucket/data"]),
    ("a cache in HDFS", "data: {cache_dir: 'hdfs://name/cache'}", [], ["data.cache_dir (line 1): found hdfs://name/cache"]),
    ("results as a file URL", "data: {root: synthetic}", ["results=file:///tmp/runs"], ["results (--set): found file:///tmp/runs", "valid: the path itself, /tmp/runs"]),
    ("typo in a key", "train:\n  epohs: 3", [], ["train.epohs (line 2): unknown key; did you mean train.epochs?"]),
    ("key of another section", "lr: 0.1", [], ["lr (line 1): unknown key; did you mean optimizer.lr?"]),
    ("another word", "learning_rate: 0.1", [], ["did you mean optimizer.lr?"]),
    ("dotted key in the file", "optimizer.lr: 0.1", [], ["optimizer.lr (line 1): unknown key; write it nested, not dotted: optimizer: {lr: ...}"]),
    ("ambiguous key", "seed: 3", [], ["did you mean data.seed or train.seed or search.seed?"]),
    ("key of a later version", "search: {ensemble: {top_k: 3}}", [], ["search.ensemble (line 1): unknown key", "num_samples, metric"]),
    ("unknown name", "model: {arch: atention_unet}", [], ["model.arch (line 1): found 'atention_unet'; valid: one of unet, residual_unet, attention_unet", "did you mean attention_unet?"]),
    ("unknown sampler", "search: {sampler: annealing}", [], ["search.sampler", "found 'annealing'; valid: one of auto, rung_tpe, gp"]),
    ("unknown scheduler", "search: {scheduler: {name: halving}}", [], ["search.scheduler.name", "found 'halving'; valid: one of asha, hyperband, median, pbt, none"]),
    ("unknown metric", "search: {metric: iou}", [], ["search.metric", "found 'iou'", "val/iou, val/dice, val/iou_pooled"]),
    ("mode against metric", "search: {metric: val/iou, mode: min}", [], ["search.mode (line 1)", "val/iou is better when it is max; set mode: max"]),
    ("mode against loss", "search: {metric: val/loss, mode: max}", [], ["search.mode (line 1)", "set mode: min"]),
    ("negative number", "optimizer: {lr: -1}", [], ["optimizer.lr (line 1): found -1; valid: a number above 0"]),
    ("zero samples", "search: {num_samples: 0}", [], ["search.num_samples", "found 0; valid: a whole number of at least 1"]),
    ("fraction for a count", "train: {batch_size: 2.5}", [], ["train.batch_size", "found 2.5; valid: a whole number of at least 1"]),
    ("text for a number", "train: {epochs: many}", [], ["train.epochs (line 1): found 'many'; valid: a whole number of at least 1"]),
    ("truth for a number", "train: {batch_size: true}", [], ["train.batch_size (line 1): found true; valid: a whole number"]),
    ("not finite", "optimizer: {lr: .inf}", [], ["optimizer.lr (line 1): found inf; valid: a number above 0"]),
    ("not a number", "loss: {bce: .nan}", [], ["loss.bce", "found nan; valid: a number of at least 0"]),
    ("threshold", "threshold: 1.5", [], ["threshold (line 1): found 1.5; valid: auto or a number from 0 to 1"]),
    ("image size", "data: {image_size: [8, 8]}", [], ["data.image_size", "found [8, 8]; valid: a whole number from 16 to 4096 or a list of 2"]),
    ("a value for a section", "train: 25", [], ["train (line 1): found 25; valid: a map with epochs, batch_size"]),
    ("a list for a section", "model: [unet]", [], ["model (line 1): found ['unet']; valid: a map with arch"]),
    ("loss of nothing", "loss: {bce: 0, dice: 0}", [], ["loss (line 1): all weights are 0; set at least one of bce, dice"]),
    ("weights without an encoder", "model: {encoder_weights: imagenet}", [], ["model.encoder_weights (line 1)", "name an encoder such as 'timm:resnet50'"]),
    ("encoder without its prefix", "model: {encoder: resnet50}", [], ["model.encoder", "found 'resnet50'; valid: `none` for the plain convolutional encoder, or `timm:NAME`", "did you mean timm:resnet50?"]),
    ("a range outside of space", "optimizer: {lr: {loguniform: [1e-5, 1e-2]}}", [], ["optimizer.lr (line 1): found a map with loguniform", "to search it, write it in the space section, as optimizer.lr: ..."]),
    ("number in space", "space: {3: {int: [1, 2]}}", [], ["space.3 (line 1): unknown key"]),
    ("list for a space", "space: [optimizer.lr]", [], ["space (line 1): found ['optimizer.lr']; valid: a map"]),
    ("fractions", "data: {val_fraction: 0.6, test_fraction: 0.5}", [], ["data.val_fraction", "must stay below 1"]),
    ("foreground", "data: {foreground: red}", [], ["data.foreground (line 1): found 'red'; valid: a whole number or a colour as '#rrggbb' or a list"]),
    ("foreground as a share", "data: {foreground: 0.5}", [], ["data.foreground (line 1): found 0.5; valid: a whole number"]),
    ("name for a folder", "name: ../up", [], ["name (line 1): found '../up'; valid:", "letters, digits, `.`, `_`, `-`"]),
    ("two GPUs for a trial", "resources: {gpus_per_trial: 2}", [], ["resources.gpus_per_trial", "found 2; valid: auto or a number from 0 to 1"]),
    ("no CPU", "resources: {cpus_per_trial: 0}", [], ["resources.cpus_per_trial", "valid: auto or a number above 0"]),
    ("grace beyond the end", "train: {epochs: 3}\nsearch: {scheduler: {grace_period: 5}}", [], ["search.scheduler.grace_period (line 2): found 5, but a trial has only train.epochs=3 and none could be stopped before its end; valid: 1 to 2"]),
    ("mode of tracking", "tracking: {wandb: {mode: on}}", [], ["tracking.wandb.mode", "found 'on'; valid: one of auto, online, offline, disabled"]),
    ("a number for text", "tracking: {wandb: {project: 12}}", [], ["tracking.wandb.project", "found 12 (put it in quotes); valid: non-empty text"]),
    ("unknown target", "export: {targets: [{yandexdisk: /x}]}", [], ["export.targets.0.yandexdisk", "did you mean export.targets.0.yandex_disk?", "local, yandex_disk, wandb_artifact"]),
    ("target as text", "export: {targets: [local]}", [], ["export.targets.0", "found 'local'; valid: a map with exactly one of local, yandex_disk, wandb_artifact"]),
    ("two keys in a target", "export: {targets: [{local: x, wandb_artifact: y}]}", [], ["export.targets.0", "found local and wandb_artifact; valid: exactly one of"]),
    ("empty target", "export: {targets: [{}]}", [], ["export.targets.0", "found no target"]),
    ("target twice", "export: {targets: [{local: x}, {local: x}]}", [], ["export.targets", "holds local: x twice"]),
    ("one target, no list", "export: {targets: {local: x}}", [], ["export.targets", "valid: a list"]),
    ("relative path on the disk", "export: {targets: [{yandex_disk: models/x}]}", [], ["export.targets.0.yandex_disk", "found 'models/x'; valid: An absolute path"]),
    ("artifact with a slash", "export: {targets: [{wandb_artifact: a/b}]}", [], ["export.targets.0.wandb_artifact", "letters, digits"]),
    ("number as a key", "3: x", [], ["3 (line 1): a key must be text, found 3"]),
    ("null as a key", "train: {null: x}", [], ["train.null (line 1): a key must be text, found null"]),
    ("list in a target", "export: {targets: [{local: [a]}]}", [], ["export.targets.0.local (line 1): found ['a']; valid: non-empty text"]),
    ("override without =", GOOD, ["train.epochs"], ["--set 'train.epochs': must be key=value"]),
    ("override without a key", GOOD, ["=3"], ["--set '': must be key=value"]),
    ("override with a gap", GOOD, ["train..epochs=3"], ["--set 'train..epochs': must be key=value"]),
    ("override of an unknown key", GOOD, ["train.epoch=3"], ["train.epoch (--set): unknown key; did you mean train.epochs?"]),
    ("override with a bad value", GOOD, ["train.epochs=many"], ["train.epochs (--set): found 'many'"]),
    ("override below a value", GOOD, ["threshold.low=3"], ["threshold (--set): found a map with low; valid: auto or a number from 0 to 1"]),
    ("override below a value of the file", "threshold: 0.5", ["threshold.low=3"], ["--set threshold.low: `threshold` is a value, not a section"]),
    ("override that is no YAML", GOOD, ["data.group_by=[a-z]+"], ["--set data.group_by: the value is not valid YAML", "quotes"]),
    ("override in an item of a list", "export: {targets: [{local: a}]}", ["export.targets.0.local=b"], ["--set export.targets.0.local: `export.targets` is a value"]),
    ("taking out what is not searched", GOOD, ["space.optimizer.lrr=null"], ["--set space.optimizer.lrr: nothing to take out"]),
]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "overrides", "fragments"), [case[1:] for case in BAD], ids=[case[0].replace(" ", "_") for case in BAD]
)
def test_a_bad_config_gives_one_line_with_key_and_valid_values(
    tmp_path: Path, text: str, overrides: list[str], fragments: list[str]
) -> None:
    lines = problems(write(tmp_path, text), *overrides)
    assert len(lines) == 1, lines
    for fragment in fragments:
        assert fragment in lines[0]


def test_every_problem_of_a_file_is_reported_at_once_in_its_order(tmp_path: Path) -> None:
    text = """
model: {arch: unett}
optimizer: {lr: 0}
search: {sampler: grid}
space:
  threshold: {uniform: [0.9, 0.1]}
export: {targets: [{ftp: x}]}
"""
    path = write(tmp_path, text)
    lines = problems(path, "train.epoch=3")
    assert [line.partition(":")[0] for line in lines] == [
        "train.epoch (--set)",
        "model.arch (line 2)",
        "optimizer.lr (line 3)",
        "search.sampler (line 4)",
        "space.threshold.uniform (line 6)",
        "export.targets.0.ftp (line 7)",
    ]
    with pytest.raises(ConfigError, match=rf"^{path} with --set train.epoch: 6 problems\n"):
        load_config(path, ["train.epoch=3"])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "the file is empty"),
        ("# only a comment\n", "the file is empty"),
        ("- data\n- model\n", "holds a list"),
        ("synthetic\n", "holds a single value"),
        ("train: {epochs: 3}\nmodel: {}\ntrain: {epochs: 4}\n", ":3: key train stands twice (first on line 1)"),
        ("space:\n  optimizer.lr: 1\n  optimizer.lr: 2\n", ":3: key space.optimizer.lr stands twice (first on line 2)"),
        ("train: {epochs: 3, epochs: 3}\n", ":1: key train.epochs stands twice"),
        ("train:\n\tepochs: 3\n", ":2:1: not valid YAML: a tab in the indentation"),
        ("train: {epochs: 3\n", "not valid YAML: "),
        ("train: [1, 2\nmodel: {}\n", "not valid YAML: "),
        ("train: 'open\n", "not valid YAML: "),
        ("a: 1\n---\nb: 2\n", "not valid YAML: "),
        ("train: !!python/object/apply:os.system ['true']\n", "not valid YAML: could not determine a constructor"),
        ("train: &a [*a]\n", "not valid YAML: an alias on line 1 contains itself"),
        ("train: *nothing\n", "not valid YAML: found undefined alias"),
        ("train: \x01\n", ":1: not valid YAML: control character #x01"),
        ("[" * 2000, "not valid YAML: "),
    ],
)
def test_a_file_that_is_no_map_says_so_in_one_line_with_its_place(tmp_path: Path, text: str, message: str) -> None:
    path = write(tmp_path, text)
    with pytest.raises(ConfigError, match=r".") as caught:
        load_config(path)
    assert message in str(caught.value)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


def test_a_missing_file_names_its_neighbours(tmp_path: Path) -> None:
    write(tmp_path, GOOD, "attention.yaml")
    write(tmp_path, GOOD, "full.yaml")
    with pytest.raises(ConfigError, match=r"no such config file; did you mean .*attention\.yaml\? \(there are: .*full"):
        load_config(tmp_path / "atention.yml")
    with pytest.raises(ConfigError, match=r"no such config file; did you mean .*full\.yaml"):
        load_config(tmp_path / "full")
    with pytest.raises(ConfigError, match=r"is a folder; name a config file .*attention\.yaml"):
        load_config(tmp_path)
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(ConfigError, match=r"no such config file \(.*empty holds no \.yaml file\)"):
        load_config(empty / "x.yaml")


def test_a_file_in_another_encoding_is_refused_and_a_bom_is_not(tmp_path: Path) -> None:
    path = tmp_path / "latin.yaml"
    path.write_bytes("name: größe".encode("latin-1"))
    with pytest.raises(ConfigError, match=r"not UTF-8 text \(byte 8\)"):
        load_config(path)
    path.write_bytes(b"\xef\xbb\xbf" + GOOD.encode())
    assert load_config(path).data.root == "synthetic"


@pytest.mark.parametrize(
    "key", ["token", "api_key", "apikey", "password", "yadisk_token", "WANDB_API_KEY", "secret", "oauth"]
)
def test_a_secret_is_refused_and_never_repeated(tmp_path: Path, key: str) -> None:
    secret = "y0_AgAAAABkQ3hVeryPrivate"
    path = write(tmp_path, f"tracking:\n  wandb:\n    {key}: {secret}\n    mode: online\n")
    (line,) = problems(path)
    assert line.startswith(f"tracking.wandb.{key} (line 3): a config holds no secret")
    assert "WANDB_API_KEY" in line
    assert "YADISK_TOKEN" in line
    assert secret not in line
    for override in (f"{key}={secret}", f"tracking.wandb.{key}={secret}", f"export.targets=[{{{key}: {secret}}}]"):
        with pytest.raises(ConfigError, match="holds no secret") as caught:
            load_config(write(tmp_path, GOOD), [override])
        assert secret not in str(caught.value)


def test_a_token_in_the_wrong_place_is_not_echoed(tmp_path: Path) -> None:
    token = "0123456789abcdef0123456789abcdef01234567"
    for override in (f"tracking.wandb={token}", f"export.targets={token}", f"train.epochs={token}", token):
        with pytest.raises(ConfigError, match="problem") as caught:
            load_config(write(tmp_path, GOOD), [override])
        assert token not in str(caught.value)


def test_overrides(tmp_path: Path) -> None:
    path = write(tmp_path, GOOD + "optimizer: {lr: 1e-4}\nthreshold: 0.3\n")
    config = load_config(
        path,
        [
            "optimizer.lr=3e-4",
            "optimizer.lr=5e-4",
            "threshold=auto",
            "resources.gpus_per_trial=0",
            "tracking.wandb.tags=[a, b]",
            "tracking.wandb.group=null",
            "data.group_by=^(.*)_\\d+$",
            "data.root=images #1: horses",
            "name=2024",
            "export.targets=[{local: out}]",
            "train.compile=yes",
        ],
    )
    assert config.optimizer.lr == 5e-4
    assert config.threshold == "auto"
    assert config.resources.gpus_per_trial == 0
    assert config.tracking.wandb.tags == ("a", "b")
    assert config.tracking.wandb.group is None
    assert config.data.group_by == "^(.*)_\\d+$"
    assert config.data.root == "images #1: horses"
    assert config.name == "2024"
    assert config.export.targets == (TargetSpec(local="out"),)
    assert config.train.compile is True
    assert load_config(path).optimizer.lr == 1e-4


def test_overrides_of_the_space(tmp_path: Path) -> None:
    text = """
space:
  optimizer: {lr: {loguniform: [1e-5, 1e-2]}}
  lr_scheduler:
    choice:
      plateau: {patience: {int: [1, 5]}}
      cosine: {warmup_epochs: {int: [0, 3]}}
  model.encoder: {choice: {timm:resnet50.a1_in1k: {}, timm:resnet18: {}}}
"""
    path = write(tmp_path, text)
    model = ["model.encoder=timm:resnet18"]
    assert list(load_config(path, model).space) == ["optimizer.lr", "lr_scheduler", "model.encoder"]

    changed = load_config(path, [*model, "space.optimizer.lr={uniform: [0.1, 1e-0]}"]).space
    assert changed["optimizer.lr"] == {"uniform": [0.1, 1.0]}
    changed = load_config(path, [*model, "space.optimizer.lr.loguniform=[1e-4, 1e-3]"]).space
    assert changed["optimizer.lr"] == {"loguniform": [1e-4, 1e-3]}
    assert "optimizer.lr" not in load_config(path, [*model, "space.optimizer.lr=null"]).space
    assert "loss.dice" not in load_config(path, [*model, "space.loss.dice=null"]).space
    assert load_config(path, ["space=null"]).space == {}
    assert load_config(path, [*model, "space.threshold={uniform: [0.1, 0.9]}"]).space["threshold"] == {
        "uniform": [0.1, 0.9]
    }

    branches = load_config(
        path,
        [
            *model,
            "space.lr_scheduler.choice.plateau.patience={int: [2, 9]}",
            "space.lr_scheduler.choice.onecycle.pct_start={uniform: [0.1, 0.5]}",
            "space.lr_scheduler.choice.cosine=null",
            "space.model.encoder.choice.timm:resnet50.a1_in1k.encoder_lr_factor=null",
            "space.model.encoder.choice.timm:resnet50.a1_in1k.model.dropout=0.5",
        ],
    ).space  # fmt: skip
    assert branches["lr_scheduler"] == {
        "choice": {"plateau": {"patience": {"int": [2, 9]}}, "onecycle": {"pct_start": {"uniform": [0.1, 0.5]}}}
    }
    assert branches["model.encoder"]["choice"]["timm:resnet50.a1_in1k"] == {"model.dropout": 0.5}


def test_scalars_are_those_of_yaml_1_2(tmp_path: Path) -> None:
    text = """
name: 2024-01-01
optimizer: {lr: 1e-4, weight_decay: 1_0.5e-3}
train: {epochs: 010, batch_size: 1e1, compile: on}
tracking: {wandb: {project: 12:30, group: no}}
space: {loss.dice: {uniform: [1e-1, 9e-1]}}
"""
    config = load_config(write(tmp_path, text))
    assert config.name == "2024-01-01"
    assert (config.optimizer.lr, config.optimizer.weight_decay) == (1e-4, 0.0105)
    assert (config.train.epochs, config.train.batch_size, config.train.compile) == (10, 10, True)
    assert (config.tracking.wandb.project, config.tracking.wandb.group) == ("12:30", "no")
    assert config.space["loss.dice"] == {"uniform": [0.1, 0.9]}


def test_sections_left_empty_take_their_defaults(tmp_path: Path) -> None:
    config = load_config(
        write(tmp_path, "data:\nspace:\nexport: {targets: }\nsearch: {scheduler: }\ntracking:\n  wandb:\n")
    )
    assert config == SearchConfig(name="run")


def test_anchors_and_merges_work(tmp_path: Path) -> None:
    text = "model: &m {arch: unet, depth: 3}\nspace: {model.depth: &r {int: [2, 4]}, model.base_channels: *r}\nloss: {<<: {bce: 2}, dice: 1}\n"
    config = load_config(write(tmp_path, text))
    assert config.loss.bce == 2
    assert config.space["model.base_channels"] == {"int": [2, 4]}


@pytest.mark.parametrize(
    ("file", "name"),
    [("attention.yaml", "attention"), ("My run (2).yaml", "My-run-2"), ("ü.yaml", "search"), (".x.yml", "x")],
)
def test_the_name_defaults_to_the_files(tmp_path: Path, file: str, name: str) -> None:
    assert load_config(write(tmp_path, GOOD, file)).name == name


def test_the_mode_follows_the_metric(tmp_path: Path) -> None:
    assert load_config(write(tmp_path, "search: {metric: val/loss}")).search.mode == "min"
    assert load_config(write(tmp_path, "search: {metric: val/dice}")).search.mode == "max"


def test_a_grace_period_that_nobody_set_gives_way_to_a_short_training(tmp_path: Path) -> None:
    assert load_config(write(tmp_path, GOOD), ["train.epochs=1"]).search.scheduler.grace_period == 1
    assert load_config(write(tmp_path, GOOD), ["train.epochs=9"]).search.scheduler.grace_period == 2


def test_a_loss_that_is_searched_cannot_judge(tmp_path: Path) -> None:
    text = "search: {metric: val/loss}\nspace: {loss.dice: {uniform: [0, 1]}}\n"
    (line,) = problems(write(tmp_path, text))
    assert line.startswith(
        "search.metric (line 1): val/loss cannot rank trials whose loss itself is searched (loss.dice)"
    )


def test_the_tree_is_that_of_a_training_run() -> None:
    for key, field in TrainConfig.model_fields.items():
        assert SearchConfig.model_fields[key].annotation == field.annotation
        assert SearchConfig.model_fields[key].default == field.default
        assert SearchConfig.model_fields[key].description == field.description


def test_the_training_part(tmp_path: Path) -> None:
    config = load_config(write(tmp_path, "threshold: 0.25\nmodel: {depth: 3}\n"))
    train = config.train_config()
    assert isinstance(train, TrainConfig)
    assert (train.threshold, train.model.depth, train.train) == (0.25, 3, config.train)


def test_a_dumped_config_reads_back_the_same(tmp_path: Path) -> None:
    text = """
name: "007"
optimizer: {lr: 1e-4}
data: {image_size: [64, 96], group_by: "a: b"}
model: {decoder_channels: [64, 32, 16, 8]}
space: {lr_scheduler: {choice: {plateau: {patience: {int: [1, 5]}}, constant: }}, model.decoder_channels: {choice: [[8, 8, 8, 8], null]}}
export: {targets: [{local: out}, {yandex_disk: /a/b}, {wandb_artifact: c}]}
tracking: {wandb: {tags: ["1", "on", "1e3"]}}
"""
    config = load_config(write(tmp_path, text))
    again = load_config(write(tmp_path, dump_config(config), "other.yaml"))
    assert again == config
    assert [(target.kind, target.location) for target in again.export.targets] == [
        ("local", "out"),
        ("yandex_disk", "/a/b"),
        ("wandb_artifact", "c"),
    ]


def test_reading_a_config_imports_neither_torch_nor_ray() -> None:
    code = "import sys, search.config.load, search.space.parse; print([m for m in ('torch', 'ray', 'wandb', 'timm', 'optuna') if m in sys.modules])"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "[]"
