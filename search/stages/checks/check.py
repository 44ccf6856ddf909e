"""What a check is, and how a list of them is gone through."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from rich.console import Console

from search.errors import CheckError, SegsearchError
from search.runs.paths import RunPaths
from search.space.search import Search
from search.stages import gating

if TYPE_CHECKING:
    from segcore.data.pairs.samples import DatasetIndex
    from segcore.gate.report import GateReport

log = logging.getLogger("segsearch")

Moment = Literal["begin", "extend", "resume"]
"""When a job is checked: at its beginning (`run`, `train` and `check`), before an extension, before a resume."""
Kind = Literal["search", "train"]
Need = Literal["network", "ray"]

EVERY_MOMENT: frozenset[Moment] = frozenset({"begin", "extend", "resume"})
EVERY_KIND: frozenset[Kind] = frozenset({"search", "train"})


@dataclass
class Preparation:
    """A job on its way to its first training: what it will do, and what its checks have found so far.

    Attributes:
        search: What is searched; of a single training run, without a space.
        kind: `search` or `train`.
        console: Where progress is shown.
        moment: When it is checked.
        paths: The run, where it exists already.
        show_gate: Shows what the gate found; returns the picture's path, if it wrote one.
        index: The images and masks, once they are found.
        cache_path: The decoded samples, once there are any.
        gate: What the gate found, once it has run.
    """

    search: Search
    kind: Kind
    console: Console
    moment: Moment = "begin"
    paths: RunPaths | None = None
    show_gate: Callable[[GateReport], Path | None] = gating.log_warnings
    index: DatasetIndex | None = None
    cache_path: Path | None = None
    gate: GateReport | None = None

    def data(self) -> tuple[DatasetIndex, Path]:
        """The images and masks and their cache, which the checks of a list that was gone through have left here."""
        if self.index is None or self.cache_path is None:
            raise AssertionError("the data were not checked")
        return self.index, self.cache_path


@dataclass(frozen=True)
class Checked:
    """All is well.

    Attributes:
        found: What was found, in a few words.
    """

    found: str


@dataclass(frozen=True)
class NotChecked:
    """Nothing is known.

    Attributes:
        why: The reason, in a few words.
    """

    why: str


@dataclass(frozen=True)
class Failed:
    """Something is wrong.

    Attributes:
        error: With the message for the user.
    """

    error: SegsearchError


Outcome = Checked | NotChecked | Failed


@dataclass(frozen=True)
class Check:
    """One thing that is found out before anything is trained.

    Attributes:
        name: What it checks, as `segsearch check` prints it.
        look: How. It returns what it found, or why it could not look; it raises what is wrong, leaving nothing behind.
            What later checks need goes into the `Preparation`.
        needs: What it asks beside this machine's files; it must not wait for an answer for long.
        after: Checks whose failure makes this one pointless.
        moments: When it is made.
        kinds: For what it is made.
        is_long: It takes more than a few seconds, so that it is not begun where something is wrong already.
    """

    name: str
    look: Callable[[Preparation], Checked | NotChecked]
    needs: frozenset[Need] = field(default_factory=frozenset)
    after: tuple[str, ...] = ()
    moments: frozenset[Moment] = EVERY_MOMENT
    kinds: frozenset[Kind] = EVERY_KIND
    is_long: bool = False


def go_through(
    checks: Sequence[Check], job: Preparation, tell: Callable[[Check, Outcome], None] | None = None
) -> list[tuple[Check, Outcome]]:
    """Makes every check that concerns a job, in order.

    A failure ends it before the next long check, so that what is wrong is told together and soon.

    Args:
        checks: In their order.
        job: What is checked; it is filled on the way.
        tell: Called after each check.

    Returns:
        Each check with its outcome, none of which is a failure.

    Raises:
        SegsearchError: The one that a check raised, or a `CheckError` with the messages of several.
    """
    outcomes: list[tuple[Check, Outcome]] = []
    errors: list[SegsearchError] = []
    failed: set[str] = set()
    for check in checks:
        if job.moment not in check.moments or job.kind not in check.kinds:
            continue
        in_the_way = failed & set(check.after)
        if in_the_way or (errors and check.is_long):
            why = f"{' and '.join(sorted(in_the_way))} failed" if in_the_way else "what failed above comes first"
            outcome: Outcome = NotChecked(why)
            failed |= {check.name} if in_the_way else set()
        else:
            try:
                outcome = check.look(job)
            except SegsearchError as error:
                outcome = Failed(error)
                errors.append(error)
                failed.add(check.name)
        outcomes.append((check, outcome))
        if tell is not None:
            tell(check, outcome)
    if len(errors) == 1:
        raise errors[0]
    if errors:
        listed = (f"{number}. {error}" for number, error in enumerate(errors, 1))
        raise CheckError("\n".join([f"{len(errors)} things are wrong", *listed]))
    return outcomes


def line_of(check: Check, outcome: Outcome) -> str:
    """How `segsearch check` prints a check: what was checked and found, or what was not and why."""
    if isinstance(outcome, Failed):
        return f"failed: {check.name}"
    if isinstance(outcome, NotChecked):
        return f"not checked: {check.name}, {outcome.why}"
    return f"checked: {check.name}, {outcome.found}"
