"""The export targets by name, which the config's `export.targets` and `segsearch export --to` share."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

from search.config.choices import TARGETS, secret_variables
from search.errors import ExportError
from search.export.target import Asked, SpecLike, Target, TargetSpec, TrackingContext
from search.secrets import redact
from segcore.errors import ConfigError

ASK_TIMEOUT_S = 5.0
"""How long a service may take to answer before a run begins."""


def parse_target(text: str) -> TargetSpec:
    """Reads `kind:location`, as in `yandex_disk:/segsearch/attention` or `local:/tmp/model`.

    Raises:
        ConfigError: The kind is unknown or the location is missing.
    """
    kind, colon, location = text.partition(":")
    if kind.strip() not in TARGETS:
        raise ConfigError(f"an export target is KIND:LOCATION with a kind of {_kinds()}, found {text!r}")
    if not colon or not location.strip():
        raise ConfigError(f"export target {text!r} lacks its location, as in {kind.strip()}:LOCATION")
    return TargetSpec(kind.strip(), location.strip())


def build_target(spec: SpecLike, context: TrackingContext | None = None) -> Target:
    """Builds the target of a spec; nothing is sent yet. Its own library is imported here.

    Args:
        spec: Kind and location.
        context: What a tracked run knows of itself, for the targets that ask.

    Raises:
        ConfigError: The kind is unknown, or the location is not one that this kind can have.
    """
    if spec.kind not in TARGETS:
        raise ConfigError(f"unknown export target {spec.kind!r}; valid: {_kinds()}")
    try:
        target: Target = TARGETS[spec.kind].build.open(spec.location, context or TrackingContext())
    except ExportError as error:
        raise ConfigError(str(error)) from error
    return target


def check_targets(specs: Sequence[SpecLike], context: TrackingContext | None = None) -> list[str]:
    """What would stop a later export: a missing token, a folder in the way. No request is sent.

    Args:
        specs: Where to.
        context: As for `build_target`.

    Returns:
        One message per target that is not ready; empty if all are.
    """
    problems = []
    for spec in specs:
        try:
            build_target(spec, context).check()
        except (ConfigError, ExportError) as error:
            problems.append(redact(f"export target {spec.kind}:{spec.location}: {error}", secret_variables()))
    return problems


@dataclass(frozen=True)
class Answer:
    """What a service said when it was asked.

    Attributes:
        spec: The target.
        why: Why nothing is known; None where it takes our key or token.
    """

    spec: SpecLike
    why: str | None


def ask_targets(specs: Sequence[SpecLike], context: TrackingContext | None = None) -> list[Answer]:
    """Asks each target that is a service, with one short request, whether it takes our key or token.

    Args:
        specs: Where to.
        context: As for `build_target`.

    Raises:
        ConfigError: Some refuse it; with the message of each.
    """
    answers, problems = [], []
    for spec in specs:
        if not TARGETS[spec.kind].build.is_service:
            continue
        try:
            target = cast("Asked", build_target(spec, context))
            why = target.ask(ASK_TIMEOUT_S)
            answers.append(Answer(spec, None if why is None else redact(why, secret_variables())))
        except ExportError as error:
            problems.append(redact(f"export target {spec.kind}:{spec.location}: {error}", secret_variables()))
    if problems:
        raise ConfigError("export.targets: " + "\n".join(problems))
    return answers


def _kinds() -> str:
    return ", ".join(TARGETS.names)
