"""The guard: nothing where nothing happens, and nothing that is not finite where it does."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from metaopt import Averages, meta_optimizer
from metaopt.guards import guard
from metaopt.mixtures import restart_learning
from metaopt.scales import by_log_loss, scale_by_polyak


def run(tx, value_fn, x, steps):
    """Return all points, and the last state."""

    def step(carry, _):
        x, state = carry
        value, grads = jax.value_and_grad(value_fn)(x)
        updates, state = tx.update(grads, state, x, value=value)
        x = optax.apply_updates(x, updates)
        return (x, state), x

    (_, state), points = jax.lax.scan(step, (x, tx.init(x)), length=steps)
    return jax.tree.map(np.asarray, points), state


def test_a_run_that_stays_on_the_road_is_that_of_the_optimizer(mlp):
    value_fn = lambda params: mlp.loss(params, mlp.data[0])  # noqa: E731

    guarded, state = run(guard(optax.adam(0.05)), value_fn, mlp.params, 50)
    plain, _ = run(optax.with_extra_args_support(optax.adam(0.05)), value_fn, mlp.params, 50)

    # To rounding: XLA fuses a step with what watches it in its own way.
    close = functools.partial(np.testing.assert_allclose, rtol=1e-3, atol=1e-5)
    jax.tree.map(close, guarded, plain)
    assert int(state.restarts) == 0


def test_gradient_descent_that_is_too_fast_by_hand():
    # f = x^2 / 2 from 1: a rate of 3 doubles x and flips it; f goes from 0.5 to 2, above 0.75, and
    # x goes back. Then at 1.5 it is halved and flipped.
    points, state = run(guard(optax.sgd(3.0)), lambda x: 0.5 * x**2, jnp.ones(()), 5)

    np.testing.assert_array_equal(points, [-2.0, 1.0, -0.5, 0.25, -0.125])
    assert (int(state.restarts), float(state.scale)) == (1, 0.5)


@pytest.mark.parametrize("first", [-1.0, -4.0])
def test_the_limit_of_a_negative_loss_is_above_it(first):
    tx, x = guard(optax.sgd(0.0)), jnp.ones(2)
    state = tx.init(x)

    for above, restarts in ((0.0, 0), (0.49, 0), (0.51, 1)):
        value = jnp.float32(first + above * abs(first))
        _, state = tx.update(x, state, x, value=value)
        assert int(state.restarts) == restarts


@pytest.mark.parametrize(
    "updates, value",
    [
        ([jnp.nan, 1.0], 1.0),
        ([1.0, 1.0], jnp.nan),
        ([1.0, 1.0], jnp.inf),
        ([1.0, 1.0], -jnp.inf),
        ([1.0, 1.0], 10.0),
        ([-3e38, 1.0], 1.0),
    ],
    ids=[
        "NaN in the gradient",
        "NaN",
        "infinite",
        "minus infinity",
        "above the limit",
        "step overflows",
    ],
)
def test_what_is_not_finite_or_too_high_sends_back_to_the_best_point(updates, value):
    tx = guard(optax.sgd(2.0, momentum=0.9))
    best, away = jnp.array([1.0, 2.0]), jnp.array([3.0, 0.5])
    _, state = tx.update(jnp.ones(2), tx.init(best), best, value=jnp.float32(1.0))

    step, state = tx.update(jnp.array(updates), state, away, value=jnp.float32(value))

    np.testing.assert_allclose(away + step, best, rtol=1e-6)
    assert int(state.restarts) == 1
    assert float(state.best_loss) == 1.0
    np.testing.assert_array_equal(jax.tree.leaves(state.inner)[0], 0)  # momentum is gone


def test_a_sum_that_overflows_is_no_parameter():
    tx, x = guard(optax.sgd(1.0)), jnp.array([3e38, 1.0])
    state = tx.init(x)

    step, state = tx.update(jnp.array([-1e38, 1.0]), state, x, value=jnp.float32(1.0))

    np.testing.assert_array_equal(step, 0)
    assert int(state.restarts) == 1


def test_a_loss_that_is_never_finite_moves_nothing_and_is_counted():
    tx, x = guard(optax.sgd(0.1)), jnp.ones(2)
    state = tx.init(x)

    for count in range(1, 4):
        updates, state = tx.update(jnp.full(2, jnp.nan), state, x, value=jnp.float32(jnp.nan))
        np.testing.assert_array_equal(updates, 0)
        assert int(state.restarts) == count


@pytest.mark.parametrize("scale", [1e-4, 1e-2, 1.0, 1e2])
def test_whatever_the_scale_to_start_from_nothing_leaves_that_is_not_finite(mlp, scale):
    controller = Averages(weights=jnp.full(3, jnp.log(scale)))
    tx = guard(
        meta_optimizer(
            None, 0.0, recorded=True, controller=controller, disturbance=scale_by_polyak(),
            meta_optimizer=optax.chain(by_log_loss(), optax.adam(0.03)),
        ),
        restart=restart_learning(controller),
    )  # fmt: skip
    value_fn = lambda params: mlp.loss(params, mlp.data[0])  # noqa: E731

    points, state = run(tx, value_fn, mlp.params, 300)

    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves((points, state.inner)))
    assert float(state.best_loss) < 1e-2
    assert (int(state.restarts) > 0) == (scale == 1e2)


def test_a_restart_of_learning_halves_the_controls_and_keeps_what_was_learned(mlp):
    controller = Averages(weights=jnp.array([0.1, 0.2, 0.3]))
    learner = meta_optimizer(
        None, 0.0, recorded=True, controller=controller, meta_optimizer=optax.adam(0.03)
    )
    tx, value_fn = (
        guard(learner, restart=restart_learning(controller)),
        lambda p: mlp.loss(p, mlp.data[0]),
    )
    _, state = run(tx, value_fn, mlp.params, 10)
    grads = jax.grad(value_fn)(mlp.params)

    _, after = tx.update(grads, state, mlp.params, value=jnp.float32(jnp.inf))

    before, inner = state.inner, after.inner
    np.testing.assert_allclose(jnp.exp(inner.weights), 0.5 * jnp.exp(before.weights), rtol=1e-6)
    jax.tree.map(np.testing.assert_array_equal, inner.meta_state, before.meta_state)
    assert all(not leaf.any() for leaf in jax.tree.leaves(inner.memory))
    assert int(inner.count) == 0


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"limit": 1.0}, "`limit` must be above 1, got 1.0"),
        ({"limit": float("nan")}, "`limit` must be above 1, got nan"),
        ({"shrink": 0.0}, r"`shrink` must lie in \(0, 1\], got 0.0"),
        ({"shrink": 2.0}, r"`shrink` must lie in \(0, 1\], got 2.0"),
    ],
)
def test_a_bad_argument_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        guard(optax.sgd(0.1), **arguments)


@pytest.mark.parametrize("given", [{"params": jnp.ones(2)}, {"value": 1.0}], ids=["loss", "params"])
def test_parameters_and_loss_must_be_there(given):
    tx = guard(optax.sgd(0.1))

    with pytest.raises(ValueError, match=r"must be passed to update.*guard needs"):
        tx.update(jnp.ones(2), tx.init(jnp.ones(2)), **given)
