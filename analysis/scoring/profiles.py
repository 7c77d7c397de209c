r"""Performance profiles (Dolan and Moré) and the area under them.

For contender s on workload w with cost t the ratio is :math:`r_{sw} = t_{sw} / \min_{s'} t_{s'w}`,
inf for a miss. The profile :math:`\rho_s(\tau)` is the share of workloads
with :math:`r_{sw} \le \tau`.
"""

import dataclasses

import numpy as np
from numpy.typing import NDArray

LIMIT = 4.0  # AlgoPerf's


@dataclasses.dataclass(frozen=True)
class Axis:
    """The axis of ratios that a profile is integrated over.

    Attributes:
        limit: The end of the axis; ratios from there on score 0.
        logarithmic: Whether equal factors are equally long.

    Raises:
        ValueError: The limit is 1 or less.
    """

    limit: float
    logarithmic: bool = False

    def __post_init__(self) -> None:
        """Check the limit."""
        if not self.limit > 1:
            raise ValueError(f"`limit` must be above 1, the best possible ratio; got {self.limit}.")


LINEAR = Axis(LIMIT)
LOGARITHMIC = Axis(32.0, logarithmic=True)


def ratios(costs: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return each cost divided by the best cost on its workload.

    Args:
        costs: (..., contenders, workloads); inf or NaN for a miss.

    Returns:
        The ratios; inf for a miss. The best cost has ratio 1 even if it is 0, which happens when
        the initial parameters meet the target.
    """
    costs = np.where(np.isnan(costs), np.inf, costs)
    best = costs.min(axis=-2, keepdims=True)
    quotient = np.divide(
        costs, best, out=np.full_like(costs, np.inf), where=np.isfinite(costs) & (best > 0)
    )
    return np.where(np.isfinite(costs) & (costs == best), 1.0, quotient)


def profile_area(ratios: NDArray[np.float64], axis: Axis = LINEAR) -> NDArray[np.float64]:
    r"""Return the normalised area under each profile on ``[1, limit]``: the score.

    A profile is a staircase, so its integral needs no grid: a workload with ratio r adds the share
    of the axis above r. Ratios are (..., contenders, workloads), scores (..., contenders).

    .. math::
        B_s = \frac{1}{W} \sum_w \max(0, (\mathrm{limit} - r_{sw}) / (\mathrm{limit} - 1))
        \quad\text{or, on a logarithmic axis,}\quad
        \frac{1}{W} \sum_w \max(0, 1 - \ln r_{sw} / \ln \mathrm{limit})
    """
    return ordered_mean(shares(ratios, axis))


def ordered_mean(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the mean over the last axis, in a sum whose order does not depend on the values'."""
    return np.sort(values, axis=-1).mean(axis=-1)


def shares(ratios: NDArray[np.float64], axis: Axis = LINEAR) -> NDArray[np.float64]:
    """Return what each workload adds to a score before the mean, from 0 to 1, as the ratios."""
    if axis.logarithmic:
        return np.clip(1 - np.log(ratios) / np.log(axis.limit), 0, None)
    return np.clip(axis.limit - ratios, 0, None) / (axis.limit - 1)


def profile(
    ratios: NDArray[np.float64], limit: float = LIMIT
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the corners of one contender's profile: tau from 1 to ``limit``, and rho.

    Args:
        ratios: (workloads,).
        limit: The largest tau.
    """
    inside = np.sort(ratios[ratios <= limit])
    tau = np.concatenate([[1.0], inside, [limit]])
    rho = np.concatenate([[np.sum(inside <= 1.0)], np.arange(1, len(inside) + 1), [len(inside)]])
    return tau, rho / len(ratios)
