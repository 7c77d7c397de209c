"""The guard: nothing where nothing happens, and nothing that is not finite where it does."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from metaopt import Averages, online_control, restart_learning
from metaopt.guards import guard
from metaopt.recipes import minibatch_optimizer
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


def test_a_guard_does_not_change_a_run_that_converges(mlp):
    value_fn = lambda params: mlp.loss(params, mlp.data[0])  # noqa: E731

    guarded, state = run(guard(optax.adam(0.05)), value_fn, mlp.params, 50)
    plain, _ = run(optax.with_extra_args_support(optax.adam(0.05)), value_fn, mlp.params, 50)

    # To rounding: XLA fuses a step with what watches it in its own way.
    close = functools.partial(np.testing.assert_allclose, rtol=1e-3, atol=1e-5)
    jax.tree.map(close, guarded, plain)
    assert int(state.restarts) == 0


def test_a_guard_on_too_fast_gradient_descent_equals_a_computation_by_hand():
    # f = x^2 / 2 from 1: a rate of 3 doubles x and flips it, f goes from 0.5 to 2. The second look
    # at x = -2 gives the same loss, so x goes back. Then at 1.5 it is halved and flipped.
    points, state = run(guard(optax.sgd(3.0)), lambda x: 0.5 * x**2, jnp.ones(()), 6)

    np.testing.assert_array_equal(points, [-2.0, -2.0, 1.0, -0.5, 0.25, -0.125])
    assert (int(state.restarts), int(state.held), float(state.scale)) == (1, 1, 0.5)


@pytest.mark.parametrize("bound", [None, -1.0])
@pytest.mark.parametrize("constant", [-8.0, -0.5, 64.0])
def test_a_constant_added_to_the_loss_changes_nothing(bound, constant):
    # A loss that starts at 0 and falls to -1 with noise, and steps that are too long at first.
    def points_of(c):
        tx = guard(optax.sgd(2.5), lower_bound=None if bound is None else bound + c)

        def step(carry, noise):
            x, state = carry
            loss, grad = 0.5 * (x - 1) @ (x - 1) - 1.0 + noise, x - 1
            updates, state = tx.update(grad, state, x, value=loss + c)
            return (x + updates, state), x + updates

        noise = jnp.round(8 * jax.random.normal(jax.random.PRNGKey(0), (60,))) / 64
        x = jnp.array([0.0, 2.0])
        (_, state), points = jax.lax.scan(step, (x, tx.init(x)), noise)
        return points, int(state.restarts), int(state.held)

    plain, shifted = points_of(0.0), points_of(constant)

    np.testing.assert_allclose(shifted[0], plain[0], rtol=1e-4, atol=1e-4)
    assert shifted[1:] == plain[1:]
    assert plain[1] >= 1


W = np.arange(1.0, 5.0) / 4


def regression(tx, seed, batch, spoil=lambda step, value, grads: (value, grads), steps=400):
    """Fit fresh samples of a linear model; return the error, and the guard's state."""

    def loss(x, key):
        key_x, key_y = jax.random.split(key)
        inputs = jax.random.normal(key_x, (batch, W.size))
        targets = inputs @ jnp.asarray(W) + 0.3 * jax.random.normal(key_y, (batch,))
        return jnp.mean((inputs @ x - targets) ** 2)

    def step(carry, given):
        x, state = carry
        index, key = given
        value, grads = spoil(index, *jax.value_and_grad(loss)(x, key))
        updates, state = tx.update(grads, state, x, value=value)
        return (x + updates, state), None

    keys = jax.random.split(jax.random.PRNGKey(seed), steps)
    x = jnp.zeros(W.size)
    (x, state), _ = jax.lax.scan(step, (x, tx.init(x)), (jnp.arange(steps), keys))
    return jnp.sum((x - jnp.asarray(W)) ** 2), state


@pytest.mark.parametrize("batch, bound", [(1, None), (16, 0.0)])
def test_noise_does_not_count_as_divergence(batch, bound):
    tx = guard(optax.sgd(0.02), lower_bound=bound)
    plain = optax.with_extra_args_support(optax.sgd(0.02))

    errors, states = jax.jit(jax.vmap(lambda seed: regression(tx, seed, batch)))(jnp.arange(20))
    unguarded, _ = jax.jit(jax.vmap(lambda seed: regression(plain, seed, batch)))(jnp.arange(20))

    assert float(jnp.median(errors)) < 1.2 * float(jnp.median(unguarded)) < 0.05
    assert float(errors.max()) < 1.5 * float(unguarded.max())
    assert float((states.scale < 1).mean()) <= 0.1
    assert float(states.held.mean()) < 30


@pytest.mark.parametrize("batch, steps", [(1, 1500), (16, 400)])
def test_the_recipe_for_changing_batches_learns_at_every_batch_size(batch, steps):
    tx = minibatch_optimizer(steps)

    errors, states = jax.jit(jax.vmap(lambda seed: regression(tx, seed, batch, steps=steps)))(
        jnp.arange(10)
    )

    assert float(jnp.median(errors)) < 0.01
    assert float(states.restarts.mean()) <= 0.3


SPOILT = {
    "high": lambda value, grads: (1e6 * value, 1e3 * grads),
    "low": lambda value, grads: (value - 1e6, grads),
    "not a number": lambda value, grads: (jnp.nan * value, jnp.nan * grads),
    "infinite": lambda value, grads: (jnp.inf + value, grads),
    "a gradient that is not finite": lambda value, grads: (value, jnp.inf * grads),
}


@pytest.mark.parametrize("kind", SPOILT)
def test_one_odd_batch_does_not_change_where_a_run_ends(kind):
    tx = guard(optax.sgd(0.02))

    def end(at, seed):
        def spoil(index, value, grads):
            return jax.tree.map(
                lambda odd, usual: jnp.where(index == at, odd, usual),
                SPOILT[kind](value, grads), (value, grads),
            )  # fmt: skip

        return regression(tx, seed, 16, spoil)

    places = jnp.array([-1, 0, 1, 30, 300])  # the first is none
    errors, states = jax.jit(jax.vmap(jax.vmap(end, in_axes=(None, 0)), in_axes=(0, None)))(
        places, jnp.arange(8)
    )

    # A first batch that is high but finite moves the parameters before anything is known.
    clean, *spoilt = jnp.median(errors, axis=1)
    assert all(float(error) < 1.5 * float(clean) + 1e-4 for error in spoilt)
    assert int(states.held[1:].min()) >= (kind not in ("low", "high"))


def test_too_fast_on_changing_batches_is_slowed_down_and_recovers_from_a_false_alarm():
    tx = guard(optax.sgd(5.0))

    errors, states = jax.jit(jax.vmap(lambda seed: regression(tx, seed, 16)))(jnp.arange(8))

    assert float(jnp.median(errors)) < 0.1
    assert int(states.restarts.min()) >= 1
    assert float(states.scale.max()) <= 0.25

    # Four high losses of nothing: one restart, and after 200 quiet steps the steps are their own.
    tx, x = guard(optax.sgd(0.1), lower_bound=0.0), jnp.ones(())
    state = tx.init(x)
    update = jax.jit(lambda x, state, value: tx.update(x, state, x, value=value))
    scales = []
    for step in range(220):
        value = 100.0 + step if 5 <= step < 9 else x**2 / 2
        updates, state = update(x, state, value)
        x = x + updates
        scales.append(float(state.scale))

    assert int(state.restarts) == 1
    assert scales[8] == 0.5 and scales[207] == 0.5 and scales[-1] == 1.0


def test_a_loss_that_rises_without_a_step_raises_the_limit_without_a_restart():
    tx, x = guard(optax.sgd(0.0), lower_bound=0.0), jnp.ones(())
    state = tx.init(x)

    for value in (1.0, 5.0, 5.0, 5.0, 5.0, 5.0):
        _, state = tx.update(x, state, x, value=jnp.float32(value))

    assert int(state.restarts) == 1  # a step was taken after the first loss, though of length 0
    assert (float(state.high), int(state.odd)) == (5.0, 0)


@pytest.mark.parametrize(
    "updates, value, calls",
    [
        ([jnp.nan, 1.0], 1.0, 2),
        ([1.0, 1.0], jnp.nan, 2),
        ([1.0, 1.0], jnp.inf, 2),
        ([1.0, 1.0], -jnp.inf, 2),
        ([1.0, 1.0], 10.0, 2),
        ([-3e38, 1.0], 1.0, 1),
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
def test_non_finite_or_too_high_losses_return_to_the_best_point(updates, value, calls):
    tx = guard(optax.sgd(2.0, momentum=0.9))
    best, away = jnp.array([1.0, 2.0]), jnp.array([3.0, 0.5])
    state = tx.init(best)
    for _ in range(4):
        _, state = tx.update(jnp.ones(2), state, best, value=jnp.float32(1.0))

    for call in range(calls):
        step, state = tx.update(jnp.array(updates), state, away, value=jnp.float32(value))
        if call < calls - 1:
            np.testing.assert_array_equal(step, 0)

    np.testing.assert_allclose(away + step, best, rtol=1e-6)
    assert (int(state.restarts), int(state.held)) == (1, calls - 1)
    assert float(state.best_loss) == 1.0
    np.testing.assert_array_equal(jax.tree.leaves(state.inner)[0], 0)  # momentum is gone


def test_without_a_best_point_it_goes_on_from_where_it_is_with_shorter_steps():
    # As computed by hand above, but it stays at -2 with half the rate.
    tx = guard(optax.sgd(3.0), keep_best=False)
    points, state = run(tx, lambda x: 0.5 * x**2, jnp.ones(()), 12)

    np.testing.assert_array_equal(points[:3], [-2.0, -2.0, -2.0])
    assert state.best is None
    assert float(state.scale) == 0.5
    assert int(state.restarts) == 1
    assert abs(points[-1]) < 0.1  # halved and flipped at every step


def test_a_step_that_overflows_is_a_divergence():
    tx, x = guard(optax.sgd(1.0)), jnp.array([3e38, 1.0])
    state = tx.init(x)

    step, state = tx.update(jnp.array([-1e38, 1.0]), state, x, value=jnp.float32(1.0))

    np.testing.assert_array_equal(step, 0)
    assert int(state.restarts) == 1


def test_a_loss_that_is_never_finite_moves_nothing_and_is_counted():
    tx, x = guard(optax.sgd(0.1)), jnp.ones(2)
    state = tx.init(x)

    for call in range(1, 7):
        updates, state = tx.update(jnp.full(2, jnp.nan), state, x, value=jnp.float32(jnp.nan))
        np.testing.assert_array_equal(updates, 0)
        assert (int(state.restarts), int(state.held)) == (call // 2, (call + 1) // 2)


@pytest.mark.parametrize("scale", [1e-4, 1.0, 1e2])
def test_updates_are_finite_for_any_initial_scale(mlp, scale):
    controller = Averages(weights=jnp.full(3, jnp.log(scale)))
    tx = guard(
        online_control(controller, optax.chain(by_log_loss(), optax.adam(0.03)), scale_by_polyak()),
        restart=restart_learning,
    )
    value_fn = lambda params: mlp.loss(params, mlp.data[0])  # noqa: E731

    points, state = run(tx, value_fn, mlp.params, 300)

    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves((points, state.inner)))
    assert float(state.best_loss) < 1e-2
    assert (int(state.restarts) > 0) == (scale == 1e2)


def test_restart_learning_halves_the_controls_and_keeps_the_learned_weights(mlp):
    controller = Averages(weights=jnp.array([0.1, 0.2, 0.3]))
    tx = guard(online_control(controller, optax.adam(0.03)), restart=restart_learning)
    value_fn = lambda p: mlp.loss(p, mlp.data[0])  # noqa: E731
    _, state = run(tx, value_fn, mlp.params, 10)
    grads = jax.grad(value_fn)(mlp.params)

    update = jax.jit(tx.update)
    _, held = update(grads, state, mlp.params, value=jnp.float32(jnp.inf))
    _, after = update(grads, held, mlp.params, value=jnp.float32(jnp.inf))

    before, inner = state.inner, after.inner
    weights = [part.controller.weights for part in (before, held.inner, inner)]
    np.testing.assert_array_equal(weights[1], weights[0])
    np.testing.assert_allclose(jnp.exp(weights[2]), 0.5 * jnp.exp(weights[0]), rtol=1e-6)
    jax.tree.map(np.testing.assert_array_equal, inner.meta_state, before.meta_state)
    assert all(not leaf.any() for leaf in jax.tree.leaves(inner.memory))
    assert int(inner.count) == 0


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"limit": 1.0}, "`limit` must be above 1, got 1.0"),
        ({"limit": float("nan")}, "`limit` must be above 1, got nan"),
        ({"patience": 1}, "`patience` must be at least 2, got 1"),
        ({"shrink": 0.0}, r"`shrink` must lie in \(0, 1\], got 0.0"),
        ({"shrink": 2.0}, r"`shrink` must lie in \(0, 1\], got 2.0"),
    ],
)
def test_a_bad_argument_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        guard(optax.sgd(0.1), **arguments)


@pytest.mark.parametrize("given", [{"params": jnp.ones(2)}, {"value": 1.0}], ids=["loss", "params"])
def test_missing_parameters_or_loss_are_refused(given):
    tx = guard(optax.sgd(0.1))

    with pytest.raises(ValueError, match=r"must be passed to update.*guard needs"):
        tx.update(jnp.ones(2), tx.init(jnp.ones(2)), **given)


@pytest.mark.parametrize("bound, below", [(None, 0), (-1.0, 1), (0.0, 3), (5.0, 5)])
def test_losses_at_or_below_the_bound_are_counted(bound, below):
    tx = guard(optax.sgd(0.1), lower_bound=bound)
    x, state, update = jnp.ones(2), tx.init(jnp.ones(2)), jax.jit(tx.update)

    for value in (3.0, 0.5, 0.0, -1.0, -0.5, jnp.nan):
        _, state = update(jnp.zeros(2), state, x, value=jnp.float32(value))

    assert int(state.below) == below
    assert int(state.held) == 1
