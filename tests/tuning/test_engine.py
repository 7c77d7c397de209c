"""Studies on Ray: processes that die, cores, GPUs, clusters that refuse."""

import json
import subprocess
import sys
from importlib.util import find_spec

import pytest

from metaopt.bench import records
from tests.tuning.test_kill import start_driver
from tuning.cores import available_cores
from tuning.executor import check_budgets

pytestmark = [
    pytest.mark.slow,
    # Ray forks this process, in which another test may have initialised JAX.
    pytest.mark.filterwarnings("ignore:.*os.fork", "ignore:subprocess .* is still running"),
]

DEADLY = '''
"""Gradient descent that kills its process, or never returns, if it is told to."""
import os, signal, time
import optax
from metaopt.bench.contract import kit

DEFAULTS = {"learning_rate": 0.1, "deadly": 0.0}

def optimizer(step_hint, *, learning_rate, deadly):
    return optax.sgd(learning_rate)

_baseline = kit.Baseline(optimizer, DEFAULTS)
get_batch_size, data_selection = kit.get_batch_size, kit.data_selection
init_optimizer_state, report = _baseline.init_optimizer_state, _baseline.report

def update_params(**arguments):
    if arguments["global_step"] == 25:
        if arguments["hyperparameters"].deadly == 1.0:
            os.kill(os.getpid(), signal.SIGKILL)
        while arguments["hyperparameters"].deadly == 2.0:
            time.sleep(0.1)
    return _baseline.update_params(**arguments)
'''


WATCHED = '''
"""Gradient descent that writes down its resources, and when it began and ended."""
import json, os, pathlib, time
import optax
from metaopt.bench.contract import kit

def optimizer(step_hint, *, learning_rate):
    return optax.sgd(learning_rate)

_baseline = kit.Baseline(optimizer, {"learning_rate": 0.1})
get_batch_size, data_selection = kit.get_batch_size, kit.data_selection
report = _baseline.report
NAMES = ("CUDA_VISIBLE_DEVICES", "XLA_CLIENT_MEM_FRACTION")
# Not in the folder of the submission, whose digest must stay.
SEEN = pathlib.Path(__file__).parents[1] / "seen"
PATH = SEEN / f"{os.getpid()}.json"  # an audit imports this again

def init_optimizer_state(*arguments):
    return _baseline.init_optimizer_state(*arguments)

def update_params(**arguments):
    if arguments["global_step"] == 0:
        PATH.write_text(json.dumps({
            "process": os.getpid(), "cores": sorted(os.sched_getaffinity(0)), "time": time.time(),
            **{name: os.environ.get(name) for name in NAMES},
        }))
        limit = time.time() + 120
        while len(list(SEEN.glob("*.json"))) < AT_ONCE and time.time() < limit:
            time.sleep(0.1)
    return _baseline.update_params(**arguments)
'''


@pytest.fixture
def drive(tmp_path, root):
    """Run a campaign in a process of its own; return its error, or ``None``."""

    def drive(document, resources, limit=300):
        file = tmp_path / "campaign.toml"
        file.write_text("".join(f"{k} = {json.dumps(v)}\n" for k, v in document.items()))
        driver = start_driver(file, tmp_path / "out", root, resources)
        try:
            failed = driver.wait(limit)
        finally:
            driver.kill()
            driver.wait()
        return (tmp_path / "out.log").read_text().splitlines()[-1] if failed else None

    return drive


@pytest.fixture
def deadly(tmp_path):
    folder = tmp_path / "deadly"
    folder.mkdir()
    (folder / "submission.py").write_text(DEADLY)
    space = '{"deadly": {"feasible_points": [1.0, 0.0, 2.0]}}'
    (folder / "tuning_search_space.json").write_text(space)
    return {
        "name": "dead",
        "budget": "120grads",
        "trial_budget": "40grads",
        "eval_period": "10grads",
        "studies": 1,
        "stall_seconds": 30,
        "workloads": ["breast_cancer_logistic"],
        "contenders": [f"{folder}+grid", "sgd+random"],
    }


def test_trials_that_kill_their_process_or_never_return_fail_and_the_campaign_goes_on(
    deadly, drive, tmp_path
):
    assert drive(deadly, {"cpus": 1}) is None

    studies = [records.read_study(path) for path in (tmp_path / "out").rglob("study.json")]
    trials = [records.read_trial(path) for path in sorted((tmp_path / "out").rglob("run.json"))]
    told = {value: [t for t in trials if (t.hyperparameters or {}).get("deadly") == value]
            for value in (1.0, 2.0)}  # fmt: skip
    (killer,), (hanging,) = told[1.0], told[2.0]
    assert killer.status == "crashed"
    assert "died twice" in (killer.error or "")
    assert hanging.status == "stalled"
    assert "line 21 in update_params" in (hanging.error or "")
    assert (hanging.cause or "").endswith("(submission.py:21)")
    assert hanging.ledger.cost.steps in (0, 10, 20)  # of its last checkpoint, if there was time
    assert [t.status for t in trials if t not in (killer, hanging)] == ["trial_budget"] * 4
    assert {s.contender: s.ended for s in studies} == {
        "deadly+grid": "grid_exhausted",
        "sgd+random": "budget",
    }
    check_budgets(studies)


def test_a_single_run_that_never_returns_ends_with_exit_code_1_and_is_recorded_by_the_next(
    deadly, tmp_path, root
):
    command = ["run", str(tmp_path / "deadly"), "breast_cancer_logistic", "--stall-seconds", "30"]
    command += ["--hparams", "deadly=2.0", "--budget", "40grads", "--out", str(tmp_path / "out")]

    first, second = (
        subprocess.run(
            [sys.executable, "-m", "tuning", *command], cwd=root, capture_output=True, text=True
        )
        for _ in range(2)
    )

    assert first.returncode == 1
    assert "stalled" in second.stdout and "(submission.py:21)" in second.stdout
    (path,) = (tmp_path / "out").rglob("run.json")
    assert records.read_trial(path).status == "stalled"


@pytest.fixture
def watch(tmp_path, drive):
    """Run studies that wait for each other; return what each saw, or the error."""

    def run(at_once, resources, studies=None, budget="5grads"):
        folder = tmp_path / "watched"
        folder.mkdir(exist_ok=True)
        (tmp_path / "seen").mkdir(exist_ok=True)
        (folder / "submission.py").write_text(WATCHED.replace("AT_ONCE", str(at_once)))
        document = {
            "name": "watched",
            "budget": budget,
            "trial_budget": budget,
            "eval_period": budget,
            "studies": studies or at_once,
            "workloads": ["breast_cancer_logistic"],
            "contenders": [f"{folder}+none"],
        }
        error = drive(document, resources)
        return error or [
            json.loads(path.read_text()) for path in (tmp_path / "seen").glob("*.json")
        ]

    return run


@pytest.mark.skipif(len(available_cores()) < 2, reason="a core for each of two processes")
def test_each_slot_keeps_to_cores_of_its_own(watch):
    first, second = watch(2, {"cpus": 1})

    assert len(first["cores"]) == len(second["cores"]) == 1
    assert first["cores"] != second["cores"]


def test_budgets_in_seconds_run_one_study_at_a_time_in_a_process_of_its_own(watch, tmp_path):
    seen = watch(1, {}, studies=2, budget="2s")

    times = {process: [] for process in (one["process"] for one in seen)}
    for one in seen:  # one for each of its trials
        times[one["process"]].append(one["time"])
        assert one["cores"] == available_cores()
    first, second = sorted(times.values())
    assert max(first) < min(second)
    assert min(second) - min(first) >= 2.0
    assert not (tmp_path / "out" / ".compiled").exists()


@pytest.mark.parametrize("gpus, at_once, share", [(1.0, 8, None), (0.5, 16, "0.45")])
def test_eight_gpus_run_eight_studies_at_a_time_or_two_on_each(
    watch, cluster, gpus, at_once, share
):
    # JAX_PLATFORMS=cpu tells the slots that the GPUs are not real.
    cluster.add_node(
        num_cpus=16, num_gpus=8, object_store_memory=10**8, env_vars={"JAX_PLATFORMS": "cpu"}
    )

    seen = watch(at_once, {"address": cluster.address, "cpus": 1, "gpus": gpus})

    assert len({one["process"] for one in seen}) == at_once
    devices = [one["CUDA_VISIBLE_DEVICES"] for one in seen]
    assert sorted(devices) == sorted([str(gpu) for gpu in range(8)] * (at_once // 8))
    assert {one["XLA_CLIENT_MEM_FRACTION"] for one in seen} == {share}


def test_a_gpu_that_jax_does_not_find_stops_the_campaign_in_one_line(watch, cluster, tmp_path):
    cluster.add_node(num_cpus=2, num_gpus=1, object_store_memory=10**8)

    error = watch(1, {"address": cluster.address})  # a GPU for each study is the default

    assert error.startswith("Each study has 1 GPUs, and JAX finds 0 on")
    assert not list(tmp_path.rglob("run.json"))


def test_more_gpus_or_cores_than_a_machine_has_are_refused(watch, cluster):
    cluster.add_node(num_cpus=2, object_store_memory=10**8)

    error = watch(1, {"address": cluster.address, "gpus": 2.0})
    assert error.startswith("--gpus-per-study is 2, but no machine has more than 0")
    error = watch(1, {"address": cluster.address, "cpus": 3})
    assert error.startswith("--cpus-per-study is 3, but no machine has more than 2")


@pytest.mark.parametrize(
    "address, message",
    [
        ("127.0.0.1:1", "No Ray cluster answers at 127.0.0.1:1"),
        ("ray://head:10001", "--address takes host:port or auto"),
        ("auto", "--address auto: nobody has called `ray start` on this machine"),
    ],
)
def test_a_cluster_that_is_not_there_is_one_line(watch, monkeypatch, tmp_path, address, message):
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))  # where Ray writes its last address
    assert watch(1, {"address": address}).startswith(message)


@pytest.mark.parametrize("named_by", ["RAY_ADDRESS", "ray start"])
def test_auto_is_the_cluster_that_was_joined_last(watch, monkeypatch, tmp_path, named_by):
    if named_by == "RAY_ADDRESS":
        monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    else:
        monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
        (tmp_path / "ray").mkdir()
        (tmp_path / "ray" / "ray_current_cluster").write_text("127.0.0.1:1")
    assert watch(1, {"address": "auto"}).startswith("No Ray cluster answers at 127.0.0.1:1")


@pytest.mark.skipif(find_spec("aiohttp_cors") is not None, reason="Ray's dashboard is installed")
def test_a_dashboard_that_is_not_installed_is_one_line(watch):
    assert watch(1, {"dashboard": True}).endswith("pip install 'ray[default]'.")
