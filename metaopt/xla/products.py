"""Inner products, also of complex arrays and of arrays on explicit meshes.

Complex numbers are pairs of real ones, as in optax: the inner product of a and b is the real part
of the sum of conj(a) b, and gradients are the conjugates of those of ``jax.grad``.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Inexact

from .meshes import replicated
from .precision import wide_dtype
from .rings import as_row


def weighted_sums(
    weights: Float[Array, "count rows"], rows: Inexact[Array, "rows *row"]
) -> Inexact[Array, "count *row"]:
    """Return weighted sums of rows, in the wider of the two dtypes."""
    return jax.lax.dot_general(
        weights,
        rows,
        (((1,), (0,)), ((), ())),
        precision="highest",
        preferred_element_type=jnp.promote_types(weights.dtype, rows.dtype),
    )


def inner_products(rows: Inexact[Array, "rows *row"], leaf: Any) -> Float[Array, " rows"]:
    """Return the inner product of ``leaf`` with every row, in float32 or wider."""
    row = jnp.conj(as_row(leaf, rows))
    axes = tuple(range(row.ndim))
    # Rows first: with the leaf in front XLA's CPU backend takes four times as long.
    products = jax.lax.dot_general(
        rows,
        row,
        ((tuple(axis + 1 for axis in axes), axes), ((), ())),
        precision="highest",
        preferred_element_type=wide_dtype(row),
        out_sharding=replicated(row),
    )
    return jnp.real(products)


def inner_product(a: Any, b: Any) -> Float[Array, ""]:
    """Return the inner product of two arrays."""
    return inner_products(a[None], b)[0]
