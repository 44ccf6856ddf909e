import math

import pytest
import torch
import torch.nn.functional as F

from segcore.config import LossConfig
from segcore.losses.mix import build_loss
from segcore.losses.terms.bce import bce_loss
from segcore.losses.terms.dice import dice_loss
from segcore.losses.terms.focal import focal_loss
from segcore.losses.terms.lovasz import lovasz_hinge_loss
from segcore.losses.terms.tversky import tversky_loss
from segcore.registries import LOSSES

LN3 = math.log(3.0)  # sigmoid(LN3) = 3/4, sigmoid(-LN3) = 1/4
LOGITS = torch.tensor([[[[LN3, LN3], [-LN3, -LN3]]]])  # probs 0.75 0.75 0.25 0.25
TARGETS = torch.tensor([[[[1.0, 0.0], [1.0, 0.0]]]])


def _only(name, **settings):
    return build_loss(LossConfig(**{**dict.fromkeys(LOSSES.names, 0.0), name: 1.0}, **settings))


def _certain(targets, strength=50.0):
    """Logits that predict the targets with certainty."""
    return (2.0 * targets - 1.0) * strength


def test_bce_by_hand():
    # Right pixels cost -ln 0.75, wrong ones -ln 0.25.
    assert bce_loss(LOGITS, TARGETS).item() == pytest.approx(-(math.log(0.75) + math.log(0.25)) / 2)


def test_bce_weighs_foreground_pixels():
    weighted = -(3 * math.log(0.75) + 3 * math.log(0.25) + math.log(0.25) + math.log(0.75)) / 4
    assert bce_loss(LOGITS, TARGETS, pos_weight=3.0).item() == pytest.approx(weighted)


def test_dice_by_hand():
    # I = 0.75 + 0.25, sum(p) = 2, sum(t) = 2.
    assert dice_loss(LOGITS, TARGETS, smooth=0.0).item() == pytest.approx(1 - 2 / 4)
    assert dice_loss(LOGITS, TARGETS, smooth=1.0).item() == pytest.approx(1 - 3 / 5)


def test_dice_is_the_mean_over_images_not_pooled():
    empty = torch.zeros_like(TARGETS)
    logits = torch.cat([LOGITS, LOGITS])
    both = dice_loss(logits, torch.cat([TARGETS, empty]), smooth=1.0)
    # The empty image: 1 - 1 / (2 + 1).
    assert both.item() == pytest.approx(((1 - 3 / 5) + (1 - 1 / 3)) / 2)


def test_focal_by_hand():
    # Per pixel alpha_t (1 - p_t)^2 (-ln p_t): fg right, bg wrong, fg wrong, bg right.
    right, wrong = 0.25**2 * -math.log(0.75), 0.75**2 * -math.log(0.25)
    expected = (0.3 * right + 0.7 * wrong + 0.3 * wrong + 0.7 * right) / 4
    assert focal_loss(LOGITS, TARGETS, gamma=2.0, alpha=0.3).item() == pytest.approx(expected, rel=1e-5)


def test_focal_with_gamma_0_and_alpha_half_is_half_of_bce():
    assert focal_loss(LOGITS, TARGETS, gamma=0.0, alpha=0.5).item() == pytest.approx(
        bce_loss(LOGITS, TARGETS).item() / 2
    )


def test_focal_gradient_is_finite_where_the_weight_underflows():
    logits = torch.tensor([[[[200.0, -200.0]]]], requires_grad=True)
    focal_loss(logits, torch.tensor([[[[1.0, 0.0]]]]), gamma=0.5).backward()
    assert logits.grad.isfinite().all()


def test_tversky_by_hand():
    # TP 1, FP 1, FN 1.
    loss = tversky_loss(LOGITS, TARGETS, alpha=0.3, beta=0.9, smooth=0.5)
    assert loss.item() == pytest.approx(1 - 1.5 / (1 + 0.3 + 0.9 + 0.5))


def test_tversky_with_halves_is_dice_with_twice_its_smooth():
    tversky = tversky_loss(LOGITS, TARGETS, alpha=0.5, beta=0.5, smooth=1.0)
    assert tversky.item() == pytest.approx(dice_loss(LOGITS, TARGETS, smooth=2.0).item())


def test_lovasz_by_hand():
    # Hinge errors 1 - z (2t - 1) of three pixels: t=1 z=0.5 -> 0.5; t=0 z=1 -> 2; t=1 z=-0.2 -> 1.2. Sorted with
    # labels: 2 (bg), 1.2 (fg), 0.5 (fg). Jaccard loss of the growing error set, 1 - |P \ M| / |P u M| with |P| = 2:
    # {bg}: 1 - 2/3 = 1/3; {bg, fg}: 1 - 1/3 = 2/3; all: 1. Steps 1/3 each.
    logits = torch.tensor([[[[0.5, 1.0, -0.2]]]])
    targets = torch.tensor([[[[1.0, 0.0, 1.0]]]])
    assert lovasz_hinge_loss(logits, targets).item() == pytest.approx((2 + 1.2 + 0.5) / 3)


def test_lovasz_of_an_empty_mask_is_its_worst_pixels_hinge():
    logits = torch.tensor([[[[-3.0, 0.25, -0.5]]]])
    assert lovasz_hinge_loss(logits, torch.zeros_like(logits)).item() == pytest.approx(1.25)
    assert lovasz_hinge_loss(logits - 5.0, torch.zeros_like(logits)).item() == 0.0


def test_lovasz_extends_the_jaccard_loss():
    """At logits +-1 hinge errors are 0 or 2, so the loss is twice the Jaccard loss of the discrete masks."""
    generator = torch.Generator().manual_seed(0)
    targets = (torch.rand(6, 1, 5, 7, generator=generator) < 0.4).float()
    preds = (torch.rand(6, 1, 5, 7, generator=generator) < 0.5).float()
    intersection = (preds * targets).sum(dim=(1, 2, 3))
    union = ((preds + targets) > 0).float().sum(dim=(1, 2, 3))
    expected = 2 * (1 - intersection / union).mean()
    assert lovasz_hinge_loss(2 * preds - 1, targets).item() == pytest.approx(expected.item(), rel=1e-6)


@pytest.mark.parametrize("name", LOSSES.names)
def test_every_loss_prefers_perfect_to_inverted(name):
    targets = torch.tensor([[[[1.0, 0.0], [0.0, 0.0]]], [[[1.0, 1.0], [0.0, 1.0]]]])
    loss = _only(name)
    perfect, inverted = loss(_certain(targets), targets), loss(-_certain(targets), targets)
    assert perfect.item() == pytest.approx(0.0, abs=1e-6)
    assert inverted > 0.5


@pytest.mark.parametrize("name", LOSSES.names)
@pytest.mark.parametrize("fill", [0.0, 1.0], ids=["empty", "full"])
def test_every_loss_is_0_when_an_empty_or_full_mask_is_predicted(name, fill):
    targets = torch.full((2, 1, 4, 4), fill)
    assert _only(name)(_certain(targets), targets).item() == pytest.approx(0.0, abs=1e-6)
    assert _only(name)(-_certain(targets), targets) > 0.5


@pytest.mark.parametrize("name", ["dice", "tversky"])
def test_without_smooth_an_empty_mask_costs_1_and_has_no_gradient(name):
    logits = torch.full((1, 1, 4, 4), -200.0, requires_grad=True)  # probs underflow to 0
    loss = _only(name, smooth=0.0)(logits, torch.zeros(1, 1, 4, 4))
    loss.backward()
    assert loss.item() == 1.0
    assert logits.grad.abs().max() == 0


@pytest.mark.parametrize("name", LOSSES.names)
@pytest.mark.parametrize("fill", [None, 0.0, 1.0], ids=["mixed", "empty", "full"])
def test_gradients_are_those_of_finite_differences(name, fill):
    generator = torch.Generator().manual_seed(1)
    logits = torch.randn(2, 1, 3, 4, generator=generator, dtype=torch.float64, requires_grad=True)
    targets = (torch.rand(2, 1, 3, 4, generator=generator) < 0.5).double()
    if fill is not None:
        targets.fill_(fill)
    assert torch.autograd.gradcheck(lambda x: LOSSES[name].build.loss(x, targets), (logits,))


@pytest.mark.parametrize("name", LOSSES.names)
def test_nan_logits_give_a_nan_loss(name):
    for position in range(4):
        logits = LOGITS.clone()
        logits.view(-1)[position] = math.nan
        assert _only(name)(logits, TARGETS).isnan()


@pytest.mark.parametrize("name", LOSSES.names)
def test_targets_may_be_bytes_or_booleans(name):
    loss = _only(name)
    assert loss(LOGITS, TARGETS.byte()) == loss(LOGITS, TARGETS.bool()) == loss(LOGITS, TARGETS)


@pytest.mark.parametrize("name", LOSSES.names)
def test_losses_are_float32_under_autocast_and_for_half_logits(name):
    loss = _only(name)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        under_autocast = loss(LOGITS, TARGETS)
    assert under_autocast.dtype == torch.float32
    assert under_autocast == loss(LOGITS, TARGETS)
    half = loss(LOGITS.to(torch.bfloat16), TARGETS)
    assert half.dtype == torch.float32
    assert half == loss(LOGITS.to(torch.bfloat16).float(), TARGETS)


@pytest.mark.parametrize("name", LOSSES.names)
def test_several_classes_are_averaged_as_they_would_be_alone(name):
    loss = _only(name)
    logits, targets = torch.cat([LOGITS, -LOGITS * 0.3], dim=1), torch.cat([TARGETS, 1 - TARGETS], dim=1)
    alone = [loss(logits[:, c : c + 1], targets[:, c : c + 1]).item() for c in range(2)]
    assert loss(logits, targets).item() == pytest.approx(sum(alone) / 2)


def test_the_mix_is_the_weighted_sum_of_its_terms():
    loss = build_loss(LossConfig(bce=0.5, dice=2.0, focal=0.0, tversky=0.25, lovasz=0.0))
    terms = loss.terms(LOGITS, TARGETS)
    assert list(terms) == ["bce", "dice", "tversky"]
    expected = 0.5 * terms["bce"] + 2.0 * terms["dice"] + 0.25 * terms["tversky"]
    assert loss(LOGITS, TARGETS).item() == pytest.approx(expected.item())
    assert terms["dice"].item() == pytest.approx(1 - 3 / 5)


def test_every_setting_of_the_config_reaches_its_loss():
    assert _only("bce", bce_pos_weight=3.0)(LOGITS, TARGETS) == bce_loss(LOGITS, TARGETS, pos_weight=3.0)
    assert _only("dice", smooth=7.0)(LOGITS, TARGETS) == dice_loss(LOGITS, TARGETS, smooth=7.0)
    assert _only("focal", focal_gamma=1.5, focal_alpha=0.9)(LOGITS, TARGETS) == focal_loss(
        LOGITS, TARGETS, gamma=1.5, alpha=0.9
    )
    assert _only("tversky", tversky_alpha=0.1, tversky_beta=0.8, smooth=2.0)(LOGITS, TARGETS) == tversky_loss(
        LOGITS, TARGETS, alpha=0.1, beta=0.8, smooth=2.0
    )


def test_shapes_that_would_broadcast_are_refused():
    with pytest.raises(ValueError, match="one shape"):
        build_loss(LossConfig())(LOGITS, TARGETS[:, 0])


def test_bce_equals_the_plain_formula_on_random_masks():
    generator = torch.Generator().manual_seed(2)
    logits = torch.randn(3, 1, 8, 8, generator=generator)
    targets = (torch.rand(3, 1, 8, 8, generator=generator) < 0.3).float()
    expected = F.binary_cross_entropy(logits.sigmoid(), targets)
    assert bce_loss(logits, targets).item() == pytest.approx(expected.item(), rel=1e-5)
