"""Episodes: training starts again, what was learned stays."""

from typing import Any

import jax
import jax.numpy as jnp

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
        ValueError: There is no such state in ``state``, or the parameters have another size.
    """
    size = sum(leaf.size for leaf in jax.tree.leaves(params))
    found = 0

    def restart(part: Any) -> Any:
        nonlocal found
        if not isinstance(part, MetaOptimizerState):
            return part
        found += 1
        made_for = sum(leaf.size for leaf in jax.tree.leaves(part.start))
        if part.start is not None and made_for != size:
            raise ValueError(f"`params` have {size} numbers, the state was made for {made_for}.")
        return jax.tree.map(jnp.zeros_like, part)._replace(
            weights=part.weights, meta_state=part.meta_state
        )

    fresh = jax.tree.map(restart, state, is_leaf=lambda part: isinstance(part, MetaOptimizerState))
    if not found:
        raise ValueError(f"`state` holds no MetaOptimizerState, got {type(state).__name__}.")
    return fresh
