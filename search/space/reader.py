"""Reads the `space:` section into a tree, checking every key and value against the config that it varies."""

import math
from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from search.config.problems import (
    Problem,
    leaf_keys,
    nearest,
    node_at,
    shown,
    unknown_key,
    value_problem,
)
from search.space.domains import (
    DOMAINS,
    KINDS,
    Choice,
    Fixed,
    Node,
    Option,
    Prior,
    Range,
)
from segcore.config import TrainConfig

SELECTORS = {"lr_scheduler": "name", "optimizer": "name", "model": "arch", "augment": "policy"}
SECTIONS = frozenset(key.partition(".")[0] for key in leaf_keys(TrainConfig) if "." in key)
REFUSED = {
    "data": "every trial must see the same data, or the scores cannot be compared; set it in the data section",
    "train.epochs": "every trial gets the same budget, and the scheduler stops the poor ones early; set train.epochs",
    "train.seed": "the luckiest seed is not a better model; set train.seed",
    "train.num_workers": "it changes the speed, not the model; set train.num_workers",
    "train.deterministic": "it changes the speed and the last bits, not the model; set train.deterministic",
    "train.augment_on": "it changes the speed, not the model; set train.augment_on",
    "model.in_channels": "images are RGB",
    "model.num_classes": "the data decides it",
}
_LARGEST = 1e12
_MOST_STEPS = 1_000_000
_FORMS = (
    "valid: one of {uniform: [low, high]}, {loguniform: [low, high]}, {quniform: [low, high, step]}, "
    "{int: [low, high]} (with step: n), {choice: [...]}, {choice: {name: {...}}}, and beside any of them "
    "prior: {center: ...}"
)


def is_space_key(key: str, in_branch: bool = False) -> bool:
    """Whether `key` may stand in `space:`, a refused one included; in a branch, without its section too."""
    leaves = leaf_keys(TrainConfig)
    return key in leaves or key in SELECTORS or (in_branch and any(leaf.endswith(f".{key}") for leaf in leaves))


def flatten_space(raw: Mapping[Any, Any]) -> tuple[dict[Any, Any], list[str]]:
    """`{optimizer: {lr: ...}}` as `{optimizer.lr: ...}`.

    Returns:
        The flat map, and the keys that were given both ways (the later one is kept).
    """
    flat: dict[Any, Any] = {}
    twice: list[str] = []
    for key, value in raw.items():
        nested = key in SECTIONS and isinstance(value, Mapping) and value and not set(value) & set(DOMAINS)
        for name, part in ((f"{key}.{name}", part) for name, part in value.items()) if nested else ((key, value),):
            if name in flat:
                twice.append(name)
            flat[name] = part
    return flat, twice


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and -1e308 < value < 1e308


def _range_problem(kind: str, low: float, high: float, step: float | None) -> str | None:
    """What is wrong with the numbers of a range, whatever the field."""
    pair = f"[{low:g}, {high:g}]"
    if max(-low, high) > _LARGEST:
        return f"a range stays within +-{_LARGEST:g}, found {pair}"
    if not low < high:
        return f"the low end must be below the high end, found {pair}"
    if kind == "loguniform" and low <= 0:
        return f"a logarithmic range starts above 0, found {pair}"
    if kind == "int" and not all(float(part).is_integer() for part in (low, high, step or 1)):
        return f"int takes whole numbers, found {pair}{f' and step {step:g}' if step else ''}"
    if step is not None and (high - low) / step > _MOST_STEPS:
        return f"steps of {step:g} make more than {_MOST_STEPS} values; use uniform"
    if step is not None and not Range(low, high, step=step).holds(high):
        reached = low + math.floor((high - low) / step + 1e-9) * step
        return f"steps of {step:g} from {low:g} never reach {high:g}; valid: [{low:g}, {reached:g}]"
    return None


class Reader:
    """Reads one space and collects what is wrong with it."""

    def __init__(self, base: TrainConfig) -> None:
        self.base = base
        self.problems: list[Problem] = []
        self.paths: dict[tuple[str, str], str] = {}
        """Where in the file each node stands, by its key and branch."""
        self._tree = base.model_dump()

    def refuse(self, path: str, message: str) -> None:
        """Notes a problem with the key at `path`."""
        self.problems.append(Problem(path, message))

    def nodes(self, raw: object, path: str, section: str, labels: tuple[str, ...]) -> tuple[Node, ...]:
        """The parameters of the whole space (`section` empty) or of one branch.

        Args:
            raw: What the file holds.
            path: Where it stands in the file, for problems.
            section: The section that keys are relative to; empty for the whole space.
            labels: The choices that lead to the branch, outermost first.
        """
        if not isinstance(raw, Mapping):
            self.refuse(path, f"found {shown(raw)}; must be a map of dotted keys, e.g. optimizer.lr")
            return ()
        flat, twice = flatten_space(raw)
        for key in twice:
            self.refuse(f"{path}.{key}", "is given both nested and dotted; keep one")
        found = (self._node(name, spec, f"{path}.{name}", section, labels) for name, spec in flat.items())
        return tuple(node for node in found if node is not None)

    def _node(self, name: object, spec: object, path: str, section: str, labels: tuple[str, ...]) -> Node | None:
        key = self._key(str(name), spec, path, section)
        if key is None:
            return None
        self.paths[key, "/".join(labels)] = path
        if not isinstance(spec, Mapping):
            if not labels:
                self.refuse(path, self._not_a_domain(key, spec))
                return None
            valid = self._valid(key, spec, path)
            return Node(key, Fixed(valid[0]), "/".join(labels)) if valid else None
        domain = self._domain(key, spec, path, labels)
        if domain is None:
            return None
        prior = self._prior(key, domain, spec["prior"], f"{path}.prior") if "prior" in spec else None
        return Node(key, domain, "/".join(labels), prior)

    def _key(self, name: str, spec: object, path: str, section: str) -> str | None:
        """The full dotted key that a name in the file means; None, and a problem, if it means none."""
        if name == "forbid":
            self.refuse(path, "stands once, at the top of space, beside the searched keys")
            return None
        relative = f"{section}.{name}"
        key = relative if section and relative in leaf_keys(TrainConfig) else name
        if key in SELECTORS:
            if isinstance(spec, Mapping) and "choice" not in spec and set(spec) & set(DOMAINS):
                self.refuse(
                    path,
                    f"a section is searched by its {SELECTORS[key]}: {{choice: {{a: {{...}}, b: {{...}}}}}}",
                )
                return None
            key = f"{key}.{SELECTORS[key]}"
        if key not in leaf_keys(TrainConfig):
            parts = key.split(".")
            if key in SECTIONS:
                names = ", ".join(leaf for leaf in leaf_keys(TrainConfig) if leaf.startswith(f"{key}."))
                self.refuse(path, f"{key} has no name to choose from; search its keys: {names}")
            elif section and "." not in name and node_at(TrainConfig, (section,)) is not None:
                self.refuse(path, unknown_key(TrainConfig, (section, name)))
            else:
                known = node_at(TrainConfig, parts[:-1]) is not None
                self.refuse(path, unknown_key(TrainConfig, parts if known else (key,)))
            return None
        for prefix, reason in REFUSED.items():
            if key == prefix or key.startswith(f"{prefix}."):
                self.refuse(path, f"cannot be searched: {reason}")
                return None
        return key

    def _not_a_domain(self, key: str, spec: object) -> str:
        if isinstance(spec, list) and len(spec) == 2 and all(_is_number(part) for part in spec):
            return f"found {shown(spec)}; write {{uniform: {spec}}}, {{int: {spec}}} or {{choice: {spec}}}"
        if isinstance(spec, list):
            return f"found {shown(spec)}; write {{choice: {spec}}}"
        return f"found {shown(spec)}; a fixed value belongs outside of space, as {key}; {_FORMS}"

    def _domain(self, key: str, spec: Mapping[Any, Any], path: str, labels: tuple[str, ...]) -> Range | Choice | None:
        kinds = [kind for kind in KINDS if kind in spec]
        strange = [str(name) for name in spec if name not in DOMAINS]
        if len(kinds) != 1 or strange:
            found = f"unknown: {', '.join(strange)}; " if strange else f"found {shown(spec)}; "
            self.refuse(path, f"{found}{_FORMS}")
            return None
        kind = kinds[0]
        if "step" in spec and kind != "int":
            self.refuse(
                f"{path}.step",
                f"belongs to int only, not to {kind}; a stepped range of numbers is {{quniform: [low, high, step]}}",
            )
            return None
        if kind == "choice":
            return self._choice(key, spec["choice"], f"{path}.choice", labels)
        return self._range(key, kind, spec[kind], spec.get("step"), f"{path}.{kind}")

    def _range(self, key: str, kind: str, bounds: object, step: object, path: str) -> Range | None:
        wanted = 3 if kind == "quniform" else 2
        if not isinstance(bounds, (list, tuple)) or len(bounds) != wanted or not all(map(_is_number, bounds)):
            form = "[low, high, step]" if wanted == 3 else "[low, high]"
            self.refuse(path, f"found {shown(bounds)}; valid: {wanted} numbers, {form}")
            return None
        if wanted == 3:
            step = bounds[2]
        if step is not None and (not _is_number(step) or not isinstance(step, (int, float)) or step <= 0):
            self.refuse(path, f"step must be a number above 0, found {shown(step)}")
            return None
        message = _range_problem(kind, bounds[0], bounds[1], step)
        if message:
            self.refuse(path, message)
            return None
        number = int if kind == "int" else float
        found = Range(
            low=number(bounds[0]),
            high=number(bounds[1]),
            integer=kind == "int",
            log=kind == "loguniform",
            step=None if step is None else number(step),
        )
        return found if self._fits(key, found, path) else None

    def _prior(self, key: str, domain: Range | Choice, raw: object, path: str) -> Prior | None:
        form = "{center: VALUE} or {center: VALUE, width: NUMBER}"
        rule = f"center in {domain.describe()}, width {domain.width_rule}"
        if not isinstance(raw, Mapping) or "center" not in raw or set(raw) - {"center", "width"}:
            self.refuse(path, f"found {shown(raw)}; valid: {form}, {rule}")
            return None
        center = self.taken(key, raw["center"])
        if center is None or not domain.holds(center[0]):
            guess = nearest(str(raw["center"]), domain.describe().split(" | "))
            hint = f"; did you mean {guess}?" if guess and isinstance(domain, Choice) else ""
            self.refuse(f"{path}.center", f"found {shown(raw['center'])}; valid: {domain.describe()}{hint}")
            return None
        width = raw.get("width", domain.default_width)
        if not _is_number(width) or not 0 < width <= domain.widest:
            self.refuse(f"{path}.width", f"found {shown(width)}; valid: {domain.width_rule}")
            return None
        return Prior(center[0], width)

    def _fits(self, key: str, found: Range, path: str) -> bool:
        """Whether the field takes both ends, and what lies between them."""
        if not all(self._valid(key, end, path) for end in (found.low, found.high)):
            return False
        taken = self.taken(key, found.low)
        if taken is not None and isinstance(taken[0], bool):
            self.refuse(path, f"{key} is true or false; use {{choice: [true, false]}}")
            return False
        inside = found.low + (found.step or (found.high - found.low) * 0.381966)
        if not found.integer and self.taken(key, inside) is None:
            self.refuse(path, f"{key} takes whole numbers; use {{int: [{found.low:g}, {found.high:g}]}}")
            return False
        return True

    def _choice(self, key: str, raw: object, path: str, labels: tuple[str, ...]) -> Choice | None:
        if not isinstance(raw, (list, Mapping)) or not raw:
            self.refuse(
                path, f"found {shown(raw)}; valid: a list of values, or a map of values with their own parameters"
            )
            return None
        section = key.rpartition(".")[0]
        options: list[Option] = []
        sound = True
        for value in raw:
            here = f"{path}.{value}" if isinstance(raw, Mapping) else path
            valid = self._valid(key, value, here)
            branch = raw[value] if isinstance(raw, Mapping) else None
            nodes = () if branch is None else self.nodes(branch, here, section, (*labels, str(value)))
            if not valid:
                sound = False
            elif any(option.value == valid[0] for option in options):
                self.refuse(path, f"{shown(value)} stands twice")
            else:
                options.append(Option(valid[0], nodes))
        return Choice(tuple(options)) if sound else None

    def _valid(self, key: str, value: object, path: str) -> tuple[Any] | None:
        """The value as its field takes it, in a tuple as it may be None; None, and a problem, if it is refused."""
        valid = self.taken(key, value)
        if valid is None:
            self.refuse(path, value_problem(TrainConfig, tuple(key.split(".")), value))
        return valid

    def taken(self, key: str, value: object) -> tuple[Any] | None:
        """The value as the field takes it, in a tuple as it may be None; None if the field refuses it."""
        section, _, leaf = key.rpartition(".")
        tree = {section: {**self._tree[section], leaf: value}} if section else {leaf: value}
        try:
            config: Any = TrainConfig.model_validate(tree)
        except ValidationError as error:
            path = tuple(key.split("."))
            if any(item["loc"][: len(path)] == path for item in error.errors()):
                return None
            return (value,)  # the field takes it; whether its section does is for check_combinations
        for part in key.split("."):
            config = getattr(config, part)
        if isinstance(value, bool) and not isinstance(config, bool):
            return None
        return (config,)
