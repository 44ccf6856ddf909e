"""Small pictures inside the page: an image with layers drawn over it, as the address of a PNG."""

import base64
import io
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image

from segcore.task import Color, Layer

Pixels = npt.NDArray[np.uint8]
"""`(H, W, 3) uint8`."""
_WIDEST = 256


def tinted(image: Pixels, layers: Sequence[Layer]) -> Pixels:
    """The image with each layer's pixels drawn towards its colour, one layer after the other."""
    mixed = image.astype(np.float32)
    for layer in layers:
        mixed[layer.where] = 0.45 * mixed[layer.where] + 0.55 * np.array(layer.color, dtype=np.float32)
    return mixed.round().astype(np.uint8)


def png(array: Pixels) -> str:
    """A picture of at most 256 pixels a side, as a `data:` address."""
    picture = Image.fromarray(array)
    picture.thumbnail((_WIDEST, _WIDEST))
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def css_color(color: Color) -> str:
    """A colour in CSS notation."""
    return "#{:02x}{:02x}{:02x}".format(*color)
