"""Installed packages add workloads, submissions and tuners; broken ones break nothing else.

The packages are real to Python: modules and ``dist-info`` in a folder on the path of a subprocess.
"""

import json
import os
import re
import subprocess
import sys
import tomllib

import pytest

from metaopt.bench import records

CAMPAIGN = """
name = "plugins"
studies = 1
budget = "10steps"
trial_budget = "10steps"
eval_period = "10steps"
workloads = ["diabetes"]
contenders = ["lamb+sobol"]
"""

RUN = """
import sys
from pathlib import Path
from tuning.campaign import read_campaign
from tuning.executor import run_campaign
folder = Path(sys.argv[1])
run_campaign(read_campaign(folder / "plugins.toml"), folder / "out")
"""

LIST = """
import json
from metaopt.workloads.registry import get_workload
from tuning.commands.list_command import list_entries
from tuning.cli import app
print(json.dumps(list_entries()))
app(["list", "--format", "json"], standalone_mode=False)
assert get_workload("digits_mlp_fixed").base_name == "digits_mlp"
get_workload("gone")
"""


def install(site, name, version, groups):
    """Write the metadata of a distribution, as an installer does."""
    info = site / f"{name.replace('-', '_')}-{version}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    lines = []
    for group, entries in groups.items():
        lines += [f"[{group}]", *(f"{key} = {value}" for key, value in entries.items())]
    (info / "entry_points.txt").write_text("\n".join(lines))


@pytest.fixture
def site(root, tmp_path):
    """A folder of packages with the one from docs/extending.md in it."""
    page = (root / "docs" / "extending.md").read_text("utf-8")
    lamb, *modules = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    _, pyproject = re.findall(r"```toml\n(.*?)```", page, re.DOTALL)
    folder = tmp_path / "site"
    space = {"learning_rate": {"min": 1e-5, "max": 1e-2, "scaling": "log"}}
    files = {
        "lamb_pkg/__init__.py": "",
        "lamb_pkg/lamb/__init__.py": "",
        "lamb_pkg/lamb/submission.py": lamb,
        "lamb_pkg/lamb/tuning_search_space.json": json.dumps(space),
        **{module.partition("\n")[0].removeprefix("# "): module for module in modules},
    }
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    project = tomllib.loads(pyproject)["project"]
    install(folder, project["name"], project["version"], project["entry-points"])
    return folder


@pytest.fixture
def python(site, root):
    """Run Python from the checkout with the packages on its path."""

    def run(*arguments):
        path = os.pathsep.join([str(site), str(root)])
        return subprocess.run(
            [sys.executable, *map(str, arguments)], cwd=root, capture_output=True, text=True,
            env={**os.environ, "PYTHONPATH": path},
        )  # fmt: skip

    return run


def test_the_package_in_the_documents_runs_in_a_campaigns_processes(python, tmp_path):
    (tmp_path / "plugins.toml").write_text(CAMPAIGN)

    run = python("-c", RUN, tmp_path)

    assert run.returncode == 0, run.stderr
    found = [records.read_trial(path) for path in tmp_path.rglob(records.RUN_FILE)]
    assert found
    for record in found:
        assert record.error is None
        assert (record.submission, record.workload) == ("lamb", "diabetes")
        assert record.batch_size == 32
        assert (record.target.metric, record.target.value) == ("validation/loss", 0.56)
        assert record.tuner is not None and record.tuner["name"] == "sobol"
        assert record.environment["software"]["lamb-pkg"] == "1.2"


def test_a_broken_entry_is_listed_with_its_reason_and_breaks_nothing(python, site):
    (site / "mess.py").write_text(
        "class Bare: name = 'bare'\ndef fails(): raise OSError('no\\ndisk')"
    )
    (site / "mess_pkg").mkdir()
    (site / "mess_pkg" / "submission.py").write_text("get_batch_size = len")
    groups = {
        "metaopt.workloads": {
            "digits_mlp_fixed": "mess:taken", "bare": "mess:Bare", "fails": "mess:fails",
            "gone": "nowhere:x",
        },
        "metaopt.submissions": {
            "adamw": "mess", "lamb": "mess", "a+b": "mess", "half": "mess_pkg", "mess": "mess",
        },
        "metaopt.tuners": {"grid": "mess:fails", "number": "mess:__name__"},
    }  # fmt: skip
    install(site, "mess", "0.1", groups)

    run = python("-c", LIST)

    added, listed = map(json.loads, run.stdout.splitlines())
    assert {"diabetes", "diabetes_fixed", "sums", "digits_mlp_fixed"} <= set(listed["workloads"])
    assert "adamw" in listed["submissions"] and "lamb" not in listed["submissions"]
    assert {"sobol", "grid"} <= set(listed["tuners"])
    reasons = {
        "workload digits_mlp_fixed (mess 0.1)": "metaopt-bench has its own 'digits_mlp_fixed'",
        "workload bare (mess 0.1)": "Bare has no summary, step_hint",
        "workload fails (mess 0.1)": "OSError: no disk",
        "workload gone (mess 0.1)": "ModuleNotFoundError: No module named 'nowhere'",
        "submission adamw (mess 0.1)": "metaopt-bench has its own 'adamw'",
        "submission lamb (lamb-pkg 1.2)": "mess 0.1 has 'lamb' too",
        "submission lamb (mess 0.1)": "lamb-pkg 1.2 has 'lamb' too",
        "submission a+b (mess 0.1)": "a name has only letters, digits",
        "submission half (mess 0.1)": "does not define init_optimizer_state",
        "submission mess (mess 0.1)": "neither a folder with submission.py nor a module",
        "tuner grid (mess 0.1)": "metaopt-bench has its own 'grid'",
        "tuner number (mess 0.1)": "a tuner is made by a function, got 'mess'",
    }
    assert sorted(reasons) == listed["unavailable"]
    for entry, reason in reasons.items():
        assert reason in added["unavailable"][entry]
    assert added["tuners"]["sobol"] == "Scrambled Sobol points."
    assert run.stderr.splitlines()[-1] == (
        "ValueError: metaopt.workloads 'gone' of mess 0.1 is unavailable: ModuleNotFoundError: "
        "No module named 'nowhere'"
    )
