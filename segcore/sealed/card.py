"""The card of a sealed model and the hashes of its files; without torch, so that `ls` and `export` start at once."""

import hashlib
import json
import os
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from segcore.errors import BundleError

FORMAT = 1
WEIGHTS_FILE = "model.safetensors"
CARD_FILE = "card.json"
VERSIONED_PACKAGES = ("segsearch", "torch", "timm", "numpy", "pillow", "albumentations", "ray", "optuna")


def update_card(folder: Path, changes: dict[str, Any]) -> None:
    """Adds to a sealed model's card, for example its scores; the weights stay as they are."""
    card = read_card(folder)
    temporary = folder / f".{CARD_FILE}.tmp"
    temporary.write_text(json.dumps({**card, **changes}, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    os.replace(temporary, folder / CARD_FILE)


def read_card(folder: Path) -> dict[str, Any]:
    """Reads the card alone.

    Raises:
        BundleError: There is none, or it is of a format that this version does not know.
    """
    path = folder / CARD_FILE
    try:
        card = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise BundleError(f"{folder} is no sealed model: it has no {CARD_FILE}") from error
    except (OSError, ValueError) as error:
        raise BundleError(f"{path} cannot be read: {error}") from error
    if not isinstance(card, dict) or card.get("format") != FORMAT:
        found = card.get("format") if isinstance(card, dict) else type(card).__name__
        raise BundleError(f"{path}: format {found!r} is not one that this version reads ({FORMAT})")
    return card


def verify_bundle(folder: Path) -> dict[str, Any]:
    """Checks every file's size and sha256 against the card, and returns the card.

    Raises:
        BundleError: A file is missing or altered, or the card does not vouch for the weights.
    """
    card = read_card(folder)
    try:
        hashes = {name: str(entry["sha256"]) for name, entry in card["files"].items()}
        _ = hashes[WEIGHTS_FILE]
    except (AttributeError, KeyError, TypeError) as error:
        raise BundleError(
            f"{folder / CARD_FILE} has no sha256 of {WEIGHTS_FILE}, so the weights cannot be checked"
        ) from error
    for name, expected in hashes.items():
        path = folder / name
        if not path.is_file():
            raise BundleError(f"{folder}: {name} is missing; the model is incomplete")
        found = sha256(path)
        if found != expected:
            raise BundleError(
                f"{path} was altered or is damaged: its sha256 is {found[:12]}..., the card says {expected[:12]}..."
            )
    return card


def sha256(path: Path) -> str:
    """Hex digest of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def installed_versions() -> dict[str, str]:
    """Versions of the packages that a result may depend on."""
    versions = {}
    for name in VERSIONED_PACKAGES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    return versions
