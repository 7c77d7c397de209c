"""Trials that pause: what the study had spent at each of their steps."""

import csv
import io

import numpy as np
import pytest

from analysis.logs.reader import read_logs
from analysis.report.formats import table_csv
from analysis.report.tables.campaign_tables import trials_table
from analysis.scoring.costs import costs_by_pair
from analysis.training.curves import anytime
from metaopt.bench.records import Cost, Segment


def cost(amount):
    return Cost(steps=round(amount), gradient_evaluations=amount, seconds=amount / 100)


def segment(spent_before, start, end, evaluations):
    return Segment(
        rung=float(end), spent_before=cost(spent_before), start=cost(start), end=cost(end),
        evaluations=evaluations,
    )  # fmt: skip


def row(at, loss):
    return {
        "global_step": at, "gradient_evaluations": float(at), "score": at / 100,
        "accumulated_submission_time": at / 100, "validation/loss": loss,
    }  # fmt: skip


@pytest.fixture
def promoted(build, tmp_path):
    """Two trials take turns: 100 of the first, 100 of the second, then the first goes on to 300.

    The first meets its target at its own cost 250: the study had spent 200 + 150.
    """
    b = build(tmp_path, ["a+asha"], ["w"], 1)
    b.trial(
        "a+asha", "w", 1, 300.0, reached=250.0,
        segments=(segment(0, 0, 100, 2), segment(200, 100, 300, 4)),
        rows=[row(50, 0.9), row(100, 0.8), row(250, 0.4), row(300, 0.3)],
    )  # fmt: skip
    b.trial(
        "a+asha", "w", 1, 100.0, status="paused",
        segments=(segment(100, 0, 100, 2),), rows=[row(50, 0.7), row(100, 0.6)],
    )  # fmt: skip
    return read_logs(tmp_path)


def test_including_tuning_counts_what_ran_between_a_trials_pauses(promoted):
    cell = costs_by_pair(promoted, "gradient_evaluations")["a+asha", "w"]

    assert (cell.given, cell.including) == ((250.0,), (350.0,))
    assert costs_by_pair(promoted, "seconds")["a+asha", "w"].including == pytest.approx((3.5,))


def test_a_hit_in_a_late_segment_beyond_the_budget_does_not_count(build, tmp_path):
    b = build(tmp_path, ["a+asha"], ["w"], 1, budget=349.0)  # one less than it took
    b.trial(
        "a+asha", "w", 1, 300.0, reached=250.0,
        segments=(segment(0, 0, 100, 2), segment(200, 100, 300, 4)),
    )  # fmt: skip

    assert costs_by_pair(read_logs(tmp_path), "steps")["a+asha", "w"].including == (np.inf,)


def test_the_anytime_curve_follows_the_study_and_not_the_trial(promoted):
    band = anytime(promoted, "a+asha", "w")

    # Best losses when the study had spent so much: turns are 0-100, 100-200 and 200-400.
    expected = [(60, 0.9), (120, 0.8), (160, 0.7), (240, 0.6), (345, 0.6), (360, 0.4), (1000, 0.3)]
    assert band is not None
    for spent, best in expected:
        assert band.middle[np.searchsorted(band.x, spent, side="right") - 1] == best
    # A best value that stays has its first and its last point, and none between them.
    values, counts = np.unique(band.middle, return_counts=True)
    assert values.tolist() == [0.3, 0.4, 0.6, 0.7, 0.8, 0.9]
    assert counts.max() == 2


def test_the_table_of_trials_says_what_a_hit_had_cost_the_study(promoted):
    first, second = csv.DictReader(io.StringIO(table_csv(trials_table(promoted))))

    assert (first["segments"], first["including_steps"]) == ("2", "350")
    assert (second["segments"], second["status"], second["including_steps"]) == ("1", "paused", "")
