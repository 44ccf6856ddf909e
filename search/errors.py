"""Errors of the search, its runs and its exports. The root and the training errors live in `segcore.errors`."""

from segcore.errors import (
    BundleError,
    ConfigError,
    DataError,
    DiskError,
    NoDataError,
    SegsearchError,
    TrainingError,
)

__all__ = [
    "BundleError",
    "CheckError",
    "ConfigError",
    "DataError",
    "DiskError",
    "ExportError",
    "GateError",
    "NoDataError",
    "NothingToSearchError",
    "PredictionError",
    "RayStartError",
    "ResourceError",
    "RunError",
    "SegsearchError",
    "TrainingError",
]


class CheckError(SegsearchError):
    """Several checks before a run failed; the message lists what each found."""

    exit_code = 2


class NothingToSearchError(ConfigError):
    """The config's space is empty, so all trials of a search would be the same."""


class ResourceError(SegsearchError):
    """A trial asks for more CPUs or GPUs than any node has, or no Ray answers at the config's address."""

    exit_code = 2


class RayStartError(SegsearchError):
    """Ray did not start on this machine, which is too crowded for it or lacks what it needs."""

    exit_code = 2


class GateError(SegsearchError):
    """One batch could not be learned, or was found to be wrong, before any long training began."""

    exit_code = 2


class RunError(SegsearchError):
    """A run's folder is missing, in use, or in a state in which the command makes no sense."""

    exit_code = 2


class PredictionError(SegsearchError):
    """Images were left without a mask; the message names each with its reason."""


class ExportError(SegsearchError):
    """An export target refused the sealed model, or what it holds afterwards is not what was sent."""

    exit_code = 3
