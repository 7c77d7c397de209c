r"""Hypergradient descent: a learning rate that follows its own gradient (Baydin et al., 2017).

Notation, the same in code and tests:

    x_t      parameters before step t, counted from 1; f_t the loss of step t
    g_t      gradient of f_t at x_t; g_0 = 0
    alpha_t  learning rate of step t; alpha_0 is given
    beta     learning rate of the learning rate
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, PyTree

from .arguments import as_parameters
from .xla.precision import cast, narrow, real_dtype
from .xla.products import inner_product


class HypergradientState(NamedTuple):
    """State of :func:`hypergradient_descent`."""

    learning_rate: Float[Array, ""]  # alpha_{t-1}
    previous: PyTree  # g_{t-1}, shaped like the parameters


def hypergradient(gradient: PyTree, previous: PyTree) -> Float[Array, ""]:
    r"""Return the derivative of the current loss by the learning rate of the last step.

    .. math:: h_t = \frac{\partial f_t(x_{t-1} - \alpha g_{t-1})}{\partial \alpha}
        = -\langle g_t, g_{t-1} \rangle

    Args:
        gradient: ``g_t``.
        previous: ``g_{t-1}``, of the same structure.

    Returns:
        A scalar, accumulated in float32 or wider.
    """
    products = jax.tree.leaves(jax.tree.map(inner_product, gradient, previous))
    return -functools.reduce(jnp.add, products, jnp.zeros((), real_dtype(previous)))


def hypergradient_descent(
    learning_rate: float | Array, hyper_rate: float | Array
) -> optax.GradientTransformationExtraArgs:
    r"""Run gradient descent on the parameters and on the learning rate.

    .. math::

        \alpha_t &= \alpha_{t-1} + \beta \langle g_t, g_{t-1} \rangle \\
        x_{t+1} &= x_t - \alpha_t g_t

    The learning rate grows if successive gradients have a positive inner product, and shrinks if
    it is negative. It is not clipped: with a large ``hyper_rate`` it can become negative or
    diverge. ``hyper_rate = 0`` is gradient descent. The first step uses ``learning_rate``.

    Costs one extra copy of the parameters, and one inner product a step.

    Args:
        learning_rate: ``alpha_0``, a number or a scalar array, not a schedule.
        hyper_rate: ``beta``, a number or a scalar array, not a schedule.

    Returns:
        A transformation whose updates go straight to ``optax.apply_updates``.

    Raises:
        ValueError: An argument is a schedule or not a scalar; or, from ``init``, a parameter is
            not floating-point.

    Examples:
        >>> tx = hypergradient_descent(0.1, 0.01)
        >>> state = tx.init(jnp.zeros(()))
        >>> u1, state = tx.update(jnp.array(2.0), state)  # -0.1 * 2
        >>> u2, state = tx.update(jnp.array(1.0), state)  # -(0.1 + 0.01 * 1 * 2) * 1
        >>> print(f"{float(u1):.2f} {float(u2):.2f}")
        -0.20 -0.12

    References:
        Baydin, Cornish, Martinez Rubio, Schmidt and Wood, `Online Learning Rate Adaptation with
        Hypergradient Descent <https://arxiv.org/abs/1703.04782>`_, 2017, Algorithm 4.
    """
    for name, value in {"learning_rate": learning_rate, "hyper_rate": hyper_rate}.items():
        if callable(value):
            raise ValueError(f"`{name}` must be a number, got a schedule.")
        if jnp.shape(value) != ():
            raise ValueError(f"`{name}` must be a scalar, got shape {jnp.shape(value)}.")

    def init_fn(params: optax.Params) -> HypergradientState:
        params = as_parameters(params)
        alpha = jnp.array(learning_rate, real_dtype(params))  # a copy: states are donated
        return HypergradientState(alpha, jax.tree.map(lambda p: jnp.zeros_like(p, p.dtype), params))

    def update_fn(
        updates: optax.Updates, state: Any, params: optax.Params | None = None, **_: Any
    ) -> tuple[optax.Updates, HypergradientState]:
        del params
        alpha = state.learning_rate - hyper_rate * hypergradient(updates, state.previous)
        alpha = cast(alpha, state.learning_rate.dtype)
        steps = narrow(jax.tree.map(lambda g: -alpha * g, updates), updates)
        return steps, HypergradientState(alpha, narrow(updates, state.previous))

    # optax types a state as an array, or containers that it knows
    return optax.GradientTransformationExtraArgs(init_fn, update_fn)  # pyright: ignore
