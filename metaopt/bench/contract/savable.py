"""Which pytrees a checkpoint can hold, ours and AlgoPerf's alike, and give back as they were."""

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


def find_unrestorable(template: Any, tree: Any, name: str) -> str | None:
    """Return why ``tree`` would come back from a checkpoint with another structure, or ``None``.

    Args:
        template: The pytree into whose structure the checkpoint is read.
        tree: The pytree, savable.
        name: Its name, for the reason.
    """
    try:
        back = restore_into(template, serialization.to_state_dict(tree))
    except Exception as error:  # from flax or a registered type
        return f"{name} cannot be read back: {error}"
    if jax.tree.structure(back) == jax.tree.structure(tree):
        return None
    there, here = (
        [jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_leaves_with_path(one)]
        for one in (back, tree)
    )
    lost = next((path for path in here if path not in there), "")
    return f"{name}{lost} comes back from a checkpoint in another structure, or not at all"


def restore_into(template: Any, saved: Any) -> Any:
    """Return a pytree in the structure of ``template``, with the leaves of a state dictionary.

    A part that is ``None`` in ``saved`` is ``None``, and one that is ``None`` in the template is
    what was saved, in dictionaries and lists.

    Raises:
        ValueError: The structures do not agree.
    """
    template = _without(template, saved)
    restored = serialization.from_state_dict(template, saved)
    # What was None in the template is a state dictionary still.
    return jax.tree.map(
        lambda old, new: _with_lists(new) if old is None else new,
        template,
        restored,
        is_leaf=lambda old: old is None,
    )


def _with_lists(saved: Any) -> Any:
    """Return a state dictionary with lists where flax has dictionaries from "0" to "n - 1"."""
    if not isinstance(saved, dict):
        return saved
    entries = {name: _with_lists(entry) for name, entry in saved.items()}
    if entries and list(entries) == [str(index) for index in range(len(entries))]:
        return list(entries.values())
    return entries


def _without(template: Any, saved: Any) -> Any:
    """Return ``template`` with ``None`` wherever the state dictionary ``saved`` has it."""

    def is_gone(path: Any, _: Any) -> bool:
        part = saved
        for entry in path:
            if part is None:
                return True
            name = next(getattr(entry, a) for a in ("name", "key", "idx") if hasattr(entry, a))
            part = part[str(name)]
        return part is None

    return jax.tree_util.tree_map_with_path(
        lambda path, leaf: None if is_gone(path, leaf) else leaf,
        template,
        is_leaf=is_gone,
        is_leaf_takes_path=True,
    )
