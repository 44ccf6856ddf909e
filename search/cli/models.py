"""The commands around one model: score it, use it, seal another one, export it."""

import json
import re
import sys
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
from search.terminal import counting_bar, transfer_bars
from segcore.registries import LAYOUTS


class TargetOption(click.Option):
    """An option for export targets, whose help names each kind with its location; they load when help is asked for."""

    def get_help_record(self, ctx: click.Context) -> tuple[str, str]:
        """The option and its help."""
        from search.config.choices import TARGETS

        kinds = ", ".join(f"{target.name}:{target.build.placeholder}" for target in TARGETS)
        return f"{self.opts[0]} {self.metavar}", f"{self.help} One of {kinds}."


def foreground_value(text: str) -> int | str:
    """A value of `data.foreground`, as the config holds it.

    Raises:
        click.BadParameter: It is neither a whole number nor a colour.
    """
    if re.fullmatch(r"-?[0-9]{1,10}", text):
        return int(text)
    if re.fullmatch(r"#[0-9a-fA-F]{6}", text):
        return text
    raise click.BadParameter(f"{text!r} is neither a whole number nor a colour as '#rrggbb'")


@click.command(cls=Command)
@click.argument("model")
@click.argument("data")
@click.option(
    "--split", type=click.Choice(["train", "val", "test", "all"]), help="Default: test if there is one, else val."
)
@click.option(
    "--layout", type=click.Choice(["auto", *LAYOUTS.names]), default="auto", show_default=True, help="As data.layout."
)
@click.option(
    "--foreground",
    multiple=True,
    type=foreground_value,
    metavar="VALUE",
    help="As data.foreground, for DATA; may be given several times. Default: the model's.",
)
@RESULTS
@JSON
def evaluate(
    model: str,
    data: str,
    split: str | None,
    layout: str,
    foreground: tuple[int | str, ...],
    results: Path,
    as_json: bool,
) -> None:
    """Score MODEL (a bundle folder, a run, or yandex_disk:/path) on DATA."""
    from search.show.scores import scores_table
    from search.stages.predicting import evaluate_data, load_model
    from segcore.config import DataConfig

    with transfer_bars(console) as progress:
        bundle = load_model(model, results, progress)
    section = {**bundle.config.data.model_dump(), "root": data, "layout": layout}
    if foreground:
        section["foreground"] = foreground
    with counting_bar(console, "scoring") as advance:
        report = evaluate_data(bundle, DataConfig(**section), split, advance)
    if as_json:
        click.echo(json.dumps(report.tree()))
        return
    low, high = report.scores.iou_interval
    title = f"{report.scores.num_images} {report.split} images of {data}"
    say(f"{model} on {title}, at threshold {report.threshold:.4f}")
    say(f"IoU, mean per image: {report.scores.iou:.4f}  (95% interval {low:.4f} - {high:.4f})")
    output.print(scores_table(report.scores, report.split))


@click.command(cls=Command)
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
    """Write a mask (PNG, 0 and 255) for each of IMAGES, files or folders, into -o DIR.

    An image that cannot be read does not stop the others: it is named at the end, and the exit code is 1.
    """
    from search.errors import PredictionError
    from search.stages.predicting import find_images, load_model, predict_images, require_writable

    found = find_images(list(images))
    require_writable(out)
    with transfer_bars(console) as progress:
        bundle = load_model(model, results, progress)
    with counting_bar(console, "predicting") as advance:
        original_size = size == "original"
        failures = predict_images(
            bundle, found, out, original_size=original_size, progress=lambda n: advance(n, len(found))
        )
    say(f"{len(found) - len(failures)} masks in {out}")
    if failures:
        lines = "\n".join(f"  {failure.path}: {failure.reason}" for failure in failures)
        raise PredictionError(f"{len(failures)} of {len(found)} images have no mask\n{lines}")


@click.command(cls=Command)
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
    from search.runs.paths import find_run

    paths = find_run(run_name, results)
    from search.stages import picking

    picking.seal_trial(paths, number, out, console)


@click.command(cls=Command)
@click.argument("run_name", metavar="RUN")
@click.option(
    "--to",
    "targets",
    cls=TargetOption,
    multiple=True,
    metavar="TARGET",
    help="Where to, instead of the config's targets.",
)
@RESULTS
def export(run_name: str, targets: tuple[str, ...], results: Path) -> None:
    """Export a run's sealed model again, to the config's targets or to those given with --to."""
    from search.stages.exporting import export_again

    sys.exit(export_again(run_name, results, list(targets), console))
