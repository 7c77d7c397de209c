"""Several devices: batches are split over them, parameters lie on each, as in AlgoPerf.

The mesh is AlgoPerf's: all devices along one axis, ``batch``. On one device nothing is done.
"""

from typing import Any

import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

AXIS = "batch"


def shard_batch(batch: Any) -> Any:
    """Split every array of a batch along its first axis; arrays that do not divide are replicated.

    A batch that is already split stays the same.
    """
    if jax.device_count() == 1:
        return batch
    return jax.tree.map(lambda leaf: jax.device_put(leaf, _split(leaf, axis=0)), batch)


def replicate(tree: Any) -> Any:
    """Replicate every array of a tree on each device, inside of jit."""
    return _constrain(tree, lambda leaf: _everywhere())


def shard_history(history: Any) -> Any:
    """Split the rows of rings along their longest axis that divides, inside of jit.

    Every device keeps its share of every past gradient. Values that depend on one parameter's past
    alone, such as a control, need no other device.
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
