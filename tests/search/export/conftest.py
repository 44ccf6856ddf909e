"""A small sealed model, and a Yandex Disk that the client library is pointed at."""

import hashlib
import json
import random
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yadisk
from servers.yandex_disk import TOKEN, YandexDiskServer

from search.export.backoff import Backoff

SealModel = Callable[..., Path]


@pytest.fixture
def seal(tmp_path: Path) -> SealModel:
    """Writes a folder that hashes like a sealed model; `seed` changes its weights."""

    def write(name: str = "best", seed: int = 0, size: int = 300_000) -> Path:
        folder = tmp_path / name
        folder.mkdir(parents=True)
        weights = random.Random(seed).randbytes(size)
        (folder / "model.safetensors").write_bytes(weights)
        files = {"model.safetensors": {"sha256": hashlib.sha256(weights).hexdigest(), "size": size}}
        card = {"format": 1, "seed": seed, "files": files}
        (folder / "card.json").write_text(json.dumps(card), encoding="utf-8")
        return folder

    return write


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Iterator[YandexDiskServer]:
    with YandexDiskServer() as server:
        monkeypatch.setattr(yadisk.settings, "BASE_API_URL", server.url)
        monkeypatch.setenv("YADISK_TOKEN", TOKEN)
        yield server


@pytest.fixture
def waits() -> list[float]:
    """Every wait of `backoff`, in seconds."""
    return []


@pytest.fixture
def backoff(waits: list[float]) -> Backoff:
    """The product's own numbers, without the waiting."""
    return Backoff(sleep=waits.append, jitter=0.0)
