"""A config file as plain values: strict YAML with line numbers, and `--set key=value` on top.

Numbers and booleans follow YAML 1.2, so `1e-4` is a number, `010` is ten, and `2024-01-01`, `12:30` and `no` are text.
"""

import copy
import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import yaml

from search.config.problems import Problem, dotted, shown
from search.space.domains import DOMAINS
from search.space.reader import flatten_space, is_space_key
from segcore.errors import ConfigError

YamlMap: TypeAlias = dict[str, Any]
"""A map as YAML gives it, before its keys and values are checked."""


class _Loader(yaml.SafeLoader):
    """Safe YAML with the scalars of YAML 1.2."""


_Loader.yaml_implicit_resolvers = {}
_RESOLVERS = {
    "tag:yaml.org,2002:null": (r"^(~|null|Null|NULL|)$", ["~", "n", "N", ""]),
    "tag:yaml.org,2002:bool": (r"^(true|True|TRUE|false|False|FALSE)$", list("tTfF")),
    "tag:yaml.org,2002:int": (r"^[-+]?[0-9][0-9_]*$", list("-+0123456789")),
    "tag:yaml.org,2002:float": (
        r"^([-+]?(\.[0-9]+|[0-9][0-9_]*(\.[0-9_]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN))$",
        list("-+.0123456789"),
    ),
    "tag:yaml.org,2002:merge": (r"^<<$", ["<"]),
}
for _tag, (_pattern, _first) in _RESOLVERS.items():
    _Loader.add_implicit_resolver(_tag, re.compile(_pattern), _first)
_Loader.add_constructor("tag:yaml.org,2002:int", lambda _, node: int(node.value.replace("_", "")))


class _Dumper(yaml.SafeDumper):
    """Safe YAML that puts text in quotes where YAML 1.1 or 1.2 would take it for something else."""


_Dumper.add_implicit_resolver("tag:yaml.org,2002:float", re.compile(_RESOLVERS["tag:yaml.org,2002:float"][0]), None)


def write_yaml(values: Mapping[str, Any]) -> str:
    """The values as YAML that reads back the same, here and in older readers."""
    return yaml.dump(dict(values), Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=120)


@dataclass
class RawConfig:
    """The file's values, and where each dotted key was set."""

    values: YamlMap
    lines: dict[str, int] = field(default_factory=dict)
    overridden: set[str] = field(default_factory=set)

    def origin(self, key: str) -> str:
        """`line 7`, `--set`, or an empty text for a key that neither set."""
        line = self.line(key)
        return "--set" if line == 0 else f"line {line}" if line else ""

    def line(self, key: str) -> int | None:
        """The line that set a key or the nearest section above it; 0 for an override, None for neither."""
        key = re.sub(r"\[(\d+)\]", r".\1", key)
        if key not in self.lines and any(name.startswith(f"{key}.") for name in self.overridden):
            return 0
        if any(candidate in self.overridden for candidate in _prefixes(key)):
            return 0
        return next((self.lines[candidate] for candidate in _prefixes(key) if candidate in self.lines), None)


def _prefixes(key: str) -> Iterable[str]:
    while key:
        yield key
        key = key.rpartition(".")[0]


def read_config(path: Path) -> RawConfig:
    """Reads a YAML map.

    Raises:
        ConfigError: the file is missing, not text, not YAML, has a key twice, or is not a map.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise ConfigError(f"{path}: there is no such config file{_neighbours(path)}") from None
    except IsADirectoryError:
        raise ConfigError(f"{path} is a folder; name a config file{_neighbours(path / '-')}") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not UTF-8 text (byte {error.start}); save the file as UTF-8") from None
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror or error}") from None
    values, lines = _parse(text, str(path))
    if values is None:
        raise ConfigError(f"{path}: the file is empty; it must be a map of sections such as `data:` and `space:`")
    if not isinstance(values, dict):
        kind = "list" if isinstance(values, list) else "single value"
        raise ConfigError(f"{path}: the file holds a {kind}; it must be a map of sections such as `data:` and `space:`")
    return RawConfig(values, lines)


def _neighbours(path: Path) -> str:
    folder = path.parent
    while not folder.is_dir() and folder != folder.parent:
        folder = folder.parent
    found = sorted(
        file for end in ("*.yaml", "*.yml") for sub in (folder, folder / "configs") for file in sub.glob(end)
    )
    if not found:
        return f" ({folder} holds no .yaml file)"
    by_stem = {file.stem: file for file in found}
    close = difflib.get_close_matches(path.stem, list(by_stem), n=1)
    names = ", ".join(str(file) for file in found[:8]) + (", ..." if len(found) > 8 else "")
    return (f"; did you mean {by_stem[close[0]]}?" if close else "") + f" (there are: {names})"


def _parse(text: str, source: str) -> tuple[Any, dict[str, int]]:
    loader: _Loader | None = None
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        if node is None:
            return None, {}
        lines: dict[str, int] = {}
        twice: list[str] = []
        _survey(node, (), lines, twice, set())
        if twice:
            raise ConfigError("\n".join(f"{source}:{line}" for line in twice))
        return loader.construct_document(node), lines
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f":{mark.line + 1}:{mark.column + 1}" if mark else ""
        raise ConfigError(f"{source}{place}: not valid YAML: {_cause(text, error)}") from None
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise ConfigError(
            f"{source}:{line}: not valid YAML: control character #x{ord(text[error.position]):02x}"
        ) from None
    except (RecursionError, ValueError) as error:
        cause = "nested too deeply" if isinstance(error, RecursionError) else str(error).partition(";")[0]
        raise ConfigError(f"{source}: not valid YAML: {cause}") from None
    finally:
        if loader is not None:
            loader.dispose()


def _cause(text: str, error: yaml.MarkedYAMLError) -> str:
    mark = error.problem_mark
    row = text.splitlines()[mark.line] if mark and mark.line < len(text.splitlines()) else ""
    if "\t" in row[: len(row) - len(row.lstrip())] or "'\\t'" in str(error.problem):
        return "a tab in the indentation; YAML wants spaces"
    return " ".join(str(part) for part in (error.problem, error.context and f"({error.context})") if part)


def _survey(node: yaml.Node, path: tuple[str, ...], lines: dict[str, int], twice: list[str], above: set[int]) -> None:
    """Notes the line of each key and each key that stands twice in one map."""
    if id(node) in above:
        raise ValueError(f"an alias on line {node.start_mark.line + 1} contains itself")
    above = above | {id(node)}
    if isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            lines.setdefault(dotted((*path, str(index))), item.start_mark.line + 1)
            _survey(item, (*path, str(index)), lines, twice, above)
    if not isinstance(node, yaml.MappingNode):
        return
    seen: dict[tuple[str, str], int] = {}
    for key_node, value_node in node.value:
        name = str(key_node.value) if isinstance(key_node, yaml.ScalarNode) else "?"
        line = key_node.start_mark.line + 1
        here = (*path, name)
        if (key_node.tag, name) in seen:
            first = seen[key_node.tag, name]
            twice.append(f"{line}: key {dotted(here)} stands twice (first on line {first}); keep one")
        seen.setdefault((key_node.tag, name), line)
        lines.setdefault(dotted(here), line)
        if name != "<<":
            _survey(value_node, here, lines, twice, above)


def apply_overrides(raw: RawConfig, overrides: Sequence[str]) -> list[Problem]:
    """Sets each `key=value` in the raw config, the value read as YAML; the last value of a key wins.

    Within `space`, the key after `space.` is itself dotted (`space.optimizer.lr={uniform: [0.1, 1]}`), and null
    takes a key out of the search.
    """
    problems: list[Problem] = []
    for override in overrides:
        key, equals, text = override.partition("=")
        key = key.strip()
        if not equals or not key or not all(part.strip() for part in key.split(".")):
            problems.append(Problem(f"--set {shown(key)}", "must be key=value with a dotted key, e.g. train.epochs=10"))
            continue
        try:
            value = _value(text)
        except ConfigError as error:
            cause = str(error).rpartition("not valid YAML: ")[2]
            hint = "put text that YAML would read otherwise in quotes, e.g. key='\"[a-z]+\"'"
            problems.append(Problem(f"--set {key}", f"the value is not valid YAML: {cause}; {hint}"))
            continue
        message = _set(raw.values, key, value)
        if message:
            problems.append(Problem(f"--set {key}", message))
        else:
            raw.overridden.add(key)
    return problems


def _value(text: str) -> Any:
    value, _ = _parse(text, "--set")
    verbatim = isinstance(value, str) and text.strip()[:1] not in ('"', "'", "|", ">", "!", "&")
    return text.strip() if verbatim else value


def _set(values: YamlMap, key: str, value: Any) -> str | None:
    head, _, rest = key.partition(".")
    if head == "space" and rest:
        if values.get("space") is None:
            values["space"] = {}
        if not isinstance(values["space"], dict):
            return "`space` in the file is not a map"
        return _set_in_space(values["space"], rest.split("."), value)
    *sections, leaf = key.split(".")
    here: Any = values
    for depth, section in enumerate(sections):
        if here.get(section) is None:
            here[section] = {}
        here = here[section]
        if not isinstance(here, dict):
            return f"`{dotted(sections[: depth + 1])}` is a value, not a section; it has no key `{leaf}`"
    here[leaf] = copy.deepcopy(value)
    return None


def _set_in_space(space: dict[Any, Any], parts: Sequence[str], value: Any, in_branch: bool = False) -> str | None:
    at = next((i for i, part in enumerate(parts) if i and part in DOMAINS), None)
    key = ".".join(parts[:at])
    if at is None:
        if value is None and key not in space and not is_space_key(key, in_branch=in_branch):
            return f"nothing to take out; searched are: {', '.join(map(str, space)) or 'no keys'}"
        _put(space, key, value)
        return None
    domain = space.get(key)
    if domain is None:
        domain = space[key] = {}
    if not isinstance(domain, dict):
        return f"`space.{key}` is not a map"
    if at == len(parts) - 1:
        _put(domain, parts[at], value)
        return None
    branches = domain.get(parts[at])
    if parts[at] == "prior" and isinstance(branches, dict) and at == len(parts) - 2:
        _put(branches, parts[-1], value)
        return None
    if parts[at] != "choice" or not isinstance(branches, dict):
        return f"`space.{'.'.join(parts[: at + 1])}` has no branches of its own; set it as a whole"
    rest = parts[at + 1 :]
    names = {str(branch): branch for branch in branches}
    size = next((n for n in range(len(rest), 0, -1) if ".".join(rest[:n]) in names), 1)
    branch = names.get(".".join(rest[:size]), ".".join(rest[:size]))
    if size == len(rest):
        _put(branches, branch, value)
        return None
    if branches.get(branch) is None:
        branches[branch] = {}
    if not isinstance(branches[branch], dict):
        return f"the branch {branch} is not a map"
    return _set_in_space(branches[branch], rest[size:], value, in_branch=True)


def _put(target: dict[Any, Any], key: Any, value: Any) -> None:
    if value is None:
        target.pop(key, None)
    else:
        target[key] = copy.deepcopy(value)


def flatten_file_space(raw: RawConfig) -> list[Problem]:
    """Writes `space: {optimizer: {lr: ...}}` as `space: {optimizer.lr: ...}`; a key given both ways is a problem."""
    space = raw.values.get("space")
    if not isinstance(space, Mapping):
        return []
    raw.values["space"], twice = flatten_space(space)
    return [Problem(f"space.{key}", "is given both nested and dotted; keep one") for key in twice]
