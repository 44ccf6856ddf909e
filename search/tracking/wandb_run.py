"""One wandb run from its opening to its end: our settings, its rows, its pictures, and whether it arrived."""

import json
import logging
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from search.config.tree import WandbConfig
from search.tracking.overlays import overlay_images
from search.tracking.wandb_service import Service
from segcore.checkpoint.examples import read_curve, read_overlays

log = logging.getLogger("segsearch")

Mode = Literal["auto", "online", "offline", "disabled"]

INIT_TIMEOUT_S = 20.0
FINISH_TIMEOUT_S = 30.0
ASK_TIMEOUT_S = 5.0
FLUSH_INTERVAL_S = 1.0
"""`kill -9` loses at most this much of a log file; wandb's own 15 s would lose 15 s of epochs."""


@dataclass(frozen=True)
class Destination:
    """Where runs go: the project and group on the server, and the run's folder on disk.

    Attributes:
        project: The W&B project.
        group: Groups the trials on its page.
        run_dir: The run's folder; logs go below `wandb/` there.
        mode: `auto` is online with a key, offline without; a server that does not answer, or refuses the key,
            means offline with one warning.
        entity: User or team; None is the key's own.
        tags: Tags of every run.
    """

    project: str
    group: str
    run_dir: Path
    mode: Mode = "auto"
    entity: str | None = None
    tags: tuple[str, ...] = ()

    @classmethod
    def of(cls, config: WandbConfig, run_dir: Path, *more_tags: str) -> "Destination":
        """Where the runs of a search go.

        Args:
            config: The config's `tracking.wandb`.
            run_dir: The search's folder, whose name is the group where the config names none.
            more_tags: Tags beside the config's.
        """
        group, tags = config.group or run_dir.name, (*config.tags, *more_tags)
        return cls(config.project, group, run_dir, config.mode, config.entity, tags)


@dataclass(frozen=True)
class Ending:
    """How a run ended: its exit code, what goes into its summary, and the checkpoint with its pictures."""

    exit_code: int
    summary: Mapping[str, object]
    checkpoint: Path | None = None
    with_overlays: bool = False


class OpenRun:
    """A run that takes rows; opening it raises what `wandb.init` raises.

    Args:
        to: Where it goes.
        run_id: Its id in the project; the id of an earlier session resumes that run when online.
        name: Shown on its page.
        config: What it ran with.
        job_type: Kind of the run, None for a trial.
        online: Whether to send it, or only to write its log file.
    """

    def __init__(
        self,
        to: Destination,
        run_id: str,
        name: str,
        config: Mapping[str, object],
        job_type: str | None,
        *,
        online: bool,
    ) -> None:
        import wandb

        wanted: dict[str, Any] = {
            "init_timeout": INIT_TIMEOUT_S,
            "finish_timeout": FINISH_TIMEOUT_S,
            "finish_timeout_raises": True,
            "console": "off",
            "silent": True,
            "symlink": False,
            "save_code": False,
            "disable_git": True,
            "label_disable": True,
            "stop_fn": _ignore_stop,
            "x_disable_meta": True,
            "x_disable_stats": True,
            "x_save_requirements": False,
            "x_transaction_log_flush_interval": FLUSH_INTERVAL_S,
        }
        known = wandb.Settings.model_fields
        self._run = wandb.init(
            project=to.project,
            entity=to.entity,
            group=to.group,
            name=name,
            id=run_id,
            job_type=job_type,
            tags=list(to.tags) or None,
            config=dict(config),
            dir=to.run_dir,
            mode="online" if online else "offline",
            reinit="create_new",
            resume="allow" if online else None,
            settings=wandb.Settings(**{key: value for key, value in wanted.items() if key in known}),
        )
        self._run.define_metric("epoch", hidden=True)
        self._run.define_metric("curve/threshold", hidden=True, summary="none")
        self._run.define_metric("curve/*", step_metric="curve/threshold", summary="none")
        self.run_id, self.online = run_id, online
        self._project = to.project
        self._log_file = Path(self._run.settings.sync_file)
        self._num_rows = 0
        self._last_step = 0
        self._keys: set[str] = set()

    @property
    def url(self) -> str | None:
        """Its project's page; None offline."""
        return str(self._run.project_url) if self.online else None

    def row(self, step: int, values: Mapping[str, float]) -> None:
        """Logs one epoch."""
        for key in values.keys() - self._keys:
            self._run.define_metric(key, step_metric="epoch")
        self._keys |= values.keys()
        self._log({**values, "epoch": step}, step)

    def finish(self, ending: Ending) -> None:
        """Adds pictures and summary, and waits for the upload, at most `FINISH_TIMEOUT_S` seconds.

        Raises:
            TimeoutError: The server did not take everything in time; the log file has it.
        """
        try:
            self._run.summary.update(dict(ending.summary))
            if ending.checkpoint is not None:
                try:
                    self._log_checkpoint(ending.checkpoint, with_overlays=ending.with_overlays)
                except Exception as error:  # pictures are an extra; the run must still end as what it was
                    log.info("W&B run %s goes without its curve or overlays: %s", self.run_id, error)
        finally:
            self._run.finish(exit_code=ending.exit_code)

    def is_sent(self, service: Service | None) -> bool:
        """Whether the server has all rows; asked of the server, since wandb reports success without any.

        A run that is there is marked as `wandb sync` marks it, so that a later sync leaves it alone.
        """
        if not self.online or service is None:
            return False
        if service.api_key is not None:
            for wait_s in (0.0, 0.5, 1.0, 2.0):
                time.sleep(wait_s)
                count = service.count_rows(self._run.entity, self._project, self.run_id, ASK_TIMEOUT_S)
                if count is not None and count >= self._num_rows:
                    break
            else:
                return False
        self._log_file.with_name(f"{self._log_file.name}.synced").touch()
        return True

    def _log_checkpoint(self, folder: Path, *, with_overlays: bool) -> None:
        """Adds the best epoch, which may be older than this session, its threshold curve, and its overlays.

        The curve is logged as rows over `curve/threshold`, so that one chart shows all trials; a wandb table would
        be an artifact, which an offline log does not hold.
        """
        self._run.summary.update(_read_best(folder))
        curve = read_curve(folder)
        overlays = read_overlays(folder) if with_overlays else None
        if overlays is not None:
            self._log({"overlays": overlay_images(overlays)}, self._last_step + 1)
        for row in curve.rows() if curve is not None else ():
            self._log(row, self._last_step + 1)

    def _log(self, values: Mapping[str, object], step: int) -> None:
        self._run.log(dict(values), step=step, commit=True)
        self._num_rows += 1
        self._last_step = max(self._last_step, step)


def _read_best(folder: Path) -> dict[str, float]:
    """The best epoch's metrics as summary entries; empty when the folder does not have them."""
    try:
        record = json.loads((folder / "best.json").read_text(encoding="utf-8"))
        best = {"epoch": record["epoch"], **record["metrics"]}
    except (OSError, ValueError, KeyError, TypeError):
        return {}
    return {f"best/{key}": value for key, value in best.items() if isinstance(value, int | float)}


def safe_id(text: str) -> str:
    """`text` with only what a run id may hold, at most 64 characters."""
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", text)[:64]


def _ignore_stop() -> None:
    """Does nothing: wandb would interrupt the whole search when one trial's run is stopped on its page."""
    log.info("a stop on a W&B page does not stop a trial; use Ctrl-C here")
