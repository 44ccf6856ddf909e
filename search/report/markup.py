"""HTML for the parts that sections are made of."""

import json
from collections.abc import Iterable, Mapping, Sequence
from html import escape

from search.report.figures import Figure
from search.show.quoting import value_text
from search.show.run import short_names


def plot(figure: Figure) -> str:
    """A figure's place and its data, which the page's script draws."""
    data = json.dumps(figure, allow_nan=False).replace("<", "\\u003c")
    height = figure["layout"]["height"]
    return f'<div class="plot" style="min-height:{height}px"><script type="application/json">{data}</script></div>'


def card(title: str, body: str, *, anchor: str, css: str = "") -> str:
    """One card of the page.

    Args:
        title: Its heading, as text; "" for none.
        body: HTML.
        anchor: The part after `#` in a link to it.
        css: Classes.
    """
    heading = f"<h2>{escape(title)}</h2>" if title else ""
    return f'<section id="{anchor}" class="{css}">{heading}{body}</section>\n'


def facts_list(facts: Iterable[tuple[str, str]]) -> str:
    """Names and what is known, both text."""
    return f"<dl>{''.join(f'<dt>{escape(name)}</dt><dd>{escape(value)}</dd>' for name, value in facts)}</dl>"


def table(heads: Sequence[tuple[str, str]], rows: Iterable[tuple[str, Sequence[tuple[str, str]]]]) -> str:
    """A table of text.

    Args:
        heads: `(title, class)` of each column.
        rows: `(class, cells)` of each row, a cell being `(text, class)`.
    """
    top = "".join(f'<th class="{css}">{escape(title)}</th>' for title, css in heads)
    body = "".join(
        f'<tr class="{css}">{"".join(f"<td class={kind!r}>{escape(text)}</td>" for text, kind in cells)}</tr>'
        for css, cells in rows
    )
    return f'<div class="wide"><table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>'


def sentences(lines: Iterable[str]) -> str:
    """Lines of text as the sentences of a paragraph."""
    return " ".join(f"{escape(line[:1].upper() + line[1:])}." for line in lines)


def settings_text(settings: Mapping[str, object]) -> str:
    """A trial's settings on one line."""
    return ", ".join(f"{key}={value_text(value)}" for key, value in short_names(settings).items())


def cost_text(value: float) -> str:
    """A cost, whole or with two digits."""
    return f"{value:,.0f}" if float(value).is_integer() else f"{value:.2f}"


def duration(seconds: float) -> str:
    """A time in the unit that fits it."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.1f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
