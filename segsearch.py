"""The command `segsearch`, also as `python -m segsearch`.

A module of its own, under a name that nobody else uses: a `search.py` or a folder `segcore` on `PYTHONPATH` would be
imported instead of our packages before they could do anything about it.
"""

import os
import sys


def main() -> None:
    """Runs the command with our own packages, whatever else is called like them or like what they need."""
    python = (sys.prefix, sys.base_prefix)
    # Without pathlib, which might be theirs: nothing is imported yet that was not imported when Python started.
    here = os.path.dirname(os.path.abspath(__file__))  # noqa: PTH100, PTH120
    foreign = [entry for entry in sys.path if not entry.startswith(python)]
    sys.path[:] = [*(entry for entry in sys.path if entry.startswith(python)), here, *foreign]
    from search.machine.import_order import trust_in_order

    trust_in_order()
    from search.cli import main as run

    run()


if __name__ == "__main__":
    main()
