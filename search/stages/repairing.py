"""Files of a run that can be made anew from its other files: found damaged, set aside, written again."""

import logging
from collections.abc import Callable, Iterator
from pathlib import Path

from search.errors import BundleError, RunError
from search.runs.folder import new_record, stored_config, update_run
from search.runs.journal import read_journal
from search.runs.paths import RunPaths, set_aside, write_json
from search.runs.records import read_exports, read_run
from search.runs.rerun_records import read_confirmation
from search.runs.tables import read_table
from search.study.mirror import damage_of_study
from segcore.sealed.card import verify_bundle

log = logging.getLogger("segsearch")


def repair(paths: RunPaths) -> bool:
    """Sets aside what is damaged and can be made anew by a resume; the run's record is written again at once.

    Returns:
        Whether a resume has something to make, of a run that is done as well.

    Raises:
        RunError: The record is damaged, and the config cannot make up for it.
    """
    for journal in (paths.events, paths.reruns.events):
        read_journal(journal).warn()
    _repair_record(paths)
    damaged = list(_damaged(paths))
    for path, why in damaged:
        if path == paths.study:
            continue  # opening it sets it aside, and knows whether it can be built anew
        if path.is_file():
            aside = set_aside(path)
            log.warning("%s is damaged (%s): it is kept as %s, and made anew", path, why, aside.name)
        else:
            log.warning("%s: %s; it is made anew", path, why)
    if damaged and read_run(paths).status == "done":
        update_run(paths, status="interrupted")
    return bool(damaged)


def _repair_record(paths: RunPaths) -> None:
    try:
        read_run(paths)
        return
    except RunError as error:
        if "newer segsearch" in str(error):
            raise
        why = error
    config = stored_config(paths)
    if paths.run.exists():
        aside = set_aside(paths.run)
        log.warning("%s; it is kept as %s, and made anew without times and versions of before", why, aside.name)
    else:
        log.warning("%s is missing: it is made anew without times and versions of before", paths.run)
    record = new_record(config, "search" if config.space else "train").but(status="interrupted")
    write_json(paths.run, record.tree())


def _damaged(paths: RunPaths) -> Iterator[tuple[Path, str]]:
    """Each damaged file, or missing one of a run that is done, and why."""
    record = read_run(paths)
    is_done, is_search = record.status == "done", record.kind == "search"
    readers: list[tuple[Path, Callable[[], object]]] = [
        (paths.epochs, lambda: read_table(paths.epochs)),
        (paths.confirmation, lambda: read_confirmation(paths)),
        (paths.export, lambda: read_exports(paths)),
    ]
    if is_search:
        readers.append((paths.trials, lambda: read_table(paths.trials)))
    for path, read in readers:
        if not path.exists():
            if is_done and path in (paths.trials, paths.epochs):
                yield path, "it is missing"
            continue
        try:
            read()
        except (RunError, OSError, ValueError) as error:
            yield path, str(error).partition("\n")[0].partition(". Made anew")[0].removeprefix(f"{path} ")
    if is_done and is_search and (why := damage_of_study(paths.study)) is not None:
        yield paths.study, why
    if is_done:
        try:
            verify_bundle(paths.best)
        except BundleError as error:
            yield paths.best, str(error)
