"""Convolutions in branches: the same values, in the layout that is fast there on CPUs."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from metaopt import meta_optimizer
from metaopt.xla.convolutions import with_fast_convolutions


def images(*shape, key=0):
    return jax.random.normal(jax.random.PRNGKey(key), shape)


@pytest.mark.parametrize(
    "labels, kernel, options",
    [
        (("NCHW", "OIHW", "CHWN"), (6, 4, 3, 3), {"window_strides": (2, 1)}),
        (("CWNH", "WOHI", "NHWC"), (3, 6, 3, 4), {"lhs_dilation": (1, 2), "rhs_dilation": (2, 1)}),
        (("NHWC", "HWOI", "NCHW"), (3, 3, 6, 2), {"feature_group_count": 2}),
    ],
    ids=["strided", "dilated", "grouped"],
)
def test_values_and_slopes_are_those_of_the_convolution(labels, kernel, options):
    sizes = dict(zip("NHWC", (5, 7, 8, 4), strict=True))
    inputs, kernel = images(*(sizes[axis] for axis in labels[0])), images(*kernel, key=1)
    options = {"window_strides": (1, 1), "padding": ((0, 0), (0, 0)), **options}

    def convolve(inputs, kernel):
        out = jax.lax.conv_general_dilated(inputs, kernel, dimension_numbers=labels, **options)
        return jnp.sum(out**2), out

    def everything():  # under jit, for a convolution may stand inside
        return jax.jit(jax.value_and_grad(convolve, (0, 1), has_aux=True))(inputs, kernel)

    ours = jax.jit(with_fast_convolutions(everything))()
    for fast, plain in zip(jax.tree.leaves(ours), jax.tree.leaves(everything()), strict=True):
        np.testing.assert_allclose(fast, plain, rtol=1e-4, atol=1e-4)


def test_without_convolutions_the_values_are_the_same_to_the_last_bit(mlp):
    slope = lambda: jax.grad(mlp.loss)(mlp.params, mlp.data[0])  # noqa: E731

    ours, plain = jax.jit(with_fast_convolutions(slope))(), jax.jit(slope)()

    jax.tree.map(np.testing.assert_array_equal, ours, plain)


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="other backends choose layouts well")
def test_a_learning_steps_convolutions_are_in_the_fast_layout():
    # XLA brings convolutions into that layout itself, but not those in the branch that replays.
    kernels = {"a": images(3, 3, 2, 4), "b": images(3, 3, 4, 5)}
    batch = images(6, 8, 8, 2)

    def loss(kernels, batch):
        convolve = functools.partial(
            jax.lax.conv_general_dilated,
            window_strides=(1, 1), padding="SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )  # fmt: skip
        return jnp.mean(convolve(jnp.tanh(convolve(batch, kernels["a"])), kernels["b"]) ** 2)

    tx = meta_optimizer(loss, 0.1, fixed=True, history=2)

    def step(kernels, state):
        updates, state = tx.update(jax.grad(loss)(kernels, batch), state, kernels, datum=batch)
        return optax.apply_updates(kernels, updates), state

    text = jax.jit(step).lower(kernels, tx.init(kernels)).compile().as_text() or ""

    layouts = re.findall(r"convolution\(.*dim_labels=([\w>-]+)", text)
    assert len(layouts) > 10
    assert set(layouts) == {"b01f_01io->b01f"}
