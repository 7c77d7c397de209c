"""Parameters of search spaces as Optuna's distributions, for its samplers and its storages."""

from typing import Any

from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

from metaopt.bench.contract.spaces import Choices, Range


def distribution_of(part: Range | Choices, *, ordered: bool = False) -> BaseDistribution:
    """Return the distribution of one parameter.

    Args:
        part: The parameter.
        ordered: Return the distribution of an index into the sorted values, instead of categories,
            if the values are numbers.

    Examples:
        >>> distribution_of(Choices((0.2, 0.1)), ordered=True)
        IntDistribution(high=1, log=False, low=0, step=1)
    """
    if isinstance(part, Range):
        return FloatDistribution(part.low, part.high, log=part.log)
    if ordered and part.is_numeric:
        return IntDistribution(0, len(part.points) - 1)
    return CategoricalDistribution(part.points)


def value_in(part: Range | Choices, value: Any, *, ordered: bool = False) -> Any:
    """Return the parameter's value for a value of its distribution.

    Args:
        part: The parameter.
        value: The value that Optuna chose.
        ordered: As for :func:`distribution_of`.

    Examples:
        >>> value_in(Choices((0.2, 0.1)), 1, ordered=True)
        0.2
    """
    if ordered and isinstance(part, Choices) and part.is_numeric:
        return sorted(part.points)[value]
    return value
