"""Disturbances and meta-gradients without a scale, against closed forms and invariances."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from metaopt.scales import by_log_loss, scale_by_level, scale_by_polyak, scale_by_rms

X = jnp.array([3.0, -4.0])


def descend(tx, value_fn, start, steps):
    """Take whole disturbances as steps; return all points."""

    def step(carry, _):
        x, state = carry
        value, grads = jax.value_and_grad(value_fn)(x)
        w, state = tx.update(grads, state, x, value=value)
        return (x - w, state), x - w

    return np.array(jax.lax.scan(step, (start, tx.init(start)), length=steps)[1])


@pytest.mark.parametrize("tx", [scale_by_polyak(), scale_by_level()], ids=["polyak", "level"])
def test_each_step_on_a_square_goes_half_the_way_to_its_minimum(tx):
    points = descend(tx, lambda x: 0.5 * jnp.sum(x**2), X, 12)

    np.testing.assert_allclose(points, np.asarray(X) * 0.5 ** np.arange(1, 13)[:, None], rtol=1e-5)


@pytest.mark.parametrize("scale, shift", [(1e-6, 0.0), (1e6, 0.0), (1.0, 0.25), (1.0, -3.0)])
def test_scale_and_floor_of_the_loss_change_nothing(scale, shift):
    def value_fn(x):
        return jnp.sum(jnp.array([1.0, 3.0]) * x**2) + 0.1 * jnp.sum(x**4)

    expected = descend(scale_by_polyak(), value_fn, X, 5)
    found = descend(scale_by_polyak(floor=shift), lambda x: scale * value_fn(x) + shift, X, 5)

    np.testing.assert_allclose(found, expected, rtol=2e-3)


@pytest.mark.parametrize("tx", [scale_by_polyak(floor=1.0), scale_by_level(1.0)])
@pytest.mark.parametrize("gradient, value", [(jnp.zeros(2), 3.0), (X, 1.0), (X, 0.5)])
def test_without_slope_or_at_the_floor_there_is_no_step(tx, gradient, value):
    w, _ = tx.update(gradient, tx.init(X), X, value=jnp.float32(value))

    np.testing.assert_array_equal(w, 0)


def test_adaptive_level_approaches_an_unknown_floor():
    floor = 2.0

    def value_fn(x):
        return floor + 0.5 * jnp.sum(jnp.array([1.0, 0.1]) * x**2)

    towards_zero = descend(scale_by_polyak(), value_fn, X, 400)
    towards_a_level = descend(scale_by_level(), value_fn, X, 400)

    above = [jax.vmap(value_fn)(points[-50:]) - floor for points in (towards_zero, towards_a_level)]
    assert above[0].max() > 1.0  # steps that are too long for good
    assert above[1].max() < 1e-5


def test_gap_halves_without_progress_and_doubles_with_it():
    # By hand: patience 2. First the gap is the loss itself.
    tx = scale_by_level(patience=2)
    state, gaps = tx.init(X), []
    for value in (8.0, 7.0, 6.5, 6.0, 5.0, 4.5, 1.0, 0.4):
        _, state = tx.update(X, state, X, value=jnp.float32(value))
        gaps.append(float(state.gap))

    # Set; two that wait, at the bound; late: half of 6; from 6 to 5 is not half of 3, to 4.5 it is;
    # then twice as much, but no more than the bound.
    assert gaps == pytest.approx([8.0, 7.0, 6.5, 3.0, 3.0, 4.5, 1.0, 0.4])


@pytest.mark.parametrize("value", [jnp.nan, jnp.inf, -jnp.inf])
def test_a_non_finite_loss_gives_no_step_and_is_not_the_record(value):
    tx = scale_by_level()
    expected, _ = tx.update(X, tx.init(X), X, value=jnp.float32(8.0))

    w, state = tx.update(X, tx.init(X), X, value=jnp.float32(value))
    np.testing.assert_array_equal(w, 0)
    w, state = tx.update(X, state, X, value=jnp.float32(8.0))

    np.testing.assert_array_equal(w, expected)
    assert (float(state.record), float(state.gap)) == (8.0, 8.0)


def test_a_loss_below_the_bound_gives_no_step():
    tx = scale_by_level(1.0)
    state = tx.init(X)

    for value in (0.5, 0.75):  # the second lies above the record
        w, state = tx.update(X, state, X, value=jnp.float32(value))
        np.testing.assert_array_equal(w, 0)


def test_gradient_of_the_log_loss_equals_autodiff(mlp):
    floor, datum = 0.1, mlp.data[0]

    def above(params):
        return mlp.loss(params, datum) - floor

    value, grads = jax.value_and_grad(mlp.loss)(mlp.params, datum)
    tx = by_log_loss(floor)
    found, _ = tx.update(grads, tx.init(grads), value=value)

    expected = jax.grad(lambda params: jnp.log(above(params)))(mlp.params)
    np.testing.assert_allclose(mlp.ravel(found), mlp.ravel(expected), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("value", [0.1, 0.05, -1.0])
def test_the_log_loss_gradient_is_zero_at_the_floor(value):
    tx = by_log_loss(0.1)
    found, _ = tx.update(X, tx.init(X), value=jnp.float32(value))

    np.testing.assert_array_equal(found, 0)


@pytest.mark.parametrize("make", [scale_by_polyak, scale_by_level])
def test_a_preconditioned_step_meets_the_floor_of_the_linear_model(make):
    gradient, value = jnp.array([0.5, -3.0, 0.01]), jnp.float32(7.0)
    sign = optax.stateless(lambda g, params: jax.tree.map(jnp.sign, g))
    tx = make(preconditioner=sign)

    w, _ = tx.update(gradient, tx.init(gradient), value=value)

    np.testing.assert_allclose(jnp.vdot(gradient, w), value, rtol=1e-6)
    np.testing.assert_allclose(w, 7.0 / 3.51 * np.sign(gradient), rtol=1e-6)


@pytest.mark.parametrize("make", [scale_by_polyak, scale_by_level])
def test_the_scale_of_a_preconditioner_and_of_a_coordinate_do_not_matter(make):
    def value_fn(x):
        return jnp.sum(jnp.array([1.0, 3.0]) * x**2) + 0.1 * jnp.sum(x**4)

    units = np.float32([1e-3, 1e3])
    expected = descend(make(preconditioner=optax.scale_by_adam(b1=0.0)), value_fn, X, 5)
    larger = optax.chain(optax.scale_by_adam(b1=0.0, eps=0.0), optax.scale(1e4))
    found = descend(make(preconditioner=larger), value_fn, X, 5)
    np.testing.assert_allclose(found, expected, rtol=1e-3)

    # In other units 1 / g changes as the parameters do, so the points are the same.
    inverse = optax.stateless(lambda g, p: jax.tree.map(lambda leaf: 1.0 / leaf, g))
    expected = descend(make(preconditioner=inverse), value_fn, X, 3)
    found = descend(make(preconditioner=inverse), lambda y: value_fn(units * y), X / units, 3)
    np.testing.assert_allclose(found * units, expected, rtol=1e-3)


def test_a_direction_that_does_not_descend_is_not_followed():
    tx = scale_by_polyak(preconditioner=optax.scale(-1.0))

    w, _ = tx.update(X, tx.init(X), value=jnp.float32(1.0))

    np.testing.assert_array_equal(w, 0)


@pytest.mark.parametrize("patience", [0, 1.5])
def test_patience_is_a_number_of_steps(patience):
    with pytest.raises(ValueError, match="`patience` must be an integer of at least 1, got"):
        scale_by_level(patience=patience)


def test_scale_by_rms_equals_adam_without_its_first_moment():
    tx, other = scale_by_rms(0.9), optax.scale_by_adam(b1=0.0, b2=0.9)
    x = {"a": jnp.zeros(3), "b": jnp.zeros((2, 2))}
    state, expected = tx.init(x), other.init(x)

    for step in range(5):
        key = jax.random.PRNGKey(step)
        grads = jax.tree.map(lambda leaf, key=key: 10.0 ** jax.random.normal(key, leaf.shape), x)
        found, state = tx.update(grads, state)
        wanted, expected = other.update(grads, expected)
        jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-5), found, wanted)


@pytest.mark.parametrize("decay", [-0.1, 1.0, float("nan")])
def test_decay_of_mean_squares_must_be_below_one(decay):
    with pytest.raises(ValueError, match="`decay` must lie in"):
        scale_by_rms(decay)


def test_a_batch_close_to_the_floor_cannot_outweigh_the_others():
    tx = by_log_loss(1.0, decay=0.5)
    state, factors = tx.init(jnp.ones(())), []

    for gap in (1.0, 1.0, 1e-6, 1.0, 0.0):
        scaled, state = tx.update(jnp.ones(()), state, value=jnp.float32(1.0 + gap))
        factors.append(float(scaled))

    # The mean is 1, 1, 0.5, 0.75, 0.375; a gap counts as a tenth of it at least.
    np.testing.assert_allclose(factors, [1.0, 1.0, 20.0, 1.0, 0.0], rtol=1e-4)


def test_decay_of_the_mean_gap_must_be_in_0_to_1():
    with pytest.raises(ValueError, match="`decay` must lie in"):
        by_log_loss(decay=1.0)
