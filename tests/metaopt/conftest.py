"""A literal transcription of Algorithms 4 and 7, and small problems to run it on."""

import functools
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest


@functools.cache  # shared by all tests of a problem
def gradient_of(value_fn):
    return jax.jit(jax.grad(value_fn))


def transcription(
    value_fn, start, data, *, rate, history, rollout, decay, outer, weights=None, meta_state=None,
    disturbance=None, kind="scalar_lags", learn=True, as_lags=lambda weights: weights, first=None,
):  # fmt: skip
    """Run one episode of Algorithm 7 with lists and loops; return iterates and all M's.

    Lists are indexed by the paper's t, from 1: entry 0 is padding. ``start`` is a flat vector.
    ``as_lags`` turns weights into the M of ``history`` lags; M learns from step ``first`` on.
    """
    first = history + rollout if first is None else first
    x, losses, controls_seen, gradients = [None, start], [None], [None], [None]
    if weights is None:
        d = start.size
        shapes = {"scalar_lags": (), "diagonal_lags": (d,), "full_lags": (d, d)}
        weights = jnp.zeros((history, *shapes[kind]))
    meta_state = outer.init(weights) if meta_state is None else meta_state
    dist_state = None if disturbance is None else disturbance.init(start)
    all_weights = []

    def control(weights, t):  # what is subtracted when x_t moves to x_{t+1}
        weights, total = as_lags(weights), jnp.zeros_like(start)
        for h in range(1, history + 1):
            if t - h + 1 >= 1:
                times = jnp.matmul if weights.ndim == 3 else jnp.multiply
                total = total + times(weights[h - 1], controls_seen[t - h + 1])
        return total

    for t, datum in enumerate(data, start=1):
        losses.append(datum)
        gradient = gradient_of(value_fn)(x[t], datum)
        gradients.append(gradient)
        if learn and t >= first:

            def rollout_loss(weights, t=t):
                y = x[t - rollout]
                for j in range(rollout):
                    s = t - rollout + j
                    slope = gradient_of(value_fn)(y, losses[s])
                    y = (1 - decay) * y - rate(s - 1) * slope - control(weights, s)
                return value_fn(y, losses[t])

            slope = jax.grad(rollout_loss)(weights)
            updates, meta_state = outer.update(slope, meta_state, weights)
            weights = optax.apply_updates(weights, updates)
        if disturbance is None:
            controls_seen.append(gradient)
        else:
            seen, dist_state = disturbance.update(gradient, dist_state, x[t])
            controls_seen.append(seen)
        x.append((1 - decay) * x[t] - rate(t - 1) * gradient - control(weights, t))
        all_weights.append(weights)
    return SimpleNamespace(
        iterates=np.array(x[1:]), weights=np.array(all_weights), meta_state=meta_state
    )


@pytest.fixture
def transcribe():
    """The transcription."""
    return transcription


def run(tx, value_fn, start, data, state=None):
    """Run a transformation of ours over ``data``, one jitted step at a time."""

    @jax.jit
    def step(x, state, datum):
        updates, state = tx.update(jax.grad(value_fn)(x, datum), state, x, datum=datum)
        return optax.apply_updates(x, updates), state

    x, state = start, tx.init(start) if state is None else state
    iterates, weights = [x], []
    for datum in data:
        x, state = step(x, state, datum)
        iterates.append(x)
        weights.append(as_one_array(state.controller.weights))
    return SimpleNamespace(iterates=iterates, weights=np.array(weights), state=state)


def as_one_array(weights):
    """Return M, (H,), (H, d, d) or, of diagonal lags, (H, d): the leaves one after another."""
    leaves = jax.tree.leaves(weights)
    if len(leaves) == 1:
        return np.asarray(leaves[0])
    return np.concatenate([np.asarray(w).reshape(len(w), -1) for w in leaves], 1)


@pytest.fixture
def train():
    """The loop around a transformation."""
    return run


@pytest.fixture(scope="session")
def mlp():
    """A small MLP with tanh, its flat form, and minibatches that change."""
    keys = jax.random.split(jax.random.PRNGKey(0), 6)
    params = {
        "a": 0.5 * jax.random.normal(keys[0], (4, 8)),
        "b": 0.1 * jax.random.normal(keys[1], (8,)),
        "c": 0.5 * jax.random.normal(keys[2], (8, 3)),
    }
    vector, unravel = jax.flatten_util.ravel_pytree(params)

    @jax.jit
    def loss(params, datum):
        hidden = jnp.tanh(datum["x"] @ params["a"] + params["b"][None])
        logits = hidden @ params["c"]
        return optax.softmax_cross_entropy_with_integer_labels(logits, datum["y"]).mean()

    inputs = jax.random.normal(keys[3], (30, 16, 4))
    labels = jax.random.randint(keys[4], (30, 16), 0, 3)
    data = [{"x": x, "y": y} for x, y in zip(inputs, labels, strict=True)]
    return SimpleNamespace(
        params=params, vector=vector, loss=loss, data=data,
        flat_loss=lambda vector, datum: loss(unravel(vector), datum),
        ravel=lambda tree: jax.flatten_util.ravel_pytree(tree)[0],
    )  # fmt: skip
