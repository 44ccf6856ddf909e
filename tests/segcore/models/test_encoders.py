import functools
import http.server
import re
import threading
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from segcore.errors import ConfigError
from segcore.models.blocks import ConvBlock
from segcore.models.encoders import PlainEncoder, build_timm_encoder

SMALL = "mobilenetv3_small_050"


def test_plain_encoder_doubles_channels_and_halves_resolution():
    encoder = PlainEncoder(3, base_channels=4, depth=3, block=ConvBlock)
    shapes = [tuple(f.shape) for f in encoder(torch.randn(1, 3, 32, 16))]
    assert shapes == [(1, 4, 32, 16), (1, 8, 16, 8), (1, 16, 8, 4), (1, 32, 4, 2)]
    assert encoder.reductions == (1, 2, 4, 8)
    assert encoder.mean == encoder.std == (0.5, 0.5, 0.5)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "reductions", "mean_of_red"),
    [
        ("resnet18", (2, 4, 8, 16, 32), 0.485),
        ("tf_efficientnet_lite0", (2, 4, 8, 16, 32), 0.5),
        (SMALL, (2, 4, 8, 16, 32), 0.485),
        ("convnext_atto", (4, 8, 16, 32), 0.485),  # stem of stride 4
        ("vit_tiny_patch16_224", (16,), 0.5),  # one resolution only, fixed size by default
    ],
)
def test_timm_encoder_gives_the_features_it_announces(name, reductions, mean_of_red):
    encoder = build_timm_encoder(name, "none").eval()
    features = encoder(torch.randn(1, 3, 64, 96))
    assert encoder.reductions == reductions
    assert encoder.mean[0] == mean_of_red
    expected = [(1, c, 64 // r, 96 // r) for c, r in zip(encoder.channels, reductions, strict=True)]
    assert [tuple(f.shape) for f in features] == expected


@pytest.mark.slow
def test_features_with_channels_last_are_turned():
    encoder = build_timm_encoder("swin_tiny_patch4_window7_224", "none").eval()
    # 96 channels and 96 columns: only the layout found at construction can tell them apart.
    assert encoder(torch.randn(1, 3, 64, 384))[0].shape == (1, 96, 16, 96)


@pytest.mark.slow
def test_strided_pointwise_stem_convolution_keeps_its_numbers():
    import timm

    torch.manual_seed(0)
    plain = timm.create_model("mobileone_s0", features_only=True)
    encoder = build_timm_encoder("mobileone_s0", "none")
    encoder.backbone.load_state_dict(plain.state_dict())
    image = torch.randn(2, 3, 64, 64)
    # The stem's output, in training mode; deeper ones amplify rounding.
    assert torch.allclose(encoder(image)[0], plain(image)[0], atol=1e-4)
    assert not any(
        isinstance(m, torch.nn.Conv2d) and m.kernel_size == (1, 1) and m.stride != (1, 1) and m.in_channels < 16
        for m in encoder.modules()
    )


def test_local_weights_are_loaded_with_their_normalisation(lite0_weights):
    loaded = build_timm_encoder("tf_efficientnet_lite0", str(lite0_weights))
    stored = load_file(lite0_weights)
    state = loaded.backbone.state_dict()
    assert len(state) > 200
    assert all(torch.equal(state[name], stored[name]) for name in state)
    assert loaded.mean == loaded.std == (0.5, 0.5, 0.5)
    random = build_timm_encoder("tf_efficientnet_lite0", "none")
    image = torch.rand(1, 3, 64, 64)
    assert not torch.allclose(loaded.eval()(image)[-1], random.eval()(image)[-1], atol=0.1)


def test_weights_of_a_whole_classifier_fit_a_renamed_feature_extractor(tmp_path):
    import timm

    whole = timm.create_model("convnext_atto")  # its feature extractor says stages_0 for stages.0
    save_file(whole.state_dict(), tmp_path / "convnext.safetensors")
    encoder = build_timm_encoder("convnext_atto", str(tmp_path / "convnext.safetensors"))
    assert torch.equal(encoder.backbone.state_dict()["stem_0.weight"], whole.state_dict()["stem.0.weight"])


def test_weights_of_another_model_are_refused(lite0_weights):
    message = r"model\.encoder_weights: .*lite0\.safetensors' does not hold the weights of timm:mobilenetv3_small_050"
    with pytest.raises(ConfigError, match=message):
        build_timm_encoder(SMALL, str(lite0_weights))


def test_one_missing_and_one_misshapen_tensor_are_named(tmp_path):
    state = dict(build_timm_encoder(SMALL, "none").backbone.state_dict())
    del state["conv_stem.weight"]
    state["bn1.bias"] = torch.zeros(3)
    save_file(state, tmp_path / "wrong.safetensors")
    with pytest.raises(
        ConfigError, match=r"1 of \d+ tensors are missing, such as conv_stem\.weight; 1 have another"
    ) as e:
        build_timm_encoder(SMALL, str(tmp_path / "wrong.safetensors"))
    assert "bn1.bias (3,) instead of (16,)" in str(e.value)


def test_missing_weights_file_is_named():
    with pytest.raises(ConfigError, match=r"model\.encoder_weights: no file '/nowhere/w\.safetensors'"):
        build_timm_encoder(SMALL, "/nowhere/w.safetensors")


def test_a_file_that_is_no_safetensors_file_is_refused(tmp_path):
    torch.save({"a": torch.zeros(2)}, tmp_path / "weights.pth")
    with pytest.raises(ConfigError, match=r"weights\.pth' is not a readable \.safetensors file"):
        build_timm_encoder(SMALL, str(tmp_path / "weights.pth"))


def test_unknown_name_lists_the_nearest():
    with pytest.raises(ConfigError, match=r"model\.encoder: timm has no model 'resnet5O'; nearest: .*timm:resnet50"):
        build_timm_encoder("resnet5O", "none")


def test_unknown_pretrained_tag_is_named():
    with pytest.raises(ConfigError, match=r"model\.encoder: .*Invalid pretrained tag \(nope\)"):
        build_timm_encoder("resnet18.nope", "none")


def test_reductions_that_are_no_powers_of_two_are_refused():
    with pytest.raises(ConfigError, match=r"timm:vit_tiny_patch14|reduces its input by \[14, 14, 14\]"):
        build_timm_encoder("vit_small_patch14_dinov2", "none")


def test_models_of_one_fixed_size_are_refused():
    with pytest.raises(ConfigError, match=r"timm:mixer_s32_224 does not take images of any size"):
        build_timm_encoder("mixer_s32_224", "none")


class _Hub(http.server.SimpleHTTPRequestHandler):
    """Answers like the model hub for the one file in its folder, and 404 for everything else."""

    protocol_version = "HTTP/1.1"

    def _file(self) -> Path | None:
        match = re.fullmatch(r"/timm/mobilenetv3_small_050\.[^/]+/resolve/main/(.+)", self.path)
        path = Path(self.directory) / match[1] if match else None
        return path if path and path.is_file() else None

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def _answer(self, with_body: bool) -> None:
        path = self._file()
        body = path.read_bytes() if path else b""
        self.send_response(200 if path else 404)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("ETag", '"0123456789abcdef"')
        self.send_header("X-Repo-Commit", "0" * 40)
        self.end_headers()
        if with_body:
            self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A folder served as timm's hub, with a fresh download cache."""
    from huggingface_hub import constants

    folder = tmp_path / "hub"
    folder.mkdir()
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(_Hub, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    endpoint = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setattr(constants, "ENDPOINT", endpoint)
    template = endpoint + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub_cache"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    yield folder
    server.shutdown()
    server.server_close()


def test_hub_weights_arrive_and_are_used_again_without_the_hub(hub):
    import timm

    state = timm.create_model(SMALL).state_dict()
    save_file(state, hub / "model.safetensors")
    first = build_timm_encoder(SMALL, "imagenet")
    assert torch.equal(first.backbone.state_dict()["conv_stem.weight"], state["conv_stem.weight"])
    (hub / "model.safetensors").unlink()
    again = build_timm_encoder(SMALL, "imagenet")
    assert torch.equal(again.backbone.state_dict()["conv_stem.weight"], state["conv_stem.weight"])


def test_a_hub_without_the_weights_is_one_clear_error(hub):
    with pytest.raises(ConfigError, match=r"model\.encoder_weights: no pretrained weights of timm:mobilenetv3_small"):
        build_timm_encoder(SMALL, "imagenet")
