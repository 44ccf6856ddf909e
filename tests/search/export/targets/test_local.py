import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from search.errors import ExportError
from search.export.files import digest_of
from search.export.targets.local import LocalTarget
from segcore.sealed.card import verify_bundle

NAMES = ["card.json", "model.safetensors"]


def files_of(folder: Path) -> dict[str, Path]:
    return {name: folder / name for name in NAMES}


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_copies(seal: Callable[..., Path], tmp_path: Path) -> None:
    best, out = seal(), tmp_path / "some" / "deep" / "folder"
    seen: list[tuple[str, int, int]] = []
    receipt = LocalTarget(str(out)).upload(files_of(best), progress=lambda *step: seen.append(step))
    assert content(out) == content(best)
    verify_bundle(out)
    assert receipt.files == {name: digest_of(best / name) for name in NAMES}
    assert receipt.url == out.as_uri()
    assert ("model.safetensors", 300_000, 300_000) in seen
    assert [path.name for path in out.parent.iterdir()] == ["folder"], "no temporary folder is left"


def test_home_and_relative(seal: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    best = seal()
    LocalTarget("~/a").upload(files_of(best))
    LocalTarget("b/c").upload(files_of(best))
    assert content(tmp_path / "a") == content(tmp_path / "b" / "c") == content(best)


def test_replaces_a_sealed_model_and_an_empty_folder(seal: Callable[..., Path], tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / ".DS_Store").write_bytes(b"litter")
    first, second = seal("first"), seal("second", seed=1)
    (first / "model.onnx").write_bytes(b"onnx")
    LocalTarget(str(out)).upload({**files_of(first), "model.onnx": first / "model.onnx"})
    assert content(out) == content(first)
    LocalTarget(str(out)).upload(files_of(second))
    assert content(out) == content(second), "no file of the earlier model is left"


def test_through_a_link(seal: Callable[..., Path], tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    best = seal()
    LocalTarget(str(tmp_path / "link")).upload(files_of(best))
    assert (tmp_path / "link").is_symlink()
    assert content(tmp_path / "real") == content(best)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["thesis.tex"], r"neither empty nor a sealed model \(no card.json in it; it holds thesis.tex\)"),
        (["a", "b", "c", "d", "e"], "it holds a, b, c and 2 more"),
        (["card.json", "thesis.tex"], "holds thesis.tex beside a sealed model"),
    ],
)
def test_keeps_what_is_not_ours(names: list[str], message: str, seal: Callable[..., Path], tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    for name in names:
        (out / name).write_text("precious", encoding="utf-8")
    with pytest.raises(ExportError, match=message):
        LocalTarget(str(out)).upload(files_of(seal()))
    with pytest.raises(ExportError, match=message):
        LocalTarget(str(out)).check()
    assert content(out) == dict.fromkeys(names, b"precious")


def test_a_file_in_the_way(seal: Callable[..., Path], tmp_path: Path) -> None:
    (tmp_path / "out").write_bytes(b"mine")
    best = seal()
    with pytest.raises(ExportError, match="is a file; name a folder"):
        LocalTarget(str(tmp_path / "out")).upload(files_of(best))
    with pytest.raises(ExportError, match="out is a file, so no folder can be made there"):
        LocalTarget(str(tmp_path / "out" / "below")).check()
    with pytest.raises(ExportError, match="could not be written"):
        LocalTarget(str(tmp_path / "out" / "below")).upload(files_of(best))
    assert (tmp_path / "out").read_bytes() == b"mine"


def test_onto_itself(seal: Callable[..., Path]) -> None:
    best = seal()
    before = content(best)
    with pytest.raises(ExportError, match="is where the sealed model itself lies"):
        LocalTarget(str(best)).upload(files_of(best))
    assert content(best) == before


def test_empty_location() -> None:
    with pytest.raises(ExportError, match="a location is the path of a folder"):
        LocalTarget(" ")


def test_failure_keeps_the_old_copy(seal: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "x" / "out"
    old, new = seal("old"), seal("new", seed=1)
    LocalTarget(str(out)).upload(files_of(old))
    (new / "model.safetensors").unlink()
    with pytest.raises(ExportError, match=r"could not be written: .*model\.safetensors"):
        LocalTarget(str(out)).upload(files_of(new))
    assert content(out) == content(old)
    assert [path.name for path in out.parent.iterdir()] == ["out"]


def test_failed_rename_puts_the_old_copy_back(
    seal: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "x" / "out"
    old, new = seal("old"), seal("new", seed=1)
    LocalTarget(str(out)).upload(files_of(old))
    rename = Path.rename

    def refuse(self: Path, target: Path) -> Path:
        if self.name.endswith(".tmp"):
            raise PermissionError(13, "refused", str(target))
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", refuse)
    with pytest.raises(ExportError, match=r"could not be written: .*refused"):
        LocalTarget(str(out)).upload(files_of(new))
    assert content(out) == content(old)
    assert [path.name for path in out.parent.iterdir()] == ["out"]


def test_full_disk(seal: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ExportError, match="No space left on device; free some space"):
        LocalTarget(str(tmp_path / "x" / "out")).upload(files_of(seal()))
    assert not list((tmp_path / "x").iterdir())


def test_altered_copy_is_refused(seal: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that keeps other bytes than it was given."""
    best = seal()
    fsync = os.fsync

    def damage(descriptor: int) -> None:
        os.pwrite(descriptor, b"\x00damaged", 0)
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", damage)
    with pytest.raises(ExportError, match=r"the copy of model\.safetensors at .* differs from the original"):
        LocalTarget(str(tmp_path / "x" / "out")).upload(files_of(best))
    assert not list((tmp_path / "x").iterdir())


def test_mount_point_is_filled_in_place(
    seal: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A container's mounted folder cannot be renamed."""
    out = tmp_path / "out"
    out.mkdir()
    monkeypatch.setattr(os.path, "ismount", lambda path: Path(path) == out)
    first, second = seal("first"), seal("second", seed=1)
    (first / "model.onnx").write_bytes(b"onnx")
    inode = out.stat().st_ino
    LocalTarget(str(out)).upload({**files_of(first), "model.onnx": first / "model.onnx"})
    LocalTarget(str(out)).upload(files_of(second))
    assert content(out) == content(second)
    assert out.stat().st_ino == inode


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_no_permission(tmp_path: Path) -> None:
    locked = tmp_path / "locked"
    locked.mkdir(mode=0o500)
    with pytest.raises(ExportError, match="no permission to write in"):
        LocalTarget(str(locked / "out")).check()
