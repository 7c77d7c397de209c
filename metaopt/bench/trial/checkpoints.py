"""Checkpoints of a running trial: self-describing, written atomically, nothing pickled.

The pytrees go through flax's state dictionaries and msgpack, as AlgoPerf's own checkpoints do. A
state is restored into the structure that ``init_optimizer_state`` returns. It may have changed in
two ways: a part that was there may be ``None`` by now, and a part that was ``None`` may hold
anything made of dictionaries, lists, arrays and numbers. A trial whose state changes otherwise is
invalid, see :mod:`metaopt.bench.contract.savable`.
"""

from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import serialization

from metaopt.bench.contract.savable import restore_into
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

    Arrays come back on the default device, numbers as numbers. Arrays of NumPy stay on the host:
    those that are NumPy's in the template, and those of 64 bits, which JAX would round.
    """
    content = _read(path)
    trees = {
        name: _on_device(template, restore_into(template, content["trees"][name]))
        for name, template in templates.items()
    }
    return trees, content["facts"]


def _read(path: Path) -> Any:
    return serialization.msgpack_restore(path.read_bytes())


def _on_device(template: Any, tree: Any) -> Any:
    on_host = {path for path, leaf in _leaves(template) if isinstance(leaf, np.ndarray)}

    def put(path: Any, leaf: Any) -> Any:
        if path in on_host or not isinstance(leaf, np.ndarray):
            return leaf
        fits = jax.dtypes.canonicalize_dtype(leaf.dtype) == leaf.dtype
        return jax.device_put(leaf) if fits else leaf

    return jax.tree_util.tree_map_with_path(put, tree)


def _leaves(tree: Any) -> list[tuple[Any, Any]]:
    return jax.tree_util.tree_leaves_with_path(tree)
