"""Writes wandb runs from a thread of its own, so that no server, however slow or dead, holds the search up.

Calls put work into a queue and return. The thread opens runs, logs rows and hands ending runs to short-lived threads
that wait for their upload. Each row also goes into the run's log file below `<run folder>/wandb`, whatever becomes
of the server: that file is the truth, and `wandb sync` sends it later.

A run that is resumed keeps its id. Online, the server continues it and ignores epochs it already has;
offline, each session writes a log of its own under the same id, and `wandb sync` joins them in order of their start.
There, epochs that were trained again are listed twice; charts are drawn over `epoch`, not over wandb's step.
"""

import atexit
import logging
import os
import queue
import secrets
import shlex
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from search.tracking.wandb_run import (
    ASK_TIMEOUT_S,
    Destination,
    Ending,
    Mode,
    OpenRun,
    safe_id,
)
from search.tracking.wandb_service import Service, find_service

log = logging.getLogger("segsearch")

ASK_AGAIN_S = 60.0
CLOSE_TIMEOUT_S = 55.0
_FRESH_S = 5.0
_KEY_FILE = "segsearch-id"


class RunLog:
    """Several wandb runs at a time, written in the background.

    Args:
        to: Where they go.
        quiet: Report a fallback as information, not as a warning.
    """

    def __init__(self, to: Destination, *, quiet: bool = False) -> None:
        self._to = to
        self._level = logging.INFO if quiet else logging.WARNING
        self._queue: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._mode: Mode = "offline"
        self._service: Service | None = None
        self._asked_at = self._dead_until = float("-inf")
        self._runs: dict[str, OpenRun] = {}
        self._ending: list[threading.Thread] = []
        self._unsent: set[OpenRun] = set()
        self._num_lost = 0
        self._has_warned = self._is_closed = self._has_exit_hook = False
        self._worker = threading.Thread(target=self._work, name="segsearch-wandb", daemon=True)
        self._worker.start()

    def open(self, key: str, *, name: str, config: Mapping[str, object], job_type: str | None = None) -> None:
        """Begins the run `key` of this folder, or resumes it; its id is the same in every session.

        Args:
            key: What names the run in this folder.
            name: Its name on the page.
            config: What it runs with.
            job_type: Kind of the run; None for a trial.
        """
        self._queue.put(lambda: self._open(key, name, dict(config), job_type))

    def row(self, key: str, step: int, values: Mapping[str, float]) -> None:
        """Logs one epoch's metrics; takes microseconds.

        Args:
            key: The run.
            step: The epoch.
            values: Metric -> value.
        """
        self._queue.put(lambda: self._row(key, step, dict(values)))

    def end(self, key: str, ending: Ending) -> None:
        """Ends a run; the rest of the upload continues in the background."""
        self._queue.put(lambda: self._end(key, ending))

    def close(self, timeout_s: float = CLOSE_TIMEOUT_S) -> None:
        """Waits until everything is written and sent, at most `timeout_s` seconds, and stops wandb.

        Says how to send what did not reach the server. Closing again does nothing.
        """
        if self._is_closed:
            return
        self._is_closed = True
        deadline = time.monotonic() + timeout_s
        stopper = threading.Thread(target=_teardown, name="segsearch-wandb-stop", daemon=True)
        self._queue.put(None)
        try:
            self._worker.join(max(0.0, deadline - time.monotonic() - 2.0))
            for thread in self._ending:
                thread.join(max(0.0, deadline - time.monotonic() - 2.0))
        except KeyboardInterrupt:
            deadline = time.monotonic()
            raise
        finally:  # also after an impatient Ctrl-C: wandb's own hook at exit, which may wait for long, must be gone
            stopper.start()
            stopper.join(max(1.0, deadline - time.monotonic()))
            self._report()

    def _work(self) -> None:
        is_usable = self._prepare()
        while (task := self._queue.get()) is not None:
            if not is_usable:
                continue
            try:
                task()
            except Exception as error:  # tracking never stops a search
                self._warn(f"W&B could not log something: {_one_line(error)}")

    def _prepare(self) -> bool:
        """Decides once for the run whether it logs online; False when there is nothing to log."""
        try:
            import wandb

            os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
            self._to.run_dir.mkdir(parents=True, exist_ok=True)
            settings = wandb.setup(settings=wandb.Settings(silent=True)).settings
            self._mode = self._decide(settings)
        except Exception as error:
            self._warn(f"W&B cannot be used, trials are not tracked there: {_one_line(error)}")
            return False
        return self._mode != "disabled"

    def _decide(self, settings: Any) -> Mode:
        mode = self._to.mode
        if mode == "auto" and settings.mode in ("offline", "dryrun", "disabled"):
            mode = "disabled" if settings.mode == "disabled" else "offline"
        if mode in ("offline", "disabled"):
            return mode
        self._service = find_service(settings.base_url, settings.api_key)
        if self._service is not None:
            return "online" if self._is_answering(self._service) else "offline"
        if mode == "online":
            self._warn(f"no W&B API key for {settings.base_url} (WANDB_API_KEY or `wandb login`); {self._offline()}")
        return "offline"

    def _is_answering(self, service: Service) -> bool:
        """Asks the server, with a bound; one that was found dead is asked again only after a while."""
        now = time.monotonic()
        if now < self._dead_until:
            return False
        if now - self._asked_at < _FRESH_S:
            return True
        problem = service.problem(ASK_TIMEOUT_S)
        if problem is None:
            self._asked_at = time.monotonic()
            return True
        self._dead_until = time.monotonic() + ASK_AGAIN_S
        self._warn(f"W&B at {service.base_url} {problem}; {self._offline()}")
        return False

    def _offline(self) -> str:
        return f"trials are logged in {self._to.run_dir / 'wandb'} and can be sent later"

    def _warn(self, message: str) -> None:
        """Warns once per run; the same cause is not reported again."""
        with self._lock:
            level = logging.DEBUG if self._has_warned else self._level
            self._has_warned = True
        log.log(level, "%s", message)

    def _open(self, key: str, name: str, config: Mapping[str, object], job_type: str | None) -> None:
        if key in self._runs:
            return
        run_id = f"{self._id_prefix()}-{safe_id(key)}"
        online = self._mode == "online" and self._service is not None and self._is_answering(self._service)
        earlier = self._logs_of(run_id)
        try:
            opened = OpenRun(self._to, run_id, name, config, job_type, online=online)
        except Exception as error:
            if not online:
                raise
            for path in self._logs_of(run_id) - earlier:  # an empty log, not to be sent
                path.with_name(f"{path.name}.synced").touch()
            self._dead_until = time.monotonic() + ASK_AGAIN_S
            self._warn(f"W&B refused a run: {_one_line(error)}; {self._offline()}")
            # wandb holds the id of a failed start until it is torn down
            opened = OpenRun(self._to, f"{run_id}-offline", name, config, job_type, online=False)
        self._runs[key] = opened
        if not self._has_exit_hook:
            self._has_exit_hook = True
            atexit.register(self.close)  # after wandb's own hook, so that ours, which is bounded, runs first
            if opened.url and self._level == logging.WARNING:
                log.info("W&B: %s (group %s)", opened.url, self._to.group)

    def _logs_of(self, run_id: str) -> set[Path]:
        return set((self._to.run_dir / "wandb").glob(f"run-*-{run_id}/run-{run_id}.wandb"))

    def _id_prefix(self) -> str:
        """The run's name and a random part that stays with its folder: a new run of an old name is not the old run."""
        path = self._to.run_dir / "wandb" / _KEY_FILE
        if path.is_file():
            return path.read_text(encoding="utf-8").strip()
        prefix = f"{safe_id(self._to.run_dir.resolve().name)}-{secrets.token_hex(3)}"
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{_KEY_FILE}.{os.getpid()}")
        temporary.write_text(prefix, encoding="utf-8")
        os.replace(temporary, path)
        return prefix

    def _row(self, key: str, step: int, values: dict[str, float]) -> None:
        try:
            self._runs[key].row(step, values)
        except Exception:
            self._num_lost += 1
            raise

    def _end(self, key: str, ending: Ending) -> None:
        opened = self._runs.pop(key, None)
        if opened is None:
            return
        self._unsent.add(opened)
        thread = threading.Thread(target=self._finish, args=(opened, ending), name="segsearch-wandb-end", daemon=True)
        self._ending = [other for other in self._ending if other.is_alive()] + [thread]
        thread.start()

    def _finish(self, opened: OpenRun, ending: Ending) -> None:
        try:
            opened.finish(ending)
            if opened.is_sent(self._service):
                with self._lock:
                    self._unsent.discard(opened)
            elif opened.online:
                self._warn(f"W&B did not take all rows of run {opened.run_id}; {self._offline()}")
        except TimeoutError:
            self._warn(f"W&B stopped answering; {self._offline()}")
        except Exception as error:
            self._warn(f"W&B could not end run {opened.run_id}: {_one_line(error)}")

    def _report(self) -> None:
        if self._worker.is_alive() or self._num_lost:
            log.log(self._level, "some epochs are missing in W&B's logs; events.jsonl has them all")
        with self._lock:
            unsent = [*self._unsent, *self._runs.values()]
        if unsent:
            option = " --include-online" if any(opened.online for opened in unsent) else ""
            folder = shlex.quote(str(self._to.run_dir.resolve()))
            command = f"cd {folder} && wandb sync --yes{option}"
            log.info("%d W&B runs are on this disk only; send them with: %s", len(unsent), command)


def _teardown() -> None:
    import wandb

    try:
        wandb.teardown()
    except (Exception, SystemExit) as error:  # wandb exits with the code of its service
        log.debug("wandb.teardown: %s", error)


def _one_line(error: BaseException) -> str:
    text = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
    return f"{type(error).__name__}: {text[:300]}"
