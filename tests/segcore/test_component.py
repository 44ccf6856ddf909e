"""What a registry derives from the components that declare themselves."""

import sys
from pathlib import Path
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


def test_an_options_limits_and_its_readers_are_in_the_schema() -> None:
    rate = Option("rate", int, 3, "how often.", ge=1, lt=9)
    name = Option("label", str, "x", min_length=1, order=1)
    kinds = Registry("engine", "engine.name", [Component("a", "", 1, (rate, name)), Component("b", "", 2, (rate,))])

    properties = kinds.section(Section, says_readers=True).model_json_schema()["properties"]
    assert list(properties) == ["label", "rate"]
    assert properties["rate"]["description"] == "a, b: how often."
    assert (properties["rate"]["minimum"], properties["rate"]["exclusiveMaximum"]) == (1, 9)
    assert properties["label"]["minLength"] == 1
    with pytest.raises(ValidationError, match="less than 9"):
        kinds.section(Section)(rate=9)


def test_a_component_takes_its_own_options_of_a_section_under_its_builders_names() -> None:
    gain = Option("engine_gain", float, 2.0, argument="gain")
    kinds = Registry("engine", "engine.name", [Component("a", "", 1, (gain,)), Component("b", "", 2, (POWER,))])
    settings = kinds.section(Section)(engine_gain=4.0)
    assert kinds["a"].arguments(settings) == {"gain": 4.0}
    assert kinds["b"].arguments(settings) == {"power": 2.0}


def test_keys_that_only_others_read_are_idle() -> None:
    kinds = Registry(
        "engine",
        "engine.name",
        [Component("a", "", 1, (MOMENTUM,), reads=("fuel.grade",)), Component("b", "", 2, (POWER, MOMENTUM))],
    )
    assert kinds.idle_with("a") == ("engine.power",)
    assert kinds.idle_with("b") == ("fuel.grade",)


def test_a_package_is_searched_for_what_its_modules_declare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "engines_of_a_test"
    folder.mkdir()
    (folder / "__init__.py").write_text("")
    declare = "from segcore.component import Component\n"
    (folder / "steam.py").write_text(f"{declare}COMPONENT = Component('steam', 'the hot one', 1)\n")
    (folder / "wind.py").write_text(f"{declare}COMPONENTS = [Component(name, '', 2) for name in ('sail', 'mill')]\n")
    (folder / "parts.py").write_text("BOLT = 8\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    found: Registry[int] = Registry.of_package("engine", "engine.name", "engines_of_a_test")
    assert "engines_of_a_test.steam" not in sys.modules  # not before it is asked for something
    assert found.names == ("mill", "sail", "steam")
    (folder / "other.py").write_text(f"{declare}COMPONENT = Component('steam', 'again', 3)\n")
    with pytest.raises(ValueError, match="share a name"):
        assert Registry.of_package("engine", "engine.name", "engines_of_a_test").names
