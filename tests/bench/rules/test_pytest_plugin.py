"""The pytest plug-in, as somebody else runs it in a folder of their own."""

import os
import re
import subprocess
import sys

import pytest

# Without the plug-ins that load a lot, jaxtyping's among them.
PYTEST = [sys.executable, "-m", "pytest", "-p", "no:jaxtyping", "-p", "no:hypothesispytest"]
BROKEN = "import of_no_one\n\n\ndef get_batch_size(workload_name):\n    return 1\n"
WORKLOAD = "from metaopt.workloads.synthetic import Quadratic\n\nMINE = Quadratic()\n"


@pytest.fixture
def run(root, tmp_path):
    """Run pytest in an empty folder, with the plug-in and nothing else."""
    (tmp_path / "test_other.py").write_text("def test_passes():\n    pass\n")
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "submission.py").write_text(BROKEN)
    (tmp_path / "mine.py").write_text(WORKLOAD)

    def run(*arguments, path=()):
        return subprocess.run(
            [*PYTEST, "-p", "metaopt.bench.rules.pytest_plugin", *arguments],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, [root, *path]))},
            capture_output=True,
            text=True,
        )

    return run


def test_each_rule_is_a_test_and_what_could_not_be_applied_is_skipped(run):
    ran = run("--submission", "broken", "-rA", "-v")

    assert ran.returncode == 1
    assert "test_other" not in ran.stdout
    results = dict(
        re.findall(r"^submission broken::(\S+) (PASSED|FAILED|SKIPPED)", ran.stdout, re.M)
    )
    failed = {rule for rule, result in results.items() if result == "FAILED"}
    skipped = {rule for rule, result in results.items() if result == "SKIPPED"}
    assert failed == {"import", "functions"}
    assert "recompilation" in skipped
    assert "submission.py:1: the import fails: ModuleNotFoundError" in ran.stdout


def test_a_workload_is_tested_by_its_contract_beside_what_the_command_line_names(run):
    ran = run("--workload", "mine:MINE", "test_other.py", "-q", path=["."])

    assert ran.returncode == 0, ran.stdout
    assert "11 passed" in ran.stdout


def test_rules_are_chosen_by_name(run):
    ran = run("--submission", "broken", "-k", "source", "-q")

    assert (ran.returncode, "1 passed" in ran.stdout) == (0, True)


@pytest.mark.parametrize(
    "arguments, message",
    [
        (("--submission", "nowhere"), "--submission nowhere: no such folder"),
        (("--workload", "nowhere.at:ALL"), "No workload 'nowhere.at:ALL': ModuleNotFoundError"),
    ],
)
def test_a_mistake_in_an_option_is_a_usage_error(run, arguments, message):
    ran = run(*arguments)

    assert ran.returncode == 4
    assert message in ran.stderr


def test_the_plug_in_is_one_where_it_is_installed_and_named_and_costs_no_jax(run, root, tmp_path):
    import tomllib

    plugins = tomllib.loads((root / "pyproject.toml").read_text())["project"]["entry-points"]
    information = tmp_path / "site" / "installed-1.0.dist-info"
    information.mkdir(parents=True)
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: installed\nVersion: 1.0\n")
    (information / "entry_points.txt").write_text(
        "[pytest11]\n" + "".join(f"{k} = {v}\n" for k, v in plugins["pytest11"].items())
    )
    (tmp_path / "test_other.py").write_text(
        "import sys\n\n\ndef test_it(pytestconfig):\n"
        "    assert pytestconfig.pluginmanager.hasplugin('metaopt.bench.rules.pytest_plugin')\n"
        "    assert not {'jax', 'numpy', 'metaopt.bench.rules.check'} & set(sys.modules)\n"
    )

    ran = run("-q", path=[tmp_path / "site"])

    assert ran.returncode == 0, ran.stdout + ran.stderr
