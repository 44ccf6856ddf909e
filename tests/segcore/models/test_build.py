import copy
import itertools

import pytest
import torch
from safetensors.torch import load_file, save_file

from segcore.config import ModelConfig
from segcore.errors import ConfigError
from segcore.models.blocks import AttentionGate, ResidualBlock
from segcore.models.build import build_model
from segcore.models.unet import default_decoder_channels
from segcore.registries import ARCHITECTURES

ENCODERS = ("none", "timm:resnet18", "timm:tf_efficientnet_lite0", "timm:mobilenetv3_small_050")
SMALL = {"base_channels": 4, "depth": 3}

NUM_PARAMETERS = {
    ("unet", "none"): 30_849,
    ("unet", "timm:resnet18"): 14_328_081,
    ("unet", "timm:tf_efficientnet_lite0"): 5_198_033,
    ("unet", "timm:mobilenetv3_small_050"): 2_198_129,
    ("residual_unet", "none"): 32_717,
    ("residual_unet", "timm:resnet18"): 14_591_729,
    ("residual_unet", "timm:tf_efficientnet_lite0"): 5_360_305,
    ("residual_unet", "timm:mobilenetv3_small_050"): 2_325_585,
    ("attention_unet", "none"): 32_244,
    ("attention_unet", "timm:resnet18"): 14_596_885,
    ("attention_unet", "timm:tf_efficientnet_lite0"): 5_253_269,
    ("attention_unet", "timm:mobilenetv3_small_050"): 2_207_677,
    ("residual_attention_unet", "none"): 34_112,
    ("residual_attention_unet", "timm:resnet18"): 14_860_533,
    ("residual_attention_unet", "timm:tf_efficientnet_lite0"): 5_415_541,
    ("residual_attention_unet", "timm:mobilenetv3_small_050"): 2_335_133,
}


def _model(arch="unet", encoder="none", **settings):
    torch.manual_seed(0)
    return build_model(ModelConfig(arch=arch, encoder=encoder, **{**SMALL, **settings}))


def _images(*shape, seed=0):
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


QUICK = [*((arch, "none") for arch in ARCHITECTURES.names), ("attention_unet", "timm:mobilenetv3_small_050")]


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(case, id=" ".join(case), marks=() if case in QUICK else pytest.mark.slow)
        for case in itertools.product(ARCHITECTURES.names, ENCODERS)
    ],
)
def case(request):
    arch, encoder = request.param
    return arch, encoder, _model(arch, encoder)


def test_logits_have_the_size_of_the_images(case):
    _, _, model = case
    for height, width in ((17, 33), (96, 96), (16, 16)):
        logits = model(_images(2, 3, height, width))
        assert logits.shape == (2, 1, height, width)
        assert logits.dtype == torch.float32
        assert logits.isfinite().all()


def test_a_gradient_reaches_every_parameter(case):
    _, _, model = case
    model = copy.deepcopy(model)
    for module in model.modules():  # timm's residual nets start with zeros here, which block the gradient
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.ones_(module.weight)
    logits = model(_images(2, 3, 32, 64))
    (logits * torch.randn(logits.shape, generator=torch.Generator().manual_seed(1))).sum().backward()
    without = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert without == []


def test_number_of_parameters(case):
    arch, encoder, model = case
    assert sum(p.numel() for p in model.parameters()) == NUM_PARAMETERS[arch, encoder]


def test_state_dict_round_trip(case, tmp_path):
    arch, encoder, model = case
    save_file({name: tensor.contiguous() for name, tensor in model.state_dict().items()}, tmp_path / "m.safetensors")
    torch.manual_seed(1)
    other = build_model(ModelConfig(arch=arch, encoder=encoder, **SMALL), load_pretrained=False)
    other.load_state_dict(load_file(tmp_path / "m.safetensors"))
    images = _images(2, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(model.eval()(images), other.eval()(images))
    model.train()


def test_architectures_are_what_their_names_say(case):
    arch, encoder, model = case
    gates = [module for module in model.modules() if isinstance(module, AttentionGate)]
    residual = [module for module in model.modules() if isinstance(module, ResidualBlock)]
    # A gate wherever there is a skip: the last stage over these timm encoders has none.
    num_skips = SMALL["depth"] if encoder == "none" else 4
    assert len(gates) == (num_skips if "attention" in arch else 0)
    assert bool(residual) == ("residual" in arch)


def test_gate_coefficients_of_a_model_lie_between_0_and_1():
    model = _model("attention_unet")
    seen = []
    for module in model.modules():
        if isinstance(module, AttentionGate):
            module.register_forward_pre_hook(lambda gate, args: seen.append(gate.coefficients(*args)))
    model(_images(1, 3, 32, 32))
    assert len(seen) == 3
    assert all(c.min() > 0 and c.max() < 1 for c in seen)


def test_recorded_logits():
    """Fixed weights against recorded numbers: the arithmetic of the forward pass has not changed."""
    model = _model("residual_attention_unet").eval()
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for parameter in model.parameters():
            spread = torch.rand(parameter.shape, generator=generator)
            parameter.copy_(spread * 0.4 - 0.2 if parameter.ndim > 1 else spread + 0.5)
        logits = model(_images(1, 3, 20, 24, seed=3))
    recorded = torch.tensor(
        [
            [1.052903, 1.473743, 1.661174],
            [0.917097, 1.157854, 0.891242],
            [1.010395, 1.125842, 0.925277],
            [0.949684, 1.088761, 1.119312],
        ]
    )
    assert torch.allclose(logits[0, 0, ::6, ::8], recorded, atol=1e-5)


def test_uint8_and_float_images_give_the_same_logits():
    model = _model().eval()
    images = _images(1, 3, 32, 32)
    assert torch.equal(model(images), model(images.float()))


def test_memory_format_of_the_images_does_not_matter():
    model = _model().eval()
    images = _images(2, 3, 32, 32)
    assert torch.allclose(model(images), model(images.contiguous(memory_format=torch.channels_last)), atol=1e-5)


def test_normalisation_is_the_encoders_own():
    lite = _model(encoder="timm:tf_efficientnet_lite0")
    assert lite.mean.flatten().tolist() == lite.std.flatten().tolist() == [0.5, 0.5, 0.5]
    resnet = _model(encoder="timm:resnet18")
    assert resnet.mean.flatten().tolist() == pytest.approx([0.485, 0.456, 0.406])
    assert resnet.std.flatten().tolist() == pytest.approx([0.229, 0.224, 0.225])
    seen = []
    resnet.encoder.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    resnet.eval()(torch.full((1, 3, 32, 32), 255, dtype=torch.uint8))
    expected = [(1 - m) / s for m, s in zip((0.485, 0.456, 0.406), (0.229, 0.224, 0.225), strict=True)]
    assert seen[0][0, :, 0, 0].tolist() == pytest.approx(expected, rel=1e-5)
    assert {"mean", "std"} <= set(resnet.state_dict())


def test_padding_repeats_the_edge_and_is_cropped_again():
    model = _model().eval()
    images = _images(1, 3, 24, 24)
    padded = torch.cat([images, images[:, :, -1:]], dim=2)
    padded = torch.cat([padded, padded[:, :, :, -1:]], dim=3)
    grown = torch.nn.functional.pad(padded.float(), (0, 7, 0, 7), mode="replicate")
    assert torch.allclose(model(padded), model(grown)[:, :, :25, :25], atol=1e-6)


@pytest.mark.parametrize("shape", [(1, 3, 15, 32), (1, 1, 32, 32), (3, 32, 32)])
def test_images_of_another_shape_are_refused(shape):
    with pytest.raises(ValueError, match=r"images must be \(N, 3, H, W\)"):
        _model()(torch.zeros(shape))


def test_dropout_acts_in_training_only():
    model = _model(dropout=0.5, base_channels=16)
    images = _images(1, 3, 32, 32)
    assert not torch.equal(model(images), model(images))
    model.eval()
    assert torch.equal(model(images), model(images))


def test_frozen_encoder_keeps_weights_and_statistics():
    model = _model(encoder="timm:mobilenetv3_small_050")
    model.freeze_encoder()
    model.train()
    before = copy.deepcopy(model.encoder.state_dict())
    model(_images(2, 3, 32, 32)).sum().backward()
    assert all(torch.equal(before[name], tensor) for name, tensor in model.encoder.state_dict().items())
    assert all(p.grad is None for p in model.encoder_parameters())
    assert all(p.grad is not None for p in model.decoder.parameters())
    assert model.decoder.training
    assert not model.encoder.training
    model.unfreeze_encoder()
    assert model.encoder.training
    assert all(p.requires_grad for p in model.parameters())


def test_a_copy_is_equal_and_independent():
    model = _model(encoder="timm:mobilenetv3_small_050").eval()
    twin = copy.deepcopy(model)
    images = _images(1, 3, 32, 32)
    assert torch.equal(model(images), twin(images))
    twin.segmentation_head.bias.data += 1.0
    assert torch.allclose(model(images) + 1.0, twin(images), atol=1e-6)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [({}, 3), ({"encoder": "timm:mobilenetv3_small_050"}, 5), ({"encoder": "timm:convnext_atto"}, 5)],
)
def test_wrong_number_of_decoder_widths_is_refused_with_the_right_one(settings, expected):
    with pytest.raises(
        ConfigError, match=rf"model\.decoder_channels: {expected} widths are needed .* found 2: \[8, 4\]"
    ):
        _model(decoder_channels=(8, 4), **settings)


def test_decoder_widths_of_the_config_are_used():
    model = _model(decoder_channels=(9, 7, 5))
    assert [stage.block.conv2.out_channels for stage in model.decoder.stages] == [9, 7, 5]
    assert model.segmentation_head.in_channels == 5


@pytest.mark.parametrize(
    ("channels", "reductions", "expected"),
    [
        ((64, 256, 512, 1024, 2048), (2, 4, 8, 16, 32), (256, 128, 64, 32, 16)),  # resnet50
        ((16, 24, 40, 112, 320), (2, 4, 8, 16, 32), (256, 128, 64, 32, 16)),  # efficientnet lite0
        ((40, 80, 160, 320), (4, 8, 16, 32), (256, 128, 64, 32, 16)),  # convnext atto
        ((192,), (16,), (128, 64, 32, 16)),  # vit tiny
        ((8, 16, 32), (1, 2, 4), (16, 8)),  # plain: mirrored
    ],
)
def test_default_decoder_widths(channels, reductions, expected):
    assert default_decoder_channels(channels, reductions) == expected


def test_the_homeworks_model_is_one_config():
    model = _model("attention_unet", encoder="timm:resnet50")
    assert sum(isinstance(module, AttentionGate) for module in model.modules()) == 4
    assert model.encoder.channels == (64, 256, 512, 1024, 2048)
    assert model.eval()(_images(1, 3, 32, 32)).shape == (1, 1, 32, 32)


def test_pretrained_weights_are_not_read_when_a_state_dict_follows():
    config = ModelConfig(encoder="timm:mobilenetv3_small_050", encoder_weights="/nowhere.safetensors")
    assert build_model(config, load_pretrained=False).has_timm_encoder
    with pytest.raises(ConfigError, match=r"model\.encoder_weights: no file"):
        build_model(config)
