"""Which pytrees a checkpoint can hold, ours and AlgoPerf's alike."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import serialization


def find_unsavable(tree: Any, name: str) -> str | None:
    """Return why ``tree`` cannot be saved, or ``None`` if it can.

    A tree can be saved if both these checkpoints and AlgoPerf's can hold it: AlgoPerf's refuse
    arrays of size zero, these refuse typed random keys and nodes that flax does not know.

    Args:
        tree: The pytree.
        name: The tree's name, for the reason: ``name.part.leaf is an array of size zero``.
    """
    state = serialization.to_state_dict(tree)
    if not isinstance(state, dict):
        why = _why_unsavable(state)
        return why and f"{name} is {why}"
    reasons = (find_unsavable(part, f"{name}.{key}") for key, part in state.items())
    return next(filter(None, reasons), None)


def _why_unsavable(leaf: Any) -> str | None:
    if leaf is None or isinstance(leaf, bool | int | float | np.number):
        return None
    if not isinstance(leaf, jax.Array | np.ndarray):
        kind = f"{type(leaf).__module__}.{type(leaf).__qualname__}".removeprefix("builtins.")
        return f"neither an array nor a number, but of type {kind}"
    if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        return "a typed random key"
    if not (jnp.issubdtype(leaf.dtype, np.number) or leaf.dtype == np.bool_):
        return f"an array of dtype {leaf.dtype}"
    return None if leaf.size else f"an array of size zero, of shape {leaf.shape}"
