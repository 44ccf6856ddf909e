"""Checks of where a run writes: its folder, and the places that the sealed model is sent to."""

from pathlib import Path

from search.export.registry import ask_targets
from search.runs.folder import require_free, require_writable
from search.runs.paths import RunPaths
from search.stages.checks.check import Checked, NotChecked, Preparation
from search.stages.exporting import export_context, require_targets


def run_folder(job: Preparation) -> Checked:
    """The run's name is free, and its folder can be written.

    Raises:
        RunError: It is taken or cannot be written.
    """
    if job.paths is not None:
        require_writable(job.paths.root)
        return Checked(f"{job.paths.root} can be written")
    config = job.search.config
    paths = RunPaths(Path(config.results) / config.name)
    require_free(paths)
    require_writable(paths.root)
    return Checked(f"{paths.root} is free and can be written")


def targets(job: Preparation) -> Checked | NotChecked:
    """Each export target has what it needs on this machine.

    Raises:
        ConfigError: A target lacks its token, or something is in its way.
    """
    specs = job.search.config.export.targets
    if not specs:
        return NotChecked("export.targets is empty")
    require_targets(job.search.config)
    return Checked(", ".join(f"{spec.kind}:{spec.location}" for spec in specs))


def targets_answer(job: Preparation) -> Checked | NotChecked:
    """Each export target that is a service takes our key or token.

    Raises:
        ConfigError: One refuses it.
    """
    config = job.search.config
    answers = ask_targets(config.export.targets, export_context(config, None))
    if not answers:
        return NotChecked("no export target is a service")
    silent = [answer.why for answer in answers if answer.why is not None]
    if silent:
        return NotChecked("; ".join(silent))
    return Checked(", ".join(f"{answer.spec.kind}:{answer.spec.location} answers" for answer in answers))
