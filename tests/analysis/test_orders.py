"""Medians over orders of random search against brute force and closed forms."""

import itertools
import math
import statistics
from collections import Counter

import numpy as np
import pytest

from analysis.leaderboard.entries import read_entries
from analysis.leaderboard.standings import standings
from analysis.leaderboard.submitting import submit
from analysis.logs.reader import read_logs
from analysis.scoring.costs import StudyCosts, cell_of, costs_by_pair
from analysis.scoring.orders import (
    WHOLE,
    Attempt,
    OrderCosts,
    costs_over_orders,
    medians_over_orders,
)
from analysis.scoring.scores import score_logs
from analysis.statistics.resampling import bootstrap
from analysis.statistics.samples import Samples, samples_of
from metaopt.bench.records import Cost
from tests.analysis.conftest import HITS, build_runs

INF = math.inf
GRADS = "gradient_evaluations"


def attempts(*costs):
    """Attempts from numbers; a negative number is a miss of that cost."""
    return [
        Attempt(hit=cost > 0, cost=Cost(steps=1, gradient_evaluations=abs(cost), seconds=abs(cost)))
        for cost in costs
    ]


def brute_force(costs):
    """The cost up to the first hit in every order, with a plain loop."""
    found = []
    for order in itertools.permutations(costs):
        spent = 0.0
        for cost in order:
            spent += abs(cost)
            if cost > 0:
                break
        found.append(spent)
    return sorted(found)


def shares(found):
    """The share of orders at each cost."""
    assert sum(found.orders) == WHOLE
    return dict(zip(found.costs, (n / WHOLE for n in found.orders), strict=True))


@pytest.mark.parametrize(
    "costs",
    [
        (30.0,),
        (-100.0, 30.0),
        (-100.0, 30.0, -70.0),
        (-90.0, 20.0, -50.0, 30.0, -80.0),
        (-90.0, 20.0, -50.0, 30.0, -80.0, -90.0, 0.5, -50.0),
    ],
)
def test_every_order_counts(costs):
    expected = Counter(brute_force(costs))

    found = costs_over_orders(attempts(*costs), GRADS)

    assert found.costs == tuple(sorted(expected))
    assert found.orders == tuple(
        expected[cost] * WHOLE // math.factorial(len(costs)) for cost in found.costs
    )


@pytest.mark.parametrize("trials, hits", [(5, 1), (5, 2), (16, 3), (36, 5), (50, 4)])
def test_the_number_of_misses_before_the_first_hit_is_negative_hypergeometric(trials, hits):
    costs = [-100.0] * (trials - hits) + [1.0] * hits

    found = shares(costs_over_orders(attempts(*costs), GRADS))

    assert len(found) == trials - hits + 1
    for misses in range(trials - hits + 1):
        chance = math.comb(trials - 1 - misses, hits - 1) / math.comb(trials, hits)
        assert found[100.0 * misses + 1] == pytest.approx(chance, rel=1e-9)


@pytest.mark.parametrize("trials", [17, 120])
def test_costs_that_are_no_whole_numbers_are_rounded(trials):
    rng = np.random.default_rng(0)
    misses, hits = rng.uniform(1, 3, trials - 3), rng.uniform(1, 3, 3)
    costs = np.concatenate([-misses, hits])
    orders = rng.permuted(np.tile(costs, (20_000, 1)), axis=1)
    first = (orders > 0).argmax(axis=1)
    drawn = np.abs(orders).cumsum(axis=1)[np.arange(len(orders)), first]

    found = costs_over_orders(attempts(*costs), GRADS)

    at = np.interp([0.2, 0.5, 0.8], np.cumsum(found.orders) / WHOLE, found.costs)
    np.testing.assert_allclose(at, np.quantile(drawn, [0.2, 0.5, 0.8]), rtol=0.04)
    mean = np.dot(found.costs, found.orders) / WHOLE
    expected = misses.sum() / 4 + hits.mean()
    assert mean == pytest.approx(expected, abs=misses.sum() / 1000)


def test_a_study_without_a_hit_misses_in_every_order():
    assert costs_over_orders(attempts(-10.0, -20.0), GRADS) == ((INF,), (WHOLE,))
    assert costs_over_orders((), GRADS) == ((INF,), (WHOLE,))


def over(*costs):
    """The costs of a study over as many orders, each equally likely."""
    counts = Counter(costs)
    return OrderCosts(tuple(counts), tuple(n * WHOLE // len(costs) for n in counts.values()))


def copies(orders):
    """Every order's cost as often as makes all studies count the same."""
    return [c for one in orders for c, n in zip(*one, strict=True) for _ in range(n * 120 // WHOLE)]


@pytest.mark.parametrize("studies", [2, 3, 4])
def test_the_median_weighs_every_study_the_same(studies):
    rng = np.random.default_rng(studies)
    lengths = rng.choice([1, 2, 6, 24, 120], studies)
    orders = [over(*rng.choice([1.0, 2.0, 3.0, 5.0, 9.0, INF], length)) for length in lengths]
    drawn = rng.integers(studies, size=(50, studies))
    counts = (drawn[..., None] == np.arange(studies)).sum(axis=1)

    found = medians_over_orders(orders, counts)

    expected = [statistics.median(copies([orders[k] for k in pick])) for pick in drawn]
    np.testing.assert_array_equal(found, expected)


def test_with_one_order_for_each_study_the_median_is_that_of_the_studies():
    costs = (7.0, 3.0, INF, 5.0)

    cell = StudyCosts(costs, costs, tuple(over(cost) for cost in costs))

    assert cell.median("including") == cell.median("given") == 6.0
    assert StudyCosts((1.0, INF), (1.0, INF), (over(1.0), over(INF))).median("including") == INF


def test_the_cost_of_one_study_is_the_median_of_its_orders_and_the_tuner_decides():
    # Orders of a miss of 100 and hits of 20 and 30: the first hit comes after 20, 30, 120 or 130.
    one = attempts(-100.0, 20.0, 30.0)

    cell = cell_of((20.0,), (120.0,), [one], GRADS)

    assert cell.orders == (over(20.0, 20.0, 30.0, 30.0, 120.0, 130.0),)
    assert cell.including == (30.0,) and cell.given == (20.0,)
    assert cell_of((20.0,), (120.0,), [None], GRADS).including == (120.0,)


@pytest.fixture
def random_runs(build, tmp_path):
    """Random search: two studies of four trials; the budget cuts the last one of the second."""
    b = build(tmp_path / "runs", ["a+random"], ["w"], 2)
    random = {"tuner": {"name": "random"}}
    for hit in (None, 60.0, 100.0, None):
        b.trial("a+random", "w", 1, 250.0, hit, **random)
    for hit in (None, None, 40.0):
        b.trial("a+random", "w", 2, 300.0, hit, **random)
    b.trial("a+random", "w", 2, 100.0, status="study_budget", **random)
    return tmp_path / "runs"


def test_a_trial_that_the_budget_cut_is_left_out(random_runs):
    cell = costs_by_pair(read_logs(random_runs), GRADS)["a+random", "w"]

    first, second = cell.orders
    assert first == over(*brute_force((-250.0, 60.0, 100.0, -250.0)))
    assert second == over(*brute_force((-300.0, -300.0, 40.0)))  # and not -100 as a fourth
    assert cell.median("including") == statistics.median(copies(cell.orders))
    assert cell.given == (60.0, 40.0)


def test_seconds_of_an_order_include_the_tuners_decisions(build, tmp_path):
    from metaopt.bench.records import Ledger

    b = build(tmp_path, ["a+random"], ["w"], 1)
    for steps, hit in ((200, None), (100, 100.0)):
        cost = Cost(steps=steps, gradient_evaluations=steps, seconds=steps / 100)
        ledger = Ledger(cost=cost, tuner_seconds=0.5)
        changes = {"tuner": {"name": "random"}, "ledger": ledger}
        b.trial("a+random", "w", 1, float(steps), hit, **changes)

    cell = costs_by_pair(read_logs(tmp_path), "seconds")["a+random", "w"]

    assert cell.orders == (over(1.0 + 0.5, 2.0 + 0.5 + 1.0 + 0.5),)


def test_bootstrap_resamples_studies_with_all_of_their_orders(random_runs):
    samples = samples_of(score_logs(read_logs(random_runs)), "including")
    boot = bootstrap(samples, 0, 40)

    orders = samples.orders[0, 0]
    for counts, median in zip(boot.counts[:, 0], boot.medians[:, 0, 0], strict=True):
        drawn = [orders[k] for k in range(2) for _ in range(counts[k])]
        assert median == statistics.median(copies(drawn))
    assert samples_of(score_logs(read_logs(random_runs)), "given").orders == {}


def test_orders_lower_the_standard_error_of_the_log_median_as_simulated():
    # 16 trials arrive with probability 0.3 at 0.3 to 1 of a miss's cost; ten studies. The design
    # says .16 with orders and .39 without.
    rng = np.random.default_rng(0)
    as_run, over_orders = [], []
    for _ in range(120):
        studies = []
        for _ in range(10):
            hits = rng.random(16) < 0.3
            studies.append(attempts(*np.where(hits, rng.uniform(0.3, 1, 16), -1.0)))
        orders = [costs_over_orders(one, GRADS) for one in studies]
        over_orders.append(medians_over_orders(orders, np.ones((1, 10), int))[0])
        as_run.append(
            statistics.median(
                sum(c.cost.gradient_evaluations for c in one[: first + 1])
                for one in studies
                if (first := next((i for i, c in enumerate(one) if c.hit), -1)) >= 0
            )
        )

    assert np.std(np.log(over_orders)) == pytest.approx(0.16, abs=0.04)
    assert np.std(np.log(as_run)) == pytest.approx(0.39, abs=0.08)


def test_records_keep_the_attempts_so_that_pages_have_the_same_costs(build, tmp_path):
    hits = {"a+random": HITS["a+halton"]}
    runs = build_runs(build, tmp_path / "runs", hits, tuner={"name": "random"})
    submit(runs, tmp_path / "board")

    (standing,) = standings(read_entries(tmp_path / "board"))

    expected = score_logs(read_logs(runs)).cells
    assert standing.scores().cells == expected
    assert all(cell.orders for cell in expected.values())


def test_samples_without_orders_have_plain_medians():
    costs = np.random.default_rng(0).lognormal(size=(2, 3, 4))

    samples = Samples(("a", "b"), ("u", "v", "w"), costs, view="including")

    np.testing.assert_array_equal(samples.medians, np.median(costs, axis=2))
