"""What a job looks at before anything is trained: images and masks, Ray, models, the space."""

import logging
from collections.abc import Iterable
from pathlib import Path

from rich.console import Console

from search.config.tree import SearchConfig
from search.errors import RunError
from search.runs.paths import RunPaths
from search.runs.records import read_run
from search.space.forbid import uniform_points
from search.space.proof import require_effects
from search.space.search import Search
from search.terminal import counting_bar
from segcore.config import TrainConfig
from segcore.data.pairs.discovery import discover
from segcore.data.pairs.leaks import leak_warnings
from segcore.data.pairs.samples import DatasetIndex
from segcore.data.pixels.cache import build_cache
from segcore.data.pixels.cache_file import open_cache
from segcore.errors import NoDataError

log = logging.getLogger("segsearch")

SPACE_SAMPLES = 64
"""Number of sampled points of the space; each encoder among them is built once."""


def find_data(config: SearchConfig) -> DatasetIndex:
    """Finds the images and masks of a config.

    Raises:
        DataError: With everything that is wrong with them.
    """
    try:
        return discover(config.data)
    except NoDataError as error:
        hint = "Point elsewhere with --set data.root=FOLDER, or try without data: --set data.root=synthetic"
        raise NoDataError(f"{error}\n  {hint}") from error


def prepare_data(config: SearchConfig, console: Console) -> tuple[DatasetIndex, Path]:
    """Finds the images and masks, and `decode_data`.

    Raises:
        DataError: With everything that is wrong with the data.
    """
    index = find_data(config)
    return index, decode_data(index, config, console)


def decode_data(index: DatasetIndex, config: SearchConfig, console: Console) -> Path:
    """Checks the images and masks, and decodes them once, into the cache whose path it returns.

    Args:
        index: The images and masks.
        config: The config that names the data.
        console: Where progress is shown.

    Raises:
        DataError: With everything that is wrong with the data.
    """
    with counting_bar(console, "decoding images") as advance:
        cache_path = build_cache(index, config.data, advance)
    with open_cache(cache_path) as cache:
        for warning in (*index.warnings, *cache.warnings, *leak_warnings(cache, index)):
            log.warning("data: %s", warning)
    counts = ", ".join(f"{count} {split}" for split, count in index.counts().items() if count)
    height, width = config.data.image_hw
    log.info("data: %s images (layout %s) at %dx%d px from %s", counts, index.layout, width, height, index.root)
    return cache_path


def require_cluster(config: SearchConfig) -> None:
    """Refuses a search whose Ray does not answer, before anything is decoded.

    Raises:
        ResourceError: With the address and what names it.
    """
    from search.tune.cluster.start import require_ray

    require_ray(config.resources.address)


def require_models(search: Search) -> int:
    """`require_encoders` of all that the search may choose; returns how many they are.

    Raises:
        ConfigError: With the key at fault.
    """
    points = (flat for flat in uniform_points(search.space, SPACE_SAMPLES) if search.space.forbidden(flat) is None)
    return require_encoders([search.base, *map(search.trained_with, points)])


def require_encoders(candidates: Iterable[TrainConfig]) -> int:
    """Builds each encoder once, so that a wrong name or missing weights show now, before any image is decoded.

    This also downloads weights from timm's hub once, before all trials ask for them. Returns how many there are.

    Raises:
        ConfigError: With the key at fault.
    """
    from segcore.models.build import build_model

    seen = set()
    for model in (candidate.model for candidate in candidates):
        key = (model.encoder, model.encoder_weights, model.decoder_channels, model.depth)
        if key not in seen:
            seen.add(key)
            build_model(model)
    return len(seen)


def prove_space(search: Search) -> None:
    """Refuses a searched key that changes nothing in what trials are built of.

    Raises:
        ConfigError: With the key at fault.
    """
    require_effects(search.space, search.base)


def same_data(config: SearchConfig, paths: RunPaths, console: Console) -> tuple[DatasetIndex, Path]:
    """The run's data and its cache, which is decoded again where it is gone.

    Args:
        config: The run's config.
        paths: The run.
        console: Where progress is shown.

    Raises:
        RunError: The data has changed since the run began.
    """
    index, cache_path = prepare_data(config, console)
    if read_run(paths).data_fingerprint not in (None, fingerprint_of(cache_path)):
        raise RunError(
            f"{index.root}: the images or masks have changed since {paths.name!r} began, so its trials could not be "
            "compared with new ones; start a new run with --name"
        )
    return index, cache_path


def fingerprint_of(cache_path: Path) -> str:
    """The fingerprint of the decoded data."""
    with open_cache(cache_path) as cache:
        return cache.fingerprint
