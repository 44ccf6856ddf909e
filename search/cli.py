"""The command line: parses, calls, prints. Whatever takes long to import is imported by the command that needs it."""

import json
import logging
import os
import sys
from pathlib import Path
from typing import Any

import click
from rich import box
from rich.console import Console
from rich.logging import RichHandler
from rich.markup import escape
from rich.table import Table

from search.errors import SegsearchError
from search.terminal import counting_bar, has_screen, transfer_bars

log = logging.getLogger("segsearch")
console = Console(stderr=True)
output = Console(width=None if sys.stdout.isatty() else 120)

CONFIG = click.argument("config", type=click.Path(path_type=Path))
SET = click.option(
    "--set",
    "overrides",
    multiple=True,
    metavar="KEY=VALUE",
    help="Override any key of the config, e.g. train.epochs=5.",
)
NAME = click.option("--name", help="The run's name; default: the config's name, or its file name.")
RESULTS = click.option(
    "--results", type=click.Path(path_type=Path), default=Path("results"), show_default=True, help="Folder of the runs."
)
LAYOUTS = ["auto", "split_folders", "flat", "suffix", "csv"]
SPLITS = ["train", "val", "test", "all"]
NO_GATE = click.option("--no-gate", is_flag=True, help="Do not overfit one batch first; the same as search.gate=false.")
JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON for programs.")


class Commands(click.Group):
    """Prints what a user caused without a traceback, and exits with the code that says whose fault it was."""

    def invoke(self, ctx: click.Context) -> Any:
        """Runs a command."""
        try:
            return super().invoke(ctx)
        except SegsearchError as error:
            console.print(f"[bold red]error:[/] {escape(str(error))}", highlight=False, soft_wrap=True)
            ctx.exit(error.exit_code)
        except KeyboardInterrupt:
            console.print("interrupted", style="yellow")
            ctx.exit(130)


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="segsearch")
@click.option("-v", "--verbose", is_flag=True, help="Also show what the libraries log.")
def main(verbose: bool) -> None:
    """Find the best segmentation model for a folder of images and masks."""
    os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # spinning threads starve each other on a busy machine
    handler: logging.Handler
    if console.is_terminal:
        handler = RichHandler(console=console, show_path=False, show_level=False, log_time_format="[%X]", markup=False)
    else:
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s", "%Y-%m-%d %H:%M:%S"))
    root = logging.getLogger()
    for old in list(log.handlers):
        log.removeHandler(old)
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    log.propagate = False
    if verbose:
        root.addHandler(handler)
        root.setLevel(logging.INFO)


@main.command()
@CONFIG
@SET
@NAME
@click.option("--local", is_flag=True, help="One trial at a time in a small Ray of its own; for trying a config out.")
@NO_GATE
def run(config: Path, overrides: tuple[str, ...], name: str | None, local: bool, no_gate: bool) -> None:
    """Search CONFIG's space and hand over the best model: check, cache, gate, search, seal, export."""
    alone = ("search.max_concurrent=1", "resources.address=null") if local else ()
    loaded = _load(config, (*overrides, *alone), name, no_gate)
    from search import job

    sys.exit(_finish(job.run(loaded, console)))


@main.command()
@click.argument("run_name", metavar="RUN")
@RESULTS
def resume(run_name: str, results: Path) -> None:
    """Go on with a search that was stopped, by Ctrl-C, a crash or a kill."""
    from search.paths import find_run

    paths = find_run(run_name, results)
    from search import job

    sys.exit(_finish(job.resume(paths, console)))


@main.command()
@click.argument("run_name", metavar="RUN")
@click.option(
    "--num-samples", "num_more", required=True, type=click.IntRange(min=1), metavar="N",
    help="Trials to add: N more than have begun so far, not N in all.",
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

    An extension that is interrupted goes on with: segsearch resume RUN
    """
    from search.paths import find_run

    paths = find_run(run_name, results)
    from search import job

    sys.exit(_finish(job.extend(paths, num_more, overrides, console)))


@main.command()
@CONFIG
@SET
@NAME
@NO_GATE
def train(config: Path, overrides: tuple[str, ...], name: str | None, no_gate: bool) -> None:
    """Train CONFIG once as it stands, without a search, and seal the result."""
    loaded = _load(config, overrides, name, no_gate)
    from search import job

    sys.exit(_finish(job.train(loaded, console)))


@main.command()
@CONFIG
@SET
@NO_GATE
@click.option(
    "--picture", type=click.Path(path_type=Path, dir_okay=False),
    help="PNG of the batch, its masks and predictions; default: a new file in the system's folder for such.",
)  # fmt: skip
def check(config: Path, overrides: tuple[str, ...], no_gate: bool, picture: Path | None) -> None:
    """Validate CONFIG and its data: every file is decoded, one batch is overfitted, everything wrong is listed."""
    loaded = _load(config, overrides, None, no_gate)
    from search import gating, job

    _, cache_path = job.check(loaded, console)
    if loaded.search.gate:
        report = gating.inspect(loaded, cache_path, console)
        for part in gating.render_gate(report):
            output.print(part, highlight=False)
        picture = gating.write_picture(report, loaded.name, picture)
        output.print(f"picture: {picture}", highlight=False, soft_wrap=True)
        gating.require_passed(report, loaded.name, picture)
    output.print(f"{config}: config and data are fit for a run", highlight=False)


@main.command()
@CONFIG
@SET
@click.option("--samples", type=click.IntRange(0, 1000), default=10, show_default=True, help="Random points to show.")
@click.option("--seed", default=0, show_default=True, help="Seed of the random points.")
@click.option("--prove", is_flag=True, help="Also build what each key decides, and refuse one that changes nothing.")
@JSON
def space(config: Path, overrides: tuple[str, ...], samples: int, seed: int, prove: bool, as_json: bool) -> None:
    """Show what CONFIG searches: its space as a tree, its size, what is tried first, and sample points."""
    loaded = _load(config, overrides, None)
    if prove:
        from search.job import prove_space

        prove_space(loaded)
    from search.space_survey import survey
    from search.space_view import render_space

    record = survey(loaded, samples, seed)
    if as_json:
        click.echo(json.dumps(record))
        return
    for part in render_space(record, output.width):
        output.print(part, highlight=False)


@main.command()
@click.argument("model")
@click.argument("data")
@click.option(
    "--split", type=click.Choice(["train", "val", "test", "all"]), help="Default: test if there is one, else val."
)
@click.option("--layout", type=click.Choice(LAYOUTS), default="auto", show_default=True, help="As data.layout.")
@RESULTS
@JSON
def evaluate(model: str, data: str, split: str | None, layout: str, results: Path, as_json: bool) -> None:
    """Score MODEL (a bundle folder, a run, or yandex_disk:/path) on DATA."""
    from search.models import evaluate_data, load_model
    from search.show import scores_table
    from segcore.config import DataConfig

    with transfer_bars(console) as progress:
        bundle = load_model(model, results, progress)
    section = {**bundle.config.data.model_dump(), "root": data, "layout": layout}
    with counting_bar(console, "scoring") as advance:
        report = evaluate_data(bundle, DataConfig(**section), split, advance)
    if as_json:
        click.echo(json.dumps(report))
        return
    low, high = report["iou_interval"]
    title = f"{report['num_images']} {report['split']} images of {data}"
    output.print(f"{model} on {title}, at threshold {report['threshold']:.4f}", highlight=False, markup=False)
    output.print(f"IoU, mean per image: {report['iou']:.4f}  (95% interval {low:.4f} - {high:.4f})", highlight=False)
    output.print(scores_table(report, report["split"]))


@main.command()
@click.argument("model")
@click.argument("images", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "-o", "--out", required=True, type=click.Path(path_type=Path, file_okay=False), help="Folder of the masks."
)
@click.option(
    "--size", type=click.Choice(["original", "model"]), default="original", show_default=True,
    help="Masks at each image's own size, or at the size that the model sees.",
)  # fmt: skip
@RESULTS
def predict(model: str, images: tuple[Path, ...], out: Path, size: str, results: Path) -> None:
    """Write a mask (PNG, 0 and 255) for each of IMAGES, files or folders, into -o DIR."""
    from search.models import find_images, load_model, predict_images

    found = find_images(list(images))
    with transfer_bars(console) as progress:
        bundle = load_model(model, results, progress)
    with counting_bar(console, "predicting") as advance:
        predict_images(bundle, found, out, original_size=size == "original", progress=lambda n: advance(n, len(found)))
    output.print(f"{len(found)} masks in {out}", highlight=False)


@main.command(name="ls")
@RESULTS
@JSON
def list_command(results: Path, as_json: bool) -> None:
    """List the runs, newest first."""
    from search.show import run_rows

    rows = run_rows(results)
    if as_json:
        click.echo(json.dumps(rows))
        return
    if not rows:
        output.print(f"no runs in {results}; start one with: segsearch run configs/quickstart.yaml", highlight=False)
        return
    table = Table("run", "kind", "status", "created", "minutes", "trials", "IoU", "on", box=box.SIMPLE_HEAD)
    for row in rows:
        score = "" if row["iou"] is None else f"{row['iou']:.4f}"
        table.add_row(
            row["name"], row["kind"], row["status"], row["created"], f"{row['seconds'] / 60:.1f}",
            str(row["trials"] or ""), score, row["split"] or "",
        )  # fmt: skip
    output.print(table)


@main.command()
@click.argument("run_name", metavar="RUN")
@click.option("--top", default=10, show_default=True, help="Trials to list, best first.")
@RESULTS
@JSON
def show(run_name: str, top: int, results: Path, as_json: bool) -> None:
    """Show one run: its status, its best trials, its sealed model and its exports."""
    from search.show import render_run, run_details

    details = run_details(run_name, results)
    if as_json:
        click.echo(json.dumps(details))
        return
    for part in render_run(details, top):
        output.print(part, highlight=False)


@main.command()
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
    from search.paths import find_run

    paths = find_run(run_name, results)
    from search.report import report_record, write_report

    if as_json:
        click.echo(json.dumps(report_record(paths)))
        return
    page = write_report(paths, out)
    output.print(str(page), highlight=False, soft_wrap=True)
    if opened == "yes" and has_screen():
        click.launch(str(page))


@main.command()
@click.argument("run_name", metavar="RUN")
@click.option(
    "--to", "targets", multiple=True, metavar="TARGET", help="E.g. local:/models/birds or yandex_disk:/models."
)
@RESULTS
def export(run_name: str, targets: tuple[str, ...], results: Path) -> None:
    """Export a run's sealed model again, to the config's targets or to those given with --to."""
    from search.exporting import export_again

    sys.exit(export_again(run_name, results, list(targets), console))


@main.command()
@click.argument("run_name", metavar="RUN")
@click.option("--trial", "number", required=True, type=click.IntRange(min=0), metavar="N", help="The trial's number.")
@click.option(
    "-o", "--out", required=True, type=click.Path(path_type=Path, file_okay=False), help="A new folder, for the bundle."
)
@RESULTS
def seal(run_name: str, number: int, out: Path, results: Path) -> None:
    """Seal the model of trial N of RUN, instead of the best one, into -o DIR; RUN stays as it is.

    For a search with search.second_metric, `segsearch show RUN` lists the trials that are worth it.
    """
    from search.paths import find_run

    paths = find_run(run_name, results)
    from search import picking

    picking.seal_trial(paths, number, out, console)


@main.command()
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
    from search.paths import find_run

    paths = find_run(run_name, results)
    from search.reproducing import reproduce as train_again
    from search.reproducing_view import render_reproduction

    record = train_again(paths, number, console, num_epochs=epochs, within=within)
    for part in [] if as_json else render_reproduction(record):
        output.print(part, highlight=False)
    if as_json:
        click.echo(json.dumps(record))
    sys.exit(0 if record["matched"] else 1)


def _load(config: Path, overrides: tuple[str, ...], name: str | None, no_gate: bool = False) -> Any:
    from search.config import load_config

    named = (f"name={json.dumps(name)}",) if name else ()
    return load_config(config, (*overrides, *named, *(("search.gate=false",) if no_gate else ())))


def _finish(outcome: Any) -> int:
    from search.show import render_run, run_details

    if outcome.card is not None:
        details = run_details(str(outcome.paths.root), outcome.paths.root.parent)
        for part in render_run(details, 5):
            output.print(part, highlight=False)
    return int(outcome.exit_code)
