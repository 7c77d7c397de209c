"""The parts of a step that the optimizers with a controller share.

Letters as in :mod:`metaopt.controllers.base`; x_t are the parameters, g_t the gradient, eta the
learning rate, delta the weight decay, O the meta-optimizer.
"""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from .controllers.base import Controller
from .xla.meshes import reshard
from .xla.precision import widen


def as_transformation(
    given: optax.GradientTransformation | None,
) -> optax.GradientTransformationExtraArgs:
    """Return a transformation that takes further arguments, the identity for ``None``."""
    return optax.with_extra_args_support(optax.identity() if given is None else given)


def init_disturbance(disturbance: optax.GradientTransformation, params: Any) -> Any:
    """Return a new state of the disturbance's transformation, which may keep the parameters."""
    return disturbance.init(jax.tree.map(jnp.copy, widen(params)))


def widened(gradient: Any, params: Any) -> tuple[Any, Any]:
    """Return the gradient and the parameters, if there are any, in float32 at least."""
    slope = widen(gradient)
    if params is None:
        return slope, None
    point = widen(params)
    return jax.tree.map(reshard, slope, point), point  # jax 0.7 splits some in other ways


def decays(weight_decay: Any) -> bool:
    """Return whether there may be weight decay: an array may be traced, so it counts as some."""
    return not isinstance(weight_decay, int | float) or weight_decay != 0


def base_step(slope: Any, point: Any, rate: Any, weight_decay: Any) -> Any:
    """Return ``-eta g - delta x``."""
    if not decays(weight_decay):
        return jax.tree.map(lambda g: (-rate * g).astype(g.dtype), slope)
    return jax.tree.map(lambda g, x: (-rate * g - weight_decay * x).astype(g.dtype), slope, point)


def disturb(
    disturbance: optax.GradientTransformationExtraArgs,
    state: Any,
    slope: Any,
    point: Any,
    extra_args: dict[str, Any],
) -> tuple[Any, Any]:
    """Return the disturbance and the new state of its transformation.

    Args:
        disturbance: The transformation.
        state: The optimizer's state, with ``count`` and ``disturbance``. A new episode starts with
            a count of 0, and the transformation's state restarts here, because
            :func:`~metaopt.start_episode` does not know the transformation.
        slope: The gradient.
        point: The parameters, or ``None``.
        extra_args: Further arguments of ``update``.
    """
    fresh = init_disturbance(disturbance, slope if point is None else point)
    before = jax.tree.map(
        lambda new, old: jnp.where(state.count == 0, new, old), fresh, state.disturbance
    )
    return disturbance.update(slope, before, point, **extra_args)


def descend(
    meta_optimizer: optax.GradientTransformationExtraArgs,
    state: Any,
    meta_gradient: Any,
    due: Any,
    extra_args: dict[str, Any],
) -> tuple[Controller, Any]:
    """Return the controller and the state of O after M <- O(M, meta-gradient), where it is due."""
    weights = state.controller.weights
    updates, meta_state = meta_optimizer.update(
        meta_gradient, state.meta_state, weights, **extra_args
    )
    learned = optax.apply_updates(weights, updates), meta_state
    weights, meta_state = jax.tree.map(
        lambda new, old: jnp.where(due, new, old), learned, (weights, state.meta_state)
    )
    return state.controller.with_weights(weights), meta_state
