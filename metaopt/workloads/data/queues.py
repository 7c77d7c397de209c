"""Input queues over arrays in memory: shuffled, endless, and restorable at any position."""

import functools
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

Batch = dict[str, Any]

# Batches are cut out of the data several at a time, because one call that returns 32 of them costs
# little more than a call that returns one. A chunk stays below this many bytes.
_CHUNK_BATCHES = 32
_CHUNK_BYTES = 64 * 2**20


def count(arrays: Batch) -> int:
    """Return the number of examples: the length of the first axis of every array."""
    return len(jax.tree.leaves(arrays)[0])


def as_stored(batch: Batch) -> Batch:
    """Return the batch: it is used as it is stored."""
    return batch


class ShuffledQueue(Iterator[Batch]):
    """Endless batches of full size; each epoch has a new order, which depends only on the key.

    Each epoch leaves out the examples that do not fill a last batch. Restoring any position costs
    one permutation.

    Args:
        arrays: Arrays with a common first axis, on the device, in any structure under their names.
        key: A raw JAX key, shape (2,), uint32.
        batch_size: Examples in a batch.
        complete: Applied to every batch when it is cut out.
    """

    def __init__(
        self,
        arrays: Batch,
        key: Any,
        batch_size: int,
        complete: Callable[[Batch], Batch] = as_stored,
    ) -> None:
        self._arrays = arrays
        self._complete = complete
        self._entropy = [int(word) for word in np.asarray(key).ravel()]
        self._batch_size = batch_size
        examples = count(arrays)
        if not 1 <= batch_size <= examples:
            raise ValueError(
                f"A batch of {batch_size} does not fit into {examples} training examples."
            )
        self._examples = examples
        self._batches_per_epoch = examples // batch_size
        # Of a batch as it is used. Found out here, not when the first batch is taken on the clock.
        leaves, structure = jax.tree.flatten(arrays)
        stored = tuple(jax.ShapeDtypeStruct(leaf.shape, leaf.dtype) for leaf in leaves)
        self.batch_bytes = _bytes_of_batch(complete, stored, structure, batch_size)
        self._epoch: tuple[int, np.ndarray] | None = None
        self._chunk: list[Batch] = []
        self._position = 0

    @property
    def position(self) -> int:
        """The number of batches taken so far."""
        return self._position

    def seek(self, position: int) -> None:
        """Go to the position after the first ``position`` batches."""
        self._position = position
        self._chunk = []

    def __next__(self) -> Batch:
        """Return the next batch."""
        if not self._chunk:
            count = _batches_in_chunk(self.batch_bytes)
            rows = [self._rows(self._position + i) for i in range(count)]
            self._chunk = _cut(self._complete, self._arrays, np.stack(rows))[::-1]
        self._position += 1
        return self._chunk.pop()

    def _rows(self, position: int) -> np.ndarray:
        """Return which examples make up the batch at a position, (batch size,)."""
        epoch, batch = divmod(position, self._batches_per_epoch)
        if self._epoch is None or self._epoch[0] != epoch:
            generator = np.random.default_rng([*self._entropy, epoch])
            self._epoch = epoch, generator.permutation(self._examples).astype(np.int32)
        start = batch * self._batch_size
        return self._epoch[1][start : start + self._batch_size]


@functools.cache  # once for the queues of many trials
def _bytes_of_batch(
    complete: Any, stored: tuple[jax.ShapeDtypeStruct, ...], structure: Any, batch_size: int
) -> int:
    arrays = jax.tree.unflatten(structure, stored)
    rows = jax.ShapeDtypeStruct((batch_size,), np.int32)
    shapes = jax.eval_shape(_cut_one(complete), arrays, rows)
    return sum(shape.size * shape.dtype.itemsize for shape in jax.tree.leaves(shapes))


def _batches_in_chunk(batch_bytes: int) -> int:
    return max(1, min(_CHUNK_BATCHES, _CHUNK_BYTES // max(1, batch_bytes)))


@functools.partial(jax.jit, static_argnums=0)
def _cut(complete: Callable[[Batch], Batch], arrays: Batch, indices: jax.Array) -> list[Batch]:
    """Return one batch for each row of ``indices`` (batches, batch size)."""
    return [_cut_one(complete)(arrays, row) for row in indices]


def _cut_one(complete: Callable[[Batch], Batch]) -> Callable[[Batch, Any], Batch]:
    return lambda arrays, row: complete(jax.tree.map(lambda array: array[row], arrays))


def pad_with_zeros(batch: Batch, batch_size: int) -> Batch:
    """Append rows of zeros to a batch; its ``weights``, ones if it has none, are 0 there."""
    batch = {"weights": jnp.ones(count(batch), jnp.float32), **batch}
    rows = batch_size - count(batch)
    return jax.tree.map(
        lambda array: jnp.pad(array, [(0, rows)] + [(0, 0)] * (array.ndim - 1)), batch
    )


def in_order(
    arrays: Batch, batch_size: int, pad: Callable[[Batch, int], Batch] = pad_with_zeros
) -> Iterator[Batch]:
    """Yield the arrays once, in order; ``pad(batch, batch_size)`` completes a last short batch."""
    for start in range(0, count(arrays), batch_size):
        batch = jax.tree.map(lambda array, i=start: array[i : i + batch_size], arrays)
        yield batch if count(batch) == batch_size else pad(batch, batch_size)
