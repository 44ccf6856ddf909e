"""Writes a trial's checkpoints: one at a time, complete or absent, their tensors while validation runs."""

import json
import shutil
import time
from collections import deque
from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

import torch
from safetensors import SafetensorError

from segcore.checkpoint.files import BEST_FILE, delete_checkpoint, folder_bytes
from segcore.checkpoint.state import Tensors, TrainingState, write_progress
from segcore.disk import disk_fault
from segcore.errors import DiskError, TrainingError

STATE_INTERVAL_S = 30.0
"""A trial that found no better epoch still saves its state this often, so that a resume repeats little."""

_NUM_RECENT = 4


class CheckpointWriter:
    """Decides which epochs are saved, and saves them as `checkpoint_NNNNNN`, the epoch's number.

    Call `begin` when an epoch's training steps are done, `end` when it is validated, and `reported` when its report has
    arrived. After `end`, a saved checkpoint is in place and may be reported. Saved are the best epochs so far, those of
    `save_at`, and one at least every `STATE_INTERVAL_S` seconds.

    Tensors do not change between `begin` and `end`, so a thread writes them meanwhile if the epoch will certainly be
    saved, or if most of the last few epochs were the best so far; else `end` writes them. Until a report has arrived,
    the previous checkpoint is kept: a resume may have to make that report again.

    Use it as a context manager: on exit, even after an error, no thread runs and no incomplete file is left.

    Args:
        folder: The trial's own folder.
        save_at: Epochs that are always saved, whatever their metric.
        older: The trial's earlier checkpoints, to be deleted when there is a newer one.
        resumed_from: The checkpoint in `older` that training resumes from; its best epoch's files are linked, not
            written again.
    """

    def __init__(
        self,
        folder: Path,
        *,
        save_at: Collection[int] = (),
        older: Sequence[Path] = (),
        resumed_from: Path | None = None,
    ) -> None:
        self._folder = folder
        self._certain = frozenset(save_at)
        self._superseded = list(older)
        self._newest = resumed_from
        self._own: Path | None = None
        self._is_certain = False
        self._recent: deque[bool] = deque(maxlen=_NUM_RECENT)
        self._saved_at = time.monotonic()
        self._pending: tuple[Path, Future[None]] | None = None
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="checkpoint")
        self.num_bytes = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._thread.shutdown(wait=True)
        for path in self._folder.glob(".checkpoint_*"):
            shutil.rmtree(path, ignore_errors=True)

    def begin(self, state: TrainingState) -> None:
        """Start an epoch's checkpoint after its training steps; write its tensors now if it will likely be saved."""
        is_due = time.monotonic() - self._saved_at >= STATE_INTERVAL_S
        self._is_certain = state.best is None or state.epoch in self._certain or is_due
        if self._is_certain or 2 * sum(self._recent) > len(self._recent):
            self._start(state)

    def end(self, state: TrainingState, *, is_best: bool) -> None:
        """Put the epoch's checkpoint in place, or discard what was written of it.

        Raises:
            DiskError: There is no room for it, or the disk is at fault; the earlier one is kept.
            TrainingError: It cannot be written for another reason; the earlier one is kept.
        """
        self._recent.append(is_best)
        if not (is_best or self._is_certain):
            if self._pending is not None:
                self._thread.submit(shutil.rmtree, self._pending[0], ignore_errors=True)
                self._pending = None
            return
        if self._pending is None:
            self._start(state)
        assert self._pending is not None
        (beside, written), self._pending = self._pending, None
        place = self._folder / f"checkpoint_{state.epoch:06d}"
        try:
            written.result()
            write_progress(beside, state, self._previous(state))
            beside.rename(place)
        except (OSError, RuntimeError, SafetensorError) as error:
            shutil.rmtree(beside, ignore_errors=True)
            fault, why = disk_fault(error), str(error).partition("\n")[0]
            said = f"epoch {state.epoch}: its checkpoint cannot be written to {place}: {why}"
            if fault is not None:
                raise DiskError(said) from error
            raise TrainingError(said) from error
        if self._own is not None:
            self._superseded.append(self._own)
        self._newest = self._own = place
        self._saved_at = time.monotonic()
        self.num_bytes = folder_bytes([place])

    def reported(self) -> None:
        """Note that the last epoch's report has arrived: checkpoints before the newest are deleted."""
        if self._own is None:
            return
        for path in self._superseded:
            self._thread.submit(delete_checkpoint, path)
        self._superseded.clear()

    def _start(self, state: TrainingState) -> None:
        beside = self._folder / f".checkpoint_{state.epoch:06d}"
        device = next(state.model.parameters()).device
        trained = torch.cuda.current_stream(device).record_event() if device.type == "cuda" else None
        self._pending = beside, self._thread.submit(_write_tensors, Tensors.of(state), beside, device, trained)

    def _previous(self, state: TrainingState) -> Path | None:
        """The newest checkpoint, if it holds the same best epoch as the state does."""
        if self._newest is None or state.best is None:
            return None
        try:
            record = json.loads((self._newest / BEST_FILE).read_text())
        except (OSError, ValueError):
            return None
        return self._newest if record["epoch"] == state.best.epoch else None


def _write_tensors(tensors: Tensors, folder: Path, device: torch.device, trained: torch.cuda.Event | None) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    with _own_stream(device, trained):
        tensors.write(folder)


@contextmanager
def _own_stream(device: torch.device, trained: torch.cuda.Event | None) -> Iterator[None]:
    """Copy a GPU's tensors on an own stream, in parallel to validation, once the training steps are done."""
    if trained is None:
        yield
        return
    stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
    with torch.cuda.stream(stream):
        stream.wait_event(trained)
        yield
