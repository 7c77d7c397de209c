"""Speed-ups over a reference against tables made by hand and plain loops."""

import math

import numpy as np
import pytest

from analysis.report.marks import Marks
from analysis.report.tables.statistics_tables import speedups_table
from analysis.scoring.benchmark import Benchmark
from analysis.statistics.inference import infer
from analysis.statistics.resampling import bootstrap
from analysis.statistics.samples import Samples
from analysis.statistics.speedups import REFERENCE, measure_speedups

INF = math.inf
BUDGET = 1000.0


def make_samples(costs, budgets=BUDGET, **changes):
    """Samples whose last contender is called like the default reference."""
    costs = np.array(costs, float)
    names = (*"abcdefgh"[: len(costs) - 1], REFERENCE)
    workloads = tuple(f"w{i}" for i in range(costs.shape[1]))
    given = None if budgets is None else np.full(costs.shape[:2], budgets)
    return Samples(names, workloads, costs, budgets=given, **changes)


def measure(samples, reference=REFERENCE, resamples=200):
    return measure_speedups(bootstrap(samples, 0, resamples), reference, confidence=0.9)


def test_speedups_and_bounds_of_a_table_made_by_hand():
    # Medians of equal studies; the reference takes 400, 100, and misses the third workload.
    medians = {
        "a": (100.0, 100.0, 250.0),  # 4, 1, at least 1000 / 250
        "b": (INF, 50.0, INF),  # at most 400 / 1000, 2, both missed
        "c": (INF, 50.0, 500.0),  # at most 400 / 1000, 2, at least 1000 / 500
        "d": (400.0, 100.0, INF),  # 1, 1, both missed
        REFERENCE: (400.0, 100.0, INF),
    }
    samples = make_samples([[[m] * 3 for m in row] for row in medians.values()])

    found = measure(samples)

    expected = [(4 * 1 * 4) ** (1 / 3), (0.4 * 2) ** (1 / 3), (0.4 * 2 * 2) ** (1 / 3), 1, 1]
    np.testing.assert_allclose(found.values.value, expected)
    np.testing.assert_allclose(found.values.low, [expected[0], *[math.nan] * 4])
    np.testing.assert_allclose(found.values.high, [math.nan] * 5)  # the reference missed
    assert found.bounds == (">=", "~", "~", "~", "")
    assert found.both_missed == (0, 1, 0, 1, 1)


@pytest.mark.parametrize("missing", [(), (0, 1), (2, 0)])  # a contender and a workload
def test_the_interval_is_that_of_a_loop_over_resamples(missing):
    rng = np.random.default_rng(1)
    costs = rng.lognormal(4, 1, (3, 2, 5))
    if missing:
        costs[(*missing, slice(2))] = INF  # two of five studies: the median does not miss
    samples = make_samples(costs)
    boot = bootstrap(samples, 2, 300)
    lows, highs = [], []
    for medians in boot.medians:
        ratios = []
        for mine, theirs in zip(medians[0], medians[2], strict=True):
            both = math.isinf(mine) and math.isinf(theirs)
            ratios.append(1.0 if both else min(theirs, BUDGET) / min(mine, BUDGET))
        speedup = math.prod(ratios) ** (1 / 2)
        lows.append(0.0 if INF in medians[0] else speedup)
        highs.append(INF if INF in medians[2] else speedup)

    found = measure_speedups(boot, REFERENCE, confidence=0.9)

    ends = np.sort(lows)[15], np.sort(highs)[284]
    shown = [math.nan if end in (0.0, INF) else end for end in ends]
    assert sum(map(math.isnan, shown)) == len(missing[:1])
    assert [found.values.low[0], found.values.high[0]] == pytest.approx(shown, nan_ok=True)


def test_exchanging_reference_and_contender_inverts_speedups_and_bounds():
    costs = np.random.default_rng(3).lognormal(size=(3, 3, 5))
    costs[0, 0] = INF
    samples = make_samples(costs)

    one, other = measure(samples), measure(samples, "a")

    assert one.values.value[0] == pytest.approx(1 / other.values.value[2])
    assert (one.bounds[0], other.bounds[2]) == ("<=", ">=")
    assert one.values.high[0] == pytest.approx(1 / other.values.low[2])
    assert np.isnan([one.values.low[0], other.values.high[2]]).all()


def test_speedups_do_not_depend_on_the_unit():
    costs = np.random.default_rng(4).lognormal(size=(3, 3, 5))
    costs[1, 0] = INF

    one, other = measure(make_samples(costs)), measure(make_samples(60 * costs, 60 * BUDGET))

    np.testing.assert_allclose(one.values.value, other.values.value)


def test_a_miss_without_a_known_budget_has_no_speedup():
    costs = [[[INF, INF], [2.0, 2.0]], [[1.0, 1.0], [1.0, 1.0]], [[4.0, 4.0], [4.0, 4.0]]]

    found = measure(make_samples(costs, budgets=None))

    assert math.isnan(found.values.value[0])
    assert found.values.value[1] == pytest.approx(4.0)


def test_two_misses_are_equal_whatever_their_budgets_are():
    # Given tuned, a self-tuning run may take a whole study, and the reference a trial.
    costs = [[[INF] * 2, [3.0] * 2], [[INF] * 2, [6.0] * 2]]
    budgets = np.array([[6400.0, 6400.0], [400.0, 400.0]])
    samples = Samples(("a", REFERENCE), ("u", "v"), np.array(costs), budgets=budgets)

    for known in (samples, make_samples(costs, budgets=None)):
        assert measure(known).values.value[0] == pytest.approx(math.sqrt(6 / 3))


def test_held_out_variants_take_no_part():
    costs = [[[1.0] * 2, [100.0] * 2], [[2.0] * 2, [1.0] * 2]]
    samples = make_samples(costs, benchmark=Benchmark(("w0",), {"w1": "w0"}))

    assert measure(samples).values.value[0] == pytest.approx(2.0)


def test_an_unknown_reference_is_refused_and_the_default_one_may_be_absent():
    samples = Samples(("a", "b"), ("w",), np.ones((2, 1, 3)))

    assert measure(samples) is None
    with pytest.raises(
        ValueError, match=r"`reference` must be a contender, got 'z'. Choose one of a, b."
    ):
        measure(samples, "z")


def test_algoperfs_baseline_is_the_reference_where_ours_did_not_run():
    costs = np.array([[[100.0] * 4, [90.0] * 4], [[50.0] * 4, [10.0] * 4]])
    samples = Samples(("baseline", "fast"), ("v", "w"), costs)

    found = measure_speedups(bootstrap(samples, 0, 100), "adamw+random")

    assert found is not None
    assert found.reference == "baseline"
    assert found.values.value == pytest.approx([1, np.sqrt(2 * 9)])
    assert found.ratios == pytest.approx(np.array([[1, 1], [2, 9]]))


def test_the_time_factor_stands_beside_the_speed_up_with_its_range_over_workloads():
    costs = np.random.default_rng(5).lognormal(size=(2, 3, 5))
    samples = Samples(("adamw+random", "b"), ("v", "w", "x"), costs)
    found = infer(samples, "steps", resamples=100)
    factors = {("b", "v"): 1.0, ("b", "w"): 8.0, ("b", "x"): 27.0, ("adamw+random", "v"): 99.0}

    table = speedups_table(found, found.speedups, Marks(), factors)

    (row,) = table.records
    assert row["time_factor"] == pytest.approx(6.0)
    assert (row["time_factor_low"], row["time_factor_high"]) == (1.0, 27.0)
    assert table.texts[0][-1] == "6.00 (1.00 to 27.00)" and "highest workload" in table.caption
    without = speedups_table(found, found.speedups, Marks())
    assert "time factor" not in without.header and "Time factor" not in without.caption
