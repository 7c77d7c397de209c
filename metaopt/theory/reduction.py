r"""From nonconvex to strongly convex: Algorithms 2 and 3 of the paper.

Notation, the same in code, tests and documentation:

    f_i      nonconvex loss of episode i, bounded below and beta-smooth;   N  number of episodes
    x_{i,k}  centre of epoch k;                                            K  number of epochs
    f_{i,k}  sub-problem, f_{i,k}(x) = f_i(x) + beta ||x - x_{i,k}||^2
    S        inner steps per epoch;   T = K S
    beta     smoothness of f_i

As the Hessian of f_i is at least -beta, that of f_{i,k} lies between beta and 3 beta: sub-problems
are strongly convex. Solving one to within epsilon lowers f_i by at least
||grad f_i(x_{i,k})||^2 / (6 beta) - epsilon, so that

    min_k ||grad f_i(x_{i,k})||^2 <= 6 beta ((f_i(x_{i,1}) - inf f_i) / K + epsilon)
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

DataLoss = Callable[[Array, Any], Array]  # (point, datum) -> scalar
Inner = Callable[[DataLoss, Array, Any, Any], tuple[Array, Any]]


def regularize(loss: DataLoss, centre: Float[Array, " d"], beta: float) -> DataLoss:
    r"""Return the sub-problem :math:`f(x) + \beta \|x - c\|^2`."""
    return lambda x, datum: loss(x, datum) + beta * jnp.sum((x - centre) ** 2)


def gradient_descent(rate: Any, weight_decay: float = 0.0) -> Inner:
    """Return gradient descent as an inner algorithm, whose carry never changes.

    The rate may be traced.
    """

    def inner(objective: DataLoss, start: Array, data: Any, carry: Any) -> tuple[Array, Any]:
        def step(x: Array, datum: Any) -> tuple[Array, Array]:
            return (1 - weight_decay) * x - rate * jax.grad(objective)(x, datum), x

        return jax.lax.scan(step, start, data)[1], carry

    return inner


class Reduction(NamedTuple):
    """The points of a run of Algorithm 2."""

    centres: Float[Array, "episodes centres d"]  # x_{i,1} .. x_{i,K+1}
    iterates: Float[Array, "episodes epochs steps d"]  # x_{i,k,s}
    carry: Any  # of the inner algorithm, after the last epoch


def nonconvex_meta_optimization(
    loss: DataLoss,
    starts: Float[Array, "episodes d"],
    data: Any,
    inner: Inner,
    carry: Any,
    beta: float,
) -> Reduction:
    r"""Run Algorithm 2: epochs of an inner algorithm on regularised losses.

    .. math:: x_{i,k+1} = \frac1S \sum_{s=1}^S x_{i,k,s}

    The first inner iterate is the centre, so the average contains it. What the inner algorithm
    learns (``carry``) goes from epoch to epoch and from episode to episode.

    Args:
        loss: ``loss(x, datum)``: f_i on the mini-batch of one step.
        starts: ``x_{i,1}``; the number of rows is N.
        data: A pytree of leaves (N, K, S, ...): the datum of every step.
        inner: ``inner(objective, start, data, carry) -> (iterates, carry)``: S steps on
            ``objective(x, datum)`` from ``start``, with iterates (S, d), the first being ``start``.
        carry: The initial carry of the inner algorithm.
        beta: Smoothness of the losses; also the weight of the regulariser.
    """

    def epoch(state: tuple[Array, Any], batches: Any) -> tuple[Any, Any]:
        centre, carry = state
        iterates, carry = inner(regularize(loss, centre, beta), centre, batches, carry)
        return (jnp.mean(iterates, axis=0), carry), (centre, iterates)

    def episode(carry: Any, given: tuple[Array, Any]) -> tuple[Any, Any]:
        start, batches = given
        (last, carry), (centres, iterates) = jax.lax.scan(epoch, (start, carry), batches)
        return carry, (jnp.concatenate([centres, last[None]]), iterates)

    carry, (centres, iterates) = jax.lax.scan(episode, carry, (starts, data))
    return Reduction(centres, iterates, carry)


class Stationary(NamedTuple):
    """The result of Algorithm 3."""

    best: Float[Array, " d"]  # the centre with the smallest gradient norm
    centres: Float[Array, "centres d"]  # x_1 .. x_{K+1}
    gradient_norms: Float[Array, " centres"]


def reduce_to_convex(
    loss: Callable[[Array], Array],
    start: Float[Array, " d"],
    solver: Callable[[Callable[[Array], Array], Array], Array],
    beta: float,
    epochs: int,
) -> Stationary:
    """Run Algorithm 3, which the paper names but does not print, with any approximate solver.

    Repeats: centre the regulariser, solve the sub-problem approximately, move the centre to the
    solution. Costs ``epochs`` solves, and a gradient per centre to choose the best.

    Args:
        loss: f.
        start: x_1.
        solver: ``solver(objective, start)``, an approximate minimiser. It is traced by JAX.
        beta: Smoothness of the loss.
        epochs: K.
    """
    if epochs < 1:
        raise ValueError(f"`epochs` must be at least 1, got {epochs}.")

    def epoch(centre: Array, _: None) -> tuple[Array, Array]:
        objective = regularize(lambda x, _: loss(x), centre, beta)
        return solver(lambda x: objective(x, None), centre), centre

    last, centres = jax.lax.scan(epoch, start, length=epochs)
    centres = jnp.concatenate([centres, last[None]])
    norms = jnp.linalg.norm(jax.vmap(jax.grad(loss))(centres), axis=1)
    return Stationary(centres[jnp.argmin(norms)], centres, norms)
