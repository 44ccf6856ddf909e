"""When compiling pays, what is remembered of it, and that it changes nothing but time."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from segcore.config import (
    LossConfig,
    LRSchedulerConfig,
    ModelConfig,
    OptimizerConfig,
)
from segcore.data.loader import Batch
from segcore.errors import TrainingError
from segcore.losses.mix import build_loss
from segcore.models.build import build_model
from segcore.training import compiling
from segcore.training.compiling import (
    CompileCosts,
    Compiler,
    CompileRecord,
    decide,
)
from segcore.training.groups import build_optimizer
from segcore.training.schedule import build_lr_scheduler
from segcore.training.step import TrainStep

pytestmark = pytest.mark.slow

CPU = torch.device("cpu")
MEASURED = CompileCosts(cold_s=60.0, warm_s=6.0, speedup=1.5, is_cached=False, is_measured=True)
STEPS = compiling.SKIPPED_STEPS + compiling.TIMED_STEPS


def new_step() -> TrainStep:
    torch.manual_seed(0)
    model = build_model(ModelConfig(base_channels=4, depth=1, dropout=0.5))
    optimizer = build_optimizer(model, OptimizerConfig())
    schedule = build_lr_scheduler(optimizer, LRSchedulerConfig(), epochs=2, steps_per_epoch=STEPS)
    scaler = torch.amp.GradScaler("cpu", enabled=False)
    return TrainStep(model, build_loss(LossConfig()), optimizer, schedule, scaler, None, torch.float32, CPU)


def new_batch() -> Batch:
    images = torch.randint(0, 256, (2, 16, 16, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    return Batch(images.permute(0, 3, 1, 2), torch.ones((2, 1, 16, 16), dtype=torch.uint8), torch.arange(2))


@pytest.fixture
def promising(monkeypatch: pytest.MonkeyPatch) -> None:
    """A device on which compiled steps take half the time."""
    monkeypatch.setitem(compiling._ESTIMATES, "cpu", replace(compiling._ESTIMATES["cpu"], speedup=2.0))


@pytest.fixture
def eager_backend(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """torch.compile with a backend that only captures the graph: all but the C++ compiler is the real thing."""
    calls: list[dict[str, Any]] = []
    real = torch.compile

    def compile_model(model: Any, **options: Any) -> Any:
        calls.append(options)
        return real(model, backend="aot_eager", dynamic=options["dynamic"])

    monkeypatch.setattr(torch, "compile", compile_model)
    return calls


@pytest.mark.parametrize(
    ("steps_left", "costs", "expected"),
    [
        (2249, MEASURED, False),  # 2249 steps of 0.1 s save 74.97 s; 1.25 times 60 s is 75 s
        (2251, MEASURED, True),
        (226, CompileCosts(60.0, 6.0, 1.5, is_cached=True), True),
        (224, CompileCosts(60.0, 6.0, 1.5, is_cached=True), False),
        (10**9, CompileCosts(60.0, 6.0, 1.0), False),
        (10**9, CompileCosts(60.0, 6.0, 0.8), False),  # slower when compiled: never
        (0, MEASURED, False),
    ],
)
def test_the_rule_weighs_the_warm_up_against_the_steps_left(
    steps_left: int, costs: CompileCosts, expected: bool
) -> None:
    decision = decide(costs, step_s=0.1, steps_left=steps_left)
    assert decision.is_on is expected
    assert decision.reason.startswith("compiling" if expected else "not compiling")
    assert f"{steps_left} steps of 100 ms" in decision.reason


def test_the_record_holds_what_was_measured_and_estimates_the_rest(tmp_path: Path) -> None:
    record = CompileRecord(tmp_path / "new")
    unknown = record.costs("a", 10, CPU)
    assert not unknown.is_measured
    assert not unknown.is_cached
    assert record.costs("a", 20, CPU).cold_s > unknown.cold_s > unknown.warm_s > 0
    record.add("a", cold_s=50.0)
    known = CompileRecord(tmp_path / "new").costs("a", 10, CPU)
    assert (known.cold_s, known.is_cached, known.warm_up_s) == (50.0, True, unknown.warm_s)
    record.add("a", warm_s=5.0)
    record.add("a", speedup=1.4)
    known = record.costs("a", 10, CPU)
    assert (known.warm_up_s, known.speedup, known.is_measured) == (5.0, 1.4, True)
    assert not record.costs("b", 10, CPU).is_cached


def test_a_record_that_was_cut_off_is_measured_anew(tmp_path: Path) -> None:
    (tmp_path / compiling.RECORD_FILE).write_text('{"a": {"cold_')
    record = CompileRecord(tmp_path)
    assert not record.costs("a", 10, CPU).is_cached
    record.add("a", cold_s=1.0)
    assert record.costs("a", 10, CPU).cold_s == 1.0


def test_nothing_is_decided_before_the_steps_are_timed_and_few_steps_never_compile(
    tmp_path: Path, eager_backend: list[dict[str, Any]]
) -> None:
    take_step = Compiler(new_step(), mode="auto", steps_left=2 * STEPS, folder=tmp_path)
    for number in range(STEPS + 3):
        assert (take_step.decision is None) == (number < STEPS)
        take_step(new_batch())
    assert take_step.decision is not None
    assert not take_step.is_compiled
    assert f"not compiling: {STEPS} steps of" in take_step.decision.reason
    assert eager_backend == []
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
@pytest.mark.usefixtures("promising")
def test_with_steps_enough_it_compiles_measures_and_remembers(
    tmp_path: Path, eager_backend: list[dict[str, Any]]
) -> None:
    step = new_step()
    take_step = Compiler(step, mode="auto", steps_left=10**9, folder=tmp_path)
    for _ in range(2 * STEPS):
        take_step(new_batch())
    assert take_step.is_compiled
    assert len(eager_backend) == 1
    key = compiling.record_key(take_step._model, new_batch(), step)
    costs = CompileRecord(tmp_path).costs(key, 1, CPU)
    assert costs.is_cached
    assert costs.is_measured
    assert costs.cold_s > 0


@pytest.mark.usefixtures("promising")
def test_compiling_in_the_middle_of_a_run_changes_no_weight_statistic_or_random_number(
    tmp_path: Path, eager_backend: list[dict[str, Any]]
) -> None:
    """Graph capture alone is bitwise the same here, so whatever differs would come from the warm-up pass."""
    plain, compiled = new_step(), new_step()
    take_step = Compiler(compiled, mode="auto", steps_left=10**9, folder=tmp_path)
    torch.manual_seed(1)
    expected = [plain(new_batch()).item() for _ in range(STEPS + 2)]
    torch.manual_seed(1)
    assert [take_step(new_batch()).item() for _ in range(STEPS + 2)] == expected
    assert take_step.is_compiled
    for name, value in plain.model.state_dict().items():
        assert torch.equal(value, take_step._model.state_dict()[name]), name


@pytest.mark.usefixtures("promising")
def test_a_compiler_that_does_not_work_is_a_note_and_an_error_when_forced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(model: Any, **options: Any) -> Any:
        raise RuntimeError("no C++ compiler found\nand a long trace")

    monkeypatch.setattr(torch, "compile", broken)
    take_step = Compiler(new_step(), mode="auto", steps_left=10**9, folder=tmp_path)
    for _ in range(STEPS + 1):
        take_step(new_batch())
    assert not take_step.is_compiled
    assert take_step.decision is not None
    assert take_step.decision.reason == "not compiling: the compiler failed: RuntimeError: no C++ compiler found"
    with pytest.raises(TrainingError, match=r"train\.compile is true, but the compiler failed: .*valid: auto, false"):
        Compiler(new_step(), mode=True, steps_left=1, folder=tmp_path)(new_batch())


@pytest.mark.slow
def test_inductor_trains_the_same_model_within_rounding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "inductor"))
    plain, compiled = new_step(), new_step()
    for module in [*plain.model.modules(), *compiled.model.modules()]:
        if isinstance(module, torch.nn.Dropout2d):
            module.p = 0.0  # its random numbers are drawn in another order
    take_step = Compiler(compiled, mode=True, steps_left=3, folder=tmp_path / "inductor")
    expected = [plain(new_batch()).item() for _ in range(3)]
    assert [take_step(new_batch()).item() for _ in range(3)] == pytest.approx(expected, rel=1e-3)
    assert take_step.is_compiled
    assert any((tmp_path / "inductor").iterdir())
