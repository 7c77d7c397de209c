"""ASHA, Hyperband and the median rule against hand-made tables."""

import json
from fractions import Fraction

import pytest

from metaopt.bench.contract.spaces import parse_space
from metaopt.bench.records.outcomes import WORST_LOSS, Outcome, Reading
from tuning.tuners import get_tuner
from tuning.tuners.bandits import HyperbandTuner, hyperband_brackets, rung_share
from tuning.tuners.median import MedianTuner

SPACE = parse_space({"rate": {"min": 1e-4, "max": 1e-1, "scaling": "log"}}, "test")
R0, R1, R2, R3 = Fraction(1, 27), Fraction(1, 9), Fraction(1, 3), 1


def make(name):
    return get_tuner(name)(SPACE, 3, {})


# By hand: loss of each trial, the same at every rung, and who runs to which rung in which order.
# A third of 3 trials go on: the second. Of 6: the fourth as well. At 8 trials the eighth is among
# the best two; of the three at rung 1 it is the best, so it goes straight on. At 10 the tenth is.
LOSSES = dict(enumerate([0.9, 0.1, 0.5, 0.2, 0.8, 0.3, 0.7, 0.05, 0.6, 0.01], start=1))


ASHA = [
    (1, R0), (2, R0), (3, R0), (2, R1), (4, R0), (5, R0), (6, R0), (4, R1), (7, R0), (8, R0),
    (8, R1), (8, R2), (9, R0), (10, R0), (10, R1), (10, R2),
]  # fmt: skip


def test_asha_promotes_as_in_a_table_made_by_hand(play_tuner):
    turns, _ = play_tuner(make("asha"), len(ASHA), lambda trial, _: LOSSES[trial])

    assert turns == ASHA


def test_asha_never_promotes_a_failure_or_a_trial_that_ended():
    tuner = make("asha")

    asked = []
    for trial in range(1, 7):  # a trial that met its target, five that diverged
        asked.append(tuner.ask())
        status = "target" if trial == 1 else "diverged"
        tuner.observe(Outcome(trial, status, 3.0, (Reading(0.03, 0.1),)))

    assert all(proposal.resume is None for proposal in asked)
    assert tuner.ask().resume is None


def test_hyperbands_brackets_are_those_of_the_paper():
    # Li et al. 2018, Algorithm 1 with R = 81 and eta = 3: n_i, and r_i from the rung.
    paper = {
        4: [(81, 1), (27, 3), (9, 9), (3, 27), (1, 81)],
        3: [(34, 3), (11, 9), (3, 27), (1, 81)],
        2: [(15, 9), (5, 27), (1, 81)],
        1: [(8, 27), (2, 81)],
        0: [(5, 81)],
    }

    ours = hyperband_brackets(4)

    assert [[(n, 81 * rung_share(rung, 5)) for rung, n in bracket] for bracket in ours] == [
        paper[s] for s in (4, 3, 2, 1, 0)
    ]


def test_hyperband_runs_its_brackets_in_order_and_starts_over_with_new_points(play_tuner):
    # Trials of a rung and its share, by hand for 1/27: see the table in docs/tuners.md.
    table = [
        (27, R0), (9, R1), (3, R2), (1, R3),
        (12, R1), (4, R2), (1, R3),
        (6, R2), (2, R3),
        (4, R3),
    ]  # fmt: skip
    whole = sum(trials for trials, _ in table)
    loss = lambda trial, _: float(trial % 10) + trial / 1000  # noqa: E731

    turns, points = play_tuner(make("hyperband"), 2 * whole, loss)

    shares = [share for trials, share in table for _ in range(trials)]
    assert [share for _, share in turns] == 2 * shares
    assert len({json.dumps(point) for point in points.values()}) == 2 * (27 + 12 + 6 + 4)
    # Of trials 1 to 27 the best nine are 10, 20, 1, 11, 21, 2, 12, 22 and 3.
    assert [trial for trial, _ in turns[27:36]] == [10, 20, 1, 11, 21, 2, 12, 22, 3]
    assert [trial for trial, _ in turns[36:39]] == [10, 20, 1]
    assert [trial for trial, _ in turns[39:40]] == [10]


def test_hyperband_goes_on_when_a_whole_rung_fails():
    tuner = HyperbandTuner(SPACE, 1)
    for trial in range(1, 28):
        assert tuner.ask().budget == R0
        tuner.observe(Outcome(trial, "diverged", 3.0, ()))

    proposal = tuner.ask()

    assert (proposal.resume, proposal.budget) == (None, R1)  # the next bracket


@pytest.mark.parametrize("name", ["asha", "hyperband", "median"])
def test_points_of_bandits_are_those_of_random_search(name, play_tuner):
    _, random = play_tuner(make("random"), 6, lambda *_: 1.0)
    _, ours = play_tuner(make(name), 12, lambda *_: 1.0)

    assert list(ours.values())[:6] == list(random.values())


def finished(*losses):
    share = 1 / len(losses)
    return Outcome(
        1, "trial_budget", 1.5,
        tuple(Reading(share * (i + 1), loss) for i, loss in enumerate(losses)),
    )  # fmt: skip


def test_the_median_rule_by_hand():
    tuner = MedianTuner(SPACE, 1)
    running = [Reading(0.25, 5.0), Reading(0.5, 3.5)]
    # Means up to the half: 1, 2, 3, 4, 5. Their median is 3, the running trial's best is 3.5.
    for mean in (1.0, 2.0, 3.0, 4.0):
        tuner.observe(finished(mean + 1, mean - 1, 0.0, 0.0))
    assert not tuner.should_stop(running)  # four trials are too few
    tuner.observe(finished(6.0, 4.0, 0.0, 0.0))

    assert tuner.should_stop(running)
    assert not tuner.should_stop([*running[:1], Reading(0.5, 3.0)])  # not above the median
    assert not tuner.should_stop([Reading(0.1, WORST_LOSS)])  # within the warm-up
    for _ in range(9):  # what was stopped or failed is not compared with
        tuner.observe(Outcome(1, "pruned", 1.9, (Reading(0.25, 1e9),)))
        tuner.observe(Outcome(1, "diverged", 3.0, (Reading(0.25, 1e9),)))
    assert tuner.should_stop(running)
