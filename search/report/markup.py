"""HTML for the parts that sections are made of."""

import json
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

from search.report.figures import cell
from search.show.run import short_names


def plot(figure: Mapping[str, Any]) -> str:
    """A figure's place and its data, which the page's script draws."""
    data = json.dumps(figure, allow_nan=False).replace("<", "\\u003c")
    height = figure["layout"]["height"]
    return f'<div class="plot" style="min-height:{height}px"><script type="application/json">{data}</script></div>'


def section(title: str, *parts: str, css: str = "") -> str:
    """One card of the page; the title is text, the parts are HTML."""
    heading = f"<h2>{escape(title)}</h2>" if title else ""
    return f'<section class="{css}">{heading}{"".join(parts)}</section>\n'


def facts_list(facts: Iterable[tuple[str, str]]) -> str:
    """Names and what is known, both text."""
    return f"<dl>{''.join(f'<dt>{escape(name)}</dt><dd>{escape(value)}</dd>' for name, value in facts)}</dl>"


def table(heads: Sequence[tuple[str, str]], rows: Iterable[tuple[str, Sequence[tuple[str, str]]]]) -> str:
    """`heads` are (title, class), rows (class, cells), cells (text, class)."""
    top = "".join(f'<th class="{css}">{escape(title)}</th>' for title, css in heads)
    body = "".join(
        f'<tr class="{css}">{"".join(f"<td class={kind!r}>{escape(text)}</td>" for text, kind in cells)}</tr>'
        for css, cells in rows
    )
    return f'<div class="wide"><table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>'


def sentences(lines: Iterable[str]) -> str:
    """Lines of text as the sentences of a paragraph."""
    return " ".join(f"{escape(line[:1].upper() + line[1:])}." for line in lines)


def settings_text(settings: Mapping[str, Any]) -> str:
    """A trial's settings on one line."""
    return ", ".join(f"{key}={cell(value)}" for key, value in short_names(dict(settings)).items())


def numbers_text(numbers: Sequence[int]) -> str:
    """The first few of some trials' numbers."""
    shown = ", ".join(map(str, numbers[:8]))
    return shown if len(numbers) <= 8 else f"{shown}, ..."


def number(value: float | None, digits: int = 4) -> str:
    """A score, or a dash for none."""
    return "-" if value is None else f"{value:.{digits}f}"


def cost_text(value: float) -> str:
    """A cost, whole or with two digits."""
    return f"{value:,.0f}" if float(value).is_integer() else f"{value:.2f}"


def count_text(value: float | None) -> str:
    """A number of trials; None: none would do."""
    if value is None:
        return "none is as good"
    return f"{value:.1f}" if value < 100 else f"{value:,.0f}"


def duration(seconds: float) -> str:
    """A time in the unit that fits it."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.1f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
