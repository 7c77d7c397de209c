r"""Theorem 1 on quadratics, where the best controller of its class is known exactly.

``tests/performance/theory.py`` prints the terms. Letters as in :mod:`metaopt.theory.reduction` and
:mod:`metaopt.theory.hindsight`.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from metaopt.theory.dynamics import disturbance, transition
from metaopt.theory.hindsight import Hindsight, Recording, best_shared_controller, full_basis
from metaopt.theory.reduction import Inner, nonconvex_meta_optimization
from metaopt.theory.theorem_on_finite_sums import SMOOTHNESS, TheoremRow, theorem_bandit


class Quadratics(NamedTuple):
    """Losses (x - c)' Q (x - c) / 2, one per episode."""

    curvatures: Float[Array, "*episodes d d"]  # Q_i, eigenvalues in [0.1, beta]
    minima: Float[Array, "*episodes d"]  # c_i


def make_quadratics(seed: int, episodes: int, dimension: int) -> Quadratics:
    """Return quadratics with independent curvatures, and minima at a distance of 1 from 0."""
    rng = np.random.default_rng(seed)
    axes = np.linalg.qr(rng.normal(size=(episodes, dimension, dimension)))[0]
    values = rng.uniform(0.1, SMOOTHNESS, size=(episodes, 1, dimension))
    minima = rng.normal(size=(episodes, dimension))
    minima /= np.linalg.norm(minima, axis=1, keepdims=True)
    return Quadratics(jnp.float32((axes * values) @ axes.transpose(0, 2, 1)), jnp.float32(minima))


def quadratic_loss(x: Float[Array, " d"], problem: Quadratics) -> Float[Array, ""]:
    """Return (x - c)' Q (x - c) / 2."""
    gap = x - problem.minima
    return gap @ problem.curvatures @ gap / 2


class HindsightRun(NamedTuple):
    """Theorem 1 on quadratics, with what its comparator is."""

    row: TheoremRow
    best: Hindsight  # the best controller of the class, its cost over all rounds
    recordings: list[Recording]  # one for each epoch of each episode


def quadratic_theorem(
    episodes: int,
    epochs: int,
    steps: int,
    inner: Inner,
    carry: object,
    *,
    learning_rate: float,
    weight_decay: float = 0.0,
    gradient_age: int,
    lags: int = 1,
    seed: int = 0,
) -> HindsightRun:
    """Run Algorithm 2 on quadratics in 2 dimensions and compare it with the best controller.

    The comparator is known exactly: full matrices M^1 .. M^L, the same for all rounds, of least
    cost (:mod:`metaopt.theory.hindsight`). In each sub-problem it starts from the centre that the
    algorithm had, with the disturbances that the algorithm met there and none from before. Costs
    of a sub-problem are above its minimum, so its cost is the comparator's term.

    Args:
        episodes: N.
        epochs: K.
        steps: S.
        inner: A, on sub-problems of Hessian Q_i + 2 beta.
        carry: What A starts from.
        learning_rate: eta of A and of the system that the comparator controls.
        weight_decay: delta of both.
        gradient_age: Which gradient A steps along: 0 for gradient descent, 1 for Algorithm 5.
        lags: L of the comparator.
        seed: Of the quadratics.
    """
    problems, starts = make_quadratics(seed, episodes, 2), jnp.zeros((episodes, 2))
    shape = episodes, epochs, steps
    data = jax.tree.map(
        lambda leaf: jnp.broadcast_to(leaf[:, None, None], shape + leaf.shape[1:]), problems
    )
    run = functools.partial(nonconvex_meta_optimization, quadratic_loss, inner=inner)
    ran = jax.jit(functools.partial(run, beta=SMOOTHNESS))(starts, data, carry=carry)
    centres, iterates = (np.asarray(part, np.float64) for part in (ran.centres, ran.iterates))
    curvatures, minima = (np.asarray(leaf, np.float64) for leaf in problems)

    recordings, ours = [], 0.0
    for i, (q, c) in enumerate(zip(curvatures, minima, strict=True)):
        hessian = q + 2 * SMOOTHNESS * np.eye(2)
        for k in range(epochs):
            points = iterates[i, k]
            least = np.linalg.solve(hessian, q @ c + 2 * SMOOTHNESS * points[0])
            before = np.concatenate([points[:1], points[:-1]])
            recordings.append(
                Recording(
                    np.concatenate([points[0], points[0], np.zeros(2)]),
                    np.array([transition(hessian, learning_rate, weight_decay, gradient_age)])
                    .repeat(steps, axis=0),
                    np.array(
                        [
                            disturbance(hessian @ (x - least), learning_rate, gradient_age)
                            for x in before
                        ]
                    ),
                    np.array([hessian]).repeat(steps, axis=0),
                    np.array([least]).repeat(steps, axis=0),
                )
            )  # fmt: skip
            ours += np.einsum("si,ij,sj->", points - least, hessian, points - least) / 2
    best = best_shared_controller(recordings, full_basis(lags, 2))

    gaps = centres - minima[:, None]
    values = np.einsum("nki,nij,nkj->nk", gaps, curvatures, gaps) / 2
    slopes = np.einsum("nij,nkj->nki", curvatures, gaps[:, :-1])
    scale = 6 * SMOOTHNESS / (episodes * epochs * steps)
    row = TheoremRow(
        float(np.mean(np.sum(slopes**2, axis=-1))),
        float(6 * SMOOTHNESS * np.mean(values[:, 0] - values[:, -1]) / epochs),
        float(scale * (ours - best.cost)),
        float(scale * best.cost),
    )
    return HindsightRun(row, best, recordings)


def quadratic_theorem_with_bandit(
    episodes: int, epochs: int, steps: int, seed: int = 0
) -> HindsightRun:
    """Return :func:`quadratic_theorem` with Algorithm 5 as A, set as in the experiment above."""
    inner, carry = theorem_bandit(episodes * epochs * steps, seed)
    return quadratic_theorem(
        episodes, epochs, steps, inner, carry, learning_rate=0.1, gradient_age=1, seed=seed
    )
