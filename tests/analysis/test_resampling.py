"""The bootstrap against enumerations, other implementations and what must not change it."""

import itertools
import math

import numpy as np
import pytest
import scipy.stats

from analysis.logs.reader import read_logs
from analysis.scoring.benchmark import Benchmark
from analysis.scoring.profiles import profile_area, ratios
from analysis.scoring.scores import score_logs
from analysis.statistics.resampling import (
    attainable_confidence,
    bootstrap,
    cost_estimates,
    score_estimates,
    studies_for,
    win_estimates,
)
from analysis.statistics.samples import Samples, samples_of
from analysis.statistics.sensitivity import leave_one_workload_out
from tests.performance.bench_coverage import coverage

INF = math.inf


def make_samples(costs):
    costs = np.array(costs, float)
    names = tuple(f"c{i}" for i in range(len(costs)))
    workloads = tuple(f"w{i}" for i in range(costs.shape[1]))
    return Samples(names, workloads, costs)


def draw(costs, resamples=10_000, seed=0):
    return bootstrap(make_samples(costs), seed, resamples)


# Two contenders, two workloads, three studies; one miss each.
TABLE = [
    [[100.0, 120.0, INF], [10.0, 30.0, 20.0]],
    [[150.0, 90.0, 200.0], [40.0, INF, INF]],
]


def every_resample(costs):
    """All equally likely resamples of a table, written with plain loops."""
    costs = np.array(costs)
    studies = range(costs.shape[2])
    for picks in itertools.product(itertools.product(studies, repeat=3), repeat=2):
        yield np.array(
            [[np.sort(row[list(pick)])[1] for row, pick in zip(rows, picks, strict=True)]
             for rows in costs]
        )  # fmt: skip


def test_scores_have_the_distribution_of_all_resamples_enumerated():
    exact = [profile_area(ratios(medians))[0] for medians in every_resample(TABLE)]
    assert len(exact) == 27**2

    drawn = profile_area(ratios(draw(TABLE, resamples=200_000).medians))[:, 0]

    for value in np.unique(np.round(exact, 9)):
        share = np.mean(np.isclose(exact, value))
        error = math.sqrt(share * (1 - share) / len(drawn))
        assert abs(np.mean(np.isclose(drawn, value)) - share) < 5 * error


def test_an_interval_of_scores_is_that_of_all_resamples_enumerated():
    exact = np.sort([profile_area(ratios(medians))[1] for medians in every_resample(TABLE)])
    cut = int(0.1 * len(exact))  # of a confidence of 0.8, at each end

    estimate = score_estimates(draw(TABLE, resamples=50_000), confidence=0.8)

    assert estimate.low[1] == pytest.approx(exact[cut])
    assert estimate.high[1] == pytest.approx(exact[-1 - cut])


def test_the_interval_of_a_score_is_the_one_that_scipys_paired_bootstrap_gives():
    rng = np.random.default_rng(1)
    a = rng.lognormal(3, 0.3, 15)
    b = a * rng.lognormal(0.2, 0.1, 15)  # strongly paired

    def score(x, y, axis):
        x, y = np.median(x, axis), np.median(y, axis)
        return np.maximum(0, 4 - y / np.minimum(x, y)) / 3

    estimate = score_estimates(draw([[a], [b]]))
    peer = scipy.stats.bootstrap(
        (a, b), score, paired=True, vectorized=True, method="percentile",
        rng=np.random.default_rng(2),
    ).confidence_interval  # fmt: skip

    assert (estimate.low[1], estimate.high[1]) == pytest.approx((peer.low, peer.high), rel=0.03)
    assert estimate.value[1] == pytest.approx(score(a, b, 0))


def test_studies_are_drawn_together_so_that_a_constant_ratio_has_no_width():
    a = np.random.default_rng(3).lognormal(3, 1, (1, 2, 9))

    estimate = score_estimates(draw(np.concatenate([a, 2 * a])))

    for part in (estimate.value, estimate.low, estimate.high):
        np.testing.assert_allclose(part, [1, 2 / 3])


def test_workloads_are_strata_that_are_drawn_independently_and_keep_their_size():
    boot = draw(TABLE, resamples=4000)

    assert (boot.counts.sum(axis=2) == 3).all()
    first = boot.counts.reshape(4000, -1)[:, [0, 3]] - 1.0  # study 1 of either workload
    assert abs(np.mean(first[:, 0] * first[:, 1])) < 4 * (2 / 3) / math.sqrt(4000)


def test_medians_are_those_of_the_studies_that_were_drawn_on_each_workload():
    costs = np.random.default_rng(4).lognormal(size=(3, 4, 5))
    boot = draw(costs, resamples=50)

    for r, s, w in np.ndindex(boot.medians.shape):
        drawn = np.repeat(costs[s, w], boot.counts[r, w])
        assert boot.medians[r, s, w] == np.median(drawn)


def test_a_miss_stays_a_miss_and_no_end_lies_between_a_cost_and_infinity():
    costs = [[[100.0, 200.0, INF, INF]]]  # an even number: halfway to a miss is a miss

    estimate = cost_estimates(draw(costs))

    assert estimate.value[0, 0] == INF
    assert (estimate.low[0, 0], estimate.high[0, 0]) == (100.0, INF)


def test_wins_are_counted_study_by_study_with_ties_and_two_misses_half():
    a = [[1.0, 2.0, INF, 5.0], [INF, 1.0, 1.0, 1.0]]
    b = [[2.0, 1.0, INF, 5.0], [7.0, 2.0, 2.0, INF]]
    expected = 0.0
    for x, y in zip(np.ravel(a), np.ravel(b), strict=True):
        expected += 1.0 if x < y else 0.5 if x == y else 0.0

    estimate = win_estimates(draw([a, b]))

    assert estimate.value[0, 1] == pytest.approx(expected / 8)
    np.testing.assert_allclose(estimate.value + estimate.value.T, 1.0)
    np.testing.assert_allclose(estimate.low, 1 - estimate.high.T)
    np.testing.assert_allclose(np.diag(estimate.value), 0.5)


def test_the_interval_of_wins_is_that_of_a_loop_over_resamples():
    rng = np.random.default_rng(5)
    costs = rng.integers(1, 6, (2, 3, 5)).astype(float)
    boot = draw(costs, resamples=400)
    loop = [
        np.mean([
            sum(count * ((x < y) + 0.5 * (x == y)) for count, x, y in zip(*row, strict=True)) / 5
            for row in zip(counts, costs[0], costs[1], strict=True)
        ])
        for counts in boot.counts
    ]  # fmt: skip

    estimate = win_estimates(boot, confidence=0.9)

    assert estimate.low[0, 1] == pytest.approx(np.sort(loop)[20])
    assert estimate.high[0, 1] == pytest.approx(np.sort(loop)[379])


def test_the_same_generator_gives_the_same_intervals_and_global_chance_takes_no_part():
    np.random.seed(0)
    one = score_estimates(draw(TABLE))
    np.random.seed(1)
    two = score_estimates(draw(TABLE))

    np.testing.assert_array_equal(one.low, two.low)
    np.testing.assert_array_equal(one.high, two.high)


@pytest.mark.parametrize("factor", [60.0, 1e-3])
def test_scores_and_wins_do_not_depend_on_the_unit_of_costs(factor):
    rng = np.random.default_rng(7)
    costs = rng.lognormal(3, 1, (4, 3, 5))
    costs[rng.random(costs.shape) < 0.2] = INF
    one, two = draw(costs, resamples=500), draw(factor * costs, resamples=500)

    for estimate in (score_estimates, win_estimates):
        a, b = estimate(one), estimate(two)
        for x, y in zip((a.value, a.low, a.high), (b.value, b.low, b.high), strict=True):
            np.testing.assert_allclose(x, y, rtol=1e-9)


def test_contenders_in_another_order_have_the_same_intervals():
    costs = np.random.default_rng(8).lognormal(3, 1, (4, 3, 5))
    turned = [2, 0, 3, 1]

    one, two = score_estimates(draw(costs)), score_estimates(draw(costs[turned]))

    np.testing.assert_allclose(one.low[turned], two.low)
    np.testing.assert_allclose(one.high[turned], two.high)


@pytest.mark.parametrize(
    "studies, few, many",
    # The lowest of three contenders, of 95 % intervals: measured 0.88 and 0.51, 0.92 and 0.63.
    [(3, 0.8, 0.4), (5, 0.85, 0.5)],
)
def test_intervals_of_scores_with_misses_cover_less_than_they_say(studies, few, many):
    with_4, with_12 = (coverage(studies, workloads, 0.4, 250).min() for workloads in (4, 12))

    # Medians of few studies are biased, and more workloads narrow the interval around the bias.
    assert few <= with_4 and many <= with_12 < 0.8


@pytest.mark.parametrize("studies", [3, 5])
def test_no_interval_of_a_median_covers_it_more_often_than_lowest_to_highest_does(studies):
    rng = np.random.default_rng(10)
    runs = rng.normal(size=(20_000, studies))

    covered = np.mean((runs.min(axis=1) < 0) & (runs.max(axis=1) > 0))

    assert covered == pytest.approx(attainable_confidence(studies), abs=0.01)
    assert attainable_confidence(studies_for(0.95)) >= 0.95
    assert attainable_confidence(studies_for(0.95) - 1) < 0.95


def test_what_cannot_be_resampled_is_refused_with_the_reason():
    with pytest.raises(ValueError, match="needs at least 2 studies, got 1"):
        draw([[[1.0]]])
    with pytest.raises(ValueError, match="`resamples` must be 1 to 1,000,000, got 0"):
        draw(TABLE, resamples=0)
    with pytest.raises(ValueError, match=r"`confidence` must be between 0 and 1, got 95"):
        score_estimates(draw(TABLE), confidence=95)
    with pytest.raises(ValueError, match=r"20 resamples are too few .* at least 40 are needed"):
        score_estimates(draw(TABLE, resamples=20))


@pytest.mark.parametrize(
    "costs, message",
    [
        ([[[math.nan, 1.0]]], "NaN is no cost"),
        ([[[-1.0, 1.0]]], "must be 0 or more"),
        ([[[]]], "nothing empty"),
        ([[1.0]], "must be .contenders, workloads, studies"),
    ],
)
def test_numbers_that_are_no_costs_are_refused(costs, message):
    with pytest.raises(ValueError, match=message):
        Samples(("a",), ("w",), np.array(costs))


def test_samples_of_a_campaign_are_its_cells_with_missing_studies_as_misses(hand_made):
    scores = score_logs(read_logs(hand_made()))

    including, given = samples_of(scores, "including"), samples_of(scores, "given")

    assert including.contenders == ("a+halton", "b+halton")
    assert including.workloads == ("easy", "hard")
    np.testing.assert_array_equal(including.costs[0, 0], [350, 200, 760])
    np.testing.assert_array_equal(including.costs[1, 1], [INF, INF, 240])
    np.testing.assert_array_equal(including.costs[0, 1], [750, 750, INF])  # it never ran study 3
    np.testing.assert_array_equal(given.costs[1, 1], [INF, INF, 240])


def test_statistics_of_the_official_rules_are_refused_because_their_studies_are_not_paired(
    hand_made,
):
    scores = score_logs(read_logs(hand_made()), "algoperf")

    with pytest.raises(ValueError, match="strict, got algoperf"):
        samples_of(scores, "given")


def test_held_out_variants_count_in_scores_as_the_benchmark_has_it():
    # On w0 the first is best; it missed the variant of w0, so that w0 does not count for it.
    costs = np.array([[[1.0] * 4, [1.0] * 4, [INF] * 4], [[2.0] * 4, [1.0] * 4, [1.0] * 4]])
    benchmark = Benchmark(("w0", "w1"), {"v0": "w0"})
    samples = Samples(("a", "b"), ("w0", "w1", "v0"), costs, benchmark)

    estimate = score_estimates(bootstrap(samples, 0))
    left_out = leave_one_workload_out(samples)

    np.testing.assert_allclose(estimate.value, [0.5, 1.0])
    np.testing.assert_allclose((estimate.low, estimate.high), [[0.5, 1.0]] * 2)
    assert left_out.workloads == ("w0", "w1")
    np.testing.assert_allclose(left_out.scores, [[1.0, 1.0], [0.0, 1.0]])
