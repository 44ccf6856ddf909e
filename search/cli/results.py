"""The commands that look back at runs: list, show, report, explain, train again."""

import json
import sys
from dataclasses import asdict
from pathlib import Path

import click

from search.cli.group import (
    JSON,
    RESULTS,
    Command,
    console,
    output,
    say,
)
from search.commands import first_command
from search.terminal import has_screen


@click.command(name="ls", cls=Command)
@RESULTS
@JSON
def list_command(results: Path, as_json: bool) -> None:
    """List the runs, newest first."""
    from search.show.listing import list_table, run_lines

    lines = run_lines(results)
    if as_json:
        click.echo(json.dumps([asdict(line) for line in lines]))
        return
    if not lines:
        say(f"no runs in {results}; start one with: {first_command(results)}")
        return
    output.print(list_table(lines))


@click.command(cls=Command)
@click.argument("run_name", metavar="RUN")
@click.option(
    "--top", type=click.IntRange(min=0), default=10, show_default=True, metavar="N", help="Trials to list, best first."
)
@RESULTS
@JSON
def show(run_name: str, top: int, results: Path, as_json: bool) -> None:
    """Show one run: its status, its best trials, its sealed model and its exports."""
    from search.runs.paths import find_run
    from search.runs.reading import Run
    from search.show.run import render_run, run_details

    run = Run(find_run(run_name, results))
    if as_json:
        click.echo(json.dumps(run_details(run)))
        return
    say(*list(render_run(run, top)))  # nothing is printed of a run that cannot be read


@click.command(cls=Command)
@click.argument("run_name", metavar="RUN")
@click.option(
    "-o", "--out", type=click.Path(path_type=Path, dir_okay=False), help="Default: report.html in its folder."
)
@click.option(
    "--open", "opened", type=click.Choice(["yes", "no"]), default="yes", show_default=True,
    help="Show it in a browser, where there is a screen.",
)  # fmt: skip
@RESULTS
@JSON
def report(run_name: str, out: Path | None, opened: str, results: Path, as_json: bool) -> None:
    """Make RUN's report anew: one HTML page with its score, history, best trials and parameters.

    With --json, the numbers of the page are printed and no page is made.
    """
    from search.runs.paths import find_run

    paths = find_run(run_name, results)
    from search.report.build import report_record, write_report

    if as_json:
        click.echo(json.dumps(report_record(paths)))
        return
    page = write_report(paths, out)
    say(str(page))
    if opened == "yes" and has_screen():
        click.launch(str(page))


@click.command(cls=Command)
@click.argument("run_name", metavar="RUN")
@click.option(
    "--seeds", "num_seeds", type=click.IntRange(min=2), metavar="N",
    help="Trainings of each config; default: as search.confirm has it, or 3.",
)  # fmt: skip
@click.option(
    "--from", "begin", multiple=True, metavar="KEY=VALUE",
    help="Begin with this setting instead of the config's own, e.g. model.arch=unet.",
)  # fmt: skip
@RESULTS
@JSON
def explain(run_name: str, num_seeds: int | None, begin: tuple[str, ...], results: Path, as_json: bool) -> None:
    """Say what each change from the config's own values to RUN's winner is worth.

    One group of settings after the other is changed from the one to the other: architecture, encoder, loss,
    augmentation, scheduler, optimizer, training, threshold. Each config on the way is trained with several seeds, as
    Ray trials; the steps' worths have intervals and add up. A choice in which both are the same is set against the
    best trial that chose otherwise.

    Stopped in the middle, the same command continues it. The ledger is kept with RUN, and shown by show and report.
    """
    from search.runs.paths import find_run

    paths = find_run(run_name, results)
    from search.show.ledger import render_ledger
    from search.stages.explaining import explain as train_and_compare
    from search.stages.job import make_report

    record = train_and_compare(paths, console, num_seeds=num_seeds, begin=begin)
    if record is None:
        sys.exit(130)
    make_report(paths)
    if as_json:
        click.echo(json.dumps(record.tree()))
        return
    for part in render_ledger(record, paths.name):
        say(part)


@click.command(cls=Command)
@click.argument("run_name", metavar="RUN")
@click.option("--trial", "number", default=0, show_default=True, type=click.IntRange(min=0), help="The trial's number.")
@click.option("--epochs", type=click.IntRange(min=1), help="Stop after so many; default: the trial's last one.")
@click.option("--within", type=click.FloatRange(min=0.0), metavar="X", help="Largest difference that is a match.")
@RESULTS
@JSON
def reproduce(
    run_name: str, number: int, epochs: int | None, within: float | None, results: Path, as_json: bool
) -> None:
    """Train a trial of RUN again, from nothing and in this process, and say whether it came out the same.

    A single training run is its own trial 0. On a GPU, what two trainings differ by is a match, unless --within is
    given; else nothing is. Exit code 0: it matched; 1: it did not. RUN stays as it is.
    """
    from search.runs.paths import find_run

    paths = find_run(run_name, results)
    from search.show.reproduction import render_reproduction
    from search.stages.reproducing import reproduce as train_again

    record = train_again(paths, number, console, num_epochs=epochs, within=within)
    for part in [] if as_json else render_reproduction(record):
        say(part)
    if as_json:
        click.echo(json.dumps(record))
    sys.exit(0 if record["matched"] else 1)
