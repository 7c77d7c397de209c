r"""Frozen control: train with a controller that was learned before.

Letters as in :mod:`metaopt.controllers.base`; x_t are the parameters, g_t the gradient, eta the
learning rate, delta the weight decay.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, DTypeLike, Int, PyTree

from .arguments import as_parameters, check_complex_dtype
from .controllers.base import Controller
from .steps import as_transformation, base_step, decays, disturb, init_disturbance, widened
from .xla.precision import narrow


class FrozenControlState(NamedTuple):
    """State of :func:`frozen_control`."""

    count: Int[Array, ""]  # steps taken in this episode
    controller: Controller  # its weights are M
    memory: PyTree  # the controller's: what it keeps of past disturbances
    disturbance: PyTree  # state of the disturbance's transformation


def frozen_control(
    controller: Controller,
    learning_rate: float | jax.Array | optax.Schedule = 0.0,
    *,
    weight_decay: float = 0.0,
    disturbance: optax.GradientTransformation | None = None,
    history_dtype: DTypeLike | None = None,
) -> optax.GradientTransformationExtraArgs:
    r"""Take the steps that a learned controller commands; nothing is learned.

    .. math:: x_{t+1} = (1 - \delta) x_t - \eta_t g_t - \sum_{h=0}^{H-1} M_h \, w_{t-h}

    Costs no gradient beyond the given one. The state holds the controller's memory: H
    parameter-sized arrays for lags, K for K averages, and what ``disturbance`` keeps.

    Args:
        controller: The learned controller, say ``state.controller`` of an optimizer that learned,
            or that of :func:`~metaopt.load_controller`.
        learning_rate: eta: a number or an optax schedule.
        weight_decay: delta, *not* scaled by the learning rate.
        disturbance: The transformation with which the controller was learned.
        history_dtype: The dtype of the memory, say ``jnp.bfloat16``; by default the parameters',
            float32 at least.

    Raises:
        ValueError: From ``init``, a parameter is no floating-point number, or the weights do not
            fit the parameters; from ``update``, parameters are missing where weights decay.

    Examples:
        >>> from metaopt import ScalarLags
        >>> tx = frozen_control(ScalarLags(jnp.array([0.1, 0.05])))
        >>> state = tx.init(jnp.zeros(()))
        >>> u1, state = tx.update(jnp.array(1.0), state)  # -0.1 * 1
        >>> u2, state = tx.update(jnp.array(2.0), state)  # -0.1 * 2 - 0.05 * 1
        >>> print(f"{float(u1):.2f} {float(u2):.2f}")
        -0.10 -0.25
    """
    disturbing = as_transformation(disturbance)

    def init_fn(params: optax.Params) -> FrozenControlState:
        params = as_parameters(params)
        check_complex_dtype(history_dtype, params)
        ready = controller.init(params, controller.history)
        return FrozenControlState(
            count=jnp.zeros((), jnp.int32),
            controller=ready,
            memory=ready.init_memory(params, rollout=0, dtype=history_dtype),
            disturbance=init_disturbance(disturbing, params),
        )

    def update_fn(
        updates: optax.Updates, state: Any, params: optax.Params | None = None, **extra_args: Any
    ) -> tuple[optax.Updates, FrozenControlState]:
        if params is None and decays(weight_decay):
            raise ValueError("`params` must be passed to update() to decay weights.")
        if not jax.tree.leaves(updates):  # all parameters are masked
            return updates, state
        slope, point = widened(updates, params)
        rate = learning_rate(state.count) if callable(learning_rate) else learning_rate
        step = base_step(slope, point, rate, weight_decay)
        disturbance, disturbance_state = disturb(disturbing, state, slope, point, extra_args)
        memory = state.controller.observe(state.memory, disturbance)
        control = narrow(state.controller.controls(memory, 1, slope)[0], slope)
        steps = narrow(jax.tree.map(jnp.subtract, step, control), updates)
        return steps, FrozenControlState(
            state.count + 1, state.controller, memory, disturbance_state
        )

    # optax types a state as an array, or containers that it knows
    return optax.GradientTransformationExtraArgs(init_fn, update_fn)  # pyright: ignore
