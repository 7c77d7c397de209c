"""Split-half tau and intraclass correlations against closed forms, SciPy and plain loops."""

import itertools
import math

import numpy as np
import pytest
import scipy.stats

from analysis.statistics.repeatability import (
    GOAL,
    intraclass_correlation,
    measure_repeatability,
    split_half_tau,
    studies_to_repeat,
)
from analysis.statistics.samples import Samples

INF = math.inf


def make_samples(costs, **changes):
    costs = np.array(costs, float)
    names = tuple("abcdefghijkl"[: len(costs)])
    workloads = tuple(f"w{i}" for i in range(costs.shape[1]))
    return Samples(names, workloads, costs, **changes)


def test_the_correlation_is_that_of_an_analysis_of_variance_by_hand():
    # Means 2, 6, 7; grand mean 5. MSB = 2 (9 + 1 + 4) / 2 = 14, MSW = (2 + 2 + 8) / 3 = 4.
    groups = [np.array([1.0, 3.0]), np.array([5.0, 7.0]), np.array([5.0, 9.0])]

    assert intraclass_correlation(groups) == pytest.approx((14 - 4) / (14 + 4))


def test_the_correlation_of_unequal_groups_uses_k0_by_hand():
    # n = 2, 4: N = 6, k0 = 6 - 20 / 6 = 8 / 3. Means 1 and 4, grand mean 3:
    # MSB = 2 x 4 + 4 x 1 = 12, MSW = (2 + 8) / 4 = 2.5.
    groups = [np.array([0.0, 2.0]), np.array([2.0, 4.0, 4.0, 6.0])]

    assert intraclass_correlation(groups) == pytest.approx((12 - 2.5) / (12 + (8 / 3 - 1) * 2.5))


@pytest.mark.parametrize("sizes", [(5, 5, 5), (3, 8, 2, 4)])
def test_the_correlation_follows_from_the_f_of_scipys_one_way_test(sizes):
    rng = np.random.default_rng(0)
    groups = [rng.normal(rng.normal(), 1, size) for size in sizes]
    f = scipy.stats.f_oneway(*groups).statistic
    k0 = (sum(sizes) - sum(n**2 for n in sizes) / sum(sizes)) / (len(sizes) - 1)

    assert intraclass_correlation(groups) == pytest.approx((f - 1) / (f + k0 - 1))


def test_the_correlation_of_many_groups_is_the_share_of_variance_between_them():
    rng = np.random.default_rng(1)
    groups = list(rng.normal(0, 2, (4000, 1)) + rng.normal(0, 1, (4000, 4)))

    assert intraclass_correlation(groups) == pytest.approx(4 / 5, abs=0.02)


def test_the_correlation_is_not_defined_if_nothing_varies_or_repeats():
    assert math.isnan(intraclass_correlation([np.full(3, 1.1), np.full(3, 1.1)]))
    assert math.isnan(intraclass_correlation([np.array([1.0]), np.array([2.0])]))
    assert math.isnan(intraclass_correlation([np.array([1.0, 2.0])]))
    assert intraclass_correlation([np.zeros(3), np.ones(3)]) == pytest.approx(1.0)


def test_a_workloads_correlation_is_of_log_costs_with_misses_at_their_budgets():
    costs = [[[10.0, 20.0, INF, 30.0]], [[50.0, INF, 60.0, INF]], [[INF] * 4]]
    budgets = np.array([[100.0], [200.0], [200.0]])

    found = measure_repeatability(make_samples(costs, budgets=budgets))

    groups = [np.log([10, 20, 100, 30]), np.log([50, 200, 60, 200])]
    assert found.correlations == pytest.approx([intraclass_correlation(groups)])
    assert found.left_out == ("c",)


def test_a_miss_without_a_known_budget_leaves_the_correlation_undefined():
    costs = [[[10.0, 20.0], [INF, 1.0]], [[30.0, 70.0], [4.0, 5.0]]]

    first, second = measure_repeatability(make_samples(costs)).correlations

    assert 0 < first < 1 and math.isnan(second)


def every_division(costs):
    """Mean tau-b over all pairs of disjoint halves of one workload, with a plain loop."""
    studies = range(costs.shape[2])
    half = costs.shape[2] // 2
    taus = []
    for one in itertools.combinations(studies, half):
        for other in itertools.combinations([k for k in studies if k not in one], half):
            scores = []
            for part in (one, other):
                medians = np.median(costs[:, 0, list(part)], axis=1)
                ratios = medians / medians.min()
                scores.append(np.maximum(0, (4 - ratios) / 3))
            tau = scipy.stats.kendalltau(*scores).statistic
            taus.append(0.0 if math.isnan(tau) else tau)
    return np.mean(taus), np.std(taus)


@pytest.mark.parametrize("studies", [4, 5])
def test_split_half_tau_is_the_mean_over_all_divisions(studies):
    costs = np.random.default_rng(studies).lognormal(size=(5, 1, studies))

    mean, spread = every_division(costs)

    found = split_half_tau(make_samples(costs), np.arange(5))
    assert found == pytest.approx(mean, abs=4 * spread / math.sqrt(200))


def test_a_ranking_that_every_study_agrees_on_repeats_and_noise_does_not():
    clear = np.arange(1.0, 5.0)[:, None, None] * np.ones((4, 3, 6))
    noise = np.random.default_rng(0).lognormal(0, 0.3, (8, 4, 6))

    one, other = (measure_repeatability(make_samples(c)) for c in (clear, noise))

    # Beyond 4 times the cheapest the score ends, but the order of four is kept: 1, 2/3, 1/3, 0.
    assert one.tau == pytest.approx(1.0) and one.repeats and one.needed == 4
    assert abs(other.tau) < 0.35 and other.repeats is False


def test_an_undefined_tau_of_a_division_counts_as_0():
    # All scores tie, so that no division has a tau.
    assert split_half_tau(make_samples(np.ones((3, 2, 4))), np.arange(3)) == 0.0


def test_workloads_are_divided_independently():
    # On each workload studies 1 and 2 favour a and 3 and 4 favour b. A common division would often
    # put the same studies of both workloads together; independent ones do so one time in three.
    a, b = [1.0, 1.0, 3.0, 3.0], [3.0, 3.0, 1.0, 1.0]
    one = split_half_tau(make_samples([[a], [b]]), np.arange(2))
    two = split_half_tau(make_samples([[a, a], [b, b]]), np.arange(2))

    # One workload: 2 of 6 divisions disagree (-1) and 4 tie (0). Two: -1 with probability
    # 1/3 x 2/3 x 2 + 1/3 x 1/3 / 2, 0 otherwise.
    assert one == pytest.approx(-1 / 3, abs=0.14)
    assert two == pytest.approx(-(4 / 9 + 1 / 18), abs=0.15)


@pytest.mark.parametrize(
    "costs, reason",
    [
        (np.ones((3, 2, 3)), "needs at least 4 studies, and these are 3"),
        ([[[1.0] * 4], [[INF] * 4]], "needs 2 contenders that reached a target, and there are 1"),
    ],
)
def test_tau_is_not_defined_with_too_few_studies_or_contenders(costs, reason):
    found = measure_repeatability(make_samples(costs))

    assert math.isnan(found.tau) and found.repeats is None and found.needed is None
    assert reason in found.reason


@pytest.mark.parametrize(
    "tau, studies, needed", [(0.5, 10, 24), (0.7, 10, 10), (0.1, 4, 84), (0.5465, 5, 8)]
)
def test_the_number_of_studies_is_that_of_spearman_and_brown(tau, studies, needed):
    found = studies_to_repeat(tau, studies)

    assert found == needed and found % 2 == 0
    compared = 2 * (studies // 2)  # of an odd number, one is dropped
    longer = found / compared  # Spearman and Brown: m t / (1 + (m - 1) t)
    assert longer * tau / (1 + (longer - 1) * tau) >= GOAL - 1e-9
    shorter = (found - 2) / compared
    assert shorter * tau / (1 + (shorter - 1) * tau) < GOAL


def test_no_number_of_studies_follows_from_a_tau_of_0():
    assert studies_to_repeat(0.0, 10) is None and studies_to_repeat(-0.2, 10) is None


def test_repeatability_does_not_depend_on_the_unit_or_on_contenders_that_never_arrive():
    costs = np.random.default_rng(3).lognormal(size=(4, 2, 6))
    more = np.concatenate([costs, np.full((2, 2, 6), INF)])

    one, two, three = (measure_repeatability(make_samples(c)) for c in (costs, 60 * costs, more))

    assert one.tau == two.tau == three.tau
    np.testing.assert_allclose(one.correlations, two.correlations)
    np.testing.assert_allclose(one.correlations, three.correlations)
