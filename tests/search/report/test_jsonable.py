from dataclasses import dataclass, field
from typing import Any

from search.report.jsonable import as_json, known
from search.runs.records import StoppedBy


@dataclass(frozen=True)
class Inner:
    numbers: tuple[int, ...]


@dataclass(frozen=True)
class Outer:
    name: str
    inner: Inner
    by_key: dict[str, Inner] = field(default_factory=dict)


@dataclass(frozen=True)
class Sparse:
    seed: int | None

    def as_json(self) -> dict[str, Any]:
        return {"inner": Inner((1,)), **known(seed=self.seed)}


def test_records_become_objects_and_tuples_lists() -> None:
    record = Outer("a", Inner((1, 2)), {"k": Inner(())})
    assert as_json(record) == {"name": "a", "inner": {"numbers": [1, 2]}, "by_key": {"k": {"numbers": []}}}
    assert as_json((Inner((3,)), None, "x")) == [{"numbers": [3]}, None, "x"]


def test_a_record_may_have_keys_of_its_own_and_leave_some_out() -> None:
    assert as_json(Sparse(None)) == {"inner": {"numbers": [1]}}
    assert as_json([Sparse(2)]) == [{"inner": {"numbers": [1]}, "seed": 2}]


def test_a_record_of_the_runs_files_is_what_the_file_had() -> None:
    assert as_json(StoppedBy.model_validate({"rule": "target", "detail": "x", "later": [1]})) == {
        "rule": "target", "detail": "x", "later": [1],
    }  # fmt: skip
