"""Writing tensors as `.safetensors` with the folder's usual file permissions.

Layer 0.
"""

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor


def save_tensors(weights: Mapping[str, Tensor], path: Path) -> None:
    """Write a `.safetensors` file with the mode of any new file in the folder; the library itself would use 0600.

    Args:
        weights: Tensors by name.
        path: A file that does not exist yet.
    """
    from safetensors.torch import save_file

    path.touch()  # the only thread-safe way to learn the umask and the folder's default permissions
    mode = path.stat().st_mode & 0o777
    save_file(dict(weights), path, metadata={"format": "pt"})
    path.chmod(mode)
