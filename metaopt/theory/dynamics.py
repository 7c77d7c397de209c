r"""Optimization as a linear time-varying system: the paper's system (2) and Definition 3.

Notation, the same in code, tests and documentation:

    d      number of parameters
    x_s    iterate;   f_s  its loss
    z_s    state, z_s = (x_s, x_{s-1}, grad f_{s-1}(x_{s-1})), in R^{3d}
    H_s    mean Hessian: grad f_s(x_s) = H_s (x_s - x_{s-1}) + grad f_s(x_{s-1})     equation (1)
    u_s    control, in R^d here: the paper's has 3d entries, of which B keeps the first d
    w_s    disturbance;   eta, delta  learning rate and weight decay

    z_{s+1} = A_s z_s + B u_s + w_s

             [ (1 - delta) I    0    -eta I ]        [ I ]         [         0           ]
    A_s   =  [       I          0       0   ]   B =  [ 0 ]   w_s = [         0           ]
             [      H_s       -H_s      0   ]        [ 0 ]         [ grad f_s(x_{s-1})   ]

As printed, the first row reads x_{s+1} = (1 - delta) x_s - eta grad f_{s-1}(x_{s-1}) + u_s: its
gradient is one step older than in Algorithms 1, 4 and 7. The variant whose gradient is of the same
step, x_{s+1} = (1 - delta) x_s - eta grad f_s(x_s) + u_s, follows with equation (1); it differs in
the first rows, A_s: ((1 - delta) I - eta H_s, eta H_s, 0) and w_s: -eta grad f_s(x_{s-1}). Choose
with ``gradient_age``: 1 as printed, 0 as in Algorithm 7.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float
from scipy.optimize import linprog
from scipy.sparse.linalg import LinearOperator, svds

_DENSE = 100  # parameters up to which matrices are multiplied; beyond, vectors


def transition(
    hessian: Float[np.ndarray, "d d"],
    learning_rate: float,
    weight_decay: float,
    gradient_age: int = 1,
) -> Float[np.ndarray, "3*d 3*d"]:
    """Return A_s."""
    _check_age(gradient_age)
    hessian = np.asarray(hessian)
    eye, zero = np.eye(len(hessian)), np.zeros_like(hessian)
    if gradient_age == 1:
        first = [(1 - weight_decay) * eye, zero, -learning_rate * eye]
    else:
        first = [(1 - weight_decay) * eye - learning_rate * hessian, learning_rate * hessian, zero]
    return np.block([first, [eye, zero, zero], [hessian, -hessian, zero]])


def control_matrix(dimension: int) -> Float[np.ndarray, "state d"]:
    """Return B."""
    return np.eye(3 * dimension, dimension)


def disturbance(
    gradient: Float[np.ndarray, " d"], learning_rate: float, gradient_age: int = 1
) -> Float[np.ndarray, " 3*d"]:
    """Return w_s, from grad f_s(x_{s-1})."""
    _check_age(gradient_age)
    gradient = np.asarray(gradient)
    zero = np.zeros_like(gradient)
    return np.concatenate(
        [zero if gradient_age == 1 else -learning_rate * gradient, zero, gradient]
    )


def _check_age(gradient_age: int) -> None:
    if gradient_age not in (0, 1):
        raise ValueError(
            f"`gradient_age` must be 1 (the printed system) or 0 (Algorithm 7), got {gradient_age}."
        )


def mean_hessian(
    hessian: Callable[[np.ndarray], np.ndarray],
    before: Float[np.ndarray, " d"],
    after: Float[np.ndarray, " d"],
    nodes: int = 4,
) -> Float[np.ndarray, "d d"]:
    r"""Return a matrix that satisfies equation (1): the Hessian's mean on a segment.

    .. math:: H = \int_0^1 \nabla^2 f(x_{s-1} + \tau (x_s - x_{s-1})) \, d\tau

    The paper takes one point of the segment for each row instead; this one is symmetric too. It
    costs ``nodes`` Hessians (Gauss-Legendre: exact for polynomials of degree 2 nodes + 1).
    """
    places, weights = np.polynomial.legendre.leggauss(nodes)
    terms = (
        w / 2 * np.asarray(hessian(before + (1 + p) / 2 * (after - before)))
        for p, w in zip(places, weights, strict=True)
    )
    return sum(terms, np.zeros((len(before), len(before))))


def product_norms(
    transitions: Float[np.ndarray, "steps n n"],
) -> Float[np.ndarray, "starts lengths"]:
    r"""Return spectral norms of all products of consecutive transitions, the newest on the left.

    Entry [r, n - 1] is :math:`\|A_{r+n-1} \cdots A_{r+1} A_r\|`, NaN where the interval leaves the
    sequence. Costs T^2 / 2 matrix products and norms.
    """
    steps, size = len(transitions), transitions.shape[1]
    norms = np.full((steps, steps), np.nan)
    for start in range(steps):
        product = np.eye(size)
        for length in range(1, steps - start + 1):
            product = transitions[start + length - 1] @ product
            norms[start, length - 1] = np.linalg.norm(product, 2)
    return norms


def interval_norms(
    hessians: Float[np.ndarray, "steps d d"],
    learning_rate: float,
    weight_decay: float,
    gradient_age: int = 1,
) -> Float[np.ndarray, "starts lengths"]:
    r"""Return :func:`product_norms` of the transitions with these mean Hessians.

    Beyond a hundred parameters no matrix is formed: Lanczos iterations multiply vectors through
    each interval and its transpose. Each costs n products of a Hessian with a vector instead of
    the 9 d^2 of a dense product, and a few dozen give the norm to a relative 1e-6. They find it
    from below.
    """
    _check_age(gradient_age)
    hessians = np.asarray(hessians, np.float64)
    steps, size = hessians.shape[:2]
    if size <= _DENSE:
        return product_norms(
            np.stack([transition(h, learning_rate, weight_decay, gradient_age) for h in hessians])
        )
    noise = np.random.default_rng(0).normal(size=3 * size)  # ARPACK would draw one of its own
    norms = np.full((steps, steps), np.nan)
    for first in range(steps):
        guess = noise
        for length in range(1, steps - first + 1):
            product = _Product(
                hessians[first : first + length], learning_rate, weight_decay, gradient_age
            )
            # A residual of 1e-2 leaves an error of its square in the norm.
            tolerance: Any = 1e-2  # annotated as an int in scipy
            _, found, directions = svds(product, k=1, ncv=10, tol=tolerance, v0=guess)
            norms[first, length - 1] = found[0]
            # One more transition turns the direction little. The noise keeps it from being
            # orthogonal to a new one.
            guess = np.asarray(directions)[0] + 1e-3 * noise / np.linalg.norm(noise)
    return norms


class _Product(LinearOperator):
    """The product of an interval's transitions, newest on the left, and its transpose."""

    def __init__(
        self, hessians: np.ndarray, learning_rate: float, weight_decay: float, gradient_age: int
    ) -> None:
        size = 3 * hessians.shape[1]
        super().__init__(np.float64, (size, size))
        self.hessians, self.keep = hessians, 1 - weight_decay
        # The first row of A_s has a gradient: H_s times a difference, or the state's last block.
        self.fresh, self.old = (
            (learning_rate, 0.0) if gradient_age == 0 else (0.0, learning_rate)
        )  # fmt: skip

    def _matvec(self, x: np.ndarray) -> np.ndarray:
        point, before, slope = np.split(x.ravel(), 3)
        for hessian in self.hessians:
            change = hessian @ (point - before)
            moved = self.keep * point - self.old * slope - self.fresh * change
            point, before, slope = moved, point, change
        return np.concatenate([point, before, slope])

    def _rmatvec(self, x: np.ndarray) -> np.ndarray:
        point, before, slope = np.split(x.ravel(), 3)
        for hessian in self.hessians[::-1]:
            change = hessian @ (slope - self.fresh * point)
            point, before, slope = self.keep * point + before + change, -change, -self.old * point
        return np.concatenate([point, before, slope])


class Stability(NamedTuple):
    """Constants of Definition 3: every product of n transitions is at most kappa^2 (1-gamma)^n."""

    kappa: float  # at least 1
    gamma: float  # in [0, 1); 0: no decay was measured, so not sequentially stable
    worst: Float[np.ndarray, " lengths"]  # the largest norm of each length


def fit_stability(norms: Float[np.ndarray, "starts lengths"]) -> Stability:
    r"""Return kappa and gamma for which Definition 3 holds on what was measured, tightly.

    With :math:`c_n` the largest norm over all measured intervals of n matrices, n = 1, 2, ...,
    Definition 3 asks for :math:`c_n \le \kappa^2 (1 - \gamma)^n`. Many pairs do. Here

    * gamma is that of the line over n that lies on or above :math:`\log c_n` on the longer half of
      the lengths and is lowest there on average, among those that do not rise; a linear program.
      Short lengths have no say: a transient would pass for decay.
    * kappa is the least, of 1 and above, with which Definition 3 then holds for all lengths.

    |I| = s - r + 1 counts matrices, where the paper's Figure 3 has |r - s| on its axis.

    Args:
        norms: As :func:`product_norms` returns them; rows of several runs may be stacked.
    """
    worst = np.nanmax(norms, axis=0)
    lengths = np.arange(1, len(worst) + 1)
    heights = np.log(np.maximum(worst, np.finfo(float).tiny))
    longer = slice(len(worst) // 2, None)
    # Variables: the line's value at n = 0, and its decay -log(1 - gamma), which is not negative.
    result = linprog(
        [1.0, -lengths[longer].mean()],
        A_ub=np.stack([-np.ones(len(lengths[longer])), lengths[longer]], 1),
        b_ub=-heights[longer],
        bounds=[(None, None), (0, None)],
    )
    assert result.success, result.message
    rate = result.x[1]
    level = max(0.0, np.max(heights + rate * lengths))
    return Stability(float(np.exp(level / 2)), float(-np.expm1(-rate)), worst)
