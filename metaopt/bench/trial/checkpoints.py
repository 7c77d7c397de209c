"""Checkpoints of a running trial: self-describing, written atomically, nothing pickled.

The pytrees go through flax's state dictionaries and msgpack, as AlgoPerf's own checkpoints do. A
state is restored into the structure that ``init_optimizer_state`` returns. It may have changed in
two ways: a part that was there may be ``None`` by now, and a part that was ``None`` may hold
anything made of dictionaries, lists, arrays and numbers (a tuple comes back as a list).
"""

from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import serialization

from metaopt.bench.records import write_bytes

FILE = "checkpoint.msgpack"


def save_checkpoint(path: Path, trees: dict[str, Any], facts: dict[str, Any]) -> None:
    """Write ``trees`` (pytrees of arrays, by name) and ``facts`` (JSON-like data) to ``path``."""
    content = {
        "trees": serialization.to_state_dict(jax.device_get(trees)),
        "facts": facts,
    }
    write_bytes(path, serialization.msgpack_serialize(content))


def load_facts(path: Path) -> dict[str, Any]:
    """Return the facts of a checkpoint; its trees need no template for that.

    Raises:
        OSError: There is none.
        ValueError: The file is no checkpoint.
    """
    return _read(path)["facts"]


def load_checkpoint(path: Path, templates: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the trees, in the structure of ``templates``, and the facts.

    Arrays come back on the default device, numbers as numbers.
    """
    content = _read(path)
    trees = {
        name: _restore(_without(template, saved), saved)
        for name, template in templates.items()
        for saved in [content["trees"][name]]
    }
    return jax.tree.map(_to_device, trees), content["facts"]


def _read(path: Path) -> Any:
    return serialization.msgpack_restore(path.read_bytes())


def _restore(template: Any, saved: Any) -> Any:
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


def _to_device(leaf: Any) -> Any:
    return jax.device_put(leaf) if isinstance(leaf, np.ndarray) else leaf
