r"""Mixtures: several optimizers at once, whose updates add up.

Of recorded meta-optimizers it is one over all of their controls. The meta-gradient of a weight,
:math:`-\langle g_t, \partial u_{t-1} / \partial W \rangle`, does not depend on what the others
command, so learners side by side do what one learner over all of their averages would, each with a
disturbance, a bank and a meta-optimizer of its own. In log space the weights then say which
disturbance a problem wants.
"""

from typing import Any

import jax
import optax

from metaopt.arguments import as_parameters
from metaopt.controllers.lags import Controller
from metaopt.episodes import is_learner, start_episode
from metaopt.guards import Restart


def mixture(*optimizers: optax.GradientTransformation) -> optax.GradientTransformationExtraArgs:
    r"""Add up the updates of several optimizers, :math:`u_t = \sum_i u_t^{(i)}`.

    All see the same gradients and parameters, and what else ``update`` is given. Costs what they
    cost, with one gradient for all. Learners with exact rollouts cannot have others beside them:
    each would replay its own control alone.

    Args:
        optimizers: At least one.

    Raises:
        ValueError: There is none; or, from ``init``, a learner with exact rollouts is one of
            several, or a parameter is no floating-point number.

    Examples:
        >>> import jax.numpy as jnp
        >>> tx = mixture(optax.sgd(0.1), optax.sgd(0.2))
        >>> updates, _ = tx.update(jnp.ones(()), tx.init(jnp.ones(())))
        >>> print(f"{updates:.1f}")
        -0.3
    """
    if not optimizers:
        raise ValueError("`optimizers` must be at least one, got none.")
    parts = [optax.with_extra_args_support(optimizer) for optimizer in optimizers]

    def init(params: optax.Params) -> tuple[Any, ...]:
        params = as_parameters(params)
        states = tuple(part.init(params) for part in parts)
        learners = [
            part for part in jax.tree.leaves(states, is_leaf=is_learner) if is_learner(part)
        ]
        if len(parts) > 1 and any(part.bases is not None for part in learners):
            raise ValueError(
                "`optimizers` must not hold a learner with exact rollouts beside others: it would "
                "replay its own updates alone. Make its rollouts recorded ones (`recorded=True`)."
            )
        return states

    def update(
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

    return optax.GradientTransformationExtraArgs(init, update)


def restart_learning(*controllers: Controller) -> Restart:
    """Return a ``restart`` for :func:`~metaopt.guards.guard` around meta-optimizers.

    Memories restart as in a new episode, and the weights shrink; the meta-optimizers' states, and
    what was learned of the weights' proportions, stay.

    Args:
        controllers: Those of the guarded ``meta_optimizer``, or of each in a mixture or a chain, in
            their order.
    """

    def restart(state: Any, best: Any, shrink: Any) -> Any:
        return scale_controls(start_episode(state, best), shrink, *controllers)

    return restart


def scale_controls(state: Any, factor: Any, *controllers: Controller) -> Any:
    """Return ``state`` with weights that command controls ``factor`` times as large.

    Args:
        state: An optimizer state with :class:`~metaopt.optimizer.MetaOptimizerState` in it.
        factor: Above 0.
        controllers: Those of the meta-optimizers, in their order.

    Raises:
        ValueError: There are not as many controllers as meta-optimizers.
    """
    parts, structure = jax.tree.flatten(state, is_leaf=is_learner)
    if sum(map(is_learner, parts)) != len(controllers):
        raise ValueError(
            f"`controllers` must be those of the {sum(map(is_learner, parts))} meta-optimizers, "
            f"got {len(controllers)}."
        )
    kinds = iter(controllers)
    scaled = [
        part._replace(weights=next(kinds).scaled(part.weights, factor))
        if is_learner(part)
        else part
        for part in parts
    ]
    return jax.tree.unflatten(structure, scaled)
