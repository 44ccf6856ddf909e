"""The report's page: each record becomes a section, and everything that the page needs is inside it."""

import time
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from search.report.pictures import pictures
from search.report.sections import others as sections
from search.report.style import CSS, SCRIPT


def render_page(record: Mapping[str, Any], checkpoints: Sequence[Path]) -> str:
    """The whole page.

    Args:
        record: From `report_record`.
        checkpoints: Where the pictures are.
    """
    from plotly.offline import get_plotlyjs

    shown = [image["index"] for image in (record["overlays"] or {}).get("shown", [])]
    parts = sections.render(record, pictures(checkpoints, shown))
    name = escape(record["headline"]["name"])
    made = time.strftime("%Y-%m-%d %H:%M")
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{name} - segsearch</title>
<link rel="icon" href="data:,">
<style>{CSS}</style>
</head>
<body>
<main>
{"".join(parts)}
<noscript><section><p>The figures need JavaScript; the tables do not.</p></section></noscript>
<footer>Made {made} by segsearch from the files of the run; again with: segsearch report . in its folder</footer>
</main>
<script>{get_plotlyjs()}</script>
<script>{SCRIPT}</script>
</body>
</html>
"""
