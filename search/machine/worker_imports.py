"""Hands the order of `import_order` to Ray's workers, which would look into the driver's current folder first."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import ray
from ray.job_config import JobConfig

from search.machine.import_order import import_order, is_installed


class OrderedImports(JobConfig):  # type: ignore[misc]
    """A job whose workers look for modules where the driver does, in the order of trust.

    Ray adds the driver's current folder when it connects, and each worker puts the job's folders in front of its own
    one after the other, so that the last one comes first.
    """

    def _get_proto_job_config(self) -> Any:
        self._py_driver_sys_path = import_order()[::-1]
        return super()._get_proto_job_config()


@contextmanager
def worker_environment() -> Iterator[None]:
    """The environment to start a Ray in: its processes look neither into their current folder nor into `PYTHONPATH`.

    The folders of `PYTHONPATH` reach the workers through `OrderedImports`, behind everything else. Where Ray itself is
    found through it, it stays.
    """
    changed: dict[str, str | None] = {"PYTHONSAFEPATH": "1"}
    if is_installed(ray.__file__):
        changed["PYTHONPATH"] = None
    before = {name: os.environ.get(name) for name in changed}
    _set(changed)
    try:
        yield
    finally:
        _set(before)


def _set(variables: dict[str, str | None]) -> None:
    for name, value in variables.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value
