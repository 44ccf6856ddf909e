"""The sections of a report's page.

Imported by `search.report.page` alone.
"""
