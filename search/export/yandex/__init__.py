"""Yandex Disk behind `yandex_disk`: a session with backoff, the disk's files, upload and download.

Imported by that target alone, when it is built: everything here imports the client library.
"""
