"""What another node sees of what trials need."""

from pathlib import Path

import pytest

from search.errors import ResourceError
from search.tune.cluster import sharing
from search.tune.cluster.nodes import Node
from search.tune.cluster.sharing import Seen, Shared, _tokens, look_from_a_node, require_shared


@pytest.fixture
def shared(tmp_path: Path) -> Shared:
    (tmp_path / "cache").mkdir()
    (tmp_path / "data").mkdir()
    files = [tmp_path / "data" / f"{i}.png" for i in range(5)]
    for path in (tmp_path / "cache" / "birds.arrow", *files):
        path.write_bytes(b"12345")
    return Shared.of(tmp_path / "runs" / "results", tmp_path / "cache" / "birds.arrow", files)


def test_a_few_files_stand_for_the_data(shared: Shared, tmp_path: Path) -> None:
    assert [path.name for path in shared.files] == ["birds.arrow", "0.png", "2.png", "4.png"]
    assert list(Shared.of(tmp_path, tmp_path / "cache" / "birds.arrow", []).files) == [tmp_path / "cache/birds.arrow"]
    one = Shared.of(tmp_path, tmp_path / "cache" / "birds.arrow", [tmp_path / "data" / "3.png"])
    assert [path.name for path in one.files] == ["birds.arrow", "3.png"]


def test_a_node_that_sees_all_of_it_answers_in_each_folder_and_nothing_is_left(shared: Shared, tmp_path: Path) -> None:
    before = sorted(tmp_path.rglob("*"))
    with _tokens(shared.folders) as tokens:
        assert look_from_a_node(shared, tokens, "n1") == Seen()
        for key, folder in shared.folders.items():
            assert (folder / f"{tokens[key]}-n1").read_text() == "n1"
        assert sharing._not_arrived(shared.folders, tokens, "n1") == {}
    assert sorted(tmp_path.rglob("*")) == before, "the folder of the results was made for the token, and went with it"


def test_what_a_node_does_not_see(shared: Shared, tmp_path: Path) -> None:
    """As seen by a node whose folders have other content: the tokens are not there, a file is missing, one differs."""
    with _tokens(shared.folders) as tokens:
        (tmp_path / "runs" / "results" / tokens["results"]).unlink()
        (tmp_path / "cache" / tokens["data.cache_dir"]).write_text("another")
        (tmp_path / "data" / "0.png").unlink()
        assert dict(look_from_a_node(shared, tokens, "n1").problems) == {
            "results": f"{tmp_path}/runs/results: it is another folder than here, of the same path",
            "data.cache_dir": f"{tmp_path}/cache: what was written here reads differently there",
            "data.root": f"{tmp_path}/data/0.png: no such file or directory",
        }
        (tmp_path / "data" / "0.png").write_bytes(b"123")
        assert dict(look_from_a_node(shared, tokens, "n1").problems)["data.root"] == (
            f"{tmp_path}/data/0.png: it has 3 bytes there and 5 here"
        )
        (tmp_path / "runs" / "results").rmdir()
        assert dict(look_from_a_node(shared, tokens, "n1").problems)["results"] == (
            f"{tmp_path}/runs/results: there is no such folder"
        )
        assert sharing._not_arrived(shared.folders, tokens, "n1")["results"] == (
            f"{tmp_path}/runs/results: what is written there does not arrive here"
        )


class Remote:
    """`ray.remote` of a cluster of which each node answers what the test says."""

    def __init__(self, answers: dict[str, Seen | Exception | None]) -> None:
        self.answers = answers

    def __call__(self, function: object) -> "Remote":
        assert function is look_from_a_node
        return self

    def options(self, **options: object) -> "Remote":
        return self

    def remote(self, shared: Shared, tokens: dict[str, str], name: str) -> str:
        for key, folder in shared.folders.items():
            (folder / f"{tokens[key]}-{name}").touch()
        return name[0]


def test_each_node_that_sees_too_little_is_named(shared: Shared, monkeypatch: pytest.MonkeyPatch) -> None:
    answers: dict[str, Seen | Exception | None] = {
        "a": Seen(), "b": Seen((("results", "/r: there is no such folder"),)), "c": None,
        "d": sharing.RayError("ray::look()\nModuleNotFoundError: No module named 'search'"),
    }  # fmt: skip

    def get(name: str) -> Seen:
        answer = answers[name]
        if isinstance(answer, Exception):
            raise answer
        assert answer is not None
        return answer

    nodes = [Node(name * 56, f"10.0.0.{name}", f"box-{name}") for name in answers]
    monkeypatch.setattr(sharing, "other_nodes", lambda: nodes)
    monkeypatch.setattr(sharing.ray, "remote", Remote(answers))
    monkeypatch.setattr(sharing.ray, "wait", lambda tasks, **options: (["a", "b", "d"], ["c"]))
    monkeypatch.setattr(sharing.ray, "get", get)
    with pytest.raises(ResourceError) as caught:
        require_shared(shared)
    assert caught.value.exit_code == 2
    assert str(caught.value).splitlines() == [
        "not every node of the cluster sees what trials need:",
        "  10.0.0.b (box-b): results /r: there is no such folder",
        "  10.0.0.c (box-c): it did not answer within 60 s",
        "  10.0.0.d (box-d): segsearch cannot be imported there (ModuleNotFoundError: No module named 'search')",
        "  Put results, data.cache_dir and data.root where all nodes see them under the same path, or take such nodes "
        "out of the cluster",
    ]


def test_one_node_is_not_asked(shared: Shared, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sharing, "other_nodes", list)
    assert require_shared(shared) == 0
    assert not (tmp_path / "runs").exists()
