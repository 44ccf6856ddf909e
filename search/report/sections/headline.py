"""The page's head: the score to quote and what chose what, the sealed model, how many trials, how long, why no more."""

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from html import escape

from search.report.jsonable import known
from search.report.markup import duration, facts_list
from search.report.quoted_score import Score, quoted_score
from search.report.section import Section, Subject
from search.runs.reading import Run
from search.runs.records import StoppedBy
from search.show.quoting import flat_text, quote, training_text
from search.show.scores import score_rows
from segcore.sealed.card import Optimism
from segcore.sealed.card import Threshold as CardThreshold


@dataclass(frozen=True)
class Sealed:
    """Which training is sealed: trial, epoch, and the seed where the trial was trained again."""

    epoch: int | None
    trial: int | None = None
    seed: int | None = None

    def as_json(self) -> Mapping[str, object]:
        """Without what such a training does not have."""
        return known(trial=self.trial, epoch=self.epoch, seed=self.seed)


@dataclass(frozen=True)
class Threshold:
    """The sealed threshold, what chose it, and how flat val's curve is around it, in words."""

    value: float
    chosen_by: str
    flat: str = ""


@dataclass(frozen=True)
class Extension:
    """When the search was extended, after how many trials and by how many, and which keys of the config changed."""

    when: float
    trials_before: int | None
    num_samples: int
    changed: list[str]


@dataclass(frozen=True)
class Headline:
    """The result of a run.

    Attributes:
        name: The run's.
        kind: `search` or `train`.
        status: The one that holds now.
        error: Why it failed.
        created: When it began, in seconds since 1970.
        metric: What trials are compared by.
        mode: Whether a larger (`max`) or a smaller (`min`) value is better.
        quoted: The name of the score to quote.
        scores: All scores of the sealed model, by what they were earned on.
        optimism: How much val's own score flatters, as the card has it.
        sealed: Which training is sealed.
        tie: Why the winner won, where other trials could not be told from it.
        threshold: The sealed one.
        num_samples: Trials asked for; None for a training run.
        trials: Trials that began.
        states: How many of them are in which state.
        epochs: Epochs trained, of all trials.
        timings: Seconds by stage, and `total_s`.
        stopped_by: The rule that ended the search before its trials were used up.
        extensions: Oldest first.
    """

    name: str
    kind: str
    status: str
    error: str | None
    created: float
    metric: str
    mode: str
    quoted: str | None
    scores: dict[str, Score]
    optimism: Optimism | None
    sealed: Sealed | None
    tie: str | None
    threshold: Threshold | None
    num_samples: int | None
    trials: int
    states: dict[str, int]
    epochs: int
    timings: dict[str, float]
    stopped_by: StoppedBy | None
    extensions: list[Extension]


def headline(run: Run) -> Headline:
    """The result of a run; works before it has a card, and before it has trials."""
    record, card = run.record, run.card
    quoted, sealed, tie = quote(card), run.sealed, run.confirmation
    return Headline(
        name=record.name,
        kind=record.kind,
        status=run.status,
        error=record.error,
        created=record.created,
        metric=run.objective.metric,
        mode=run.objective.mode,
        quoted=quoted.name if quoted else None,
        scores={
            name: Score(part.iou, list(part.iou_interval), part.dice, part.num_images, list(part.chose))
            for name, part in (score_rows(card) if card else [])
        },
        optimism=card.optimism if card else None,
        sealed=Sealed(sealed.epoch, sealed.trial, sealed.seed) if sealed else None,
        tie=tie.reason if tie is not None and tie.is_tie else None,
        threshold=_threshold(card.threshold) if card and card.threshold else None,
        num_samples=run.config.search.num_samples if record.kind == "search" else None,
        trials=len(run.trials),
        states=run.trials.states(),
        epochs=len(run.epochs),
        timings=record.timings,
        stopped_by=record.stopped_by,
        extensions=[
            Extension(note.when, note.trials_before, note.num_samples, list(note.changed)) for note in record.extensions
        ],
    )


def _threshold(found: CardThreshold) -> Threshold:
    return Threshold(found.value, found.chosen_by, flat_text(found))


def render(head: Headline, subject: Subject) -> str:
    """Name, status, the score to quote, and facts."""
    kind = "search" if head.kind == "search" else "training run"
    begun, status = _time_text(head.created), escape(head.status.replace("_", " "))
    parts = [f"<h1>{escape(head.name)}</h1>", f'<p class="soft">{kind}, begun {begun}, status: {status}</p>']
    if head.error:
        parts.append(f'<p class="bad">{escape(head.error)}</p>')
    if head.quoted is not None:
        parts.append(quoted_score(head.quoted, head.scores, head.optimism))
    elif subject.best:
        number, value = subject.best
        parts.append(
            f"<p>Nothing is sealed yet. The best trial so far is {number}, with "
            f"{escape(head.metric)} {value:.4f} on val.</p>"
        )
    return "".join([*parts, facts_list(_facts(head))])


def _facts(head: Headline) -> Iterator[tuple[str, str]]:
    if head.sealed:
        yield "sealed model", training_text(head.sealed.trial, head.sealed.seed, head.sealed.epoch)
    if head.tie:
        yield "tie", head.tie
    if head.threshold:
        flat = f"; {head.threshold.flat}" if head.threshold.flat else ""
        yield "threshold", f"{head.threshold.value:.4f}, chosen by: {head.threshold.chosen_by}{flat}"
    yield "judged by", f"{head.metric}, {'larger' if head.mode == 'max' else 'smaller'} is better"
    if head.num_samples is not None:
        states = ", ".join(f"{count} {state}" for state, count in head.states.items())
        yield "trials", f"{head.trials} of {head.num_samples}{f': {states}' if states else ''}"
    yield "epochs trained", str(head.epochs)
    timings = dict(head.timings)
    if timings:
        total = duration(timings.pop("total_s", 0.0))
        stages = ", ".join(f"{stage.removesuffix('_s')} {duration(s)}" for stage, s in timings.items() if s >= 1.0)
        yield "time", f"{total} in all{f' ({stages})' if stages else ''}"
    if head.stopped_by:
        yield "ended by", f"search.{head.stopped_by.rule}: {head.stopped_by.detail}"
    for note in head.extensions:
        changed = f"; changed: {', '.join(note.changed)}" if note.changed else ""
        yield "extended", f"{_time_text(note.when)}, after {note.trials_before} trials, by {note.num_samples}{changed}"


def _time_text(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(seconds))


SECTION = Section("headline", 0, "", headline, render)
