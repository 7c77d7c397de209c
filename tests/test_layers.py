"""Imports go along the edges that CONTRIBUTING.md lists, and in no circle."""

import ast
import graphlib
import re
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("metaopt", "submissions", "tuning", "analysis")


def listed_edges() -> dict[str, set[str]]:
    """Return the edges of CONTRIBUTING.md: for each room the rooms that it imports."""
    text = (ROOT / "CONTRIBUTING.md").read_text("utf-8")
    (block,) = re.findall(r"^```imports\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    lines = re.sub(r"\n +", " ", block).splitlines()  # a long line goes on indented
    rooms = (line.partition("<-") for line in lines)
    return {room.strip(): set(imported.split()) for room, _, imported in rooms}


EDGES = listed_edges()


def room_of(module: str) -> str:
    """Return the innermost room that a module is in."""
    inside = [room for room in EDGES if f"{module}.".startswith(f"{room}.")]
    return max(inside, key=len, default=module.split(".")[0])


def files(package: str) -> list[Path]:
    return sorted((ROOT / package).rglob("*.py"))


def name_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


MODULES = {name_of(path): path for package in PACKAGES for path in files(package)}


def imports_of(path: Path) -> set[str]:
    """Return every module that a file imports, in functions and for annotations as well."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    found = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            above = parts[: len(parts) - node.level] if node.level else ()
            base = ".".join([*above, *([node.module] if node.module else [])])
            for alias in node.names:
                name = f"{base}.{alias.name}"
                found.add(name if name in MODULES else base)
    return found


IMPORTS = {name: imports_of(path) & set(MODULES) - {name} for name, path in MODULES.items()}


def edges_between_rooms() -> dict[str, set[str]]:
    edges = defaultdict(set)
    for name, imported in IMPORTS.items():
        edges[room_of(name)] |= {room_of(other) for other in imported} - {room_of(name)}
    return edges


@pytest.mark.parametrize("room", sorted({room_of(name) for name in MODULES}))
def test_a_room_imports_exactly_the_rooms_that_the_guide_lists(room):
    assert edges_between_rooms()[room] == EDGES.get(room, set())


def test_the_rooms_import_in_no_circle():
    list(graphlib.TopologicalSorter(EDGES).static_order())


def test_the_files_import_in_no_circle():
    list(graphlib.TopologicalSorter(IMPORTS).static_order())


def starts_other_packages(path: Path) -> bool:
    """Return whether a file imports by name, and names a package that is not installed."""
    nodes = [*ast.walk(ast.parse(path.read_text("utf-8")))]
    words = {node.value for node in nodes if isinstance(node, ast.Constant)}
    called = {ast.unparse(node.func) for node in nodes if isinstance(node, ast.Call)}
    by_name = {"importlib.import_module", "runpy.run_module", "runpy.run_path", "__import__"}
    return bool(called & by_name and words & {"tuning", "analysis"})


def test_of_the_installed_package_only_the_command_starts_others_by_name():
    assert [path.name for path in files("metaopt") if starts_other_packages(path)] == [
        "__main__.py"
    ]


@pytest.mark.parametrize("package", ["metaopt", "tuning", "analysis"])
def test_two_files_of_a_package_have_two_names(package):
    names = [path.stem for path in files(package) if not path.stem.startswith("__")]

    assert sorted(names) == sorted(set(names))


@pytest.mark.parametrize("package", ["metaopt", "tuning", "analysis"])
def test_two_public_definitions_of_a_package_have_two_names(package):
    places = defaultdict(list)
    for path in files(package):
        if (
            path.stem == "cli"
        ):  # its functions have the names of the commands, which call the others
            continue
        for node in ast.parse(path.read_text("utf-8")).body:
            if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
                places[node.name].append(name_of(path))

    assert {name: where for name, where in places.items() if len(where) > 1} == {}


@pytest.mark.parametrize("package", [*PACKAGES, "tests"])
def test_a_long_file_says_in_its_first_line_why_it_is_long(package):
    for path in files(package):
        lines = path.read_text("utf-8").splitlines()
        assert len(lines) <= 400 or "over 400 lines: " in lines[0], path


def outside_imports(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module.split(".")[0])
    return names


def test_only_the_gaussian_process_imports_torch_and_nothing_imports_tensorflow():
    found = {
        name: outside_imports(path) & {"tensorflow", "torch"} for name, path in MODULES.items()
    }

    assert {name: names for name, names in found.items() if names} == {
        "tuning.tuners.samplers": {"torch"}  # inside a function; torch is an extra
    }


def test_tuners_are_listed_without_torch():
    code = "import sys, tuning.tuners, tuning.contenders; sys.exit('torch' in sys.modules)"

    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0


def test_the_leaderboard_holds_no_code():
    assert not files("leaderboard")


@pytest.mark.parametrize(
    "module",
    ["metaopt", "metaopt.bench.records", "metaopt.bench.measure.targets", "analysis.report.report"],
)
def test_it_is_imported_without_jax(module):
    code = f"import sys, {module}; sys.exit('jax' in sys.modules)"

    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0


@pytest.mark.slow
def test_only_the_package_is_installed_and_its_targets_with_it(tmp_path):
    import shutil

    source = tmp_path / "source"
    shutil.copytree(
        ROOT, source, ignore=shutil.ignore_patterns(".*", "runs", "*.egg-info", "build")
    )
    wheel = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", tmp_path, source]
    subprocess.run(wheel, check=True)
    names = subprocess.run(
        [sys.executable, "-m", "zipfile", "-l", next(tmp_path.glob("*.whl"))],
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip

    tops = {line.split("/")[0] for line in names.splitlines()[1:] if "/" in line}
    assert {top for top in tops if not top.endswith("dist-info")} == {"metaopt"}
    assert "metaopt/bench/measure/targets.json" in names
