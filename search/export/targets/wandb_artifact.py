"""Target `wandb_artifact: NAME`: the sealed model as an artifact of type `model` in the run's W&B project.

W&B reports success for uploads that never arrived, so what counts here is what the server says afterwards: the
artifact's state is COMMITTED and its digest, which covers every file, is the one that was worked out before sending.
"""

import os
import re
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

from pydantic import Field

from search.errors import ExportError
from search.export.files import Progress, card_last, digest_of
from search.export.target import Destination, Receipt, TrackingContext, destination
from search.secrets import redact

if TYPE_CHECKING:
    from search.tracking.wandb_service import Service

KEY_VARIABLE = "WANDB_API_KEY"
ARTIFACT_TYPE = "model"
_NAME = re.compile(r"[A-Za-z0-9_.\-]{1,128}")
_INIT_S = 20.0
_FINISH_S = 30.0
_OFF = {"offline", "dryrun", "disabled"}

Result = TypeVar("Result")


class WandbArtifactTarget:
    """A named artifact; each export that differs from the last becomes its next version.

    Args:
        location: The artifact's name.
        context: Project, entity and group that it belongs to.
        probe_s: Longest wait for a first answer of the server, in seconds.
        patience_s: Longest wait for init, upload and commit, in seconds, besides the time that the bytes need.
        bytes_per_s: The slowest upload that is waited for.
    """

    kind = "wandb_artifact"

    def __init__(
        self,
        location: str,
        context: TrackingContext | None = None,
        *,
        probe_s: float = 10.0,
        patience_s: float = 120.0,
        bytes_per_s: float = 250e3,
    ) -> None:
        if not _NAME.fullmatch(location):
            raise ExportError(
                f"wandb_artifact: a name has 1 to 128 letters, digits, `.`, `_` or `-` and nothing else, "
                f"found {location!r}"
            )
        self.location = location
        self.context = context or TrackingContext()
        self._probe_s = probe_s
        self._patience_s = patience_s
        self._bytes_per_s = bytes_per_s

    def check(self) -> None:
        """Needs W&B to be online and a key; see `Target.check`."""
        self._service()

    def ask(self, timeout_s: float) -> str | None:
        """Asks the server whether it takes the key; see `Target.check` for what is asked of this machine alone.

        Args:
            timeout_s: Longest wait in seconds.

        Returns:
            Why nothing is known, if so.

        Raises:
            ExportError: The key is refused.
        """
        from search.tracking.wandb_service import KEY_REFUSED

        service = self._service()
        problem = service.problem(timeout_s)
        if problem == KEY_REFUSED:
            raise ExportError(f"W&B at {service.base_url} {problem}; set another {KEY_VARIABLE}")
        return f"W&B at {service.base_url} {problem}" if problem else None

    def upload(self, files: Mapping[str, Path], *, progress: Progress | None = None) -> Receipt:
        """Logs the files as one artifact and waits until the server has committed it; see `Target.upload`.

        Raises:
            ExportError: W&B is offline, has no key, refuses it, does not answer in time or did not commit.
        """
        started = time.monotonic()
        service = self._service()
        if problem := service.problem(self._probe_s):
            raise ExportError(f"wandb_artifact:{self.location}: W&B at {service.base_url} {problem}; try again later")
        try:
            digests = {name: digest_of(files[name]) for name in card_last(files)}
        except OSError as error:
            raise ExportError(f"a file of the model cannot be read: {error}") from error
        size = sum(digest["size"] for digest in digests.values())
        limit_s = self._patience_s + size / self._bytes_per_s
        if progress is not None:
            for name, digest in digests.items():
                progress(name, 0, digest["size"])
        try:
            url = _bounded(_INIT_S + limit_s + _FINISH_S, lambda: self._log(files, limit_s))
        except ExportError:
            raise
        except TimeoutError as error:
            raise ExportError(
                f"wandb_artifact:{self.location}: W&B did not confirm it within {limit_s:.0f} s; try again later"
            ) from error
        except Exception as error:  # wandb raises errors of many kinds, some of them plain ValueError
            detail = redact(" ".join(str(error).split()), (KEY_VARIABLE,))[:300]
            raise ExportError(
                f"wandb_artifact:{self.location}: W&B did not take it: {type(error).__name__}: {detail}"
            ) from error
        if progress is not None:
            for name, digest in digests.items():
                progress(name, digest["size"], digest["size"])
        return Receipt(self.kind, self.location, digests, url, time.monotonic() - started)

    def _service(self) -> "Service":
        mode = self.context.mode if self.context.mode in _OFF else os.environ.get("WANDB_MODE", "")
        if mode in _OFF or os.environ.get("WANDB_DISABLED", "").lower() in ("1", "true"):
            raise ExportError(
                f"wandb_artifact:{self.location} needs W&B online and it is {mode or 'disabled'} here; set "
                "tracking.wandb.mode to auto or online, unset WANDB_MODE, and export again"
            )
        from search.tracking.wandb_service import find_service, server_and_key

        base_url, key = server_and_key()
        service = find_service(base_url, key)
        if service is None:
            raise ExportError(
                f"wandb_artifact:{self.location} needs an API key for {base_url} and there is none: set "
                f"{KEY_VARIABLE} (https://wandb.ai/authorize) or run `wandb login`"
            )
        return service

    def _log(self, files: Mapping[str, Path], limit_s: float) -> str | None:
        import wandb

        if self.context.run_dir is not None:
            self.context.run_dir.mkdir(parents=True, exist_ok=True)
        run = wandb.init(
            project=self.context.project,
            entity=self.context.entity,
            group=self.context.group,
            name=f"{self.context.group or self.location}-export",
            job_type="export",
            dir=str(self.context.run_dir) if self.context.run_dir is not None else None,
            mode="online",
            reinit="create_new",
            settings=wandb.Settings(
                silent=True,
                console="off",
                init_timeout=min(_INIT_S, self._patience_s),
                finish_timeout=min(_FINISH_S, self._patience_s),
                x_disable_stats=True,
                x_disable_meta=True,
                disable_git=True,
                disable_code=True,
            ),
        )
        committed = False
        try:
            artifact = wandb.Artifact(self.location, type=ARTIFACT_TYPE, description="A model sealed by segsearch")
            for name in card_last(files):
                artifact.add_file(str(files[name]), name=name, policy="immutable", skip_cache=True)
            expected = artifact.digest
            logged = run.log_artifact(artifact)
            try:
                logged.wait(timeout=max(1, int(limit_s)))
            except wandb.Error as error:
                raise TimeoutError if isinstance(error.__cause__, TimeoutError) else error from error.__cause__
            self._verify(logged, expected)
            committed = True
            project_url = (run.url or "").partition("/runs/")[0]
            return f"{project_url}/artifacts/{ARTIFACT_TYPE}/{self.location}/{logged.version}" if project_url else None
        finally:
            run.finish(exit_code=0 if committed else 1)

    def _verify(self, artifact: Any, expected: str) -> None:
        if artifact.state != "COMMITTED":
            raise ExportError(
                f"wandb_artifact:{self.location}: W&B took the upload and left it {artifact.state}, so nobody can "
                "download it; try again later"
            )
        if artifact.digest != expected:
            raise ExportError(
                f"wandb_artifact:{self.location}: W&B holds an artifact with digest {artifact.digest}, not the "
                f"{expected} that was sent; try again"
            )


def _bounded(limit_s: float, work: Callable[[], Result]) -> Result:
    """The result of `work`, or its exception, or TimeoutError; work that is late is left in a daemon thread."""
    results: list[Result] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            results.append(work())
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=run, name="segsearch-wandb-export", daemon=True)
    thread.start()
    thread.join(limit_s)
    if errors:
        raise errors[0]
    if not results:
        raise TimeoutError(f"no result within {limit_s:.0f} s")
    return results[0]


COMPONENT = destination(
    "wandb_artifact",
    "An artifact's name: letters, digits, `.`, `_`, `-`.",
    Annotated[str, Field(pattern=r"^[A-Za-z0-9_.\-]+$", max_length=128)],
    Destination(open=WandbArtifactTarget, placeholder="NAME", secrets=(KEY_VARIABLE,), is_service=True),
    reads=("tracking.wandb.mode", "tracking.wandb.project", "tracking.wandb.entity", "tracking.wandb.group"),
    order=30,
)
