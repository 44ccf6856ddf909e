"""When torch.compile pays: a rule that weighs its warm-up against the steps that are left, by what was measured here.

The first steps of a run are plain ones, and timed. What compiling costs and gains is then taken from the record of
earlier runs of the same model at the same size on the same kind of device; where there is none, from the ratios of
`make bench NAME=compile`. Each compiled run adds to the record. Inductor keeps its kernels on disk beside the data
cache, so the trials of a search, and later searches, share them: the second one to compile a model pays a fraction.

References:
    Ansel et al., PyTorch 2: Faster Machine Learning Through Dynamic Python Bytecode Transformation and Graph
    Compilation, ASPLOS 2024.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import statistics
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from segcore.data.loader import Batch
from segcore.errors import TrainingError
from segcore.training.step import TrainStep

SKIPPED_STEPS = 3
"""Plain steps that are not timed: the first ones allocate memory and choose kernels."""
TIMED_STEPS = 8

MARGIN = 1.25
"""The gain must be that many times the warm-up: steps may be fewer than planned, and compiling loads the machine."""

LAUNCH_S = 6e-5
"""Seconds that a GPU step spends per layer in launching kernels (forward, backward, optimizer: a dozen of 5 us)."""

RECORD_FILE = "compile.json"


@dataclass(frozen=True)
class CompileCosts:
    """What compiling one model takes and gives.

    Attributes:
        cold_s: Seconds of the first compiled step where nothing is on disk.
        warm_s: The same where Inductor's cache has the kernels.
        speedup: Seconds of a plain step over those of a compiled one.
        is_cached: Whether the kernels are on disk.
        is_measured: Whether these are figures of this very model and device, rather than ratios of others.
    """

    cold_s: float
    warm_s: float
    speedup: float
    is_cached: bool = False
    is_measured: bool = False

    @property
    def warm_up_s(self) -> float:
        """Seconds until compiled steps run, as things stand."""
        return self.warm_s if self.is_cached else self.cold_s


@dataclass(frozen=True)
class CompileDecision:
    """Whether to compile, and why, in words."""

    is_on: bool
    reason: str


@dataclass(frozen=True)
class _Estimate:
    """Seconds of the warm-up as a line over the number of layers, and the speed-up."""

    cold: tuple[float, float]
    warm: tuple[float, float]
    speedup: float


_ESTIMATES = {
    "cpu": _Estimate(cold=(41.0, 0.2), warm=(2.6, 0.013), speedup=1.0),  # `make bench NAME=compile`, in bf16
    "cuda": _Estimate(cold=(41.0, 0.2), warm=(2.6, 0.013), speedup=1.3),  # the same; the gain from Ansel et al.
}


def decide(costs: CompileCosts, *, step_s: float, steps_left: int) -> CompileDecision:
    """The rule: compile where the steps left save more than the warm-up takes, with a margin.

    Args:
        costs: What compiling takes and gives.
        step_s: Seconds of a plain step, > 0.
        steps_left: Optimizer steps that are sure to come.
    """
    gain_s = steps_left * step_s * (1.0 - 1.0 / costs.speedup)
    is_on = gain_s > MARGIN * costs.warm_up_s
    known = "measured before" if costs.is_measured else "estimated"
    return CompileDecision(
        is_on,
        f"{'compiling' if is_on else 'not compiling'}: {steps_left} steps of {1000 * step_s:.3g} ms are left, "
        f"{costs.speedup:.2f}x faster compiled would save {gain_s:.3g} s, the warm-up takes {costs.warm_up_s:.3g} s "
        f"({known}, {'cached' if costs.is_cached else 'not cached'})",
    )


class CompileRecord:
    """What compiling cost on this machine, a small JSON file beside Inductor's cache.

    A lost update, when two trials write at once, costs a measurement and nothing else.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / RECORD_FILE

    def costs(self, key: str, num_layers: int, device: torch.device) -> CompileCosts:
        """What is to be expected of a model: its own record, or an estimate from its number of layers."""
        known = self._read().get(key, {})
        estimate = _ESTIMATES.get(device.type, _ESTIMATES["cpu"])
        return CompileCosts(
            cold_s=known.get("cold_s", estimate.cold[0] + estimate.cold[1] * num_layers),
            warm_s=known.get("warm_s", estimate.warm[0] + estimate.warm[1] * num_layers),
            speedup=known.get("speedup", estimate.speedup),
            is_cached="cold_s" in known,
            is_measured="speedup" in known,
        )

    def add(self, key: str, **figures: float) -> None:
        """Adds `cold_s`, `warm_s` or `speedup` of a model to its record."""
        record = self._read()
        record[key] = {**record.get(key, {}), **figures}
        self._path.parent.mkdir(parents=True, exist_ok=True)
        temporary = self._path.with_name(f".{RECORD_FILE}.{os.getpid()}")
        temporary.write_text(json.dumps(record, indent=1))
        os.replace(temporary, self._path)

    def _read(self) -> dict[str, dict[str, float]]:
        try:
            found = json.loads(self._path.read_text())
        except (OSError, ValueError):  # none yet, or one that a crash cut off: then it is measured anew
            return {}
        return found if isinstance(found, dict) else {}


def use_cache(folder: Path) -> None:
    """Lets Inductor keep its kernels in a folder, unless TORCHINDUCTOR_CACHE_DIR already names one."""
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(folder))


def record_key(model: nn.Module, batch: Batch, step: TrainStep) -> str:
    """One name for a model at a size on a kind of device with a version of torch."""
    name = torch.cuda.get_device_name() if step.device.type == "cuda" else f"cpu, {torch.get_num_threads()} threads"
    shape = [*batch.images.shape[1:], step.micro_batch_size or len(batch)]
    text = f"{torch.__version__}|{name}|{step.precision}|{shape}|{model}"
    return hashlib.sha256(text.encode()).hexdigest()[:20]


def num_layers(model: nn.Module) -> int:
    """Modules without children: what compile time and launches grow with."""
    return sum(1 for module in model.modules() if not list(module.children()))


class Compiler:
    """Takes a run's steps; turns them into compiled ones when the rule, or the config, says so.

    Args:
        step: The step; its `model` is replaced when compiling begins.
        mode: True compiles at the first step, or fails; "auto" follows the rule, and a compiler that does not work
            on this machine is a note; False never does.
        steps_left: Optimizer steps that are sure to come.
        folder: Where Inductor's cache and the record of costs are.
    """

    def __init__(self, step: TrainStep, *, mode: bool | Literal["auto"], steps_left: int, folder: Path) -> None:
        self._step = step
        self._model = step.model
        self._mode = mode
        self._steps_left = steps_left
        self._record = CompileRecord(folder)
        self._folder = folder
        self._times: list[float] = []
        self._plain_step_s = 0.0
        self._is_measuring = mode == "auto"
        self.decision: CompileDecision | None = None

    @property
    def is_compiled(self) -> bool:
        """Whether the steps to come are compiled ones."""
        return self._step.model is not self._model

    def __call__(self, batch: Batch) -> Tensor:
        """Takes one step; those few that the rule needs are timed, and waited for."""
        if self._mode is True and self.decision is None:
            self.decision = CompileDecision(True, "compiling: train.compile is true")
            try:
                self.compile(batch)
            except Exception as error:
                raise TrainingError(
                    f"train.compile is true, but the compiler failed: {_first_line(error)}; valid: auto, false"
                ) from error
        if not self._is_measuring:
            return self._step(batch)
        started = self._now()
        loss = self._step(batch)
        self._times.append(self._now() - started)
        self._steps_left -= 1
        if len(self._times) == SKIPPED_STEPS + TIMED_STEPS:
            median = statistics.median(self._times[SKIPPED_STEPS:])
            self._times.clear()
            self._is_measuring = not self.is_compiled and self._decide(batch, median)
            if self.is_compiled and not self._is_measuring:
                self._record.add(record_key(self._model, batch, self._step), speedup=self._plain_step_s / median)
        return loss

    def _decide(self, batch: Batch, plain_step_s: float) -> bool:
        """Follows the rule; returns whether there are compiled steps to be timed now."""
        self._plain_step_s = plain_step_s
        key = record_key(self._model, batch, self._step)
        costs = self._record.costs(key, num_layers(self._model), self._step.device)
        self.decision = decide(costs, step_s=plain_step_s, steps_left=self._steps_left)
        if not self.decision.is_on:
            return False
        try:
            seconds = self.compile(batch, plain_step_s)
        except Exception as error:  # Inductor, Triton and the C++ compiler each have errors of their own
            self._step.model = self._model
            self.decision = CompileDecision(False, f"not compiling: the compiler failed: {_first_line(error)}")
            return False
        self._record.add(key, **{"warm_s" if costs.is_cached else "cold_s": seconds})
        return True

    def compile(self, batch: Batch, plain_step_s: float = math.inf) -> float:
        """Compiles by a forward and backward pass that changes nothing; returns its seconds.

        A GPU step of so few seconds that launching its kernels is most of it gets CUDA graphs: one launch for the
        whole of forward, and one for backward.
        """
        use_cache(self._folder)
        device = self._step.device
        is_launch_bound = plain_step_s < LAUNCH_S * num_layers(self._model)
        mode = "reduce-overhead" if device.type == "cuda" and is_launch_bound else None
        buffers = {name: buffer.clone() for name, buffer in self._model.named_buffers()}
        started = self._now()
        self._step.model = torch.compile(self._model, mode=mode, dynamic=False)  # type: ignore[assignment]
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            images, targets = next(self._step.parts(batch))
            self._step.scaler.scale(self._step.loss_of(images, targets)).backward()  # type: ignore[no-untyped-call]
        seconds = self._now() - started
        self._step.optimizer.zero_grad(set_to_none=True)
        with torch.no_grad():
            for name, buffer in self._model.named_buffers():
                buffer.copy_(buffers[name])
        return seconds

    def _now(self) -> float:
        if self._step.device.type == "cuda":
            torch.cuda.synchronize(self._step.device)
        return time.perf_counter()


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0] if lines else ''}"[:300]
