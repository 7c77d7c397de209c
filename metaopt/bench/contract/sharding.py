"""Several devices: batches are split over them, parameters lie on each, as in AlgoPerf.

The mesh is AlgoPerf's: all devices along one axis, ``batch``. On one device nothing is done.
"""

from typing import Any

import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

AXIS = "batch"


def shard_batch(batch: Any) -> Any:
    """Split every array of a batch along its first axis; what does not divide lies on each device.

    A batch that is already split is left as it is.
    """
    if jax.device_count() == 1:
        return batch
    return jax.tree.map(lambda leaf: jax.device_put(leaf, _split(leaf, axis=0)), batch)


def replicate(tree: Any) -> Any:
    """Inside of jit: have every array of a tree on each device."""
    return _constrain(tree, lambda leaf: _everywhere())


def shard_history(history: Any) -> Any:
    """Inside of jit: split the rows of rings along their longest axis that divides.

    So every device keeps its share of every past gradient, and what is computed from one
    parameter's past alone, such as a control, needs no other device.
    """

    def longest(leaf: Any) -> int:
        sizes = [0 if size % jax.device_count() else size for size in leaf.shape]
        return max(range(1, leaf.ndim), key=lambda axis: sizes[axis], default=1)

    return _constrain(history, lambda leaf: _split(leaf, axis=longest(leaf)))


def _constrain(tree: Any, sharding: Any) -> Any:
    if jax.device_count() == 1:
        return tree
    return jax.tree.map(lambda leaf: jax.lax.with_sharding_constraint(leaf, sharding(leaf)), tree)


def _everywhere() -> NamedSharding:
    return NamedSharding(_mesh(), PartitionSpec())


def _split(leaf: Any, axis: int) -> NamedSharding:
    if leaf.ndim <= axis or leaf.shape[axis] % jax.device_count():
        return _everywhere()
    return NamedSharding(_mesh(), PartitionSpec(*[None] * axis, AXIS))


def _mesh() -> Mesh:
    return Mesh(jax.devices(), (AXIS,))
