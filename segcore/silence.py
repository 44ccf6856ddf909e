"""Quiet for libraries that log what one message of ours says better. Every module may import it."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def silent_library(*names: str) -> Iterator[None]:
    """Drops what a library's loggers say below CRITICAL, whatever handlers it has given them.

    Args:
        names: The loggers; children that set no level of their own follow them.
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
