"""Imports flow one way, and what needs no JAX imports none."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
OURS = {"metaopt", "submissions", "tuning", "analysis", "leaderboard", "tests"}

ALLOWED = {
    "metaopt": {"metaopt"},
    "submissions": {"metaopt", "submissions"},
    "tuning": {"metaopt", "tuning", "analysis"},
    "analysis": {"metaopt", "analysis"},
}


def imports_of(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def files(folder: str) -> list[Path]:
    return sorted((ROOT / folder).rglob("*.py"))


@pytest.mark.parametrize("folder", ALLOWED)
def test_a_folder_imports_only_what_is_below_it(folder):
    for path in files(folder):
        ours = {name.split(".")[0] for name in imports_of(path)} & OURS
        assert ours <= ALLOWED[folder], path


def test_the_optimizer_knows_neither_workloads_nor_referee():
    for path in sorted((ROOT / "metaopt").glob("*.py")):
        inner = {
            name
            for name in imports_of(path)
            if name.startswith(("metaopt.bench", "metaopt.workloads"))
        }
        assert not inner, path


def test_the_theory_knows_nothing_beside_itself_but_the_optimizer():
    roots = {path.stem for path in (ROOT / "metaopt").glob("*.py")}
    for path in files("metaopt/theory"):
        ours = {name.split(".")[1] for name in imports_of(path) if name.startswith("metaopt.")}
        assert ours <= roots | {"theory"}, path


def test_analysis_knows_what_the_referee_writes_and_nothing_of_how_it_runs():
    allowed = ("metaopt.bench.records", "metaopt.bench.measure")
    for path in files("analysis"):
        ours = {name for name in imports_of(path) if name.startswith("metaopt.bench.")}
        assert all(name.startswith(allowed) for name in ours), path


# Each room of analysis, and the rooms that it may import; `text` is open to all.
ROOMS = {
    "logs": set(),
    "scoring": {"logs"},
    "statistics": {"logs", "scoring"},
    "training": {"logs", "scoring"},
    "checks": {"logs", "scoring"},
    "report": {"logs", "scoring", "statistics", "training", "checks"},
    "leaderboard": {"logs", "scoring", "statistics", "checks", "report"},
    "commands": {"logs", "scoring", "statistics", "checks", "report"},
}


def modules_of(path: Path) -> set[str]:
    """The modules of analysis that a file imports."""
    found = set()
    for name in imports_of(path):
        module = ROOT / name.replace(".", "/")
        if name.startswith("analysis.") and (
            module.with_suffix(".py").is_file() or module.is_dir()
        ):
            found.add(name)
    return found


@pytest.mark.parametrize("room", ROOMS)
def test_the_rooms_of_analysis_import_one_way(room):
    for path in files(f"analysis/{room}"):
        others = {name.split(".")[1] for name in modules_of(path)} - {room, "text"}
        assert others <= ROOMS[room], path


def test_the_files_of_analysis_import_in_no_circle():
    import graphlib

    graph = {}
    for path in files("analysis"):
        name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
        found = {m for m in modules_of(path) if (ROOT / f"{m.replace('.', '/')}.py").is_file()}
        graph[name.removesuffix(".__init__")] = found

    assert len(list(graphlib.TopologicalSorter(graph).static_order())) >= len(graph)


def test_nothing_of_ours_imports_tensorflow_or_torch_but_the_gaussian_process():
    samplers = ROOT / "tuning" / "tuners" / "samplers.py"  # inside a function; torch is an extra

    found = {
        path: {name.split(".")[0] for name in imports_of(path)} & {"tensorflow", "torch"}
        for folder in ALLOWED
        for path in files(folder)
    }

    assert {path: names for path, names in found.items() if names} == {samplers: {"torch"}}


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
