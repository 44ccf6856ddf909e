import pytest

from segcore.data.pairs.checks import Problems
from segcore.errors import DataError


def test_nothing_wrong_raises_nothing() -> None:
    problems = Problems()
    problems.warn("files are odd", "x")
    problems.raise_if_any("data")
    assert problems.warnings() == ("1 files are odd: x",)


def test_kinds_are_counted_and_the_first_three_examples_shown_in_order() -> None:
    problems, more = Problems(), Problems()
    for name in "dbca":
        problems.error("unreadable files", name)
    more.error("empty files", "z")
    more.error("unreadable files", "e")
    more.warn("files are odd", "y")
    problems.extend(more)
    with pytest.raises(DataError, match="the data set data cannot be used as it is") as caught:
        problems.raise_if_any("data")
    assert str(caught.value).splitlines()[1:] == [
        "  1 empty files:",
        "    z",
        "  5 unreadable files:",
        "    a",
        "    b",
        "    c",
        "    and 2 more",
    ]
    assert problems.warnings() == ("1 files are odd: y",)
