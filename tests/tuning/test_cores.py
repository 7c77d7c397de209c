"""Processes side by side keep to cores of their own."""

import json

import pytest

from tuning.campaign import make_campaign
from tuning.cores import available_cores, kept_to, share_cores
from tuning.executor import run_campaign

WATCHED = '''
"""Gradient descent that writes down the cores it may use."""
import json, os, pathlib
import optax
from metaopt.bench.contract import kit

def optimizer(step_hint, *, learning_rate):
    return optax.sgd(learning_rate)

_baseline = kit.Baseline(optimizer, {"learning_rate": 0.1})
get_batch_size, data_selection = kit.get_batch_size, kit.data_selection
update_params, report = _baseline.update_params, _baseline.report

def init_optimizer_state(*arguments):
    cores = sorted(os.sched_getaffinity(0))
    path = pathlib.Path(__file__).with_name(f"{os.getpid()}.json")
    path.write_text(json.dumps(cores))
    return _baseline.init_optimizer_state(*arguments)
'''


@pytest.mark.parametrize("cores", [1, 2, 3, 7, 16])
@pytest.mark.parametrize("processes", [1, 2, 3, 16])
def test_shares_are_the_cores_as_evenly_as_can_be(cores, processes):
    shares = share_cores(range(10, 10 + cores), processes)

    assert len(shares) == processes
    sizes = sorted(map(len, shares))
    assert sizes[0] >= 1
    assert sizes[-1] - sizes[0] <= 1
    used = [core for share in shares for core in share]
    if processes <= cores:
        assert used == list(range(10, 10 + cores))  # each of one process
    else:
        assert len(used) == processes  # a core each, and each core of as many
        assert max(map(used.count, used)) - min(map(used.count, used)) <= 1


def test_where_nobody_can_say_what_there_is_nobody_is_told():
    assert share_cores([], 2) == [[], []]


def test_a_process_that_was_kept_to_a_core_has_all_of_them_again():
    before = available_cores()

    with kept_to(before[:1]):
        assert available_cores() == before[:1]

    assert available_cores() == before


@pytest.mark.skipif(len(available_cores()) < 2, reason="a core for each of two processes")
def test_each_process_of_a_campaign_keeps_to_its_share(tmp_path):
    folder = tmp_path / "watched"
    folder.mkdir()
    (folder / "submission.py").write_text(WATCHED)
    document = {
        "name": "cores",
        "budget": "20grads",
        "trial_budget": "20grads",
        "eval_period": "20grads",
        "studies": 2,
        "workloads": ["breast_cancer_logistic"],
        "contenders": [f"{folder}+none"],
    }

    run_campaign(make_campaign(document, "test"), tmp_path / "out", workers=2)

    told = [json.loads(path.read_text()) for path in folder.glob("*.json")]
    assert told
    assert all(cores in share_cores(available_cores(), 2) for cores in told)
