"""The command line: parses, calls, prints. Whatever takes long to import is imported by the command that needs it.

Nothing imports it.

Layer 6.
"""

from search.cli import models, results, runs
from search.cli.group import main

__all__ = ["main"]

for _command in (
    *(runs.run, runs.resume, runs.extend, runs.train, runs.check, runs.space),
    *(models.evaluate, models.predict, models.seal, models.export),
    *(results.list_command, results.show, results.report, results.explain, results.reproduce),
):
    main.add_command(_command)
