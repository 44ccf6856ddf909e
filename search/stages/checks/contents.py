"""Checks of what is trained on and with: images and masks, models, the space, and one batch overfitted."""

import logging

from search.errors import RunError
from search.runs.records import read_run
from search.sampling.small_spaces import too_few_points
from search.stages import gating
from search.stages.checking import decode_data, find_data, fingerprint_of, prove_space, require_models, require_parts
from search.stages.checks.check import Checked, NotChecked, Preparation

log = logging.getLogger("segsearch")


def images_and_masks(job: Preparation) -> Checked:
    """The images and masks are found, and each has its partner.

    Raises:
        DataError: With everything that is wrong with them.
    """
    job.index = find_data(job.search.config)
    counts = ", ".join(f"{count} {split}" for split, count in job.index.counts().items() if count)
    return Checked(f"{counts} (layout {job.index.layout}) in {job.index.root}")


def models(job: Preparation) -> Checked:
    """Each encoder that may be chosen can be built, and its weights are on this machine afterwards.

    Raises:
        ConfigError: With the key at fault.
    """
    number = require_models(job.search)
    return Checked(f"{number} encoder{'s' * (number != 1)} built")


def batches(job: Preparation) -> Checked:
    """No point of the space trains on single images with a model that cannot.

    Raises:
        ConfigError: With the keys at fault.
    """
    assert job.index is not None
    fewest = require_parts(job.search, job.index.counts()["train"])
    return Checked(f"at least {fewest} image{'s' * (fewest != 1)} go through a model at once")


def space(job: Preparation) -> Checked | NotChecked:
    """Every searched key changes something.

    Raises:
        ConfigError: With the key at fault.
    """
    keys = list(job.search.space.keys())
    if not keys:
        return NotChecked("nothing is searched")
    prove_space(job.search)
    if (few := too_few_points(job.search)) is not None and job.moment == "begin":
        log.warning("%s", few)
    return Checked(f"each of {len(keys)} keys changes something" if len(keys) > 1 else f"{keys[0]} changes something")


def decoded(job: Preparation) -> Checked:
    """Every image and mask can be decoded, and, where a run has begun, they are what it began with.

    Raises:
        DataError: With everything that is wrong with them.
        RunError: They have changed since the run began.
    """
    assert job.index is not None
    job.cache_path = decode_data(job.index, job.search.config, job.console)
    if job.paths is not None and read_run(job.paths).data_fingerprint not in (None, fingerprint_of(job.cache_path)):
        raise RunError(
            f"{job.index.root}: the images or masks have changed since {job.paths.name!r} began, so its trials could "
            "not be compared with new ones; start a new run with --name"
        )
    height, width = job.search.config.data.image_hw
    return Checked(f"{len(job.index.samples)} at {height}x{width} px")


def one_batch(job: Preparation) -> Checked | NotChecked:
    """One batch can be overfitted.

    Raises:
        GateError: Names everything that is certainly wrong, and the picture's path.
    """
    if not job.search.config.search.gate:
        return NotChecked("search.gate is false")
    _, cache_path = job.data()
    job.gate = gating.inspect(job.search, cache_path, job.console)
    picture = job.show_gate(job.gate)
    gating.require_passed(job.gate, job.search.config.name, picture)
    log.info("gate: %s", gating.in_a_line(job.gate))
    return Checked("it can be learned")
