"""When torch.compile pays: a rule that weighs its warm-up against the time it saves in the remaining steps.

The first steps of a run are not compiled, and are timed. The cost and gain of compiling are then taken from the record
of earlier runs of the same model at the same size on the same kind of device, or, without a record, from the ratios of
`make bench NAME=compile`. Each compiled run adds to the record. Inductor keeps its kernels on disk beside the data
cache, so the trials of a search, and later searches, share them: compiling a model again costs a fraction.

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
"""Plain steps that are not timed, because the first ones allocate memory and choose kernels."""
TIMED_STEPS = 8

MARGIN = 1.25
"""The gain must be this multiple of the warm-up: steps may be fewer than planned, and compiling loads the machine."""

LAUNCH_S = 6e-5
"""Seconds per layer that a GPU step spends launching kernels (a dozen launches of 5 us each)."""

RECORD_FILE = "compile.json"


@dataclass(frozen=True)
class CompileCosts:
    """Cost and gain of compiling one model.

    Attributes:
        cold_s: Seconds of the first compiled step with an empty disk cache.
        warm_s: Seconds of the first compiled step where Inductor's cache has the kernels.
        speedup: Seconds of a plain step divided by seconds of a compiled one.
        is_cached: Whether the kernels are on disk.
        is_measured: Whether the speedup was measured for this model and device rather than estimated.
    """

    cold_s: float
    warm_s: float
    speedup: float
    is_cached: bool = False
    is_measured: bool = False

    @property
    def warm_up_s(self) -> float:
        """Seconds until compiled steps run, given whether the kernels are cached."""
        return self.warm_s if self.is_cached else self.cold_s


@dataclass(frozen=True)
class CompileDecision:
    """Whether to compile, and why, in words."""

    is_on: bool
    reason: str


@dataclass(frozen=True)
class _Estimate:
    """Warm-up seconds as a linear function (offset, slope) of the number of layers, and the speed-up."""

    cold: tuple[float, float]
    warm: tuple[float, float]
    speedup: float


_ESTIMATES = {
    "cpu": _Estimate(cold=(41.0, 0.2), warm=(2.6, 0.013), speedup=1.0),  # `make bench NAME=compile`, in bf16
    "cuda": _Estimate(cold=(41.0, 0.2), warm=(2.6, 0.013), speedup=1.3),  # same warm-up; speed-up from Ansel et al.
}


def decide(costs: CompileCosts, *, step_s: float, steps_left: int) -> CompileDecision:
    """The rule: compile where the remaining steps save more than `MARGIN` times the warm-up.

    Args:
        costs: Cost and gain of compiling.
        step_s: Seconds of a plain step, above 0.
        steps_left: Optimizer steps that are certain to follow.
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
    """What compiling cost on this machine: a small JSON file beside Inductor's cache.

    When two trials write at once, one measurement may be lost, which is harmless.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / RECORD_FILE

    def costs(self, key: str, num_layers: int, device: torch.device) -> CompileCosts:
        """Expected cost and gain for a model: its own record, or an estimate from its number of layers.

        Args:
            key: The model's `record_key`.
            num_layers: Its number of layers, as `num_layers` counts them.
            device: The device it trains on.
        """
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
        """Add a model's `cold_s`, `warm_s` or `speedup` to its record."""
        record = self._read()
        record[key] = {**record.get(key, {}), **figures}
        self._path.parent.mkdir(parents=True, exist_ok=True)
        temporary = self._path.with_name(f".{RECORD_FILE}.{os.getpid()}")
        temporary.write_text(json.dumps(record, indent=1))
        os.replace(temporary, self._path)

    def _read(self) -> dict[str, dict[str, float]]:
        try:
            found = json.loads(self._path.read_text())
        except (OSError, ValueError):  # no record yet, or one truncated by a crash: measure again
            return {}
        return found if isinstance(found, dict) else {}


def use_cache(folder: Path) -> None:
    """Make Inductor keep its kernels in a folder, unless TORCHINDUCTOR_CACHE_DIR already names one."""
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(folder))


def record_key(model: nn.Module, batch: Batch, step: TrainStep) -> str:
    """Key of a model at an input size, on a kind of device, with a version of torch.

    Args:
        model: The model before compiling.
        batch: A batch as it trains on; its size counts.
        step: Gives device, precision and micro-batch size.
    """
    name = torch.cuda.get_device_name() if step.device.type == "cuda" else f"cpu, {torch.get_num_threads()} threads"
    shape = [*batch.images.shape[1:], step.micro_batch_size or len(batch)]
    text = f"{torch.__version__}|{name}|{step.precision}|{shape}|{model}"
    return hashlib.sha256(text.encode()).hexdigest()[:20]


def num_layers(model: nn.Module) -> int:
    """Number of modules without children, which compile time and kernel launches grow with."""
    return sum(1 for module in model.modules() if not list(module.children()))


class Compiler:
    """Takes a run's training steps and compiles the model when the rule, or the config, says so.

    Args:
        step: The training step; its `model` is replaced when compiling begins.
        mode: True compiles at the first step, or fails; "auto" follows the rule, and a compiler that does not work
            on this machine only leads to a note; False never compiles.
        steps_left: Optimizer steps that are certain to follow.
        folder: Folder of Inductor's cache and the record of costs.
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
        """Whether further steps are compiled."""
        return self._step.model is not self._model

    def __call__(self, batch: Batch) -> Tensor:
        """Take one step and return its loss; only the few steps that the rule times wait for the device.

        Raises:
            TrainingError: `mode` is True and the compiler failed.
        """
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
        """Apply the rule; return whether compiled steps have to be timed now."""
        self._plain_step_s = plain_step_s
        key = record_key(self._model, batch, self._step)
        costs = self._record.costs(key, num_layers(self._model), self._step.device)
        self.decision = decide(costs, step_s=plain_step_s, steps_left=self._steps_left)
        if not self.decision.is_on:
            return False
        try:
            seconds = self.compile(batch, plain_step_s)
        except Exception as error:  # Inductor, Triton and the C++ compiler raise different errors
            self._step.model = self._model
            self.decision = CompileDecision(False, f"not compiling: the compiler failed: {_first_line(error)}")
            return False
        self._record.add(key, **{"warm_s" if costs.is_cached else "cold_s": seconds})
        return True

    def compile(self, batch: Batch, plain_step_s: float = math.inf) -> float:
        """Compile with one forward and backward pass that leaves the training state unchanged; return its seconds.

        A GPU step so short that launching kernels dominates it uses CUDA graphs: one launch for the whole forward
        pass and one for the backward pass. `plain_step_s` is the measured time of a plain step in seconds.
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
