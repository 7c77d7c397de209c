r"""The best fixed disturbance-feedback controller in hindsight, on quadratics.

Letters as in :mod:`metaopt.theory.dynamics`, and

    L      lags;   T  steps
    M^l    weights of lag l, l = 1..L, (d, 3d): the paper's have 3d rows, of which B keeps d
    u_s    control, u_s = sum_l M^l w_{s-l}, *added* to the iterate (Algorithm 7 subtracts)
    Q_s, c_s   cost of step s, (x_s - c_s)' Q_s (x_s - c_s) / 2
    p      coordinates of M in a basis of controllers

The disturbances are recorded and stay what they were, as in the paper's rollouts (Algorithm 4) and
as in control, where they do not depend on the controller. Then z_s is affine in M and the total
cost a quadratic: least squares. A controller that is really run meets other gradients.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from metaopt.theory.dynamics import control_matrix


class Recording(NamedTuple):
    """The system, the disturbances and the costs of T steps."""

    start: Float[np.ndarray, " state"]  # z_1
    transitions: Float[np.ndarray, "steps state state"]  # A_s
    disturbances: Float[np.ndarray, "steps state"]  # w_s; 0 before the first
    curvatures: Float[np.ndarray, "steps d d"]  # Q_s, positive semidefinite
    targets: Float[np.ndarray, "steps d"]  # c_s


class Hindsight(NamedTuple):
    """The best controller."""

    weights: Float[np.ndarray, "lags d state"]  # the shortest one, if several are best
    cost: float  # total over all steps


def full_basis(lags: int, dimension: int) -> Float[np.ndarray, "p lags d state"]:
    """Return the basis of all controllers: 3 d^2 L coordinates."""
    size = 3 * dimension**2 * lags
    return np.eye(size).reshape(size, lags, dimension, 3 * dimension)


def scalar_basis(lags: int, dimension: int) -> Float[np.ndarray, "p lags d state"]:
    """Return the basis of one number per lag, times the gradient in the disturbance's last block.

    This is Algorithm 7's controller, up to sign.
    """
    on_gradient = np.eye(dimension, 3 * dimension, k=2 * dimension)
    return np.eye(lags)[:, :, None, None] * on_gradient


def replay(
    recording: Recording, weights: Float[np.ndarray, "lags d state"]
) -> Float[np.ndarray, "steps d"]:
    """Return the iterates x_1 .. x_T under a fixed controller, with the recorded disturbances."""
    dimension = recording.targets.shape[1]
    inject, state, iterates = control_matrix(dimension), recording.start, []
    for step, (matrix, noise) in enumerate(
        zip(recording.transitions, recording.disturbances, strict=True)
    ):
        iterates.append(state[:dimension])
        past = _past(recording.disturbances, step, len(weights))
        state = matrix @ state + inject @ np.einsum("lij,lj->i", weights, past) + noise
    return np.array(iterates)


def total_cost(recording: Recording, weights: Float[np.ndarray, "lags d state"]) -> float:
    """Return the cost of the T steps under a fixed controller."""
    gaps = replay(recording, weights) - recording.targets
    return float(np.einsum("si,sij,sj->", gaps, recording.curvatures, gaps) / 2)


def best_controller(recording: Recording, basis: Float[np.ndarray, "p lags d state"]) -> Hindsight:
    r"""Return the controller of least total cost in the span of a basis.

    .. math:: x_s = x_s^0 + X_s p, \qquad
        \min_p \sum_s \tfrac12 \| Q_s^{1/2} (x_s^0 - c_s + X_s p) \|^2

    where :math:`X_s` follows the system without its disturbances: each column is the response to
    one member of the basis. Costs T products of A_s with a (3d, P) matrix and one least squares of
    (T d, P).
    """
    return best_shared_controller([recording], basis)


def best_shared_controller(
    recordings: Sequence[Recording], basis: Float[np.ndarray, "p lags d state"]
) -> Hindsight:
    """Return the one controller of least cost over several recordings, all costs together.

    Each recording begins anew, without disturbances before its first step. Costs what
    :func:`best_controller` costs for each, and one least squares of all rows.

    Raises:
        ValueError: There is no recording.
    """
    if not recordings:
        raise ValueError("`recordings` must hold at least one recording, got none.")
    rows = [_least_squares(recording, basis) for recording in recordings]
    matrix, values = (np.concatenate(parts) for parts in zip(*rows, strict=True))
    p = np.linalg.lstsq(matrix, values)[0]
    weights = np.einsum("p,plij->lij", p, basis)
    return Hindsight(weights, sum(total_cost(recording, weights) for recording in recordings))


def _least_squares(
    recording: Recording, basis: Float[np.ndarray, "p lags d state"]
) -> tuple[Float[np.ndarray, "rows p"], Float[np.ndarray, " rows"]]:
    """Return a matrix and values such that the cost is |matrix p - values|^2 / 2."""
    dimension = recording.targets.shape[1]
    inject, lags = control_matrix(dimension), basis.shape[1]
    response, responses = np.zeros((len(recording.start), len(basis))), []
    for step, matrix in enumerate(recording.transitions):
        responses.append(response[:dimension])
        past = _past(recording.disturbances, step, lags)
        response = matrix @ response + inject @ np.einsum("plij,lj->ip", basis, past)
    gaps = replay(recording, np.zeros(basis.shape[1:])) - recording.targets
    roots = np.array([_root(q) for q in recording.curvatures])
    matrix = (roots @ np.array(responses)).reshape(-1, len(basis))
    return matrix, -np.einsum("sij,sj->si", roots, gaps).ravel()


def _past(disturbances: np.ndarray, step: int, lags: int) -> Float[np.ndarray, "lags state"]:
    """Return w_{s-1} .. w_{s-L}."""
    rows = disturbances[max(step - lags, 0) : step][::-1]
    return np.concatenate([rows, np.zeros((lags - len(rows), disturbances.shape[1]))])


def _root(matrix: Float[np.ndarray, "d d"]) -> Float[np.ndarray, "d d"]:
    """Return R with R' R equal to a positive semidefinite matrix; Cholesky would want definite."""
    values, vectors = np.linalg.eigh(matrix)
    return np.sqrt(np.maximum(values, 0))[:, None] * vectors.T
