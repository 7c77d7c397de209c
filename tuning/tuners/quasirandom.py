r"""Quasi-random points: AlgoPerf's Halton set, and Sobol's sequence.

Notation of the Halton set:

    d        parameters of the space
    b_j      base of parameter j: the j-th of the d + 1 largest primes below 1000, without the last
    pi_j     a permutation of the digits 0 .. b_j - 1 that keeps 0
    s_j      a shift in [0, 1)
    u_ij     coordinate j of point i, in [0, 1):  frac(s_j + sum_k pi_j(a_k) / b_j^(k + 1)),
             where i = sum_k a_k b_j^k

pi_j and s_j come from NumPy's ``RandomState(b_j)``, so points i = 101, 102, ... (the first 100 are
skipped) are the same everywhere, and the set of AlgoPerf's n trials is the first n of them.
"""

import math
from collections.abc import Iterator, Sequence
from importlib import metadata
from typing import Any

import numpy as np

from metaopt.bench.contract.spaces import Point, PointList, SearchSpace, Space

BLOCK = 5  # trials of a study in AlgoPerf's external tuning
SKIPPED = 100
_LARGEST_BASE = 1000
_SOBOL_BITS = 30


class HaltonTuner:
    """AlgoPerf's Halton points, without end, in blocks of the size of its studies.

    After every block, the points so far are exactly AlgoPerf's set for that number of trials.
    Within a block the order is seeded; AlgoPerf's generator has no seed.

    Reference: Bousquet, Gelly, Kurach, Teytaud, Vincent, `Critical Hyper-Parameters: No Random, No
    Cry <https://arxiv.org/abs/1706.03200>`_, 2017.
    """

    def __init__(self, space: SearchSpace, seed: int) -> None:
        self._space = _with_dimensions("halton", space)
        self._generator = np.random.default_rng(seed)
        self._seed = seed
        self._points = halton_points(len(self._space.parameters))
        self._block: list[tuple[float, ...]] = []

    def ask(self) -> Point:
        """Return the next point."""
        if not self._block:
            block = [next(self._points) for _ in range(BLOCK)]
            self._block = [block[index] for index in self._generator.permutation(BLOCK)]
        return self._space.at(self._block.pop(0))

    def tell(self, value: float) -> None:
        """Learn nothing."""

    def describe(self) -> dict[str, Any]:
        """Return the record of this tuner."""
        return {"name": "halton", "block": BLOCK, "skipped": SKIPPED, "seed": self._seed}


class SobolTuner:
    """Sobol's sequence, scrambled by the seed.

    Reference: Owen, `Scrambling Sobol' and Niederreiter-Xing Points
    <https://doi.org/10.1006/jcom.1998.0487>`_, 1998.
    """

    def __init__(self, space: SearchSpace, seed: int) -> None:
        from scipy.stats import qmc  # slow to import

        self._space = _with_dimensions("qmc", space)
        self._arguments = {"scramble": True, "bits": _SOBOL_BITS, "optimization": None}
        self._seed = seed
        self._sequence = qmc.Sobol(
            len(self._space.parameters), rng=np.random.default_rng(seed), **self._arguments
        )

    def ask(self) -> Point:
        """Return the next point."""
        (shares,) = self._sequence.random(1)
        return self._space.at(shares.tolist())

    def tell(self, value: float) -> None:
        """Learn nothing."""

    def describe(self) -> dict[str, Any]:
        """Return the record of this tuner."""
        version = metadata.version("scipy")
        return {
            "name": "qmc", "library": f"scipy {version}", "sequence": "Sobol", **self._arguments,
            "seed": self._seed,
        }  # fmt: skip


def halton_points(dimensions: int) -> Iterator[tuple[float, ...]]:
    """Yield AlgoPerf's points in the unit cube, without end.

    Raises:
        ValueError: There are too few primes for this number of dimensions.
    """
    primes = [n for n in range(3, _LARGEST_BASE) if all(n % p for p in range(2, math.isqrt(n) + 1))]
    if not 1 <= dimensions < len(primes):
        raise ValueError(f"Halton points have 1 to {len(primes) - 1} dimensions, got {dimensions}.")
    bases = primes[-dimensions - 1 : -1]
    digits, shifts = zip(*map(_scrambling, bases), strict=True)

    def points() -> Iterator[tuple[float, ...]]:
        index = SKIPPED
        while True:
            index += 1
            yield tuple(
                math.fmod(radical_inverse(index, order) + shift, 1.0)
                for order, shift in zip(digits, shifts, strict=True)
            )

    return points()


def radical_inverse(index: int, digits: Sequence[int]) -> float:
    r"""Return :math:`\sum_k \pi(a_k) / b^{k+1}`, where the :math:`a_k` are the digits of an index.

    Args:
        index: A positive number.
        digits: The permutation pi; its length is the base b.

    Examples:
        >>> radical_inverse(6, [0, 1])  # 110 in base 2, mirrored: 0.011
        0.375
    """
    base, inverse, weight = len(digits), 0.0, len(digits)
    while index:
        index, digit = divmod(index, base)
        inverse += digits[digit] / weight
        weight *= base
    return inverse


def _scrambling(base: int) -> tuple[list[int], float]:
    """Return a base's permutation of digits, which keeps 0, and its shift."""
    state = np.random.RandomState(base)
    order = list(range(1, base))
    state.shuffle(order)
    return [0, *order], state.random_sample()


def _with_dimensions(name: str, space: SearchSpace) -> Space:
    if isinstance(space, PointList):
        raise ValueError(
            f"`{name}` needs a dictionary of parameters: a list of whole points has no dimensions. "
            "`grid` runs through a list."
        )
    return space
