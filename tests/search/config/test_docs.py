"""The page of components: made anew when a component changes, and of every registry that there is."""

from pathlib import Path

from places import ROOT

from search.config import choices
from search.config.docs import KINDS, components_page, main
from segcore import registries
from segcore.component import Registry


def test_the_page_is_what_the_components_declare_today(tmp_path: Path) -> None:
    main([str(tmp_path / "docs" / "page.md")])
    made = (tmp_path / "docs" / "page.md").read_text(encoding="utf-8")
    assert made == (ROOT / "docs" / "components.md").read_text(encoding="utf-8"), "run python -m search.config.docs"


def test_every_registry_is_on_the_page() -> None:
    found = [
        value for module in (registries, choices) for value in vars(module).values() if isinstance(value, Registry)
    ]
    assert len(found) >= 4
    assert {registry.key for registry in found} == {registry.key for registry in KINDS.values()}


def test_an_option_stands_there_with_its_range_its_default_and_who_reads_it() -> None:
    page = components_page()
    assert "| `lr_scheduler.pct_start` | a number above 0 and below 1 | `0.3` | share spent rising. |" in page
    assert "| `onecycle` |" in page
    assert "| `lr_scheduler.min_lr_factor`, `lr_scheduler.pct_start` |" in page
