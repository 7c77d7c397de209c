"""Episodes: training starts again, what was learned stays."""

from collections import Counter
from typing import Any

import jax
import jax.numpy as jnp
import optax

from metaopt.optimizer import MetaOptimizerState


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
        if not isinstance(part, MetaOptimizerState):
            return part
        found += 1
        if part.start is not None:
            _check_sizes(part.start, params)
        return jax.tree.map(jnp.zeros_like, part)._replace(
            weights=part.weights, meta_state=part.meta_state
        )

    fresh = jax.tree.map(restart, state, is_leaf=lambda part: isinstance(part, MetaOptimizerState))
    if not found:
        raise ValueError(f"`state` holds no MetaOptimizerState, got {type(state).__name__}.")
    return fresh


def _check_sizes(before: Any, params: Any) -> None:
    sizes, given = (Counter(leaf.size for leaf in jax.tree.leaves(t)) for t in (before, params))
    # optax.masked hides leaves from the state, but adds none.
    masked = any(_is_masked(node) for node in jax.tree.leaves(before, is_leaf=_is_masked))
    if sizes - given or (given - sizes and not masked):
        raise ValueError(
            f"`params` have {given.total()} arrays with {sum(given.elements())} numbers, the state "
            f"was made for {sizes.total()} with {sum(sizes.elements())}."
        )


def _is_masked(node: Any) -> bool:
    return isinstance(node, optax.MaskedNode)
