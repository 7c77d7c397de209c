"""Episodes and restarts: training starts again, and what was learned stays."""

from collections import Counter
from typing import Any

import jax
import jax.numpy as jnp

from .frozen import FrozenControlState
from .online import OnlineControlState
from .optimizer import MetaOptimizerState, is_masked

_STATES = MetaOptimizerState | OnlineControlState | FrozenControlState
_LEARNED = ("controller", "meta_state")  # the fields that outlive an episode


def has_controller(part: Any) -> bool:
    """Return whether a part of an optimizer's state is that of an optimizer with a controller."""
    return isinstance(part, _STATES)


def start_episode(state: Any, params: Any) -> Any:
    """Return ``state`` as it is before the first step of a new episode.

    Histories, recorded data, step counters and the disturbance's state restart; the controller and
    the state of its meta-optimizer carry on. The caller restarts the parameters.

    Args:
        state: An optimizer state with that of :func:`~metaopt.meta_optimizer`,
            :func:`~metaopt.online_control` or :func:`~metaopt.frozen_control` anywhere in it, say
            inside ``optax.chain``. Everything else in it is left as it is.
        params: The parameters of the new episode, of the same structure and shapes as before.

    Raises:
        ValueError: There is no such state in ``state``, or a state of ``meta_optimizer`` was made
            for other parameters.
    """

    def restart(part: Any) -> Any:
        if not has_controller(part):
            return part
        if isinstance(part, MetaOptimizerState) and part.prepared:
            _check_sizes(part.prepared[0], params)
        return _with_learned(part, jax.tree.map(jnp.zeros_like, part))

    if not _controlled(state):
        raise ValueError(f"`state` holds no state with a controller, got {type(state).__name__}.")
    return jax.tree.map(restart, state, is_leaf=has_controller)


def carry_over(before: Any, fresh: Any) -> Any:
    """Return ``fresh``, a new state of an optimizer, with what it had learned in ``before``.

    The controllers and the states of the meta-optimizers are taken from ``before``, everything else
    from ``fresh``. So what stands around a learner (a guard, a schedule) restarts too, where
    :func:`start_episode` leaves it as it is.

    Args:
        before: A state with controllers in it, as many as in ``fresh`` and in the same order.
        fresh: A state of the same optimizer, or of another one with the same learners.

    Raises:
        ValueError: There are no controllers, or not as many in both.
    """
    learned = _controlled(before)
    parts, structure = jax.tree.flatten(fresh, is_leaf=has_controller)
    if not learned or len(learned) != sum(map(has_controller, parts)):
        raise ValueError(
            f"`before` and `fresh` must hold equally many states with a controller, at least one; "
            f"got {len(learned)} and {sum(map(has_controller, parts))}."
        )
    source = iter(learned)
    filled = [_with_learned(next(source), p) if has_controller(p) else p for p in parts]
    return jax.tree.unflatten(structure, filled)


def scale_controls(state: Any, factor: Any) -> Any:
    """Return ``state`` with controllers whose controls are ``factor`` times as large.

    Args:
        state: An optimizer state with controllers anywhere in it.
        factor: A number above 0.
    """

    def scaled(part: Any) -> Any:
        if not has_controller(part):
            return part
        return part._replace(controller=part.controller.scaled(factor))

    return jax.tree.map(scaled, state, is_leaf=has_controller)


def end_learning(state: Any) -> Any:
    """Return ``state`` with controllers that stay as they are, without what only learning needs.

    That is one parameter-sized array for each discount of :func:`~metaopt.online_control` with a
    step size, the memory once more for each with another controller. The same optimizer goes on
    from the state; jitted functions compile once more.

    Args:
        state: An optimizer state with that of ``online_control`` anywhere in it.

    Raises:
        ValueError: There is no such state in ``state``.
    """
    if not any(isinstance(part, OnlineControlState) for part in _controlled(state)):
        raise ValueError(f"`state` holds no state of online_control, got {type(state).__name__}.")
    return jax.tree.map(
        lambda part: part._replace(sums=()) if isinstance(part, OnlineControlState) else part,
        state,
        is_leaf=has_controller,
    )


def restart_learning(state: Any, params: Any, factor: Any) -> Any:
    """Start an episode with shorter steps: a ``restart`` for :func:`~metaopt.guard`.

    The memories restart and the controls are ``factor`` times as large. The states of the
    meta-optimizers, and the proportions of the weights, stay.

    Args:
        state: The state of the guarded optimizer, with controllers anywhere in it.
        params: The parameters to go on from.
        factor: A number above 0.
    """
    return scale_controls(start_episode(state, params), factor)


def _controlled(state: Any) -> list[Any]:
    """Return the parts of a state that have a controller."""
    return [p for p in jax.tree.leaves(state, is_leaf=has_controller) if has_controller(p)]


def _with_learned(before: Any, fresh: Any) -> Any:
    both = {*_LEARNED} & {*before._fields} & {*fresh._fields}
    return fresh._replace(**{name: getattr(before, name) for name in both})


def _check_sizes(before: Any, params: Any) -> None:
    sizes, given = (Counter(leaf.size for leaf in jax.tree.leaves(t)) for t in (before, params))
    # optax.masked hides leaves from the state, but adds none.
    masked = any(is_masked(node) for node in jax.tree.leaves(before, is_leaf=is_masked))
    if sizes - given or (given - sizes and not masked):
        raise ValueError(
            f"`params` have {given.total()} arrays with {sum(given.elements())} numbers, the state "
            f"was made for {sizes.total()} with {sum(sizes.elements())}."
        )
