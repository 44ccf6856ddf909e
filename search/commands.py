"""The commands that messages tell the user to type.

Each can be pasted into a shell in the folder that it was printed in, wherever the runs are kept and whatever is in
their paths. Every module may import this one.
"""

import shlex
from collections.abc import Sequence
from pathlib import Path

DEFAULT_RESULTS = Path("results")
"""Where a command looks for runs by itself, below the folder that it is typed in."""

_MADE_ANEW = {
    "run.json": "resume",
    "study.db": "resume",
    "trials.parquet": "resume",
    "epochs.parquet": "resume",
    "confirm.json": "resume",
    "export.json": "resume",
    "ledger.json": "explain",
}
"""Which command writes a file of a run again."""

EXAMPLE_CONFIG = Path("configs") / "quickstart.yaml"


def run_command(verb: str, run: Path, *arguments: str) -> str:
    """`segsearch VERB RUN ...`, with `--results DIR` where the run is not in `./results`.

    Args:
        verb: The command's name.
        run: The run's folder.
        arguments: What comes after the run, unquoted.
    """
    run = run.absolute()
    if run.name.startswith("-"):  # would be read as an option
        return quoted("segsearch", verb, shown_path(run), *arguments)
    return quoted("segsearch", verb, run.name, *arguments, *results_option(run.parent))


def remedy(path: Path) -> str:
    """What can be done about a damaged file of a run, as the end of a message; empty where nothing is known.

    Args:
        path: The file, directly in the run's folder.
    """
    run = path.parent
    if path.name in _MADE_ANEW:
        return f". Made anew from the other files by: {run_command(_MADE_ANEW[path.name], run)}"
    if path.name == "config.yaml":
        return ". Put it back from a copy; best/card.json, where there is one, has the settings of the sealed model"
    return ""


def config_command(
    verb: str, config: Path, *, overrides: Sequence[str] = (), name: str | None = None, results: Path | None = None
) -> str:
    """`segsearch VERB CONFIG ...`, as the user would type it for a config file.

    Args:
        verb: The command's name.
        config: The config file, as it was given.
        overrides: What `--set` gets, one after the other.
        name: What `--name` gets; None leaves it out.
        results: What `--results` gets; None leaves it out.
    """
    options = [word for override in overrides for word in ("--set", override)]
    options += [] if name is None else ["--name", name]
    options += [] if results is None else ["--results", str(results)]
    return quoted("segsearch", verb, str(config), *options)


def first_command(results: Path) -> str:
    """A first run for somebody who has none, of the example config where it is within reach."""
    beside_code = Path(__file__).resolve().parents[1] / EXAMPLE_CONFIG
    config = next((path for path in (EXAMPLE_CONFIG, beside_code) if path.is_file()), None)
    options = results_option(results)
    return quoted("segsearch", "run", str(config), *options) if config else " ".join(["segsearch run CONFIG", *options])


def results_option(results: Path) -> list[str]:
    """`--results DIR`; nothing, where a command finds the runs by itself."""
    if results.resolve() == DEFAULT_RESULTS.resolve():
        return []
    return ["--results", shown_path(results)]


def shown_path(path: Path) -> str:
    """A path as it is typed here: relative to the current folder where it lies below it, else absolute."""
    path = path.resolve()
    here = Path.cwd().resolve()
    return str(path.relative_to(here)) if path.is_relative_to(here) else str(path)


def quoted(*words: str) -> str:
    """The words as one line for a POSIX shell."""
    return shlex.join(words)
