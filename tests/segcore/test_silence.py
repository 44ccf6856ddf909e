import logging

import pytest

from segcore.silence import silent_library


def test_a_library_is_silent_for_the_length_of_a_block_only(caplog: pytest.LogCaptureFixture) -> None:
    library, child, other = (logging.getLogger(name) for name in ("alibrary", "alibrary.part", "another"))
    library.setLevel(logging.INFO)
    with silent_library("alibrary"):
        library.error("attempt 1 of 5")
        child.error("attempt 2 of 5")
        other.error("heard")
    child.error("heard again")
    assert [record.message for record in caplog.records] == ["heard", "heard again"]
    assert library.level == logging.INFO


def test_the_level_comes_back_after_an_error() -> None:
    library = logging.getLogger("alibrary")
    library.setLevel(logging.WARNING)
    with pytest.raises(ValueError, match="x"), silent_library("alibrary"):
        raise ValueError("x")
    assert library.level == logging.WARNING
