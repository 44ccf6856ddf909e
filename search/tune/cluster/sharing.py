"""Whether the other nodes of a cluster see what trials need: each reads what was written here, and back.

Without it, every trial on such a node fails after minutes, or writes its checkpoints where nobody finds them.
"""

import contextlib
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import ray
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from search.errors import ResourceError
from search.tune.cluster.nodes import other_nodes

ANSWER_S = 60.0
"""How long the nodes may take to look; the first thing that a node does is to start a worker."""
_MOST_FILES = 3


@dataclass(frozen=True)
class Shared:
    """What all nodes must see.

    Attributes:
        folders: Those that are written to, by the config's key.
        files: Some that are read, with their sizes in bytes.
        files_key: The key of the folder that the files lie in.
    """

    folders: Mapping[str, Path]
    files: Mapping[Path, int]
    files_key: str = "data.root"

    @classmethod
    def of(cls, results: Path, cache: Path, data: Sequence[Path]) -> "Shared":
        """What the trials of a search need.

        Args:
            results: The folder of the runs.
            cache: The file of the decoded samples.
            data: Files of the data; a few of them are looked at. None of synthetic data, which the cache holds.
        """
        some = sorted(
            {data[round(i * (len(data) - 1) / (_MOST_FILES - 1))] for i in range(_MOST_FILES)} if data else ()
        )
        files = {cache: cache.stat().st_size} | {path: path.stat().st_size for path in some}
        return cls({"results": results, "data.cache_dir": cache.parent}, files)


@dataclass(frozen=True)
class Seen:
    """What one node saw: problems by key, empty where all is well."""

    problems: tuple[tuple[str, str], ...] = ()


def require_shared(shared: Shared) -> int:
    """Refuses a cluster with a node that does not see what it needs; returns how many other nodes there are.

    Raises:
        ResourceError: With each such node, and what it does not see.
    """
    nodes = other_nodes()
    if not nodes:
        return 0
    with _tokens(shared.folders) as tokens:
        look = ray.remote(look_from_a_node)
        tasks = {
            look.options(
                num_cpus=0, max_retries=0, scheduling_strategy=NodeAffinitySchedulingStrategy(node.id, soft=False)
            ).remote(shared, tokens, node.id): node
            for node in nodes
        }
        done, _ = ray.wait(list(tasks), num_returns=len(tasks), timeout=ANSWER_S)
        wrong = []
        for task, node in tasks.items():
            seen = _answer(task) if task in done else f"it did not answer within {ANSWER_S:.0f} s"
            if isinstance(seen, str):
                wrong.append(f"{node}: {seen}")
                continue
            problems = dict(seen.problems) or _not_arrived(shared.folders, tokens, node.id)
            wrong += [f"{node}: {key} {problem}" for key, problem in problems.items()]
    if wrong:
        raise ResourceError(
            "not every node of the cluster sees what trials need:\n"
            + "\n".join(f"  {line}" for line in wrong)
            + "\n  Put results, data.cache_dir and data.root where all nodes see them under the same path, or take "
            "such nodes out of the cluster"
        )
    return len(nodes)


def look_from_a_node(shared: Shared, tokens: Mapping[str, str], name: str) -> Seen:
    """Looks for what is shared, on the node that this runs on, and leaves a token beside each one found.

    Args:
        shared: What to look for.
        tokens: The name of the token in each folder, by its key; the token holds its name.
        name: What the node's own tokens are called, behind the name of the folder's.
    """
    problems = {}
    for key, folder in shared.folders.items():
        token = folder / tokens[key]
        try:
            if not folder.is_dir():
                problems[key] = f"{folder}: there is no such folder"
            elif not token.exists():
                problems[key] = f"{folder}: it is another folder than here, of the same path"
            elif token.read_text(encoding="utf-8") != tokens[key]:
                problems[key] = f"{folder}: what was written here reads differently there"
            else:
                token.with_name(f"{tokens[key]}-{name}").write_text(name, encoding="utf-8")
        except OSError as error:
            problems[key] = f"{folder}: {error.strerror or error}"
    for path, size in shared.files.items():
        key = "data.cache_dir" if path.parent == shared.folders.get("data.cache_dir") else shared.files_key
        try:
            found = path.stat().st_size
            with path.open("rb") as file:
                file.read(1)
        except OSError as error:
            problems.setdefault(key, f"{path}: {(error.strerror or str(error)).lower()}")
        else:
            if found != size:
                problems.setdefault(key, f"{path}: it has {found} bytes there and {size} here")
    return Seen(tuple(problems.items()))


def _answer(task: "ray.ObjectRef[Seen]") -> Seen | str:
    """What a node saw, or why it could not look."""
    try:
        seen: Seen = ray.get(task)
    except RayError as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
        if any(word in str(error) for word in ("ModuleNotFoundError", "ImportError", "failed to import")):
            missing = next((line for line in lines if "Error:" in line and "odule" in line), lines[-1])
            return f"segsearch cannot be imported there ({missing})"
        return f"a task there failed: {lines[-1]}"
    return seen


def _not_arrived(folders: Mapping[str, Path], tokens: Mapping[str, str], name: str) -> dict[str, str]:
    """The folders in which the token that a node says it wrote is not found here."""
    missing = {}
    for key, folder in folders.items():
        token = folder / f"{tokens[key]}-{name}"
        if not token.exists():
            missing[key] = f"{folder}: what is written there does not arrive here"
    return missing


@contextmanager
def _tokens(folders: Mapping[str, Path]) -> Iterator[dict[str, str]]:
    """A new token in each folder, by the folder's key; they, the nodes' own and folders made for them are removed."""
    tokens: dict[str, str] = {}
    made: list[Path] = []
    try:
        for key, folder in folders.items():
            missing = [path for path in (folder, *folder.parents) if not path.exists()]
            folder.mkdir(parents=True, exist_ok=True)
            made += missing
            tokens[key] = f".segsearch-{uuid.uuid4().hex}"
            (folder / tokens[key]).write_text(tokens[key], encoding="utf-8")
        yield tokens
    finally:
        for key, token in tokens.items():
            for path in folders[key].glob(f"{token}*"):
                path.unlink(missing_ok=True)
        for folder in made:
            with contextlib.suppress(OSError):
                folder.rmdir()
