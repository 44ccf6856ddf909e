import pytest
import torch
from torch import nn

from segcore.models.blocks import (
    AttentionGate,
    ConvBlock,
    ResidualBlock,
    initialize,
)


@pytest.mark.parametrize("block", [ConvBlock, ResidualBlock])
def test_blocks_keep_the_resolution_and_end_in_relu(block):
    output = block(3, 5)(torch.randn(2, 3, 7, 9))
    assert output.shape == (2, 5, 7, 9)
    assert output.min() >= 0


def test_residual_block_is_the_identity_on_nonnegative_input_when_its_branch_is_zero():
    block = ResidualBlock(4, 4)
    nn.init.zeros_(block.norm2.weight)
    x = torch.rand(2, 4, 5, 5)
    assert torch.equal(block(x), x)


def test_gate_coefficients_by_hand():
    gate = AttentionGate(skip_channels=1, gating_channels=1)
    for parameter in gate.parameters():
        nn.init.zeros_(parameter)
    # One inner channel in use: relu(mean-like sum of the 2x2 patch + gating), times 1, minus 3.
    gate.reduce_skip.weight.data[0] = 1.0
    gate.project_gating.weight.data[0] = 2.0
    gate.psi.weight.data[0, 0] = 1.0
    gate.psi.bias.data[0] = -3.0
    skip = torch.tensor([[[[0.0, 1.0], [1.0, 0.0]]]])
    gating = torch.tensor([[[[0.5]]]])
    # relu(0 + 1 + 1 + 0 + 2 * 0.5) - 3 = 0, and sigmoid(0) = 0.5 everywhere.
    assert torch.allclose(gate.coefficients(skip, gating), torch.full((1, 1, 2, 2), 0.5))
    assert torch.allclose(gate(skip, gating), skip * 0.5)


def test_gate_coefficients_lie_strictly_between_0_and_1_and_start_nearly_open():
    torch.manual_seed(0)
    gate = AttentionGate(6, 10)
    initialize(gate)
    coefficients = gate.coefficients(torch.randn(2, 6, 8, 8), torch.randn(2, 10, 4, 4))
    assert coefficients.shape == (2, 1, 8, 8)
    assert coefficients.min() > 0
    assert coefficients.max() < 1
    assert coefficients.mean().item() == pytest.approx(0.88, abs=0.02)


def test_initialize_gives_relu_layers_unit_gain_and_zero_biases():
    torch.manual_seed(0)
    conv = nn.Conv2d(32, 64, 3)
    norm = nn.BatchNorm2d(4)
    nn.init.zeros_(norm.weight)
    initialize(nn.Sequential(conv, norm))
    assert conv.weight.std().item() == pytest.approx((2 / (64 * 9)) ** 0.5, rel=0.05)
    assert conv.bias.abs().max() == 0
    assert norm.weight.min() == 1
