"""Rules that the arguments of all transformations follow, and errors that name them."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

_CALL = "update(grads, state, params, {})"


def as_parameters(params: Any) -> Any:
    """Return the parameters as arrays, zeros where only a shape and a dtype are given.

    Raises:
        ValueError: A parameter is neither real nor complex, say an integer.
    """

    def one(path: Any, leaf: Any) -> Any:
        dtype = jnp.result_type(leaf)
        if not jnp.issubdtype(dtype, jnp.inexact):
            name = jax.tree_util.keystr(path)
            raise ValueError(
                f"`params` must be real or complex floating-point numbers, got {dtype} at "
                f"params{name}. Leave it out with optax.masked or optax.partition."
            )
        if isinstance(leaf, jax.ShapeDtypeStruct):
            return jnp.zeros_like(leaf)
        return leaf if hasattr(leaf, "dtype") else jnp.asarray(leaf, dtype)

    return jax.tree_util.tree_map_with_path(one, params)


def check_complex_dtype(history_dtype: Any, params: Any) -> None:
    """Check that a history keeps the imaginary parts of complex parameters.

    Raises:
        ValueError: It does not.
    """
    if history_dtype is None or jnp.issubdtype(history_dtype, jnp.complexfloating):
        return
    if any(jnp.iscomplexobj(leaf) for leaf in jax.tree.leaves(params)):
        raise ValueError(
            f"`history_dtype` must be complex, or None, where parameters are, got "
            f"{jnp.dtype(history_dtype)}: it would lose imaginary parts."
        )


def check_mask(mask: Any, params: Any) -> None:
    """Check that a mask is a tree like the parameters or a prefix of it, or returns one.

    Raises:
        ValueError: It has another structure.
    """
    given = mask(params) if callable(mask) else mask
    try:
        jax.tree.map(lambda flag, part: None, given, params)
    except ValueError as error:
        raise ValueError(
            "`mask` must be a tree of booleans with the structure of the parameters or a prefix of "
            f"it, got {jax.tree.structure(given)} for {jax.tree.structure(params)}."
        ) from error


def as_loss(value: Any, name: str) -> jax.Array:
    """Return the loss that the transformation ``name`` was given, as float32 at least.

    Raises:
        ValueError: It is missing, or not one real number.
    """
    if value is None:
        raise ValueError(
            f"`value`, the loss, must be passed to update(): {name} needs it. Call "
            f"`{_CALL.format('value=loss')}`; flax's TrainState.apply_gradients leaves it out."
        )
    check_number(value, "`value`, the loss,")
    return jnp.asarray(value, jnp.promote_types(jnp.result_type(value), jnp.float32))


def check_number(value: Any, what: str) -> None:
    """Check that a loss is one real number.

    Raises:
        ValueError: It is a tuple or another tree, complex, or has axes.
    """
    if not jax.tree_util.treedef_is_leaf(jax.tree.structure(value)):
        raise ValueError(f"{what} must be one real number, got a {type(value).__name__}.")
    shape, dtype = jnp.shape(value), jnp.result_type(value)
    if shape != ():
        raise ValueError(
            f"{what} must be one real number, got shape {shape}. Average it over the examples."
        )
    if jnp.issubdtype(dtype, jnp.complexfloating):
        raise ValueError(f"{what} must be one real number, got {dtype}. Take its real part.")


def check_whole(**numbers: Any) -> None:
    """Check that numbers which decide the program are integers of at least 1.

    Raises:
        ValueError: One is not.
    """
    for name, number in numbers.items():
        if not isinstance(number, int) or isinstance(number, bool) or number < 1:
            raise ValueError(
                f"`{name}` must be an integer of at least 1, got {number!r}.{_static(name, number)}"
            )


def check_flags(**flags: Any) -> None:
    """Check that switches are True or False.

    Raises:
        ValueError: One is not.
    """
    for name, flag in flags.items():
        if not isinstance(flag, bool | np.bool_):
            raise ValueError(f"`{name}` must be True or False, got {flag!r}.{_static(name, flag)}")


def check_positive(**numbers: Any) -> None:
    """Check that numbers are positive and finite.

    Raises:
        ValueError: One is not.
    """
    for name, number in numbers.items():
        if is_known(number) and not 0 < number < math.inf:
            raise ValueError(f"`{name}` must be positive, got {number!r}.")


def is_known(number: Any) -> bool:
    """Return whether a number can be looked at: what is in an array may only be traced."""
    return not isinstance(number, jax.Array)


def _static(name: str, value: Any) -> str:
    if is_known(value):
        return ""
    return f" An array will not do: optax.inject_hyperparams takes it in static_args=({name!r},)."
