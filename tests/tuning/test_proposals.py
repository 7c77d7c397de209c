"""The tuner protocol: outcomes, proposals, and the segments that answer them."""

from fractions import Fraction

import pytest

from metaopt.bench.contract.tuner import Proposal
from metaopt.bench.measure.targets import Target
from metaopt.bench.records import BudgetRecord, Cost, Segment, TrialRecord, outcomes
from metaopt.bench.records.outcomes import WORST_LOSS, Outcome, Reading
from tuning.segments import SegmentQueue
from tuning.tuners.bandits import rung_share


def test_losses_are_finite_whatever_a_metric_shows():
    rows = [
        {"m": value, "global_step": 5, "gradient_evaluations": 5.0,
         "accumulated_submission_time": 0.1}
        for value in (0.25, float("nan"), float("inf"), 1e300, -float("inf"))
    ]  # fmt: skip
    budget = BudgetRecord(currency="steps", study=100, trial=50, eval_period=5)

    for better, sign in (("lower", 1), ("higher", -1)):
        curve = [*outcomes.read_curve(rows, Target("m", 1.0, better), budget)]
        assert [reading.loss for reading in curve] == [
            sign * 0.25, WORST_LOSS, WORST_LOSS, sign * WORST_LOSS, WORST_LOSS
        ]  # fmt: skip
        assert {reading.share for reading in curve} == {0.1}
    assert Outcome(1, "crashed", 3.0, (Reading(0.1, 0.2),)).loss == WORST_LOSS
    assert Outcome(1, "paused", 1.5, ()).loss == WORST_LOSS


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({}, "either a `point` or the number of a trial to `resume`"),
        ({"point": {"a": 1}, "resume": 1}, "either a `point` or the number"),
        ({"point": {"a": 1}, "budget": 0}, r"must be a share in \(0, 1\], got 0"),
        ({"point": {"a": 1}, "budget": float("nan")}, "got nan"),
    ],
    ids=["neither", "both", "zero", "nan"],
)
def test_a_proposal_that_cannot_be_says_why(arguments, message):
    with pytest.raises(ValueError, match=message):
        Proposal(**arguments)


def test_rungs_are_exact_shares_of_a_budget():
    for budget in (27.0, 400.0, 0.3):
        for rung in range(4):
            segment = SegmentQueue(budget).next(Proposal(point={}, budget=rung_share(rung)))
            assert segment.pause_at == (budget / 3 ** (3 - rung) if rung < 3 else None)


def test_a_tuner_that_resumes_what_is_not_paused_is_refused():
    with pytest.raises(ValueError, match=r"resumes trial 3; only \[\] are paused"):
        SegmentQueue(27).next(Proposal(resume=3))


def test_a_tuner_that_resumes_a_trial_to_where_it_is_already_is_refused():
    queue = SegmentQueue(27)
    first = queue.next(Proposal(point={}, budget=Fraction(1, 9)))
    cost = Cost(steps=3)
    segment = Segment(rung=3.0, spent_before=Cost(), start=Cost(), end=cost, evaluations=1)
    record = TrialRecord.model_construct(status="paused", segments=(segment,))
    assert queue.take(first, record) == segment

    with pytest.raises(ValueError, match="resumes trial 1 up to 3, but it has paused at 3 already"):
        queue.next(Proposal(resume=1, budget=Fraction(1, 9)))
