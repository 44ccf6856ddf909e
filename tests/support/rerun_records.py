"""Records as `confirm.json` and `ledger.json` hold them, for the tests of how they are shown."""

from collections.abc import Sequence
from typing import Any


def candidate(
    trial: int, mean: float | None, searched: float, difference: float | None = None, **fields: Any
) -> dict[str, Any]:
    """Three seeds 0.004 apart round a mean; within 0.01 of the first it is tied with it."""
    interval = None if difference is None else [difference - 0.01, difference + 0.01]
    return {
        "trial": trial, "searched": searched, "mean": mean, "interval": mean and [mean - 0.03, mean + 0.03],
        "values": [] if mean is None else [[1, mean], [2, mean - 0.004], [3, mean + 0.004]], "failed": [],
        "parameters": 4_631_234 + trial, "latency_ms": None, "settings": {"optimizer.lr": 1e-3},
        "difference": difference and {"value": difference, "interval": interval, "tied": abs(difference) < 0.01},
        **fields,
    }  # fmt: skip


def confirmation(
    candidates: Sequence[dict[str, Any]], *, winner: int | None = None, reason: str = "trial 9 is ahead", **fields: Any
) -> dict[str, Any]:
    """`confirm.json`; the first candidate wins unless another one is said to."""
    tied = [other["trial"] for other in candidates[1:] if other["difference"] and other["difference"]["tied"]]
    return {
        "metric": "val/iou", "mode": "max", "seeds": [1, 2, 3], "num_images": 48, "confidence": 0.95,
        "seed_sd": 0.0041, "seed_df": 6, "candidates": list(candidates), "tied": [candidates[0]["trial"], *tied],
        "winner": candidates[0]["trial"] if winner is None else winner, "reason": reason, **fields,
    }  # fmt: skip


def tie() -> dict[str, Any]:
    """Trials 9 and 0 are tied, 4 is worse and lost a seed, and 7 has none left."""
    rows = [
        candidate(9, 0.8612, 0.8701),
        candidate(0, 0.8592, 0.8633, -0.002, latency_ms=3.25),
        candidate(4, 0.83, 0.86, -0.0312, values=[[1, 0.83], [3, 0.83]], failed=[[2, "out of memory [GPU 0]"]]),
        candidate(7, None, 0.8555, failed=[[1, "loss is nan"], [2, "loss is nan"], [3, "loss is nan"]]),
    ]
    reason = "trials 9 and 0 are a tie; 0 is smaller (4,631,234 parameters, 9 has 4,631,243)"
    return confirmation(rows, winner=0, reason=reason)


def by_loss() -> dict[str, Any]:
    """Smaller is better, nothing is tied, and there was a single seed."""
    rows = [
        candidate(2, 0.25, 0.24, values=[[1, 0.25]], interval=None, parameters=None),
        candidate(5, 0.29, 0.30, 0.04, values=[[1, 0.29]], interval=None),
    ]
    return confirmation(
        rows, reason="trial 2 is ahead by more than the noise", metric="val/loss", mode="min", seeds=[1], seed_sd=None,
        seed_df=0, num_images=None,
    )  # fmt: skip


def worth(value: float, half_width: float = 0.01) -> dict[str, Any]:
    """What a step is worth, clear of 0 or not."""
    interval = [value - half_width, value + half_width]
    return {"worth": value, "interval": interval, "clear": abs(value) > half_width}


def step(group: str, mean: float, value: float, *changes: list[Any], importance: float | None = None) -> dict[str, Any]:
    """One step of the ledger."""
    return {"group": group, "changes": list(changes), "mean": mean, **worth(value), "importance": importance}


def ledger(**fields: Any) -> dict[str, Any]:
    """`ledger.json`: a gain, a loss and noise; two alternatives; a threshold."""
    steps = [
        step("encoder", 0.79, -0.02, ["model.encoder", "timm:resnet50", "timm:tf_efficientnetv2_s.in21k_ft_in1k"],
             importance=0.4),
        step("loss", 0.7931, 0.0031, ["loss.dice", 1.0, 0.771234], importance=0.05),
        step("scheduler", 0.8431, 0.05, ["lr_scheduler.name", "plateau", "cosine"],
             ["lr_scheduler.warmup_epochs", None, 2]),
    ]  # fmt: skip
    alternatives = [
        {
            "group": "architecture", "chosen": [["model.arch", "attention_unet"]],
            "instead": [["model.arch", "unet"], ["model.dropout", 0.25]], "of_trial": 4, **worth(0.012, 0.015),
            "importance": 0.23,
        },
        {
            "group": "augmentation", "chosen": [["augment.policy", "light"]], "instead": [["augment.policy", "<b>"]],
            "of_trial": 11, **worth(0.03), "importance": None,
        },
    ]  # fmt: skip
    return {
        "metric": "val/iou", "mode": "max", "trial": 9, "seeds": [1, 2, 3], "num_images": 48, "confidence": 0.95,
        "cross_fitted": True, "baseline": {"mean": 0.81, "interval": [0.78, 0.84]},
        "winner": {"mean": 0.8431, "interval": [0.81, 0.87]}, "steps": steps, "total": worth(0.0331),
        "alternatives": alternatives, "threshold": {"chosen": "auto", "instead": 0.5, **worth(0.004, 0.003)},
        "seed_noise": {"sd": 0.004, "df": 14, "num_configs": 7, "two_trainings": 0.0111},
        "importances": [{"name": "model.encoder", "share": 0.4}], "importance_trials": 20, "failed": [],
        "notes": [], **fields,
    }  # fmt: skip


def bare_ledger() -> dict[str, Any]:
    """The winner is the baseline, judged by a loss with one seed; nothing else was tried."""
    end = {"mean": 0.25, "interval": None}
    return ledger(
        metric="val/loss", mode="min", trial=0, seeds=[1], num_images=None, cross_fitted=False, baseline=end,
        winner=end, steps=[], total={"worth": 0.0, "interval": [0.0, 0.0], "clear": False}, alternatives=[],
        threshold=None,
        seed_noise={"sd": None, "df": 0, "num_configs": 1, "two_trainings": None}, importances=[],
        importance_trials=2, failed=["loss with seed 2: out of memory [GPU 0]"],
        notes=["val/loss has no values of single images"],
    )  # fmt: skip
