"""What a user can cause, as exceptions with one clear message and an exit code.

`SegsearchError` is the root. The command line prints its message without a traceback and
exits with `exit_code`: 2 when the usage, the config or the data is at fault, 1 when a job failed.
"""


class SegsearchError(Exception):
    """Root of every error whose cause lies outside this code; its message is meant for the user."""

    exit_code = 1


class ConfigError(SegsearchError):
    """The config breaks a rule; the message names every offending dotted key."""

    exit_code = 2


class DataError(SegsearchError):
    """The data set cannot be used as it is; the message lists what is wrong, with counts and examples."""

    exit_code = 2


class NoDataError(DataError):
    """There are no images with masks where they were looked for; the message says what was found instead."""


class BundleError(SegsearchError):
    """A sealed model is missing, altered, or of a format that this version cannot read."""

    exit_code = 2


class TrainingError(SegsearchError):
    """A training run cannot continue; the message names the cause and the epoch."""


class NonFiniteLossError(TrainingError):
    """The loss became NaN or infinite."""


class DiskError(TrainingError):
    """A disk is full, read-only or broken: what was being done is unfinished, not wrong, and can go on later."""


class LoaderError(TrainingError):
    """A loader process died or stands still; the message names the cause and `train.num_workers`."""


class SharedMemoryError(LoaderError):
    """Shared memory has no room for a batch of the loader processes."""


class AppliedConfigError(TrainingError):
    """What was built is not what the config asks for; the message names the key, and what was wanted and found."""
