"""Costs including tuning over all orders of a study's trials, for exchangeable trials.

Random search draws its trials independently of each other, so each order of the trials of a study
was equally likely. A study then has a cost for every order, and a median is taken over studies and
orders, where the orders of a study together weigh as much as those of any other study. This lowers
the variance of the median and leaves its distribution's centre alone.
"""

import itertools
import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from metaopt.bench.measure.budget import Currency
from metaopt.bench.records import Cost
from metaopt.bench.records.trials import Model

EXCHANGEABLE = "random"  # the name of the tuner
MOST_TRIALS = 5  # of a study whose orders are all enumerated
DRAWN = 200  # orders of a longer study
_SEED = 0
# A multiple of every number of orders, so that weights are whole numbers.
_STUDY = math.lcm(DRAWN, math.factorial(MOST_TRIALS))


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


def costs_over_orders(
    attempts: Sequence[Attempt], currency: Currency, study: int
) -> tuple[float, ...]:
    """Return the cost of a study including tuning in each order of its attempts.

    Args:
        attempts: The attempts.
        currency: The currency of the costs.
        study: The number of the study, which seeds the drawn orders.

    Returns:
        One cost for each order: all of up to ``MOST_TRIALS`` attempts, ``DRAWN`` of more; a single
        inf if no attempt is a hit.
    """
    hits = np.array([one.hit for one in attempts], bool)
    if not hits.any():
        return (math.inf,)
    count = len(attempts)
    if count <= MOST_TRIALS:
        orders = np.array(list(itertools.permutations(range(count))))
    else:
        rng = np.random.default_rng((_SEED, study))
        orders = rng.permuted(np.tile(np.arange(count), (DRAWN, 1)), axis=1)
    spent = np.array([one.cost.amount(currency) for one in attempts], float)[orders].cumsum(axis=1)
    first = hits[orders].argmax(axis=1)
    return tuple(map(float, spent[np.arange(len(orders)), first]))


def medians_over_orders(
    orders: Sequence[Sequence[float]], counts: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Return the medians over drawn studies and their orders, (R,).

    Args:
        orders: The costs of each of the K studies in its orders, whose number divides 600.
        counts: How often each study was drawn, (R, K).
    """
    values, places = np.unique(np.concatenate(orders), return_inverse=True)
    weights = np.zeros((len(orders), len(values)), np.int64)
    studies = np.repeat(np.arange(len(orders)), [len(costs) for costs in orders])
    np.add.at(weights, (studies, places), np.array([_STUDY // len(c) for c in orders])[studies])
    below = weights.cumsum(axis=1)  # (K, values): a study's weight up to a value
    half = counts.sum(axis=1) * (_STUDY // 2)
    lower, upper = (_first_value(below, counts, least) for least in (half, half + 1))
    return (values[lower] + values[upper]) / 2


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
