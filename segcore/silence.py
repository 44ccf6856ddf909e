"""Silences libraries that log what one of our messages says better. Every module may import it."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def silent_library(*names: str) -> Iterator[None]:
    """Drop log records below CRITICAL of a library's loggers, whatever their handlers, until the exit.

    Args:
        names: Names of the loggers; children without a level of their own inherit it.
    """
    loggers = [logging.getLogger(name) for name in names]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
