"""The sections of a report's page, one file each: its record, what computes it, and what draws it.

Found by `search.report.section`, so that a new file here is a new section; nothing else imports them.
"""
