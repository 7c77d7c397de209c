"""Targets: what counts as reached."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metaopt.bench.measure.targets import (
    Target,
    WorkloadTargets,
    from_document,
    load_targets,
    targets_of,
    to_document,
)
from metaopt.bench.records import find_reached

LOSS = Target("validation/loss", 0.5, "lower")
ACCURACY = Target("validation/accuracy", 0.5, "higher")


@pytest.mark.parametrize("target", [LOSS, ACCURACY], ids=["lower", "higher"])
def test_meeting_a_target_exactly_counts_and_nan_never_does(target):
    assert target.is_met(0.5)
    assert not target.is_met(math.nan)
    assert not target.is_improvement(math.nan, best=None)


@given(st.floats(0.5, 1e300), st.floats(0.5, 1e300))
def test_distance_is_bounded_monotone_and_zero_at_the_target(a, b):
    near, far = sorted((a, b))

    assert 0 <= LOSS.distance(near) <= LOSS.distance(far) <= 1
    assert LOSS.distance(0.5) == LOSS.distance(0.1) == 0
    assert LOSS.distance(math.nan) == LOSS.distance(None) == LOSS.distance(math.inf) == 1


def test_the_first_row_that_meets_the_target_decides_and_its_episode_start_is_taken_off():
    common = {"accumulated_submission_time": 0.0, "episode_start_gradient_evaluations": 20.0}
    rows = [
        {"validation/loss": loss, "global_step": step, "gradient_evaluations": 5.0 * step, **common}
        for step, loss in enumerate([math.nan, 0.6, 0.5, 0.1, 0.7], start=4)
    ]

    reached = find_reached(rows, LOSS)

    assert reached.evaluation == 2
    assert reached.cost.gradient_evaluations == 30.0
    assert reached.episode_cost.gradient_evaluations == 10.0
    assert find_reached(rows[:2], LOSS) is None


def test_targets_survive_the_way_to_disk_and_back():
    targets = {"w": WorkloadTargets(LOSS, ACCURACY, 10, (LOSS,), {"command": "c"})}

    assert from_document(to_document(targets)) == targets


def test_another_schema_version_is_refused():
    with pytest.raises(ValueError, match="schema version 2, this code reads 1"):
        from_document({"schema_version": 2})


def test_a_workload_without_targets_names_the_command_that_sets_them():
    with pytest.raises(ValueError, match="python -m tuning targets nowhere"):
        targets_of("nowhere")


def test_the_leaderboard_holds_a_copy_of_the_frozen_targets(root):
    assert load_targets(root / "leaderboard" / "targets.json") == load_targets()
