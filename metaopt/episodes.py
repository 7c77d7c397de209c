"""Episodes: training starts again, what was learned stays."""

from collections import Counter
from typing import Any

import jax
import jax.numpy as jnp

from metaopt.optimizer import MetaOptimizerState, is_masked


def start_episode(state: Any, params: Any) -> Any:
    """Return ``state`` as it is before the first step of a new episode.

    Histories, recorded data, step counters and the disturbance's state restart; M and the state of
    the meta-optimizer carry on. The caller restarts the parameters.

    Args:
        state: An optimizer state that holds a :class:`~metaopt.optimizer.MetaOptimizerState`
            anywhere, say inside ``optax.chain``; whatever else it holds is left as it is.
        params: The new episode's parameters, of the same structure and shapes as before.

    Raises:
        ValueError: There is no such state in ``state``, or the parameters are not those that a
            learning state was made for.
    """
    found = 0

    def restart(part: Any) -> Any:
        nonlocal found
        if not is_learner(part):
            return part
        found += 1
        if part.start is not None:
            _check_sizes(part.start, params)
        return jax.tree.map(jnp.zeros_like, part)._replace(
            weights=part.weights, meta_state=part.meta_state
        )

    fresh = jax.tree.map(restart, state, is_leaf=is_learner)
    if not found:
        raise ValueError(f"`state` holds no MetaOptimizerState, got {type(state).__name__}.")
    return fresh


def carry_over(before: Any, fresh: Any) -> Any:
    """Return ``fresh``, a new state of an optimizer, with what it had learned in ``before``.

    Where :func:`start_episode` leaves alone what stands around a meta-optimizer (a guard, a
    schedule), here that starts again too: M and the states of the meta-optimizers are taken from
    ``before``, all else from ``fresh``.

    Args:
        before: A state with :class:`~metaopt.optimizer.MetaOptimizerState` in it, as many as in
            ``fresh`` and in the same order.
        fresh: Of the same optimizer, or of one that holds the same learners.

    Raises:
        ValueError: There is none, or not as many in both.
    """
    learned = [part for part in jax.tree.leaves(before, is_leaf=is_learner) if is_learner(part)]
    parts, structure = jax.tree.flatten(fresh, is_leaf=is_learner)
    if not learned or len(learned) != sum(map(is_learner, parts)):
        raise ValueError(
            f"`before` and `fresh` must hold equally many MetaOptimizerStates, at least one; got "
            f"{len(learned)} and {sum(map(is_learner, parts))}."
        )
    source = iter(learned)

    def filled(part: Any) -> Any:
        if not is_learner(part):
            return part
        old = next(source)
        return part._replace(weights=old.weights, meta_state=old.meta_state)

    return jax.tree.unflatten(structure, [filled(part) for part in parts])


def is_learner(part: Any) -> bool:
    """Return whether a part of an optimizer's state is that of a meta-optimizer."""
    return isinstance(part, MetaOptimizerState)


def _check_sizes(before: Any, params: Any) -> None:
    sizes, given = (Counter(leaf.size for leaf in jax.tree.leaves(t)) for t in (before, params))
    # optax.masked hides leaves from the state, but adds none.
    masked = any(is_masked(node) for node in jax.tree.leaves(before, is_leaf=is_masked))
    if sizes - given or (given - sizes and not masked):
        raise ValueError(
            f"`params` have {given.total()} arrays with {sum(given.elements())} numbers, the state "
            f"was made for {sizes.total()} with {sum(sizes.elements())}."
        )
