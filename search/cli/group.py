"""The group of all commands, where they print, and the options that several of them share."""

import logging
import os
import sys
from pathlib import Path
from typing import Any

import click
from rich.console import Console, RenderableType
from rich.markup import escape
from rich.text import Text

from search.terminal import ScreenHandler
from segcore.disk import disk_fault
from segcore.errors import SegsearchError

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
NAME = click.option(
    "--name",
    help="The run's name, of letters, digits, `.`, `_`, `-`; default: the config's name, or its file name.",
)
RUNS_IN = click.option(
    "--results", type=click.Path(path_type=Path), help="Folder of the runs, instead of the config's `results`."
)
RESULTS = click.option(
    "--results", type=click.Path(path_type=Path), default=Path("results"), show_default=True, help="Folder of the runs."
)
NO_GATE = click.option("--no-gate", is_flag=True, help="Do not overfit one batch first; the same as search.gate=false.")
JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON for programs.")


class Command(click.Command):
    """A command that takes no empty text for anything: `--name ''` is a mistake in a script, not a missing name."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parses the arguments."""
        given, _, _ = self.make_parser(ctx).parse_args(list(args))
        for param in self.get_params(ctx):
            values = given.get(str(param.name))
            if "" in (values if isinstance(values, list | tuple) else [values]):
                hint = getattr(param, "help", None)
                shown = param.make_metavar(ctx)
                rule = f"it is empty; give {shown}" + (f": {hint}" if hint else "")
                raise click.BadParameter(rule, ctx=ctx, param=param)
        return super().parse_args(ctx, args)


class Commands(click.Group):
    """Prints what a user caused without a traceback, and exits with the code that says whose fault it was."""

    def invoke(self, ctx: click.Context) -> Any:
        """Runs a command."""
        try:
            return super().invoke(ctx)
        except SegsearchError as error:
            # A name from the disk may hold what is no text, which no terminal takes.
            text = str(error).encode("utf-8", "backslashreplace").decode()
            console.print(f"[bold red]error:[/] {escape(text)}", highlight=False, soft_wrap=True)
            ctx.exit(error.exit_code)
        except OSError as error:
            fault = disk_fault(error)
            if fault is None:
                raise
            text = f"{fault}; make room there, or mend the disk, and give the same command again"
            console.print(f"[bold red]error:[/] {escape(text)}", highlight=False, soft_wrap=True)
            ctx.exit(1)
        except KeyboardInterrupt:
            console.print("interrupted", style="yellow")
            ctx.exit(130)


def say(*parts: RenderableType) -> None:
    """Prints results: text as it is, without breaking its lines, tables as wide as the terminal."""
    for part in parts:
        is_text = isinstance(part, str | Text)
        output.print(part, highlight=False, markup=False, soft_wrap=is_text)


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="segsearch")
@click.option("-v", "--verbose", is_flag=True, help="Also show what the libraries log.")
def main(verbose: bool) -> None:
    """Find the best segmentation model for a folder of images and masks."""
    os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # spinning threads starve each other on a busy machine
    handler: logging.Handler
    if console.is_terminal:
        handler = ScreenHandler(console)
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
