"""Secrets come from the environment; here their values are kept out of every text that leaves the process."""

import os
from collections.abc import Iterable


def redact(text: str, variables: Iterable[str], instead: str = "***") -> str:
    """Replaces the values of secrets in a text.

    Args:
        text: What is about to be logged, printed or written.
        variables: The environment variables that hold secrets; empty or unset ones are ignored.
        instead: What stands in the value's place.
    """
    for variable in variables:
        secret = os.environ.get(variable, "").strip()
        if secret:
            text = text.replace(secret, instead)
    return text
