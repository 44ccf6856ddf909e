"""Masks that are NumPy arrays in `.npy` files, as images."""

from pathlib import Path

import numpy as np
from PIL import Image

ARRAY_SUFFIX = ".npy"


def array_image(path: Path) -> Image.Image:
    """A 2-D array of bool, integers or floats as an image, its values unchanged; arrays of objects are never loaded.

    Raises:
        ValueError: It is not such an array, or is cut off.
    """
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError) as error:
        has_objects = "object" in str(error).lower()
        what = "an array of Python objects, which are not loaded" if has_objects else f"a broken array ({error})"
        raise ValueError(f"{what}; save the mask as a 2-D array of bool or integers") from error
    flat = array[..., 0] if array.ndim == 3 and array.shape[2] == 1 else array
    if flat.ndim != 2 or flat.size == 0 or flat.dtype.kind not in "buif":
        shape = "x".join(map(str, array.shape)) or "no axes"
        raise ValueError(f"an array of {shape} {array.dtype}; a mask is a 2-D array of bool or integers")
    values = np.ascontiguousarray(flat)
    if values.dtype.kind == "f":
        return Image.fromarray(values.astype(np.float32))
    if values.dtype.kind == "b" or values.dtype == np.uint8:
        return Image.fromarray(values)
    lowest, highest = int(values.min()), int(values.max())
    if lowest < -(2**31) or highest >= 2**31:
        raise ValueError(f"values from {lowest} to {highest} exceed 32 bits; save the mask with 0 and 1")
    return Image.fromarray(values.astype(np.int32))
