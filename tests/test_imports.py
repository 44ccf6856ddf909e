"""The direction of imports, and what starting a command may load, for the whole source tree."""

import ast
import json
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("segcore", "search")
FILES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
MAX_LINES = 350
TEST_FILES = sorted((ROOT / "tests").rglob("*.py"))
MAX_TEST_LINES = 400
MAX_UNTYPED = 120
"""Occurrences of `dict[str, Any]` in the source tree stay below it."""

HEAVY = frozenset({"torch", "ray", "wandb", "optuna", "albumentations", "timm", "yadisk", "cv2", "sqlalchemy"})
DISTRIBUTIONS = {"PIL": "pillow", "yaml": "pyyaml", "cv2": "opencv-python-headless"}
PART_OF_ANOTHER = {"sqlalchemy": "optuna", "huggingface_hub": "timm"}
"""Packages used here that a dependency of ours cannot be without."""


def module_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_of(path): path for path in FILES}


def names_in(node: ast.AST) -> list[str]:
    """What an import statement names; `from package import module` names the module."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        assert node.level == 0, "imports are absolute here"
        base = str(node.module)
        return [f"{base}.{alias.name}" if f"{base}.{alias.name}" in MODULES else base for alias in node.names]
    return []


@cache
def imports_of(module: str) -> frozenset[str]:
    """Every name that a module imports, inside functions too."""
    tree = ast.parse(MODULES[module].read_text(encoding="utf-8"))
    return frozenset(name for node in ast.walk(tree) for name in names_in(node))


@cache
def imports_at_start(module: str) -> frozenset[str]:
    """What a module imports when it is imported itself; not what its functions and type checkers do."""

    def statements(body: list[ast.stmt]) -> Iterator[ast.stmt]:
        for node in body:
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                continue
            if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
                continue
            yield node
            for name in ("body", "orelse", "finalbody"):
                yield from statements(getattr(node, name, []))

    tree = ast.parse(MODULES[module].read_text(encoding="utf-8"))
    return frozenset(name for node in statements(tree.body) for name in names_in(node))


def top(name: str) -> str:
    return name.partition(".")[0]


def importers_of(package: str) -> set[str]:
    return {module for module in MODULES if package in {top(name) for name in imports_of(module)}}


def test_there_is_something_to_look_at() -> None:
    assert {"segcore.trainable", "segcore.models.unet", "search.cli.runs", "search.tune.journal_callback"} <= set(
        MODULES
    )
    assert "search.stages.job" in imports_of("search.cli.runs")
    assert "search.stages.job" not in imports_at_start("search.cli.runs")


def test_segcore_knows_nothing_of_the_search() -> None:
    for package in ("search", "click", "rich", "wandb", "optuna", "yadisk"):
        assert {module for module in importers_of(package) if module.startswith("segcore")} == set(), package


def test_ray_has_one_door_in_segcore() -> None:
    assert {module for module in importers_of("ray") if module.startswith("segcore")} == {"segcore.trainable"}


@pytest.mark.parametrize(
    ("package", "allowed"),
    [
        ("albumentations", r"segcore\.data\.augment\.policy"),
        ("timm", r"segcore\.models\.encoders"),
        ("wandb", r"search\.(tracking|export)\..*"),
        ("yadisk", r"search\.export\..*"),
        ("click", r"search\.cli\..*"),
    ],
)
def test_each_library_has_its_place(package: str, allowed: str) -> None:
    found = importers_of(package)
    assert found, f"{package} is imported nowhere"
    assert [module for module in found if not re.fullmatch(allowed, module)] == []


@pytest.mark.parametrize("package", ["albumentations", "timm", "wandb"])
def test_slow_libraries_are_imported_where_they_are_needed(package: str) -> None:
    """Inside functions, so that no other command pays for them."""
    early = {module for module in MODULES if package in {top(name) for name in imports_at_start(module)}}
    assert early == set()


def test_the_disks_library_is_only_loaded_with_its_target() -> None:
    early = {module for module in MODULES if "yadisk" in {top(name) for name in imports_at_start(module)}}
    assert {module for module in early if not module.startswith("search.export.yandex.")} == set()
    outside = {module for module in MODULES if not module.startswith("search.export.yandex.")}
    assert {module for module in outside if imports_at_start(module) & early} == set()


@pytest.mark.parametrize("package", PACKAGES)
def test_no_import_goes_in_a_circle(package: str) -> None:
    graph = {
        module: {name for name in imports_of(module) if name in MODULES and name != module and top(name) == package}
        for module in MODULES
        if top(module) == package
    }
    graph.pop(package)
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))


def package_of(module: str) -> str:
    """The package or module directly below `search` or `segcore`: what has a layer."""
    return ".".join(module.split(".")[:2])


def layers() -> dict[str, int]:
    """The one table of layers, from the last line of docstrings: every package says its own, a module beside them may.

    A module that says none is at the bottom: every layer may import it, and it imports none of them.
    """
    found = {}
    for name in sorted({package_of(module) for module in MODULES} - set(PACKAGES)):
        docstring = ast.get_docstring(ast.parse(MODULES[name].read_text(encoding="utf-8"))) or ""
        match = re.search(r"^Layer (\d+)\.\Z", docstring, re.MULTILINE)
        is_package = MODULES[name].name == "__init__.py"
        assert match or not is_package, f"{name} does not say its layer: end its docstring with, e.g., `Layer 3.`"
        found[name] = int(match[1]) if match else 0
    return found


def test_imports_point_down() -> None:
    table = layers()
    wrong = [
        f"{module} (layer {table[package_of(module)]}) imports {name} (layer {table[package_of(name)]})"
        for module in MODULES
        if module not in PACKAGES
        for name in imports_of(module)
        if top(name) == top(module) and name in MODULES and name not in PACKAGES
        if table[package_of(name)] > table[package_of(module)]
    ]
    assert wrong == []


def test_packages_say_what_they_hold() -> None:
    for package in {path.parent for path in FILES}:
        docstring = ast.get_docstring(ast.parse((package / "__init__.py").read_text(encoding="utf-8"))) or ""
        assert len(docstring.split("\n\n")) >= 2, f"{package}: a line on what it holds, a paragraph on who imports it"


def test_no_folder_holds_more_than_fifteen_modules() -> None:
    modules = [path.parent for path in FILES if path.name != "__init__.py"]
    assert {str(folder): modules.count(folder) for folder in set(modules) if modules.count(folder) > 15} == {}


def test_nothing_is_imported_that_is_not_declared() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    declared = {re.split(r"[\[<>=~! ;]", line)[0].lower() for line in project["dependencies"]}
    used = {top(name) for module in MODULES for name in imports_of(module)} - set(sys.stdlib_module_names)
    missing = {
        name
        for name in used - set(PACKAGES)
        if DISTRIBUTIONS.get(name, name).lower() not in declared and PART_OF_ANOTHER.get(name) not in declared
    }
    assert missing == set()


def test_every_folder_of_code_is_a_package_with_types() -> None:
    for folder in {path.parent for path in FILES}:
        assert (folder / "__init__.py").is_file(), folder
    for package in PACKAGES:
        assert (ROOT / package / "py.typed").is_file()


def test_no_file_has_grown_beyond_one_noun() -> None:
    lengths = {module: len(path.read_text(encoding="utf-8").splitlines()) for module, path in MODULES.items()}
    assert {module: length for module, length in lengths.items() if length > MAX_LINES} == {}


def test_no_test_file_is_too_long_to_be_read() -> None:
    lengths = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in TEST_FILES}
    assert {str(path.relative_to(ROOT)): length for path, length in lengths.items() if length > MAX_TEST_LINES} == {}


def test_records_with_known_fields_have_a_type() -> None:
    counts = {module: path.read_text(encoding="utf-8").count("dict[str, Any]") for module, path in MODULES.items()}
    most = sorted(counts.items(), key=lambda item: -item[1])[:5]
    total = sum(counts.values())
    assert total < MAX_UNTYPED, (
        f"dict[str, Any] occurs {total} times, mostly in {most}: a record with known fields is a dataclass"
    )


def test_no_file_is_named_for_leftovers() -> None:
    leftovers = {"helpers", "utils", "common", "misc"}
    assert [module for module in MODULES if leftovers & set(module.split("."))] == []


def loaded_by(code: str, *arguments: str) -> set[str]:
    """The top-level modules that a fresh interpreter has loaded after some code."""
    code = (
        f"{code}\nimport json, sys\nprint('\\n' + json.dumps(sorted({{name.split('.')[0] for name in sys.modules}})))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stdout.splitlines()[-1]))


def test_light_modules_start_light() -> None:
    modules = (
        "segcore.config, segcore.errors, segcore.scores.scorer, segcore.task, segcore.sealed.card, "
        "segcore.data.pairs.samples, search.errors, "
        "search.runs.paths, search.runs.journal, search.config.load, search.space.parse, search.runs.folder, "
        "search.show.run, search.cli"
    )
    assert loaded_by(f"import {modules}") & HEAVY == set()


def loaded_by_command(arguments: list[str], tmp_path: Path) -> set[str]:
    (tmp_path / "wrong.yaml").write_text("train: {epochs: none}\n")
    code = "import sys\nfrom search.cli import main\ntry:\n    main(sys.argv[1:])\nexcept SystemExit:\n    pass"
    return loaded_by(code, *(argument.format(tmp=tmp_path) for argument in arguments))


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["run", "--help"],
        ["--version"],
        ["ls", "--results", "{tmp}"],
        ["show", "none", "--results", "{tmp}"],
        ["report", "none", "--results", "{tmp}"],
        ["space", "configs/full.yaml"],
    ],
    ids=" ".join,
)
def test_a_command_that_only_reads_loads_nothing_heavy(arguments: list[str], tmp_path: Path) -> None:
    assert loaded_by_command(arguments, tmp_path) & HEAVY == set()


@pytest.mark.parametrize(
    "command",
    ["run", pytest.param("train", marks=pytest.mark.slow), pytest.param("check", marks=pytest.mark.slow)],
)
def test_a_wrong_config_is_told_before_the_slowest_imports(command: str, tmp_path: Path) -> None:
    loaded = loaded_by_command([command, "{tmp}/wrong.yaml"], tmp_path)
    assert loaded & {"torch", "timm", "wandb", "albumentations", "yadisk"} == set()


def loggers_of(module: str) -> list[str]:
    """How a module names its loggers; the root logger is the empty name."""
    calls = [
        node for node in ast.walk(ast.parse(MODULES[module].read_text(encoding="utf-8"))) if isinstance(node, ast.Call)
    ]
    named = [node for node in calls if ast.unparse(node.func).rpartition(".")[2] == "getLogger"]
    return [ast.unparse(node.args[0]) if node.args else "" for node in named]


def test_what_is_logged_reaches_the_runs_log() -> None:
    """The file and the screen listen to `segsearch` alone; the root is asked only for what libraries log."""
    found = {module: names for module in MODULES if (names := loggers_of(module))}
    assert len(found) > 10
    assert found.pop("segcore.silence") == ["name"], "it lowers the voice of libraries and logs nothing itself"
    wrong = {module: name for module, names in found.items() for name in names if name not in ("'segsearch'", "")}
    assert wrong == {}
    assert {module for module, names in found.items() if "" in names} <= {
        *("search.api", "search.cli.group", "search.tune.cluster.output", "search.tune.cluster.watch")
    }
