"""Checkpoints of a running trial: self-describing, written atomically, nothing pickled.

The pytrees go through flax's state dictionaries and msgpack, as AlgoPerf's own checkpoints do. A
state is restored into the structure that ``init_optimizer_state`` returns; a field that is ``None``
there may hold anything made of dictionaries, lists, arrays and numbers.
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


def load_checkpoint(path: Path, templates: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the trees, in the structure of ``templates``, and the facts.

    Arrays come back on the default device, numbers as numbers.
    """
    content: Any = serialization.msgpack_restore(path.read_bytes())
    trees = {
        name: serialization.from_state_dict(template, content["trees"][name])
        for name, template in templates.items()
    }
    return jax.tree.map(_to_device, trees), content["facts"]


def _to_device(leaf: Any) -> Any:
    return jax.device_put(leaf) if isinstance(leaf, np.ndarray) else leaf
