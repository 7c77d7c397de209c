"""ScheduleFree+: Schedule-Free AdamW whose step size is a Polyak step.

Letters as in Defazio, 2026 (arXiv 2605.19095): z is AdamW's iterate, x the average that is
evaluated, y between them, where gradients are taken. ``update_params`` holds y; at an evaluation
the runner gets x, and training goes on from y.

Untuned: the defaults of the author's code (Adam's moments 0.9 and 0.95, weight 0.9 of x in y, no
weight decay, zero as the lower bound of the loss), 5 % of the step hint as warm-up, and x = z until
its end, as the author advises. The warm-up is the only use of the step hint.
"""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from metaopt.bench.contract import kit

BETA1, BETA2, EPSILON = 0.9, 0.95, 1e-8  # of Adam
AVERAGE_IN_Y = 0.9
WARMUP = 0.05  # of the step hint


class ScheduleFreePlusState(NamedTuple):
    """State beside the parameters, which are y: four copies of them."""

    x: optax.Params
    z: optax.Params
    adam: optax.OptState
    largest_rate: jax.Array
    weight_sum: jax.Array  # of the average
    count: jax.Array


def optimizer(step_hint: int) -> optax.GradientTransformationExtraArgs:
    """Return ScheduleFree+; its ``update`` needs the parameters and the loss as ``value``."""
    warmup = max(1, round(WARMUP * step_hint))
    adam = optax.scale_by_adam(b1=BETA1, b2=BETA2, eps=EPSILON)

    def init(params: optax.Params) -> ScheduleFreePlusState:
        zero = jnp.zeros(())
        return ScheduleFreePlusState(
            params, params, adam.init(params), zero, zero, jnp.zeros((), jnp.int32)
        )

    def update(
        updates: optax.Updates,
        state: Any,
        params: optax.Params | None = None,
        *,
        value: Any,
        **extra_args: Any,
    ) -> tuple[optax.Updates, ScheduleFreePlusState]:
        del extra_args
        count = state.count + 1
        # A bound from convexity on the loss at x: its tangent at y, where the gradient is.
        predicted = value + AVERAGE_IN_Y * optax.tree.vdot(
            updates, optax.tree.sub(state.z, state.x)
        )
        # For Gaussian entries this is the Euclidean norm times the root of their number.
        norm = math.sqrt(math.pi / 2) * optax.tree.norm(updates, ord=1)
        polyak = jnp.where(norm > 0, jnp.maximum(0.0, predicted) / norm, 0.0)
        rate = polyak * jnp.minimum(1.0, count / warmup)

        direction, adam_state = adam.update(updates, state.adam)
        z = optax.tree.add_scale(state.z, -rate, direction)
        largest_rate = jnp.maximum(rate, state.largest_rate)
        weight = jnp.where(count <= warmup, 0.0, largest_rate**2)
        weight_sum = state.weight_sum + weight
        share = jnp.where(weight_sum > 0, weight / weight_sum, 1.0)
        x = optax.tree.add_scale(state.x, share, optax.tree.sub(z, state.x))
        y = optax.tree.add_scale(z, AVERAGE_IN_Y, optax.tree.sub(x, z))
        return optax.tree.sub(y, params), ScheduleFreePlusState(
            x, z, adam_state, largest_rate, weight_sum, count
        )

    # optax types no keyword that update() needs
    return optax.GradientTransformationExtraArgs(init, update)  # pyright: ignore


def average(state: ScheduleFreePlusState, params: optax.Params) -> optax.Params:
    """Return x, the parameters to evaluate."""
    del params
    return state.x


_baseline = kit.Baseline(optimizer, {}, eval_params=average)
get_batch_size = kit.get_batch_size
data_selection = kit.data_selection
init_optimizer_state = _baseline.init_optimizer_state
update_params = _baseline.update_params
prepare_for_eval = _baseline.prepare_for_eval
