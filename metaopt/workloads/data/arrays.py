"""Data sets as arrays in memory."""

import dataclasses

import jax
import numpy as np

from metaopt.workloads.data.queues import Batch


@dataclasses.dataclass(frozen=True)
class Arrays:
    """A data set: a dictionary with ``inputs`` and ``targets`` for each split.

    Each is an array, or a tuple or dictionary of arrays, whose first axis is the examples.

    Raises:
        ValueError: A split lacks one of them, is empty, or has arrays of different lengths.
    """

    train: Batch
    validation: Batch
    test: Batch

    def __post_init__(self) -> None:
        """Check that inputs and targets belong together."""
        for field in dataclasses.fields(self):
            split = getattr(self, field.name)
            if missing := {"inputs", "targets"} - set(split):
                raise ValueError(f"`{field.name}` has no {sorted(missing)}, only {sorted(split)}.")
            lengths = {
                name: sorted({np.shape(leaf)[:1] for leaf in jax.tree.leaves(part)})
                for name, part in split.items()
            }
            found = [length for part in lengths.values() for length in part or [()]]
            if len(set(found)) != 1 or found[0] in ((), (0,)):
                raise ValueError(
                    f"`{field.name}` needs as many targets as inputs, and at least one; the "
                    f"lengths of its arrays are {lengths}."
                )
