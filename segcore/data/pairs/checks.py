"""Collects everything that is wrong with a data set, and reports it in one error."""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field

from segcore.errors import DataError

MAX_EXAMPLES = 3


@dataclass
class Problems:
    """What was found wrong (stops the run) or odd (warns), by kind, with examples.

    A kind is a phrase that reads well after a count, such as `unreadable files`.
    """

    errors: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    oddities: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    notes: list[str] = field(default_factory=list)

    def error(self, kind: str, example: str) -> None:
        """Note one thing that stops the run."""
        self.errors[kind].append(printable(example))

    def warn(self, kind: str, example: str) -> None:
        """Note one oddity."""
        self.oddities[kind].append(printable(example))

    def note(self, line: str) -> None:
        """Add a line to the end of the error: what was found in the whole data set, or what settles it."""
        if line not in self.notes:
            self.notes.append(line)

    def extend(self, other: "Problems") -> None:
        """Add everything that `other` has noted."""
        for kind, examples in other.errors.items():
            self.errors[kind].extend(examples)
        for kind, examples in other.oddities.items():
            self.oddities[kind].extend(examples)
        for line in other.notes:
            self.note(line)

    def warnings(self) -> tuple[str, ...]:
        """One line per kind of oddity: count, kind and the first examples."""
        return tuple(
            f"{len(examples)} {kind}: {', '.join(_first(examples))}" for kind, examples in sorted(self.oddities.items())
        )

    def raise_if_any(self, root: str) -> None:
        """Raise one error that lists every kind with its count and first examples.

        Raises:
            DataError: Something that stops the run was noted.
        """
        if not self.errors:
            return
        lines = [f"the data set {root} cannot be used as it is:"]
        for kind, examples in sorted(self.errors.items()):
            lines.append(f"  {len(examples)} {kind}:")
            lines += [f"    {example}" for example in _first(examples)]
        lines += [f"  {line}" for line in self.notes]
        raise DataError("\n".join(lines))


def printable(text: str) -> str:
    """Text that every terminal, log and file takes: control characters and bytes that are no text are written out."""
    return "".join(letter if letter.isprintable() else _written_out(letter) for letter in text)


def _written_out(letter: str) -> str:
    if "\udc80" <= letter <= "\udcff":  # how Python holds a byte of a file's name that is not UTF-8
        return f"\\x{ord(letter) - 0xDC00:02x}"
    return letter.encode("unicode_escape").decode()


def _first(examples: Iterable[str]) -> list[str]:
    ordered = sorted(examples)
    more = [f"and {len(ordered) - MAX_EXAMPLES} more"] if len(ordered) > MAX_EXAMPLES else []
    return ordered[:MAX_EXAMPLES] + more
