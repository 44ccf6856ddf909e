"""The commands that train, and those that look at a config before anything is trained."""

import json
import sys
from pathlib import Path
from typing import Any

import click

from search.cli.group import (
    CONFIG,
    JSON,
    NAME,
    NO_GATE,
    RESULTS,
    RUNS_IN,
    SET,
    Command,
    console,
    output,
    say,
)
from search.commands import config_command
from search.errors import NothingToSearchError

LOCAL = click.option(
    "--local", is_flag=True, help="One trial at a time in a small Ray of its own; for trying a config out."
)
ALONE = ("search.max_concurrent=1", "resources.address=local")
"""What `--local` sets."""


@click.command(cls=Command)
@CONFIG
@SET
@NAME
@LOCAL
@NO_GATE
@RUNS_IN
def run(
    config: Path, overrides: tuple[str, ...], name: str | None, local: bool, no_gate: bool, results: Path | None
) -> None:
    """Search CONFIG's space and hand over the best model: check, cache, gate, search, seal, export."""
    alone = ALONE if local else ()
    loaded = _load(config, (*overrides, *alone), name, no_gate, results)
    from search.stages import job

    try:
        outcome = job.run(loaded, console)
    except NothingToSearchError as error:
        train_once = config_command("train", config, overrides=overrides, name=name, results=results)
        raise NothingToSearchError(f"{error} with: {train_once}") from error
    sys.exit(_finish(outcome))


@click.command(cls=Command)
@click.argument("run_name", metavar="RUN")
@RESULTS
def resume(run_name: str, results: Path) -> None:
    """Resume a search that was stopped, by Ctrl-C, a crash or a kill."""
    from search.runs.paths import find_run

    paths = find_run(run_name, results)
    from search.stages import job

    sys.exit(_finish(job.resume(paths, console)))


@click.command(cls=Command)
@click.argument("run_name", metavar="RUN")
@click.option(
    "--num-samples", "num_more", required=True, type=click.IntRange(min=0), metavar="N",
    help="Trials to add: N more than have begun so far, not N in all; 0 only confirms and seals anew, as --set has it.",
)  # fmt: skip
@SET
@RESULTS
def extend(run_name: str, num_more: int, overrides: tuple[str, ...], results: Path) -> None:
    """Give RUN, a search that has ended or was stopped, N more trials, and seal the best of all.

    All earlier trials are kept and used. With --set, whatever stands below space, search, resources, tracking and
    export may change, but for the metric; data and what all trials share may not.

    \b
    segsearch extend birds --num-samples 20
    segsearch extend birds --num-samples 20 --set 'space.optimizer.lr={loguniform: [1e-4, 1e-1]}'

    An extension that is interrupted is resumed with: segsearch resume RUN
    """
    from search.runs.paths import find_run

    paths = find_run(run_name, results)
    from search.stages import job

    sys.exit(_finish(job.extend(paths, num_more, overrides, console)))


@click.command(cls=Command)
@CONFIG
@SET
@NAME
@NO_GATE
@RUNS_IN
def train(config: Path, overrides: tuple[str, ...], name: str | None, no_gate: bool, results: Path | None) -> None:
    """Train CONFIG once as it stands, without a search, and seal the result."""
    loaded = _load(config, overrides, name, no_gate, results)
    from search.stages import job

    sys.exit(_finish(job.train(loaded, console)))


@click.command(cls=Command)
@CONFIG
@SET
@NAME
@LOCAL
@NO_GATE
@click.option(
    "--picture", type=click.Path(path_type=Path, dir_okay=False),
    help="PNG of the batch, its masks and predictions; default: a new file in the system's folder for such.",
)  # fmt: skip
@RUNS_IN
def check(
    config: Path, overrides: tuple[str, ...], name: str | None, local: bool, no_gate: bool, picture: Path | None,
    results: Path | None,
) -> None:  # fmt: skip
    """Check everything that `run` checks, and train nothing: every file is decoded, one batch is overfitted.

    Prints what was found and what could not be checked; lists everything that is wrong.
    """
    alone = ALONE if local else ()
    loaded = _load(config, (*overrides, *alone), name, no_gate, results)
    from search.stages import gating, job
    from search.stages.checks.check import line_of

    def show_gate(report: Any) -> Path:
        for part in gating.render_gate(report):
            say(part)
        written = gating.write_picture(report, loaded.name, picture)
        say(f"picture: {written}")
        return written

    job.check(loaded, console, lambda entry, outcome: say(line_of(entry, outcome)), show_gate)
    say(f"{config}: config and data are fit for a run")


@click.command(cls=Command)
@CONFIG
@SET
@click.option("--samples", type=click.IntRange(0, 1000), default=10, show_default=True, help="Random points to show.")
@click.option("--seed", default=0, show_default=True, help="Seed of the random points.")
@click.option("--prove", is_flag=True, help="Also build what each key decides, and refuse one that changes nothing.")
@JSON
def space(config: Path, overrides: tuple[str, ...], samples: int, seed: int, prove: bool, as_json: bool) -> None:
    """Show what CONFIG searches: its space as a tree, its size, what is tried first, and sample points."""
    loaded = _load(config, overrides, None)
    from search.space.search import Search

    search = Search.of(loaded)
    if prove:
        from search.stages.checking import prove_space

        prove_space(search)
    from search.show.space import render_space
    from search.show.survey import survey

    found = survey(search, samples, seed)
    if as_json:
        click.echo(json.dumps(found.tree()))
        return
    for part in render_space(found, output.width, config_command("train", config, overrides=overrides)):
        say(part)


def _load(
    config: Path, overrides: tuple[str, ...], name: str | None, no_gate: bool = False, results: Path | None = None
) -> Any:
    from search.config.load import load_config

    options = [] if name is None else [f"name={json.dumps(name)}"]
    options += [] if results is None else [f"results={json.dumps(str(results))}"]
    options += ["search.gate=false"] if no_gate else []
    return load_config(config, (*overrides, *options))


def _finish(outcome: Any) -> int:
    from search.runs.reading import Run
    from search.show.run import render_run

    if outcome.card is not None:
        for part in render_run(Run(outcome.paths), 5):
            say(part)
    return int(outcome.exit_code)
