r"""Sums of updates: several optimizers side by side, whose updates add up.

A sum of :func:`~metaopt.online_control` learners is one learner over all of their controls: the
meta-gradient of a weight W, :math:`-\langle g_t, \partial u_{t-1} / \partial W \rangle`, does not
depend on the controls of the others. In log space the weights then show which disturbance a problem
needs.
"""

from typing import Any

import jax
import optax

from .arguments import as_parameters
from .optimizer import MetaOptimizerState


def sum_updates(*optimizers: optax.GradientTransformation) -> optax.GradientTransformationExtraArgs:
    r"""Add up the updates of several optimizers, :math:`u_t = \sum_i u_t^{(i)}`.

    Every optimizer gets the same gradients, parameters and further arguments of ``update``. The
    cost is the sum of their costs, with one gradient for all. A :func:`~metaopt.meta_optimizer`
    cannot be combined with others, because its rollouts would replay only its own updates.

    Args:
        optimizers: At least one.

    Raises:
        ValueError: There are no optimizers; or, from ``init``, a ``meta_optimizer`` is one of
            several, or a parameter is not floating-point.

    Examples:
        >>> import jax.numpy as jnp
        >>> tx = sum_updates(optax.sgd(0.1), optax.sgd(0.2))
        >>> updates, _ = tx.update(jnp.ones(()), tx.init(jnp.ones(())))
        >>> print(f"{updates:.1f}")
        -0.3
    """
    if not optimizers:
        raise ValueError("`optimizers` must be at least one, got none.")
    parts = [optax.with_extra_args_support(optimizer) for optimizer in optimizers]

    def init_fn(params: optax.Params) -> tuple[Any, ...]:
        params = as_parameters(params)
        states = tuple(part.init(params) for part in parts)
        if len(parts) > 1 and any(map(_replays, jax.tree.leaves(states, is_leaf=_replays))):
            raise ValueError(
                "`optimizers` must not hold a `meta_optimizer` beside others: its rollouts would "
                "replay only its own updates. Use `online_control`, which has no rollouts."
            )
        return states

    def update_fn(
        updates: optax.Updates,
        state: Any,
        params: optax.Params | None = None,
        **extra_args: Any,
    ) -> tuple[optax.Updates, tuple[Any, ...]]:
        found = [
            part.update(updates, before, params, **extra_args)
            for part, before in zip(parts, state, strict=True)
        ]
        steps, states = zip(*found, strict=True)
        total = jax.tree.map(lambda *leaves: sum(leaves[1:], start=leaves[0]), *steps)
        return total, states

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)


def _replays(part: Any) -> bool:
    return isinstance(part, MetaOptimizerState)
