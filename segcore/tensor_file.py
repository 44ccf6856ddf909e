"""Writing tensors as `.safetensors`, readable for whoever may read the other files of the folder.

Layer 0.
"""

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor


def save_tensors(weights: Mapping[str, Tensor], path: Path) -> None:
    """Writes a `.safetensors` file with the mode that any new file gets here; the library itself makes it 0600.

    Args:
        weights: Tensors by name.
        path: A file that is not there yet.
    """
    from safetensors.torch import save_file

    path.touch()  # the one way to learn the umask, and what the folder adds to it, that no other thread notices
    mode = path.stat().st_mode & 0o777
    save_file(dict(weights), path, metadata={"format": "pt"})
    path.chmod(mode)
