"""Studies on machines that do not share the driver's disk, that die, or whose disk is full."""

import contextlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from metaopt.bench import records
from tests.tuning.test_kill import CAMPAIGN, start_driver, table
from tuning.campaign import read_campaign
from tuning.cluster import Resources
from tuning.executor import run_campaign

pytestmark = [
    pytest.mark.slow,
    # Ray forks this process, in which another test may have initialised JAX.
    pytest.mark.filterwarnings("ignore:.*os.fork", "ignore:subprocess .* is still running"),
]


@pytest.fixture(scope="module")
def small(tmp_path_factory, root):
    """A campaign, and its output folder as one process leaves it."""
    folder = tmp_path_factory.mktemp("small")
    (folder / "small.toml").write_text(CAMPAIGN.replace("studies = 4", "studies = 1"))
    assert start_driver(folder / "small.toml", folder / "alone", root).wait() == 0
    return folder


@pytest.fixture
def far_machine(cluster, tmp_path):
    """Add a machine that does not see ``out``; the function returns one that kills it."""
    if os.geteuid() != 0:
        pytest.skip("only root may hide a folder from a process")
    machines = []
    (tmp_path / "out").mkdir()

    def add(disk="1g", cpus=2):
        own = tmp_path / f"disk_{len(machines)}"
        own.mkdir()
        mount = "mount -t tmpfs -o size={} none {}"  # an empty file system hides the folder
        start = [
            mount.format("1g", tmp_path / "out"),
            mount.format(disk, own),
            f"exec {Path(sys.executable).with_name('ray')} start --block --num-cpus {cpus} "
            f"--address {cluster.address} --object-store-memory 100000000",
        ]
        machine = psutil.Popen(
            ["unshare", "--mount", "sh", "-c", " && ".join(start)], stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL, env=os.environ | {"TMPDIR": str(own)},
        )  # fmt: skip
        machines.append(machine)

        def kill():
            for process in [machine, *machine.children(recursive=True)]:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()
            machine.wait()

        return kill

    yield add
    for machine in machines:
        if machine.is_running():
            machine.terminate()
        machine.wait()


def test_machines_without_the_drivers_disk_send_their_studies_to_it(
    small, cluster, far_machine, tmp_path, root
):
    far_machine()
    resources = {"address": cluster.address, "cpus": 1}
    driver = start_driver(small / "small.toml", tmp_path / "out", root, resources)

    assert driver.wait(timeout=300) == 0
    assert table(tmp_path / "out") == table(small / "alone")


SLOW = '''
"""Gradient descent that takes its time, and writes down each step."""
import pathlib, time
import optax
from metaopt.bench.contract import kit

STEPS = pathlib.Path(__file__).parents[1] / "steps"

def optimizer(step_hint):
    return optax.sgd(0.1)

_baseline = kit.Baseline(optimizer, {})
get_batch_size, data_selection = kit.get_batch_size, kit.data_selection
init_optimizer_state, report = _baseline.init_optimizer_state, _baseline.report

def update_params(**arguments):
    time.sleep(0.3)
    with STEPS.open("a") as steps:
        steps.write(f"{arguments['global_step']}\\n")
    return _baseline.update_params(**arguments)
'''


@pytest.fixture
def slow(tmp_path):
    """A campaign of one study that takes twenty seconds, and a function of the steps it took."""
    folder = tmp_path / "slow"
    folder.mkdir()
    (folder / "submission.py").write_text(SLOW)
    document = {
        "name": "slow", "budget": "60grads", "trial_budget": "60grads", "eval_period": "5grads",
        "studies": 1, "workloads": ["breast_cancer_logistic"], "contenders": [f"{folder}+none"],
    }  # fmt: skip
    file, steps = tmp_path / "slow.toml", tmp_path / "steps"
    file.write_text("".join(f"{k} = {json.dumps(v)}\n" for k, v in document.items()))
    return file, lambda: steps.read_text().split() if steps.exists() else []


@pytest.mark.parametrize("copied", [True, False])
def test_a_study_goes_on_from_what_came_back_from_a_dead_machine_or_starts_again(
    slow, cluster, far_machine, tmp_path, root, copied
):
    file, steps = slow
    kill = far_machine()
    driver = start_driver(file, tmp_path / "out", root, {"address": cluster.address, "cpus": 1})
    while not (list((tmp_path / "out").rglob("checkpoint.*")) if copied else len(steps()) > 6):
        assert driver.poll() is None
        time.sleep(0.1)
    kill()
    before = len(steps())
    cluster.add_node(num_cpus=1, object_store_memory=10**8)

    assert driver.wait(timeout=120) == 0
    resumed_at = int(steps()[before])
    assert 0 < resumed_at <= before if copied else resumed_at == 0
    (study,) = (records.read_study(path) for path in tmp_path.rglob("study.json"))
    (trial,) = (records.read_trial(path) for path in tmp_path.rglob("run.json"))
    assert study.lost_seconds > 0
    assert (trial.preemptions, trial.ledger.cost.steps, trial.status) == (
        1 if copied else 0, 60, "trial_budget",
    )  # fmt: skip


def test_a_machine_whose_disk_is_full_is_named_and_another_runs_its_studies(
    small, cluster, far_machine, tmp_path, root
):
    far_machine(disk="80k")
    resources = {"address": cluster.address, "cpus": 1}
    driver = start_driver(small / "small.toml", tmp_path / "out", root, resources)
    log = tmp_path / "out.log"
    while "No space left" not in log.read_text():
        assert driver.poll() is None
        time.sleep(0.1)
    cluster.add_node(num_cpus=2, object_store_memory=10**8)

    assert driver.wait(timeout=300) == 0
    assert table(tmp_path / "out") == table(small / "alone")
    assert log.read_text().count("it runs no study") == 1


def test_a_finished_campaign_starts_no_ray(small, monkeypatch):
    monkeypatch.setattr("tuning.executor.connected", None)
    campaign = read_campaign(small / "small.toml")

    assert len(run_campaign(campaign, small / "alone", resources=Resources())) == 6
