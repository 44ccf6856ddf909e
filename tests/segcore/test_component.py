"""What a registry derives from the components that declare themselves."""

from typing import Annotated

import pytest
from pydantic import Field, ValidationError

from segcore.component import Component, Option, Registry
from segcore.config import Section
from segcore.errors import ConfigError

MOMENTUM = Option("momentum", Annotated[float, Field(ge=0.0, lt=1.0)], 0.9, "How much of the last step is kept.")
POWER = Option("power", float, 2.0)


def registry() -> Registry[int]:
    slow = Component("slow", "the slow one", 1, (MOMENTUM, POWER))
    return Registry("engine", "engine.name", [slow, Component("fast", "the fast one", 2, (MOMENTUM,), order=1)])


def test_names_come_in_order_and_an_unknown_one_is_refused_with_the_known() -> None:
    assert registry().names == ("fast", "slow")
    assert registry()["slow"].build == 1
    with pytest.raises(ConfigError, match=r"engine\.name: no engine 'steam'; valid: fast, slow"):
        registry()["steam"]


def test_options_that_a_component_does_not_read_are_known() -> None:
    assert registry().unused_by("fast") == ("power",)
    assert registry().unused_by("slow") == ()


def test_the_section_has_every_option_with_its_range() -> None:
    class Base(Section):
        """An engine."""

        name: str = "fast"

    section = registry().section(Base)
    assert section().momentum == 0.9
    assert section.model_json_schema()["properties"]["momentum"]["description"] == MOMENTUM.help
    with pytest.raises(ValidationError, match="less than 1"):
        section(momentum=1.0)


def test_a_name_or_an_option_declared_in_two_ways_is_an_error_of_ours() -> None:
    with pytest.raises(ValueError, match="share a name"):
        Registry("engine", "engine.name", [Component("a", "", 1), Component("a", "", 2)])
    other = Option("momentum", float, 0.5)
    with pytest.raises(ValueError, match="momentum is declared in two ways"):
        Registry("engine", "engine.name", [Component("a", "", 1, (MOMENTUM,)), Component("b", "", 2, (other,))])
