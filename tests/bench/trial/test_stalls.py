"""A process that takes no step for too long is ended, and its trial is recorded as stalled."""

import os
import subprocess
import sys
import time

import pytest

from metaopt.bench.records.layout import STALL_FILE
from metaopt.bench.trial.runner import run_trial
from metaopt.bench.trial.stalls import StallWatch, read_stall, watch_for_stalls
from metaopt.workloads.synthetic import Quadratic

HANGS = """
import ctypes, sys, time
from pathlib import Path
from metaopt.bench.trial.stalls import announced_stall, watch_for_stalls

def sleep():
    time.sleep(60)

def keep_the_global_lock():
    ctypes.PyDLL(None).sleep(60)

path = Path(sys.argv[1]) / "stall.txt"
with announced_stall(path, "it has stalled"), watch_for_stalls(0.5, path) as beat:
    for _ in range(4):
        time.sleep(0.2)
        beat()
    globals().get(sys.argv[2], exit)()
"""


@pytest.mark.parametrize("place", ["sleep", "keep_the_global_lock"])
def test_a_stall_ends_the_process_says_so_and_leaves_the_place(place, tmp_path):
    start = time.monotonic()

    run = subprocess.run(
        [sys.executable, "-c", HANGS, str(tmp_path), place], capture_output=True, text=True
    )

    assert run.returncode == 1 and time.monotonic() - start < 30
    assert run.stderr.splitlines() == ["it has stalled"]
    limit, stacks = read_stall(tmp_path / STALL_FILE)
    assert limit == 0.5 and f"in {place}" in stacks


def test_without_a_stall_nothing_is_announced(tmp_path):
    run = subprocess.run(
        [sys.executable, "-c", HANGS, str(tmp_path), "exit"], capture_output=True, text=True
    )

    assert (run.returncode, run.stderr) == (0, "")


def test_the_next_run_records_the_stall_at_the_cost_of_the_last_checkpoint(
    tmp_path, make_plan, make_gradient_descent, killed, clock
):
    def hang(step):
        if step == 25:
            (tmp_path / STALL_FILE).write_text(
                f'60\nTimeout (0:01:03)!\n  File "{__file__}", line 12 in hang\n'
            )
            os.link(tmp_path / STALL_FILE, tmp_path / "kept")
            raise killed

    plan = make_plan(make_gradient_descent(before_step=hang), Quadratic())
    with pytest.raises(killed):
        run_trial(plan, tmp_path, clock=clock, checkpoint_seconds=0.0)
    (tmp_path / "kept").rename(tmp_path / STALL_FILE)

    record = run_trial(plan, tmp_path)

    assert (record.status, record.ledger.cost.steps) == ("stalled", 20)
    assert "60 s" in record.cause and "line 12 in hang" in record.error
    assert not (tmp_path / STALL_FILE).exists()


def test_a_killed_trial_that_did_not_stall_is_resumed(
    tmp_path, make_plan, make_gradient_descent, killed
):
    (tmp_path / STALL_FILE).write_text("60\n")  # a kill leaves it without stacks

    record = run_trial(make_plan(make_gradient_descent(), Quadratic()), tmp_path)

    assert record.status == "trial_budget"


def test_nothing_is_left_once_the_work_is_done(tmp_path):
    with watch_for_stalls(0.2, tmp_path / STALL_FILE):
        pass
    time.sleep(0.4)

    assert not [*tmp_path.iterdir()]


@pytest.mark.parametrize("seconds", [0.0, -1.0, float("nan"), float("inf")])
def test_a_limit_that_is_none_is_refused(seconds, tmp_path):
    with pytest.raises(ValueError, match=f"must be positive and finite, got {seconds}"):
        StallWatch(seconds, tmp_path / STALL_FILE)
