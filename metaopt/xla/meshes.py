"""Arrays on explicit meshes, whose sharding is part of their type.

Operations there need operands with matching shardings, so state is created, written and read with
the sharding of the array that it belongs to. On automatic meshes and one device nothing changes.
"""

from typing import Any

import jax
from jax.sharding import AxisType, NamedSharding, PartitionSpec


def explicit_sharding(leaf: Any) -> NamedSharding | None:
    """Return the sharding in an array's type, or ``None`` without one."""
    sharding = jax.typeof(leaf).sharding
    return sharding if AxisType.Explicit in sharding.mesh.axis_types else None


def replicated(leaf: Any) -> NamedSharding | None:
    """Return the sharding of a result that every device of ``leaf`` holds, or ``None``."""
    sharding = explicit_sharding(leaf)
    return None if sharding is None else NamedSharding(sharding.mesh, PartitionSpec())


def everywhere(leaf: Any) -> Any:
    """Return ``leaf`` replicated on all of its devices."""
    sharding = replicated(leaf)
    return leaf if sharding is None else jax.sharding.reshard(leaf, sharding)


def reshard(leaf: Any, like: Any, axes: int = 0) -> Any:
    """Return ``leaf`` with the sharding of ``like`` without its first ``axes`` axes."""
    wanted = explicit_sharding(like)
    if wanted is None:
        return leaf
    spec = PartitionSpec(*wanted.spec[axes:])
    return jax.sharding.reshard(leaf, NamedSharding(wanted.mesh, spec))
