from dataclasses import replace

import pytest

from search.report.privacy import shorten_paths, without_private
from search.report.sections.configuration import Configuration
from search.runs.records import StoppedBy


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("/home/me/my birds/all", ".../all"),
        ("/home/me/birds/", ".../birds"),
        ("~/birds", ".../birds"),
        ("OSError: cannot read /home/me/x.png: gone", "OSError: cannot read .../x.png: gone"),
        ("'/a/b/c.py', line 3", "'.../c.py', line 3"),
        ("--set data.root=/data/birds", "--set data.root=.../birds"),
        ("val/iou 0.9, 3/4 of https://example.org/a/b", "val/iou 0.9, 3/4 of https://example.org/a/b"),
        ("timm:resnet50", "timm:resnet50"),
        ("results/birds", "results/birds"),
    ],
)
def test_where_things_lie_is_cut_to_the_last_part(text: str, kept: str) -> None:
    assert shorten_paths(text) == kept


def test_secrets_are_starred_and_numbers_that_are_none_are_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "s3cr3t-key")
    tree = {
        "a": ["403 for s3cr3t-key", float("nan"), 1.5],
        "yandex_disk": "/models/birds",
        "local": "/srv/models/birds",
    }
    assert without_private(tree) == {
        "a": ["403 for ***", None, 1.5], "yandex_disk": "/models/birds", "local": ".../birds",
    }  # fmt: skip


def test_records_are_cleaned_to_the_last_field() -> None:
    record = Configuration({"root": "/home/me/birds"}, {"numpy": "2"}, {"name": "vm"}, 0, None)
    assert without_private(record) == replace(record, config={"root": ".../birds"})
    path = {"rule": "target", "detail": "see /home/me/x.txt", "later": float("nan"), "more": "/home/me/y.txt"}
    cleaned = without_private((StoppedBy.model_validate(path),))[0].tree()
    assert cleaned == {"rule": "target", "detail": "see .../x.txt", "later": None, "more": ".../y.txt"}
