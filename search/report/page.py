"""The report's page: each record becomes a section, and everything that the page needs is inside it."""

import time
from collections.abc import Mapping
from html import escape

from search.report.section import Subject, all_sections
from search.report.style import CSS, SCRIPT


def render_page(name: str, records: Mapping[str, object], subject: Subject) -> str:
    """The whole page.

    Args:
        name: The run's.
        records: Each section's record, by the section's name; None: it has nothing to show.
        subject: What the sections need to know of the run.
    """
    from plotly.offline import get_plotlyjs

    parts = [
        section.html(records[section.name], subject)
        for section in all_sections()
        if records.get(section.name) is not None
    ]
    made = time.strftime("%Y-%m-%d %H:%M")
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(name)} - segsearch</title>
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
