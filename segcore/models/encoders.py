"""Encoders: the plain convolutional one, and any timm model with feature maps.

An encoder returns its features finest first. Its attributes are their `channels`, their `reductions` (image side over
feature side, increasing powers of two), the normalisation `mean` and `std` of its input in units of 0..1, and
`is_timm`.
"""

import difflib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segcore.errors import ConfigError
from segcore.models.blocks import BlockFactory, initialize
from segcore.models.hub import hub_file

TIMM_PREFIX = "timm:"

_SIZE_OPTIONS: tuple[dict[str, bool], ...] = ({}, {"dynamic_img_size": True}, {"strict_img_size": False})
"""Options that make timm's model families accept any input size, in the order tried."""


class PlainEncoder(nn.Module):
    """Blocks with 2x2 max pooling between them; channels double at each of `depth` stages.

    Features have reductions 1, 2, 4, ..., 2**depth. Input is normalised with mean and std 0.5.
    """

    def __init__(self, in_channels: int, base_channels: int, depth: int, block: BlockFactory) -> None:
        super().__init__()
        self.channels: tuple[int, ...] = tuple(base_channels * 2**level for level in range(depth + 1))
        self.reductions: tuple[int, ...] = tuple(2**level for level in range(depth + 1))
        self.mean = (0.5, 0.5, 0.5)
        self.std = (0.5, 0.5, 0.5)
        self.is_timm = False
        self.stages = nn.ModuleList(
            block(before, after) for before, after in zip((in_channels, *self.channels), self.channels, strict=False)
        )
        initialize(self)

    def forward(self, x: Tensor) -> list[Tensor]:
        """Map a normalised `(N, 3, H, W)` to the features `(N, channels[i], H / reductions[i], W / ...)`."""
        features: list[Tensor] = []
        for level, stage in enumerate(self.stages):
            x = stage(F.max_pool2d(x, 2) if level else x)
            features.append(x)
        return features


class TimmEncoder(nn.Module):
    """A timm model in its `features_only` form, with NHWC features permuted and repeated reductions dropped."""

    def __init__(
        self,
        backbone: nn.Module,
        *,
        levels: Sequence[int],
        channels: Sequence[int],
        reductions: Sequence[int],
        is_channels_last_output: bool,
        mean: tuple[float, float, float],
        std: tuple[float, float, float],
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.channels: tuple[int, ...] = tuple(channels)
        self.reductions: tuple[int, ...] = tuple(reductions)
        self.mean = mean
        self.std = std
        self.is_timm = True
        self._levels = tuple(levels)
        self._is_nhwc = is_channels_last_output

    def forward(self, x: Tensor) -> list[Tensor]:
        """Map a normalised `(N, 3, H, W)` to the features `(N, channels[i], H / reductions[i], W / ...)`."""
        features = self.backbone(x)
        if self._is_nhwc:
            return [features[level].permute(0, 3, 1, 2) for level in self._levels]
        return [features[level] for level in self._levels]


def build_encoder(config: Any, block: BlockFactory, load_pretrained: bool = True) -> PlainEncoder | TimmEncoder:
    """Build the encoder of a model section.

    Args:
        config: The model section.
        block: Makes the plain encoder's blocks.
        load_pretrained: Whether to load `encoder_weights`.
    """
    if config.encoder == "none":
        return PlainEncoder(config.in_channels, config.base_channels, config.depth, block)
    return build_timm_encoder(
        config.encoder.removeprefix(TIMM_PREFIX), config.encoder_weights if load_pretrained else "none"
    )


def build_timm_encoder(name: str, weights: str) -> TimmEncoder:
    """Build the timm model `name` as an encoder.

    Args:
        name: A timm model name, with or without a pretrained tag ("resnet50", "resnet50.a1_in1k").
        weights: `none`, `imagenet` (downloaded by timm), or the path of a .safetensors file that holds
            the model's tensors under timm's names; it may hold further tensors.

    Raises:
        ConfigError: The name is unknown, the model has no usable feature maps, or the file is missing,
            is not a safetensors file, or does not hold this model's tensors.
        HubError: `imagenet` weights are neither on this machine nor available from the hub.
    """
    import timm

    if not timm.is_model(name):
        raise ConfigError(_unknown_encoder_message(name))
    backbone, features = _create_for_any_size(name)
    if weights == "imagenet":
        backbone = _create_with_hub_weights(name, backbone)
    elif weights != "none":
        _load_local_weights(backbone, name, Path(weights).expanduser())

    _subsample_before_narrow_pointwise(backbone)
    reductions: list[int] = backbone.feature_info.reduction()
    channels: list[int] = backbone.feature_info.channels()
    # Keep the last (most processed) feature of each reduction, finest first.
    level_of = {reduction: level for level, reduction in enumerate(reductions)}
    levels = [level_of[reduction] for reduction in sorted(level_of)]
    cfg = timm.get_pretrained_cfg(name)
    return TimmEncoder(
        backbone,
        levels=levels,
        channels=[channels[level] for level in levels],
        reductions=[reductions[level] for level in levels],
        is_channels_last_output=_is_nhwc(features, channels),
        mean=_rgb(cfg.mean),
        std=_rgb(cfg.std),
    )


def _create_for_any_size(name: str) -> tuple[Any, list[Tensor]]:
    """Return a randomly initialised backbone that takes any size, and its features of a probe image."""
    import timm

    problem = ""
    for options in _SIZE_OPTIONS:
        try:
            backbone = timm.create_model(name, features_only=True, pretrained=False, **options)
        except TypeError:
            continue  # this family does not know the option
        except (RuntimeError, AttributeError, AssertionError, NotImplementedError, ValueError) as error:
            raise ConfigError(
                f"model.encoder: timm cannot build {name!r} as a feature extractor: {_first_line(error)}"
            ) from error
        reductions = backbone.feature_info.reduction()
        if any(reduction < 1 or reduction & (reduction - 1) for reduction in reductions):
            raise ConfigError(
                f"model.encoder: timm:{name} reduces its input by {reductions}; "
                "only encoders that reduce by powers of two can feed a U-Net"
            )
        side = 2 * max(reductions)
        try:
            features = _probe(backbone, side)
        except (RuntimeError, AssertionError, ValueError) as error:
            problem = _first_line(error)
            continue
        if not all(side // r in f.shape[1:3] for f, r in zip(features, reductions, strict=True)):
            shapes = [tuple(f.shape[1:]) for f in features]
            problem = f"features of a {side} x {2 * side} px image have shapes {shapes}, not reduced by {reductions}"
            continue
        return backbone, features
    raise ConfigError(f"model.encoder: timm:{name} does not take images of any size ({problem})")


def _subsample_before_narrow_pointwise(backbone: nn.Module) -> None:
    """Make strided 1x1 convolutions of few channels drop pixels first and then run unstrided, with equal results.

    On CPUs with AVX-512 the weight gradient of such a convolution in channels_last (oneDNN, torch 2.15, fewer
    than 16 input channels) writes out of bounds and crashes the process. The stems of MobileOne and FastViT have one.
    """
    for module in backbone.modules():
        if isinstance(module, nn.Conv2d) and module.kernel_size == (1, 1) and module.padding == (0, 0):
            down, across = module.stride
            if max(down, across) > 1 and module.in_channels < 16:
                module.stride = (1, 1)
                module.register_forward_pre_hook(_Subsample(down, across))


class _Subsample:
    """Forward pre-hook that keeps every `down`-th row and every `across`-th column of its `(N, C, H, W)` input."""

    def __init__(self, down: int, across: int) -> None:
        self.down = down
        self.across = across

    def __call__(self, module: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        memory_format = torch.channels_last
        return (args[0][:, :, :: self.down, :: self.across].contiguous(memory_format=memory_format), *args[1:])


def _probe(backbone: nn.Module, side: int) -> list[Tensor]:
    was_training = backbone.training
    backbone.eval()
    with torch.no_grad():
        # Not square, so that NHWC and NCHW features differ in shape.
        features: list[Tensor] = list(backbone(torch.zeros(1, 3, side, 2 * side)))
    backbone.train(was_training)
    return features


def _is_nhwc(features: Sequence[Tensor], channels: Sequence[int]) -> bool:
    """Determine the layout of probe features from their shape: in the probe, width is twice the height."""
    return all(
        f.shape[3] == c and f.shape[2] == 2 * f.shape[1] for f, c in zip(features, channels, strict=True)
    ) and not all(f.shape[1] == c and f.shape[3] == 2 * f.shape[2] for f, c in zip(features, channels, strict=True))


def _create_with_hub_weights(name: str, built: Any) -> Any:
    """Return the backbone with the weights of timm's hub."""
    import timm

    overlay = {"file": hub_file(name, timm.get_pretrained_cfg(name).hf_hub_id)}
    reason = "its weights do not fit"
    for options in _SIZE_OPTIONS:
        try:
            backbone = timm.create_model(
                name, features_only=True, pretrained=True, pretrained_cfg_overlay=overlay, **options
            )
        except TypeError:
            continue  # this family does not know the option
        except RuntimeError as error:
            reason = _first_line(error)
            continue
        if [p.shape for p in backbone.parameters()] == [p.shape for p in built.parameters()]:
            return backbone
    raise ConfigError(
        f"model.encoder_weights: what timm's hub has for timm:{name} is of no use: {reason.rstrip('.')}; "
        "set the path of a .safetensors file, or 'none'"
    )


def _load_local_weights(backbone: nn.Module, name: str, path: Path) -> None:
    """Load every tensor of the backbone from `path`, or raise without having changed any."""
    from safetensors import SafetensorError, safe_open

    key = "model.encoder_weights"
    if not path.is_file():
        raise ConfigError(
            f"{key}: no file {str(path)!r} (looked in {str(Path.cwd())!r}); give 'none', 'imagenet', "
            "or the path of a .safetensors file"
        )
    try:
        with safe_open(path, framework="pt") as file:
            stored = {_plain_name(stored_name): stored_name for stored_name in file.keys()}  # noqa: SIM118
            expected = backbone.state_dict()
            state: dict[str, Tensor] = {}
            missing: list[str] = []
            mismatched: list[str] = []
            for tensor_name, tensor in expected.items():
                stored_name = stored.get(_plain_name(tensor_name))
                if stored_name is None:
                    if tensor_name.endswith("num_batches_tracked"):
                        state[tensor_name] = tensor
                    else:
                        missing.append(tensor_name)
                    continue
                shape = tuple(file.get_slice(stored_name).get_shape())
                if shape != tuple(tensor.shape):
                    mismatched.append(f"{tensor_name} {shape} instead of {tuple(tensor.shape)}")
                    continue
                state[tensor_name] = file.get_tensor(stored_name)
    except (SafetensorError, OSError) as error:
        raise ConfigError(f"{key}: {str(path)!r} is not a readable .safetensors file ({error})") from error
    if missing or mismatched:
        parts = []
        if missing:
            parts.append(f"{len(missing)} of {len(expected)} tensors are missing, such as {', '.join(missing[:3])}")
        if mismatched:
            parts.append(f"{len(mismatched)} have another shape, such as {'; '.join(mismatched[:3])}")
        raise ConfigError(f"{key}: {str(path)!r} does not hold the weights of timm:{name}: {'; '.join(parts)}")
    backbone.load_state_dict(state, strict=True)


def _plain_name(tensor_name: str) -> str:
    """Undo the renaming of timm's feature wrappers: a prefix `model.`, and `stages_0` for `stages.0`."""
    return tensor_name.removeprefix("model.").replace("_", ".")


def _unknown_encoder_message(name: str) -> str:
    import timm

    names = timm.list_models()
    base = name.split(".")[0]
    close = difflib.get_close_matches(base, names, n=5, cutoff=0.5)
    hint = f"; nearest: {', '.join(TIMM_PREFIX + near for near in close)}" if close else ""
    return f"model.encoder: timm has no model {name!r}{hint} (`none` is the plain encoder)"


def _first_line(error: Exception) -> str:
    """Return the first line of an error's message, or its type where it has none."""
    return str(error).strip().partition("\n")[0] or type(error).__name__


def _rgb(values: Sequence[float]) -> tuple[float, float, float]:
    red, green, blue = (float(value) for value in values)
    return red, green, blue
