r"""Costs including tuning over all orders of a study's trials, for exchangeable trials.

Random search draws its trials independently of each other, so each order of the trials of a study
was equally likely. A study then has a distribution of costs, and a median is taken over studies and
orders, where the orders of a study together weigh as much as those of any other study. This lowers
the variance of the median and leaves its distribution's centre alone.

The distribution is computed and not sampled. Of n trials, a given hit comes after exactly the
misses of a given set of j, and before all other hits, in

.. math:: \frac{j! \, (n - 1 - j)!}{n!} = \frac{1}{n \binom{n - 1}{j}}

of the orders, so what remains is to count the sets of j misses by the sum of their costs.
"""

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from metaopt.bench.measure.budget import Currency
from metaopt.bench.records import Cost
from metaopt.bench.records.trials import Model

EXCHANGEABLE = "random"  # the name of the tuner
# All orders of a study. Shares of up to 36 trials are whole numbers of it, and the sum over 60,000
# studies fits into 64 bits.
WHOLE = math.lcm(*range(1, 37))
_EXACT = 20_000  # misses are exact if their sum is at most this many times their common divisor
_ROUNDED = 2000  # others are rounded to the sum over this


class OrderCosts(NamedTuple):
    """The costs of a study including tuning, and how many of :data:`WHOLE` orders have each."""

    costs: tuple[float, ...]  # different ones
    orders: tuple[int, ...]


class Attempt(Model):
    """A trial of random search: whether it met its target, and what it adds to its study's cost."""

    hit: bool
    cost: Cost  # with the tuner's decision; up to the hit, or of the whole trial


def attempts_of(records: Sequence[Any], hits: Iterable[bool]) -> tuple[Attempt, ...] | None:
    """Return the attempts of a study, in the order of its trials; ``None`` for another tuner.

    A trial that the study's budget cut is left out, because its outcome is not known.

    Args:
        records: The trials of the study.
        hits: Whether each of them met its target within its budget.
    """
    if not all((getattr(r, "tuner", None) or {}).get("name") == EXCHANGEABLE for r in records):
        return None
    found = []
    for record, hit in sorted(zip(records, hits, strict=True), key=lambda pair: pair[0].trial):
        if hit or record.status != "study_budget":
            cost = record.reached.cost if hit else record.ledger.cost
            decision = Cost(seconds=record.ledger.tuner_seconds)
            found.append(Attempt(hit=hit, cost=cost + decision))
    return tuple(found)


def costs_over_orders(attempts: Sequence[Attempt], currency: Currency) -> OrderCosts:
    """Return the costs of a study including tuning over all orders of its attempts.

    Costs that are counted, in steps or gradient evaluations, are exact if the misses cost at most
    20,000 times their common divisor; others are rounded to a 2,000th of the sum of all misses.
    Takes milliseconds for 16 trials, up to seconds for 200.

    Args:
        attempts: The attempts.
        currency: The currency of the costs.

    Returns:
        The costs; a single inf if no attempt is a hit.
    """
    hits, misses = (
        [one.cost.amount(currency) for one in attempts if one.hit == kind] for kind in (True, False)
    )
    if not hits:
        return OrderCosts((math.inf,), (WHOLE,))
    spent, orders = _before_a_hit(misses, len(attempts))
    found = Counter[float]()
    for cost in hits:
        for before, number in zip(spent, orders, strict=True):
            found[before + cost] += number
    # Shares of more than 36 trials are rounded.
    found[max(found, key=found.__getitem__)] += WHOLE - found.total()
    costs = sorted(found)
    return OrderCosts(tuple(costs), tuple(found[cost] for cost in costs))


def _before_a_hit(misses: Sequence[float], count: int) -> tuple[list[float], list[int]]:
    """Return sums of misses, and in how many orders a given hit is first and comes after each sum.

    Args:
        misses: The cost of each miss.
        count: The number of trials.
    """
    unit = float(math.gcd(*map(int, misses))) if all(c == int(c) for c in misses) else 0.0
    if not unit or sum(misses) > _EXACT * unit:
        unit = sum(misses) / _ROUNDED or 1.0
    steps = [round(cost / unit) for cost in misses]
    # By size, the share of the sets of misses that have each sum, of one more miss at a time.
    shares = np.zeros((len(steps) + 1, sum(steps) + 1))
    shares[0, 0] = 1.0
    for number, step in enumerate(steps, start=1):
        has = np.arange(1, number + 1)[:, None] / number  # the share of sets that have this miss
        others = shares[:number, : shares.shape[1] - step].copy()
        shares[1 : number + 1] *= 1 - has
        shares[1 : number + 1, step:] += has * others
    # The chance that a given hit is the first one, after as many misses.
    left = np.arange(len(steps))
    chances = np.cumprod([1 / count, *((len(steps) - left) / (count - 1 - left))])
    orders = WHOLE * (chances @ shares)
    places = np.flatnonzero(orders)
    return (places * unit).tolist(), [round(number) for number in orders[places]]


def medians_over_orders(
    orders: Sequence[OrderCosts], counts: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Return the medians over drawn studies and their orders, (R,).

    Args:
        orders: The costs of each of the K studies over its orders.
        counts: How often each study was drawn, (R, K).
    """
    values, places = np.unique(np.concatenate([one.costs for one in orders]), return_inverse=True)
    weights = np.zeros((len(orders), len(values)), np.int64)
    studies = np.repeat(np.arange(len(orders)), [len(one.costs) for one in orders])
    np.add.at(weights, (studies, places), np.concatenate([one.orders for one in orders]))
    below = weights.cumsum(axis=1)  # (K, values): a study's orders up to a value
    half = counts.sum(axis=1) * (WHOLE // 2)
    lower, upper = (_first_value(below, counts, least) for least in (half, half + 1))
    return (values[lower] + values[upper]) / 2


def median_over_orders(orders: Sequence[OrderCosts]) -> float:
    """Return the median over studies and their orders."""
    return float(medians_over_orders(orders, np.ones((1, len(orders)), np.int64))[0])


def _first_value(
    below: NDArray[np.int64], counts: NDArray[np.int64], least: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Return by bisection the first value up to which the drawn weight is at least ``least``."""
    low = np.zeros(len(counts), np.int64)
    high = np.full(len(counts), below.shape[1] - 1)
    while (low < high).any():
        middle = (low + high) // 2
        enough = (counts * below[:, middle].T).sum(axis=1) >= least
        low, high = np.where(enough, low, middle + 1), np.where(enough, middle, high)
    return low
