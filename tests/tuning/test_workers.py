"""Workers that share a campaign give the table of one machine, also when one of them dies."""

import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import optuna
import pytest

from metaopt.bench import records
from metaopt.bench.records.outcomes import value_of
from tests.tuning.test_kill import table
from tuning.campaign import read_campaign
from tuning.export import export_studies
from tuning.locks import hold
from tuning.slots import LOCKS
from tuning.slurm import submit_workers
from tuning.worker import run_worker

CAMPAIGN = """
name = "shared"
budget = "6x"
studies = 2
eval_period = "10grads"
workloads = ["breast_cancer_logistic", "breast_cancer_logistic_fixed"]
contenders = ["metaopt", "adamw+tpe", "sgd@paper+grid"]
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shared")
    (folder / "shared.toml").write_text(CAMPAIGN)
    return folder


@pytest.fixture(scope="module")
def alone(folder, root):
    """The campaign as one machine runs it."""
    command = [sys.executable, "-m", "tuning", "compare", str(folder / "shared.toml")]
    subprocess.run([*command, "--out", str(folder / "alone")], cwd=root, check=True,
                   stdout=subprocess.DEVNULL)  # fmt: skip
    return folder / "alone"


def start(folder, out, url, root):
    """A worker in a process group of its own; whoever starts one waits for its end."""
    command = [sys.executable, "-m", "tuning", "worker", str(folder / "shared.toml")]
    command += ["--storage", url, "--out", str(out), "--workers", "1", "--lease-seconds", "8"]
    return subprocess.Popen(command, cwd=root, stdout=subprocess.PIPE, text=True,
                            start_new_session=True)  # fmt: skip


def kill(worker):
    os.killpg(worker.pid, signal.SIGKILL)
    worker.communicate()


@pytest.mark.slow
@pytest.mark.parametrize("shared", ["journal", "postgres"])
def test_two_workers_of_which_one_is_killed_give_the_table_of_one_machine(
    shared, folder, alone, root, tmp_path, request
):
    if shared == "postgres":
        url = request.getfixturevalue("postgres_url").replace("me@", "me:TopSecret1@")
    else:
        url = f"journal:{tmp_path}/storage.log"
    workers = [start(folder, tmp_path / "out", url, root) for _ in range(2)]
    deadline = time.monotonic() + 300
    while not [*tmp_path.rglob("run.json")] and time.monotonic() < deadline:
        time.sleep(0.2)

    kill(workers[0])
    output, _ = workers[1].communicate(timeout=500)

    assert workers[1].returncode == 0
    assert "report:" in output
    assert table(tmp_path / "out") == table(alone)
    files = [path for path in (tmp_path / "out").rglob("*") if path.is_file()]
    assert not [path for path in files if b"TopSecret1" in path.read_bytes()]


def test_workers_that_start_at_once_wait_for_each_other(folder, tmp_path, monkeypatch):
    monkeypatch.setattr("tuning.worker.run_queue", lambda *arguments: None)
    campaign, out = read_campaign(folder / "shared.toml"), tmp_path / "out"
    url = f"journal:{tmp_path}/storage.log"

    with ThreadPoolExecutor() as pool:
        with hold(out / LOCKS / "campaign.lock", "the folder"):  # as the other one does
            worker = pool.submit(run_worker, campaign, out, url)
            with pytest.raises(TimeoutError):
                worker.result(timeout=1.0)
        assert worker.result(timeout=30.0) == {}

    assert (out / "campaign.json").exists()


def test_a_worker_is_refused_where_a_local_campaign_runs(folder, tmp_path, monkeypatch):
    monkeypatch.setattr("tuning.worker._CLAIM_SECONDS", 0.5)
    campaign, out = read_campaign(folder / "shared.toml"), tmp_path / "out"

    with (
        hold(out / LOCKS / "campaign.lock", "the folder"),
        pytest.raises(ValueError, match=f"out' is in use by process {os.getpid()} on"),
    ):
        run_worker(campaign, out, f"journal:{tmp_path}/storage.log")


@pytest.mark.slow
def test_a_worker_that_starts_again_without_the_files_says_what_was_lost(
    folder, alone, root, tmp_path
):
    url = f"journal:{tmp_path}/storage.log"
    first = start(folder, tmp_path / "one", url, root)
    deadline = time.monotonic() + 300
    while not [*tmp_path.rglob("run.json")] and time.monotonic() < deadline:
        time.sleep(0.2)
    time.sleep(3.0)  # a beat later
    kill(first)
    done = {path.relative_to(tmp_path / "one") for path in (tmp_path / "one").rglob("study.json")}

    second = start(folder, tmp_path / "two", url, root)
    output, _ = second.communicate(timeout=500)

    assert second.returncode == 0, output
    studies = {
        path.relative_to(tmp_path / "two") for path in (tmp_path / "two").rglob("study.json")
    }
    assert not studies & done
    assert len(studies | done) == 12
    lost = [records.read_study(tmp_path / "two" / path).lost_seconds for path in studies]
    assert sum(seconds > 0 for seconds in lost) == 1
    spent = {path: records.read_study(alone / path).spent.steps for path in studies}
    assert spent == {p: records.read_study(tmp_path / "two" / p).spent.steps for p in studies}


@pytest.mark.slow
def test_workers_run_as_an_array_job(folder, alone, root, tmp_path, monkeypatch):
    monkeypatch.chdir(root)
    command = ["-m", "tuning", "worker", str(folder / "shared.toml"), "--workers", "1"]
    command += ["--storage", f"journal:{tmp_path}/storage.log", "--out", str(tmp_path / "out")]

    said, jobs = submit_workers(command, 2, tmp_path / "out", ["partition=cpu"], cluster="local")

    assert said.startswith("2 workers: ")
    deadline = time.monotonic() + 400
    while not all(job.done() for job in jobs) and time.monotonic() < deadline:
        time.sleep(0.5)
    for job in jobs:
        job.result()
    assert table(tmp_path / "out") == table(alone)


def test_slurm_that_is_not_here_and_options_of_another_form_are_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", "")
    with pytest.raises(ValueError, match="sbatch, which is not on this machine"):
        submit_workers([], 1, tmp_path, [])
    with pytest.raises(ValueError, match="takes name=value, got 'gpu'"):
        submit_workers([], 1, tmp_path, ["gpu"], cluster="local")
    with pytest.raises(ValueError, match="timeout_min must be a number, got 'long'"):
        submit_workers([], 1, tmp_path, ["timeout_min=long"], cluster="local")


@pytest.mark.slow
def test_an_exported_study_holds_the_trials_as_the_tuner_saw_them(alone, tmp_path):
    url = f"sqlite:///{tmp_path}/storage.db"

    exported = dict(export_studies(alone, url))
    again = dict(export_studies(alone, url))

    assert exported == again
    name = "shared/adamw+tpe/breast_cancer_logistic/study_1"
    study = optuna.load_study(study_name=name, storage=url)
    folder = alone / "logs" / "adamw+tpe" / "study_1" / "breast_cancer_logistic_jax"
    trials = [records.read_trial(path) for path in sorted(folder.glob("trial_*/run.json"))]
    by_number = {trial.trial: trial for trial in trials}
    assert [t.user_attrs["trial"] for t in study.trials] == sorted(by_number)
    for trial in study.trials:
        record = by_number[trial.user_attrs["trial"]]
        assert trial.params == record.hyperparameters
        assert trial.value == value_of(record)
    assert study.trials[0].distributions["learning_rate"].log
    assert not [name for name in exported if name.startswith("shared/metaopt")]
