"""Sign tests, Holm, ranks and forecasts against tables, peers and simulations."""

import itertools
import math
from pathlib import Path

import numpy as np
import pytest
import scipy.stats

from analysis.statistics.comparisons import compare_all, holm, sign_test, studies_needed
from analysis.statistics.ranks import critical_difference, rank_contenders
from analysis.statistics.resampling import attainable_confidence, win_matrix
from analysis.statistics.samples import Samples
from analysis.statistics.sensitivity import leave_one_workload_out, places

INF = math.inf


def make_samples(costs):
    costs = np.array(costs, float)
    names = tuple("abcdefghijkl"[: len(costs)])
    workloads = tuple(f"w{i}" for i in range(costs.shape[1]))
    return Samples(names, workloads, costs)


@pytest.mark.parametrize(
    "wins, losses", [(0, 0), (3, 0), (5, 1), (7, 7), (9, 4), (60, 40), (1300, 1200), (600, 1500)]
)
def test_the_sign_test_is_exact_however_many_studies_there_are(wins, losses):
    total = wins + losses
    tail = sum(math.comb(total, i) for i in range(max(wins, losses), total + 1))

    assert sign_test(wins, losses) == pytest.approx(min(1.0, 2 * tail / 2**total), rel=1e-9)
    assert sign_test(losses, wins) == sign_test(wins, losses)


def test_holms_adjustment_of_a_table_worked_by_hand():
    # Sorted: 0.01 x 4, 0.02 x 3, 0.03 x 2, 0.04 x 1, and never less than the one before.
    assert holm([0.04, 0.01, 0.03, 0.02]) == pytest.approx([0.06, 0.04, 0.06, 0.06])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []


def test_a_comparison_counts_wins_losses_and_ties_over_all_workloads():
    a = [[1.0, 2.0, INF], [1.0, 1.0, 5.0]]
    b = [[2.0, 1.0, INF], [3.0, INF, 5.0]]

    (pair,) = compare_all(make_samples([a, b]))

    assert (pair.first, pair.second) == ("a", "b")
    assert (pair.wins, pair.losses, pair.ties) == (3, 1, 2)
    assert pair.p == pair.adjusted == pytest.approx(2 * (4 + 1) / 16)
    assert not pair.decided and pair.winner is None


def test_six_studies_that_all_go_one_way_decide_and_five_do_not():
    for studies, decided in [(5, False), (6, True)]:
        (pair,) = compare_all(make_samples([[[1.0] * studies], [[2.0] * studies]]), [1, 0])

        assert pair.decided is decided
        assert pair.winner == ("a" if decided else None)
        assert pair.more == (0 if decided else 1)


def test_more_contenders_ask_for_more_studies_because_all_comparisons_share_the_level():
    costs = [[[1.0] * 6]] + [[[2.0] * 6]] * 4

    together = compare_all(make_samples(costs))
    alone = compare_all(make_samples(costs[:2]))

    assert alone[0].decided and not together[0].decided
    assert together[0].adjusted == pytest.approx(10 * alone[0].p)
    assert 2 * 0.5**9 <= 0.05 / 10 < 2 * 0.5**8  # so nine wins of nine decide one of ten
    assert together[0].more == 3


def brute_force_need(wins, losses, studies, level, power, chance):
    for more in itertools.count(1):
        further = more * (wins + losses) // studies
        decided = sum(
            math.comb(further, x) * chance**x * (1 - chance) ** (further - x)
            for x in range(further + 1)
            if sign_test(wins + x, losses + further - x) <= level
        )
        if decided >= power:
            return more


@pytest.mark.parametrize("wins, losses, studies", [(3, 0, 1), (7, 2, 3), (4, 1, 5)])
@pytest.mark.parametrize("level", [0.05, 0.01])
def test_the_forecast_is_that_of_a_sum_over_all_outcomes(wins, losses, studies, level):
    chance = (wins + 0.5) / (wins + losses + 1)

    assert studies_needed(wins, losses, studies, level=level) == brute_force_need(
        wins, losses, studies, level, 0.8, chance
    )


def test_the_forecast_keeps_its_promise_when_further_studies_are_like_those_seen():
    rng = np.random.default_rng(1)
    workloads, studies, chance = 3, 4, 0.75
    kept = []
    for _ in range(100):
        wins = rng.binomial(workloads * studies, chance)
        losses = workloads * studies - wins
        more = studies_needed(wins, losses, studies, chance=chance)
        further = rng.binomial(workloads * more, chance, size=60)
        kept += [
            sign_test(wins + x, losses + workloads * more - x) <= 0.05 for x in further.tolist()
        ]

    assert np.mean(kept) >= 0.8


def test_equal_contenders_are_decided_at_most_as_often_as_the_level():
    rng = np.random.default_rng(2)
    false = 0
    for _ in range(400):
        costs = rng.lognormal(size=(4, 2, 5))
        costs[rng.random(costs.shape) < 0.3] = INF
        wins = win_matrix(costs)
        pairs = itertools.combinations(range(4), 2)
        ps = [sign_test((wins[a, b] == 1).sum(), (wins[a, b] == 0).sum()) for a, b in pairs]
        false += min(holm(ps)) <= 0.05

    assert false / 400 <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / 400)


def test_studies_that_all_tie_never_decide_and_close_ones_not_within_a_thousand():
    assert studies_needed(0, 0, 3) is None
    assert studies_needed(10, 10, 5) is None
    (pair,) = compare_all(make_samples([[[INF] * 3], [[INF] * 3]]))
    assert pair.ties == 3 and pair.more is None and not pair.decided


# Demšar (2006), Table 5 (a): critical values of the two-tailed Nemenyi test, alpha 0.05.
DEMSAR = {2: 1.960, 3: 2.343, 4: 2.569, 5: 2.728, 6: 2.850, 7: 2.949, 8: 3.031, 9: 3.102, 10: 3.164}


@pytest.mark.parametrize("contenders, q", DEMSAR.items())
def test_critical_differences_are_those_of_demsars_table(contenders, q):
    expected = q * math.sqrt(contenders * (contenders + 1) / (6 * 14))

    assert critical_difference(contenders, 14) == pytest.approx(expected, rel=5e-4)


def test_ranks_of_a_table_worked_by_hand_share_ties_and_put_misses_last_together():
    medians = np.array([[1.0, 5.0], [2.0, 5.0], [INF, 9.0], [INF, 1.0]])

    ranking = rank_contenders(medians, np.random.default_rng(0))

    np.testing.assert_array_equal(ranking.ranks, [[1, 2.5], [2, 2.5], [3.5, 4], [3.5, 1]])
    np.testing.assert_array_equal(ranking.mean, [1.75, 2.25, 3.75, 2.25])
    assert ranking.warning is not None and "2 workloads are too few" in ranking.warning


@pytest.mark.parametrize("ties", [False, True])
def test_friedmans_statistic_is_scipys_and_its_p_close_to_it_for_many_workloads(ties):
    rng = np.random.default_rng(3)
    costs = rng.normal(size=(5, 40)) + 0.35 * np.arange(5)[:, None]
    costs = np.round(costs) if ties else costs
    peer = scipy.stats.friedmanchisquare(*costs)

    ranking = rank_contenders(costs, np.random.default_rng(4))

    assert ranking.statistic == pytest.approx(peer.statistic)
    assert ranking.p == pytest.approx(peer.pvalue, abs=0.01)
    assert ranking.warning is None


def test_friedmans_p_is_exact_for_a_few_workloads():
    # Three contenders in the same order on three workloads: 6 of 6^3 arrangements do that.
    ranking = rank_contenders(np.array([[1.0] * 3, [2.0] * 3, [3.0] * 3]), np.random.default_rng(5))

    assert ranking.p == pytest.approx(6 / 216)


def test_friedmans_test_is_undefined_if_all_ranks_tie():
    ranking = rank_contenders(np.full((4, 12), INF), np.random.default_rng(0))

    assert math.isnan(ranking.p) and math.isnan(ranking.statistic)
    assert ranking.groups() == [(0, 1, 2, 3)]


def test_groups_are_the_largest_sets_within_one_critical_difference():
    # Mean ranks are known by construction: the order is the same on all of 20 workloads.
    medians = np.repeat(np.arange(1.0, 7.0)[:, None], 20, axis=1)
    ranking = rank_contenders(medians, np.random.default_rng(0))
    assert 1 < ranking.critical_difference < 2

    groups = ranking.groups()

    assert groups == [(0, 1), (1, 2), (2, 3), (3, 4), (4, 5)]


def test_scores_without_each_workload_are_those_of_a_table_worked_by_hand():
    # Ratios: a 1, 2, inf; b 4, 1, 1. Scores without the first: a (2 + 0) / 6, b (3 + 3) / 6.
    found = leave_one_workload_out(make_samples([[[1.0], [2.0], [INF]], [[4.0], [1.0], [1.0]]]))

    np.testing.assert_allclose(found.scores, [[1 / 3, 1.0], [0.5, 0.5], [5 / 6, 0.5]])
    np.testing.assert_array_equal(found.places, [[2, 1], [1, 1], [1, 2]])
    np.testing.assert_allclose(found.range, [[1 / 3, 0.5], [5 / 6, 1.0]])


def test_one_workload_cannot_be_left_out():
    assert leave_one_workload_out(make_samples([[[1.0]], [[1.0]]])) is None


def test_equal_scores_share_the_better_place():
    np.testing.assert_array_equal(places(np.array([0.5, 0.7, 0.5, 0.1 + 0.2 + 0.4])), [3, 1, 3, 1])


def test_the_numbers_in_the_document_are_these():
    page = Path(__file__).resolve().parents[2] / "docs" / "statistics.md"
    text = " ".join(page.read_text("utf-8").split())

    assert f"{critical_difference(12, 9):.1f} of the 11 between" in text
    shares = [f"{attainable_confidence(studies):.0%}".replace("%", " %") for studies in (3, 5, 6)]
    assert "is {} for 3 studies, {} for 5 and {} for 6".format(*shares) in text
    assert sign_test(6, 0) <= 0.05 < sign_test(5, 0) and f"= {sign_test(6, 0):.3f}$" in text
    assert sign_test(8, 0) <= 0.05 / 6 < sign_test(7, 0)
