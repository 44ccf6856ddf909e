"""The config of a search: its file, read, overridden and checked, with every problem of it at once.

`python -m search.config.load` writes `configs/schema.json`, which editors use for completion and checks.
"""

import copy
import json
import os
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from search.config.file import (
    RawConfig,
    YamlMap,
    apply_overrides,
    flatten_file_space,
    read_config,
    write_yaml,
)
from search.config.problems import (
    JsonSchema,
    Problem,
    dotted,
    node_at,
    problems_of,
    shown,
    take_secrets,
    value_problem,
)
from search.config.problems import Path as KeyPath
from search.config.scheduler_rules import fitted_scheduler, scheduler_problems
from search.config.tree import SearchConfig
from search.space.enqueue import read_points
from search.space.parse import read_space, space_schema
from search.space.tree import Space
from segcore.config import Section
from segcore.errors import ConfigError
from segcore.scores.scorer import METRICS


def load_config(path: Path, overrides: Sequence[str] = ()) -> SearchConfig:
    """Reads, overrides and checks a config file.

    Args:
        path: A YAML file.
        overrides: `key=value` with a dotted key and a YAML value, applied in order.

    Raises:
        ConfigError: every problem of the file and of the overrides, one per line.
    """
    path = Path(path)
    raw = read_config(path)
    problems = flatten_file_space(raw)
    problems += apply_overrides(raw, overrides)
    flatten_file_space(raw)
    problems += take_secrets(raw.values)
    raw.values.setdefault("name", _folder_safe(path.stem))
    values = _prepared(raw.values)
    problems += _take_odd_keys(values)
    config, found = _validated(values)
    problems += [problem for problem in found if not problem.key.startswith("space.")]  # read_space says it better
    wrong = tuple(problem.key for problem in problems)
    space = Space()
    if isinstance(values["space"], dict):
        space, in_space = read_space(values["space"], config.train_config())
        problems += in_space
        if not in_space:
            problems += read_points(config.search.enqueue, space, config.train_config())[1]
    problems += [problem for problem in _between_sections(config, space) if not problem.key.startswith(wrong)]
    if problems:
        raise ConfigError(_report(path, raw, problems))
    return _fitted(config)


def dump_config(config: SearchConfig) -> str:
    """The config as YAML that `load_config` reads back to the same config."""
    return write_yaml(config.model_dump())


def json_schema() -> JsonSchema:
    """The JSON schema of a config file."""
    schema = SearchConfig.model_json_schema()
    space, definitions = space_schema()
    schema["properties"]["space"] |= space
    schema["$defs"] |= definitions
    del schema["required"]  # the name has the file's name as its default
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema, "title": "segsearch config"}


def _folder_safe(stem: str) -> str:
    return re.sub(r"[^A-Za-z0-9._\-]+", "-", stem).strip("-._")[:100] or "search"


def _prepared(raw: Mapping[str, Any]) -> YamlMap:
    """A copy in which sections left empty in the file count as absent."""
    values: YamlMap = copy.deepcopy(dict(raw))

    def drop_empty(level: YamlMap, path: KeyPath) -> None:
        for key in list(level):
            kind = (node_at(SearchConfig, (*path, key)) or {}).get("type") if isinstance(key, str) else None
            if level[key] is None and kind in ("object", "array"):
                del level[key]
            elif isinstance(level[key], dict) and key != "space":
                drop_empty(level[key], (*path, key))

    drop_empty(values, ())
    values.setdefault("space", {})
    return values


def _take_odd_keys(values: dict[Any, Any], path: KeyPath = ()) -> list[Problem]:
    """Removes keys such as `3:` from all sections but the space, whose choices may be numbers."""
    problems: list[Problem] = []
    for key in list(values):
        here = (*path, key if isinstance(key, str) else shown(key))
        if not isinstance(key, str):
            del values[key]
            problems.append(Problem(dotted(here), f"a key must be text, found {shown(key)}"))
        elif isinstance(values[key], dict) and here != ("space",):
            problems += _take_odd_keys(values[key], here)
        elif isinstance(values[key], list):
            for index, item in enumerate(values[key]):
                problems += _take_odd_keys(item, (*here, index)) if isinstance(item, dict) else []
    return problems


def _validated(values: YamlMap) -> tuple[SearchConfig, list[Problem]]:
    """The config and its problems; with problems, the config is what remains when the wrong keys are left out."""
    try:
        config = SearchConfig.model_validate(values)
        return config, _booleans_for_numbers(config, values)
    except ValidationError as error:
        found = problems_of(SearchConfig, values, error)
    keys = copy.deepcopy(values)
    for path in sorted(found, key=len, reverse=True):
        _delete(keys, path)
    sections = {key: value for key, value in values.items() if key not in {path[0] for path in found}}
    for attempt in (keys, sections):
        try:
            config = SearchConfig.model_validate({"name": "x", **attempt})
        except ValidationError:
            continue
        return config, [*found.values(), *_booleans_for_numbers(config, attempt)]
    return SearchConfig(name="x"), list(found.values())


def _delete(tree: Any, path: KeyPath) -> None:
    for part in path[:-1]:
        tree = tree[part]
    if isinstance(tree, dict):
        tree.pop(path[-1], None)
    else:
        tree.clear()


def _booleans_for_numbers(model: Section, raw: Mapping[str, Any], path: KeyPath = ()) -> list[Problem]:
    """Pydantic takes `true` for 1; in a file it is a mistake."""
    problems: list[Problem] = []
    for key, value in raw.items():
        taken = getattr(model, key, None)
        if isinstance(taken, Section) and isinstance(value, Mapping):
            problems += _booleans_for_numbers(taken, value, (*path, key))
        elif isinstance(value, bool) and not isinstance(taken, bool):
            problems.append(Problem(dotted((*path, key)), value_problem(SearchConfig, (*path, key), value)))
    return problems


def _between_sections(config: SearchConfig, space: Space) -> list[Problem]:
    problems = scheduler_problems(config, space)
    metric = METRICS[config.search.metric]
    searched = list(filter(lambda key: key.startswith(tuple(f"{section}." for section in metric.reads)), space.keys()))
    if searched:
        unmoved = ", ".join(other.name for other in METRICS if other.build.share == "mean" and not other.reads)
        itself = " or ".join(metric.reads)
        message = (
            f"{metric.name} cannot rank trials whose {itself} itself is searched ({', '.join(searched)}); "
            f"valid: {unmoved}"
        )
        problems.append(Problem("search.metric", message))
    return problems


def _fitted(config: SearchConfig) -> SearchConfig:
    search = config.search.model_copy(update={"scheduler": fitted_scheduler(config)})
    return config.model_copy(update={"search": search})


def _report(path: Path, raw: RawConfig, problems: Sequence[Problem]) -> str:
    unique = sorted(dict.fromkeys(problems), key=lambda problem: raw.line(problem.key) or 0)
    changed = f" with --set {', '.join(sorted(raw.overridden))}" if raw.overridden else ""
    lines = [f"{path}{changed}: {len(unique)} problem{'s' if len(unique) > 1 else ''}"]
    for problem in unique:
        origin = raw.origin(problem.key)
        lines.append(f"  {problem.key}{f' ({origin})' if origin else ''}: {problem.message}")
    return "\n".join(lines)


def main(arguments: Sequence[str]) -> None:
    """Writes the JSON schema to the given path."""
    path = Path(arguments[0]) if arguments else Path("configs") / "schema.json"
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    beside.write_text(json.dumps(json_schema(), indent=2) + "\n", encoding="utf-8")
    beside.replace(path)


if __name__ == "__main__":
    main(sys.argv[1:])
