"""A campaign whose processes, machines and driver are killed gives the table of an unbroken one."""

import csv
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest

from metaopt.bench import records
from metaopt.bench.records.audit import AUDIT_FILE
from tuning.slot import position

pytestmark = [
    pytest.mark.slow,
    # Ray forks this process, in which another test may have initialised JAX.
    pytest.mark.filterwarnings("ignore:.*os.fork", "ignore:subprocess .* is still running"),
]

KILLS = int(os.environ.get("METAOPT_KILLS", "5"))

CAMPAIGN = """
name = "kill"
budget = "10x"
studies = 4
eval_period = "10grads"
workloads = ["breast_cancer_logistic", "breast_cancer_logistic_fixed"]
contenders = ["metaopt", "adamw+tpe", "sgd+asha"]
"""

# As `tuning compare` does, without the report, which takes longer than the campaign.
RUN = """
import json, sys
from pathlib import Path
from rich.console import Console
from tuning.campaign import read_campaign
from tuning.cluster import Resources
from tuning.executor import run_campaign
resources = json.loads(sys.argv[3])
resources = None if resources is None else Resources(**resources)
campaign = read_campaign(Path(sys.argv[1]))
try:
    run_campaign(campaign, Path(sys.argv[2]), resources=resources, console=Console(stderr=True))
except ValueError as error:
    sys.exit(str(error))
"""


def start_driver(file, out, root, resources=None):
    """Start a process that runs a campaign: Ray can be used in one way only in each process.

    Args:
        file: The campaign.
        out: The output folder; what is printed goes to a file beside it.
        root: The checkout.
        resources: The arguments of ``Resources``; ``None`` runs without Ray.
    """
    with out.with_suffix(".log").open("a") as log:
        return subprocess.Popen(
            [sys.executable, "-c", RUN, str(file), str(out), json.dumps(resources)], cwd=root,
            stdout=log, stderr=log, start_new_session=True,
        )  # fmt: skip


TIMES = re.compile(r"(.*_)?(seconds|time|at|duration|score)")  # a score is a time of AlgoPerf's
OTHERS = {"environment", "preemptions", "preemption_count"}


def table(out: Path) -> dict[str, object]:
    """Return all of a campaign's files but times, environments, interruptions and audits."""

    def without_times(content: dict) -> dict:
        return {k: v for k, v in content.items() if not (TIMES.fullmatch(k) or k in OTHERS)}

    rows: dict[str, object] = {}
    for path in sorted(
        (out / "logs").rglob("[!.]*.*")
    ):  # a name with a dot: half a file of a killed process
        if path.suffix == ".csv":
            with path.open() as lines:
                content = [without_times(row) for row in csv.DictReader(lines)]
        elif path.name == AUDIT_FILE:  # which study is audited is drawn anew
            continue
        else:
            content = json.loads(path.read_text(), object_hook=without_times)
        rows[str(path.relative_to(out))] = content
    return rows


def slots() -> list[psutil.Process]:
    """Return the processes of slots."""
    found = []
    for process in psutil.process_iter(["cmdline"]):
        if (process.info["cmdline"] or [""])[0].startswith("ray::Slot"):
            found.append(process)
    return found


def kill_a_slot(out: Path, generator: np.random.Generator, killed: set) -> bool:
    """Kill the process of a study, but none twice in one trial: that is the trial's failure.

    Args:
        out: The output folder.
        generator: Chooses the study.
        killed: The states of the studies when they were killed; this one is added.
    """
    pids = {process.pid for process in slots()}
    found = []
    for owner in (out / ".locks").glob("*-*-*.owner"):
        pid = int(owner.read_text().split()[1])
        contender, workload, study = owner.stem.rsplit("-", 2)
        folder = records.study_directory(out / "logs", contender, int(study), workload)
        state = str(folder), position(folder)
        if pid in pids and list(folder.glob("trial_*/progress.json")) and state not in killed:
            found.append((pid, state))
    if not found:
        return False
    pid, state = found[generator.integers(len(found))]
    killed.add(state)
    os.kill(pid, signal.SIGKILL)
    return True


@pytest.fixture
def campaign(tmp_path):
    (tmp_path / "kill.toml").write_text(CAMPAIGN)
    return tmp_path / "kill.toml"


def test_random_kills_of_slots_machines_and_the_driver_change_nothing(
    campaign, cluster, tmp_path, root
):
    for _ in range(2):
        cluster.add_node(num_cpus=2, object_store_memory=10**8)
    alone = start_driver(campaign, tmp_path / "unbroken", root)  # all in one process
    assert alone.wait() == 0
    expected = table(tmp_path / "unbroken")
    generator = np.random.default_rng(KILLS)
    kills = ["slot", "slot", "driver", "slot", "machine"] * (KILLS // 5)
    resources = {"address": cluster.address, "cpus": 1}
    outs, finished, states, killed = [tmp_path / "broken_1"], {}, set(), set()
    driver = start_driver(campaign, outs[-1], root, resources)

    while kills:
        time.sleep(generator.uniform(3.0, 15.0))
        if driver.poll() is not None:  # it has come to its end: break another one
            assert driver.returncode == 0
            outs.append(tmp_path / f"broken_{len(outs) + 1}")
            driver = start_driver(campaign, outs[-1], root, resources)
            continue
        finished |= {path: path.read_bytes() for path in outs[-1].rglob("run.json")}
        if kills[0] == "driver":
            driver.kill()
            driver.wait()
            driver = start_driver(campaign, outs[-1], root, resources)
        elif kills[0] == "machine":
            cluster.remove_node(next(iter(cluster.worker_nodes)), allow_graceful=False)
            cluster.add_node(num_cpus=2, object_store_memory=10**8)
        elif not kill_a_slot(outs[-1], generator, killed):
            continue
        kills.pop(0)
        states.add((len(outs), len(list(outs[-1].rglob("run.json")))))
    assert driver.wait() == 0

    assert len(states) > 2, "kills should fall into different states of the campaign"
    for out in outs:
        assert table(out) == expected
    for path, content in finished.items():  # nothing that was finished was run again
        before, after = records.TrialRecord.model_validate_json(content), records.read_trial(path)
        assert after.segments[: len(before.segments)] == before.segments
        assert path.read_bytes() == content or before.status == "paused"


def is_gone(process: psutil.Process) -> bool:
    return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE


@pytest.mark.parametrize(
    "how", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM], ids=["killed", "interrupted", "stopped"]
)
def test_nothing_runs_soon_after_the_driver(campaign, tmp_path, root, how):
    driver = start_driver(campaign, tmp_path / "out", root, {"cpus": 1})
    while not list(tmp_path.rglob("progress.json")):
        assert driver.poll() is None
        time.sleep(0.1)
    # Not those of tests that run beside this one.
    started = psutil.Process(driver.pid).children(recursive=True)
    assert set(slots()) & set(started)

    os.kill(driver.pid, how)
    for process in started if how == signal.SIGTERM else ():  # as a scheduler does
        process.terminate()

    until = time.monotonic() + 30  # on an idle machine five are enough
    driver.wait(30)
    while time.monotonic() < until and not all(map(is_gone, started)):
        time.sleep(0.1)
    assert [process.cmdline() for process in started if not is_gone(process)] == []


def test_a_second_process_on_the_same_folder_is_refused_by_name(campaign, tmp_path, root):
    out = tmp_path / "out"
    compare = [sys.executable, "-m", "tuning", "compare", str(campaign), "--in-process"]
    compare += ["--out", str(out)]
    first = subprocess.Popen(compare, cwd=root, stdout=subprocess.DEVNULL, start_new_session=True)
    try:
        while not (out / records.CAMPAIGN_FILE).exists():
            assert first.poll() is None
            time.sleep(0.05)

        second = subprocess.run(compare, cwd=root, capture_output=True, text=True)

        assert second.returncode == 2
        assert f"in use by process {first.pid} on" in second.stderr
        assert second.stderr.count("\n") == 1
    finally:
        first.kill()
        first.wait()
