# ruff: noqa: E501
"""The proof that a run is what its config says: every kind of setting, altered after it was built, is caught and named."""

import copy
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from places import ROOT
from torch import nn

from search.config.load import load_config
from search.space.parse import apply, parse_space
from segcore.applied.verify import read_applied, verify_applied
from segcore.config import TrainConfig
from segcore.data.augment.device import build_device_augmentation
from segcore.data.loader import Loader, build_loader
from segcore.data.pairs.discovery import discover
from segcore.data.pixels.cache import build_cache
from segcore.data.pixels.cache_file import SampleCache, open_cache
from segcore.errors import AppliedConfigError, TrainingError
from segcore.losses.mix import build_loss
from segcore.losses.terms.dice import dice_loss
from segcore.models.blocks import AttentionGate, ConvBlock
from segcore.training import loop as training
from segcore.training.groups import build_optimizer
from segcore.training.loop import build_train_loader, fit
from segcore.training.schedule import build_lr_scheduler
from segcore.training.step import TrainStep, build_ema, build_step

CPU = torch.device("cpu")
BASE: dict[str, Any] = {
    "data": {"root": "synthetic", "image_size": 32, "synthetic": {"num_images": 48}},
    "model": {"base_channels": 4, "depth": 2},
    "train": {"epochs": 4, "batch_size": 4},
}


def changed(config: TrainConfig, flat: dict[str, Any]) -> TrainConfig:
    return apply(config, flat)


def config_of(**flat: Any) -> TrainConfig:
    """`BASE` with keys replaced, `__` for the dot."""
    return changed(TrainConfig.model_validate(copy.deepcopy(BASE)), {k.replace("__", "."): v for k, v in flat.items()})


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SampleCache]:
    data = config_of(data__cache_dir=str(tmp_path_factory.mktemp("cache"))).data
    with open_cache(build_cache(discover(data), data)) as opened:
        yield opened


@dataclass
class Live:
    """A run that is about to begin."""

    config: TrainConfig
    step: TrainStep
    train_loader: Loader
    val_loader: Loader
    hw: tuple[int, int]

    @property
    def model(self) -> Any:
        return self.step.model

    def verify(self) -> dict[str, Any]:
        return verify_applied(self.config, self.step, self.train_loader, self.val_loader, self.hw, False)


def built(config: TrainConfig, cache: SampleCache, device: torch.device = CPU) -> Live:
    train_loader = build_train_loader(config, cache, 1, device)
    val_loader = build_loader(
        cache, "val", batch_size=config.train.batch_size, augment=None, shuffle=False, drop_last=False,
        seed=config.train.seed, num_workers=0, pin_memory=False,
    )  # fmt: skip
    with torch.device(device):
        step = build_step(config, device, steps_per_epoch=len(train_loader), load_pretrained=False)
    return Live(config, step, train_loader, val_loader, config.data.image_hw)


def in_group(key: str, value: Any, group: int = -1) -> Callable[[Live], None]:
    def alter(live: Live) -> None:
        live.step.optimizer.param_groups[group][key] = value

    return alter


def other_step(**attributes: Any) -> Callable[[Live], None]:
    def alter(live: Live) -> None:
        for name, value in attributes.items():
            setattr(live.step, name, value)

    return alter


def other_optimizer(**flat: Any) -> Callable[[Live], None]:
    def alter(live: Live) -> None:
        wrong = changed(live.config, {k.replace("__", "."): v for k, v in flat.items()})
        live.step.optimizer = build_optimizer(live.model, wrong.optimizer)
        live.step.lr_schedule = build_lr_scheduler(
            live.step.optimizer, live.config.lr_scheduler, live.config.train.epochs, len(live.train_loader)
        )

    return alter


def other_schedule(epochs: int = 4, **flat: Any) -> Callable[[Live], None]:
    def alter(live: Live) -> None:
        wrong = changed(live.config, {f"lr_scheduler.{key}": value for key, value in flat.items()}).lr_scheduler
        optimizer = live.step.optimizer
        live.step.lr_schedule = build_lr_scheduler(optimizer, wrong, epochs, len(live.train_loader))

    return alter


def other_loss(**flat: Any) -> Callable[[Live], None]:
    def alter(live: Live) -> None:
        live.step.loss_fn = build_loss(live.config.loss.model_copy(update=flat))

    return alter


def other_model(**flat: Any) -> Callable[[Live], None]:
    """The model of another config, trained by an optimizer of its own, as a builder that mixes two configs up would."""

    def alter(live: Live) -> None:
        wrong = changed(live.config, {f"model.{key}": value for key, value in flat.items()})
        step = build_step(wrong, CPU, steps_per_epoch=len(live.train_loader))
        live.step = step

    return alter


def other_loader(split: str = "train", **flat: Any) -> Callable[[Live], None]:
    def alter(live: Live) -> None:
        wrong = changed(live.config, {k.replace("__", "."): v for k, v in flat.items()})
        cache = live.train_loader.dataset.cache
        if split == "val":
            live.val_loader.dataset.augment_config = wrong.augment
        else:
            live.train_loader = build_train_loader(wrong, cache, 1, CPU)

    return alter


def without_gates(live: Live) -> None:
    for stage in live.model.decoder.stages:
        stage.gate = None


def without_smooth(live: Live) -> None:
    loss: Any = live.step.loss_fn
    loss.losses["dice"] = dice_loss  # forgets what it was given


def no_dropout(live: Live) -> None:
    live.model.dropout.p = 0.0


def wider_last_stage(live: Live) -> None:
    live.model.decoder.stages[-1].block = ConvBlock(12, 16)


def unfrozen(live: Live) -> None:
    live.model.unfreeze_encoder()


def forgotten_parameter(live: Live) -> None:
    del live.step.optimizer.param_groups[-2]["params"][0]


def other_ema(live: Live) -> None:
    live.step.ema = build_ema(live.model, 0.9)


def reseeded(live: Live) -> None:
    torch.manual_seed(99)


def flips_only(live: Live) -> None:
    live.step.augment = build_device_augmentation(live.config.augment.model_copy(update={"policy": "flip"}))


TIMM = {"model__encoder": "timm:resnet10t"}
MISMATCHES: list[tuple[str, dict[str, Any], Callable[[Live], None], str]] = [
    ("learning rate of a group", {}, in_group("peak_lr", 0.01), r"optimizer\.lr, peak of decoder/no_decay: .* 0\.001, .* 0\.01"),
    ("learning rate in force", {}, in_group("lr", 0.01), r"lr_scheduler, share of the peak now"),
    ("optimizer", {}, other_optimizer(optimizer__name="sgd"), r"optimizer\.name: .* AdamW, .* SGD"),
    ("weight decay", {}, in_group("weight_decay", 0.0, 0), r"optimizer\.weight_decay, of encoder/decay: .* 0\.01, .* has 0$"),
    ("decay of norms", {}, in_group("weight_decay", 0.01), r"optimizer\.weight_decay, of decoder/no_decay: .* 0, .* 0\.01"),
    ("momentum", {"optimizer__name": "sgd"}, in_group("momentum", 0.5), r"optimizer\.momentum, of .*0\.9, nesterov.*0\.5"),
    ("Nesterov", {"optimizer__name": "sgd"}, in_group("nesterov", False), r"optimizer\.momentum, .*nesterov.*plain"),
    ("betas", {}, in_group("betas", (0.8, 0.999)), r"optimizer\.momentum, of .*0\.9, 0\.999.*0\.8, 0\.999"),
    ("epsilon", {}, in_group("eps", 0.1, 0), r"^optimizer, three steps of encoder/decay: the config asks for \["),
    ("encoder's learning rate", {**TIMM, "optimizer__encoder_lr_factor": 0.1}, other_optimizer(optimizer__encoder_lr_factor=1.0),
     r"optimizer\.encoder_lr_factor, peak of encoder/decay: .* 0\.0001, .* 0\.001"),
    ("encoder not frozen", {**TIMM, "optimizer__encoder_lr_factor": 0.0}, unfrozen, r"optimizer\.encoder_lr_factor, encoder frozen: .* True, .* False"),
    ("a parameter left out", {}, forgotten_parameter, r"optimizer, parameters by group"),
    ("schedule", {}, other_schedule(name="polynomial"), r"lr_scheduler, share of the peak over the run"),
    ("warm-up", {}, other_schedule(warmup_epochs=0), r"lr_scheduler, share of the peak over the run: .* \[0\.125.*\[1"),
    ("floor", {}, other_schedule(min_lr_factor=0.5), r"lr_scheduler, share of the peak over the run"),
    ("onecycle's peak", {"lr_scheduler__name": "onecycle"}, other_schedule(pct_start=0.5), r"lr_scheduler, share of the peak over"),
    ("power", {"lr_scheduler__name": "polynomial"}, other_schedule(power=1.0), r"lr_scheduler, share of the peak over"),
    ("patience", {"lr_scheduler__name": "plateau"}, other_schedule(patience=3), r"lr_scheduler\.patience: .* 2, .* 3"),
    ("factor", {"lr_scheduler__name": "plateau"}, other_schedule(factor=0.5), r"lr_scheduler\.factor: .* 0\.1, .* 0\.5"),
    ("plateau's floor", {"lr_scheduler__name": "plateau"}, other_schedule(min_lr_factor=0.05), r"lr_scheduler\.min_lr_factor, of plateau"),
    ("length of the run", {}, other_schedule(epochs=8), r"train\.epochs: .* 4, .* 8"),
    ("loss weight", {}, other_loss(dice=0.5), r"loss\.dice, weight: .* 1, .* 0\.5"),
    ("loss term left out", {}, other_loss(dice=0.0), r"loss\.dice, weight: .* 1, .* nothing"),
    ("loss term added", {}, other_loss(lovasz=1.0), r"loss\.lovasz, weight: .* nothing, .* 1"),
    ("weight of foreground", {"loss__bce_pos_weight": 3.0}, other_loss(bce_pos_weight=1.0), r"loss, bce: "),
    ("smooth ignored", {"loss__smooth": 5.0}, without_smooth, r"loss, dice: "),
    ("focal's gamma", {"loss__focal": 1.0}, other_loss(focal_gamma=1.0), r"loss, focal: "),
    ("focal's alpha", {"loss__focal": 1.0}, other_loss(focal_alpha=0.75), r"loss, focal: "),
    ("tversky's alpha", {"loss__tversky": 1.0}, other_loss(tversky_alpha=0.7), r"loss, tversky: "),
    ("tversky's beta", {"loss__tversky": 1.0}, other_loss(tversky_beta=0.7), r"loss, tversky: "),
    ("a loss of another kind", {}, other_step(loss_fn=nn.BCEWithLogitsLoss()), r"loss, in all"),
    ("dropout", {"model__dropout": 0.3}, no_dropout, r"model\.dropout: .* 0\.3, .* has 0"),
    ("attention gates", {"model__arch": "attention_unet"}, without_gates, r"model\.arch, attention gates: .* 2, .* has 0.*model, parameters"),
    ("blocks", {"model__arch": "residual_unet"}, other_model(arch="unet"), r"model\.arch: .* ResidualBlock, .* ConvBlock"),
    ("decoder's widths", {}, wider_last_stage, r"model\.decoder_channels: .* \[8, 4\], .* \[8, 16\]"),
    ("width", {}, other_model(base_channels=8), r"model\.base_channels: .* 4, .* 8"),
    ("depth", {}, other_model(depth=3), r"model\.depth: .* 2, .* 3"),
    ("encoder", TIMM, other_model(encoder="timm:resnet14t"), r"model\.encoder: .*resnet10t, .*resnet14t"),
    ("augmentation's policy", {}, other_loader(augment__policy="medium"), r"augment\.policy: .* light, .* medium"),
    ("no augmentation", {}, other_loader(augment__policy="none"), r"augment\.policy: .* light, .* none"),
    ("augmentation's chance", {}, other_loader(augment__probability=0.9), r"augment\.probability: .* 0\.5, .* 0\.89"),
    ("rotation", {}, other_loader(augment__rotate=5.0), r"augment\.rotate: .* 15, .* has 4\.9"),
    ("zoom", {}, other_loader(augment__scale=0.4), r"augment\.scale: .* 0\.2, .* 0\.39"),
    ("colour", {}, other_loader(augment__color=0.0), r"augment\.color: .* 0\.2, .* has 0"),
    ("upside down", {"augment__vertical_flip": True}, other_loader(augment__vertical_flip=False), r"augment\.vertical_flip: .* True, .* False"),
    ("augmentation of validation", {}, other_loader("val"), r"augment, of validation: .* none, .* some"),
    ("the device's policy", {"train__augment_on": "device"}, flips_only, r"augment\.policy, on the device: .* flip, affine, contrast, .* has flip"),
    ("nothing done on the device", {"train__augment_on": "device"}, other_step(augment=None), r"augment\.policy, on the device: .* has nothing"),
    ("clipping", {}, other_step(grad_clip=0.0), r"train\.grad_clip: .* 1, .* has 0"),
    ("averaging", {"train__ema_decay": 0.99}, other_step(ema=None), r"train\.ema_decay: .* 0\.99, .* has 0"),
    ("another average", {"train__ema_decay": 0.99}, other_ema, r"train\.ema_decay: .* 0\.99, .* 0\.9"),
    ("batch size", {}, other_loader(train__batch_size=8), r"train\.batch_size: .* 4, .* 8"),
    ("micro batch", {"train__micro_batch_size": 2}, other_step(micro_batch_size=None), r"train\.micro_batch_size: .* 2, .* nothing"),
    ("precision", {"train__precision": "fp32"}, other_step(precision=torch.bfloat16), r"train\.precision: .* float32, .* bfloat16"),
    ("seed of the weights", {}, reseeded, r"train\.seed, of the weights: .* 0, .* 99"),
    ("seed of the samples", {}, other_loader(train__seed=5), r"train\.seed, of the samples: .* 0, .* 5"),
    ("image size", {}, lambda live: setattr(live, "hw", (64, 64)), r"data\.image_size: .* \[32, 32\], .* \[64, 64\]"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("flat", "alter", "message"), [row[1:] for row in MISMATCHES], ids=[row[0] for row in MISMATCHES]
)
def test_what_was_altered_after_it_was_built_is_caught_and_named(
    cache: SampleCache, flat: dict[str, Any], alter: Callable[[Live], None], message: str
) -> None:
    live = built(config_of(**flat), cache)
    live.verify()
    alter(live)
    with pytest.raises(AppliedConfigError, match=message) as caught:
        live.verify()
    assert "\n" not in str(caught.value)
    assert isinstance(caught.value, TrainingError)


def test_each_kind_of_setting_is_among_the_mismatches() -> None:
    named = " ".join(row[3].replace("\\", "") for row in MISMATCHES)
    keys = set(re.findall(r"\b(?:optimizer|lr_scheduler|loss|model|augment|train|data)\.\w+", named))
    assert len(keys) >= 15
    assert {key.partition(".")[0] for key in keys} >= {"optimizer", "lr_scheduler", "loss", "model", "augment", "train"}


def test_a_threshold_that_is_ignored_is_caught_in_the_first_epoch(
    cache: SampleCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = training.score
    monkeypatch.setattr(training, "score", lambda evaluation, threshold: real(evaluation, 0.5))
    with pytest.raises(AppliedConfigError, match=r"threshold: the config asks for 0\.3, .* scored at 0\.5"):
        next(fit(config_of(threshold=0.3), cache, device=CPU))
    monkeypatch.setattr(
        training, "score", lambda evaluation, threshold: {**real(evaluation, 0.5), "val/threshold": 0.5}
    )
    with pytest.raises(AppliedConfigError, match="threshold: the config asks for auto"):
        next(fit(config_of(), cache, device=CPU))


def test_a_schedule_that_nobody_steps_is_caught_in_the_first_epoch(
    cache: SampleCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("segcore.training.schedule.LRSchedule.step", lambda self: None)
    with pytest.raises(AppliedConfigError, match="lr_scheduler: after 8 steps"):
        next(fit(config_of(), cache, device=CPU))


def test_a_builder_that_drops_a_setting_fails_the_run_before_its_first_step(
    cache: SampleCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("segcore.training.step.build_ema", lambda model, decay: None)
    monkeypatch.setattr(training, "train_one_epoch", lambda *arguments: pytest.fail("a step was taken"))
    with pytest.raises(AppliedConfigError, match=r"train\.ema_decay"):
        next(fit(config_of(train__ema_decay=0.9), cache, device=CPU))


def points() -> list[Any]:
    """The own values of every config we ship, and 50 random points of the space that has every axis; 10 are quick."""
    found = []
    for path in sorted((ROOT / "configs").glob("*.yaml")):
        config = load_config(path)
        base = config.train_config()
        found.append(pytest.param(base, {}, id=path.stem))
        if path.stem == "full":
            space, rng = parse_space(config.space, base), np.random.default_rng(0)
            for number in range(50):
                marks = pytest.mark.slow if number >= 10 else ()
                found.append(pytest.param(base, space.sample_uniform(rng), id=f"full-{number}", marks=marks))
    return found


@pytest.mark.slow
@pytest.mark.parametrize(("base", "flat"), points())
def test_nothing_is_found_wrong_with_what_the_builders_build(
    cache: SampleCache, base: TrainConfig, flat: dict[str, Any]
) -> None:
    """On the meta device, so that a ResNet50 costs nothing."""
    config = changed(base, {**flat, "data.image_size": 32})
    assert built(config, cache, torch.device("meta")).verify()


def test_reading_leaves_everything_as_it_was(cache: SampleCache) -> None:
    live = built(config_of(train__ema_decay=0.9, lr_scheduler__name="plateau"), cache)
    step = live.step
    before = copy.deepcopy((step.lr_schedule.state_dict(), step.optimizer.state_dict(), step.ema.state_dict()))  # type: ignore[union-attr]
    drawn = torch.get_rng_state()
    live.verify()
    after = (step.lr_schedule.state_dict(), step.optimizer.state_dict(), step.ema.state_dict())  # type: ignore[union-attr]
    assert before[:2] == after[:2]
    assert all(torch.equal(before[2][name], after[2][name]) for name in before[2])
    assert torch.equal(drawn, torch.get_rng_state())


def test_a_run_goes_on_from_a_checkpoint_without_being_found_wrong(cache: SampleCache, tmp_path: Path) -> None:
    from segcore.checkpoint.state import read_checkpoint, save_checkpoint

    run = config_of(lr_scheduler__name="plateau", lr_scheduler__patience=0, train__ema_decay=0.9, optimizer__lr=1e-9)
    first = next(fit(run, cache, device=CPU))
    save_checkpoint(tmp_path / "one", first.state)
    rest = list(fit(run, cache, device=CPU, checkpoint=read_checkpoint(tmp_path / "one")))
    assert [result.epoch for result in rest] == [2, 3, 4]
    assert first.applied is not None
    assert first.applied["model.base_channels"] == 4
    assert [result.applied is None for result in rest] == [False, True, True]


def test_the_attention_gates_of_a_pretrained_encoder_are_counted(cache: SampleCache) -> None:
    live = built(config_of(**TIMM, model__arch="residual_attention_unet"), cache)
    facts = read_applied(live.step, live.train_loader, live.val_loader, live.hw, False)
    gates = sum(isinstance(module, AttentionGate) for module in live.model.modules())
    assert facts["model.arch, attention gates"] == gates == len(live.model.encoder.reductions) - 1


def test_it_costs_a_trial_little(cache: SampleCache) -> None:
    live = built(config_of(), cache)
    live.verify()
    started = time.process_time()
    for _ in range(5):
        live.verify()
    assert (time.process_time() - started) / 5 < 0.1
