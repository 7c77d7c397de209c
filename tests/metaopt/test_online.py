"""Online control against a hand derivation, exact rollouts and plain recursions."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from metaopt import (
    Averages,
    DiagonalLags,
    FullLags,
    ScalarLags,
    meta_optimizer,
    online_control,
    scale_by_level,
    scale_by_polyak,
    scale_by_rms,
)

DECAYS = (0.0, 0.5, 0.9)
WEIGHTS = jnp.array([0.2, 0.1, -0.05], jnp.float32)
CURVATURES = np.array([1.0, 5.0])


def keep_slopes():
    """A meta-optimizer that leaves M as it is and keeps the meta-gradient."""

    def update(slope, state, params=None):
        del state, params
        return jax.tree.map(jnp.zeros_like, slope), slope

    return optax.GradientTransformation(lambda w: jax.tree.map(jnp.zeros_like, w), update)


def descend(tx, start, steps):
    """Return the iterates and the weights on a quadratic with the curvatures above."""

    def step(carry, _):
        x, state = carry
        updates, state = tx.update(jnp.float32(CURVATURES) * x, state, x)
        x = optax.apply_updates(x, updates)
        return (x, state), (x, state.controller.weights)

    start = jnp.float32(start)
    _, (iterates, weights) = jax.lax.scan(step, (start, tx.init(start)), length=steps)
    return np.vstack([start[None], iterates]), np.asarray(weights)


def test_without_learning_one_lag_is_gradient_descent_in_closed_form():
    tx = online_control(ScalarLags(jnp.array([0.1])), optax.set_to_zero())

    iterates, _ = descend(tx, [1.0, 1.0], 20)

    t = np.arange(21)[:, None]
    np.testing.assert_allclose(iterates, (1 - 0.1 * CURVATURES) ** t, rtol=2e-5, atol=1e-7)


def test_lags_are_those_of_a_plain_recursion_in_double_precision():
    rate, history = 0.002, 3
    x, m, past, iterates, weights = np.array([1.0, -2.0]), np.array([0.05, 0.02, 0.0]), [], [], []
    tx = online_control(ScalarLags(jnp.float32(m)), optax.sgd(rate))
    iterates.append(x)
    for t in range(1, 41):
        g = CURVATURES * x
        if t > history:  # -d<g_t, u_{t-1}> / dM[h] = -<g_t, g_{t-1-h}>
            m = m + rate * np.array([g @ past[h] for h in range(history)])
        past = [g, *past][:history]
        x = x - sum(m[h] * w for h, w in enumerate(past))
        iterates.append(x)
        weights.append(m)

    ours = descend(tx, [1.0, -2.0], 40)

    np.testing.assert_allclose(ours[0], iterates, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(ours[1], weights, rtol=1e-4, atol=1e-6)
    assert np.abs(weights[-1] - weights[0]).max() > 5e-3


def test_averages_in_log_space_are_those_of_a_plain_recursion_in_double_precision():
    rate, decays = 0.05, np.array([0.0, 0.9])
    x, w, e, iterates, weights = (
        np.array([1.0, -2.0]),
        np.log([0.05, 0.02]),
        np.zeros((2, 2)),
        [],
        [],
    )
    tx = online_control(Averages(tuple(decays), jnp.float32(w)), optax.sgd(rate))
    iterates.append(x)
    for t in range(1, 41):
        g = CURVATURES * x
        if t > 1:
            w = w + rate * np.exp(w) * (1 - decays) * (e @ g)
        e = decays[:, None] * e + g
        x = x - (np.exp(w) * (1 - decays)) @ e
        iterates.append(x)
        weights.append(w)

    ours = descend(tx, [1.0, -2.0], 40)

    np.testing.assert_allclose(ours[0], iterates, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(ours[1], weights, rtol=1e-4, atol=1e-6)
    assert np.abs(weights[-1] - weights[0]).max() > 5e-2


CONTROLLERS = {
    "linear averages": Averages(DECAYS, WEIGHTS, "linear"),
    "averages in log space": Averages(DECAYS, jnp.log(jnp.abs(WEIGHTS))),
    "scalar lags": ScalarLags(WEIGHTS),
    "diagonal lags": DiagonalLags(jnp.tile(WEIGHTS[:, None], 64)),
}
each_controller = pytest.mark.parametrize(
    "controller", CONTROLLERS.values(), ids=CONTROLLERS.keys()
)


@each_controller
def test_the_meta_gradient_is_that_of_a_rollout_of_1_while_m_is_unchanged(controller, mlp):
    online = online_control(controller, keep_slopes())
    exact = meta_optimizer(
        mlp.loss, 0.0, rollout=1, example=mlp.data[0], controller=controller,
        meta_optimizer=keep_slopes(),
    )  # fmt: skip

    @jax.jit
    def step(params, states, datum):
        grads = jax.grad(mlp.loss)(params, datum)
        updates, first = online.update(grads, states[0], params)
        expected, second = exact.update(grads, states[1], params, datum=datum)
        return optax.apply_updates(params, updates), (first, second), (updates, expected)

    params, states = mlp.params, (online.init(mlp.params), exact.init(mlp.params))
    for datum in mlp.data[:8]:
        params, states, updates = step(params, states, datum)
        slopes = [jax.tree.leaves(state.meta_state) for state in states]
        for ours, theirs in zip(*slopes, strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(*map(mlp.ravel, updates), rtol=1e-4, atol=1e-7)

    assert max(np.abs(leaf).max() for leaf in slopes[0]) > 1e-3


def test_the_first_meta_gradient_by_hand():
    # x_1 = x, g_1 = a x, E = g_1 for every k; g_2 = a (x - sum M_k (1 - b_k) g_1).
    tx = online_control(Averages(DECAYS, WEIGHTS, "linear"), keep_slopes())
    a, x = CURVATURES, np.float64([1.0, -2.0])
    rest = np.array([1.0, 0.5, 0.1])

    state, params = tx.init(jnp.float32(x)), jnp.float32(x)
    for _ in range(2):
        updates, state = tx.update(jnp.float32(a) * params, state)
        params = optax.apply_updates(params, updates)

    first = a * x
    second = a * (x - np.sum(np.asarray(WEIGHTS) * rest) * first)
    np.testing.assert_allclose(state.meta_state, -rest * (first @ second), rtol=1e-5)


@each_controller
def test_scaled_controllers_command_scaled_controls(controller, mlp):
    controller = controller.init(mlp.params, 3)
    memory = controller.observe(controller.init_memory(mlp.params, 0), mlp.params)

    whole, part = (
        mlp.ravel(kind.controls(memory, 1, mlp.params)[0])
        for kind in (controller, controller.scaled(0.3))
    )

    np.testing.assert_allclose(part, 0.3 * whole, rtol=1e-5, atol=1e-7)


def test_the_loss_reaches_the_disturbance_and_the_meta_optimizer():
    def by_value(updates, state, params=None, *, value, **_):
        return jax.tree.map(lambda u: value * u, updates), state

    scaled = optax.GradientTransformationExtraArgs(lambda params: (), by_value)
    tx = online_control(ScalarLags(jnp.array([1.0])), scaled, scaled)
    x = jnp.array([1.0, 2.0])

    first, state = tx.update(x, tx.init(x), x, value=jnp.float32(3.0))
    _, state = tx.update(x, state, x, value=jnp.float32(2.0))

    np.testing.assert_allclose(first, -3.0 * x)
    np.testing.assert_allclose(state.controller.weights, [1.0 + 2.0 * -(3.0 * 5.0)])


# Weight decay


@pytest.mark.parametrize(
    "controller, rate",
    [
        (Averages((0.0, 0.9), jnp.log(jnp.array([0.2, 0.05]))), 0.25),
        (Averages((0.0, 0.9), jnp.array([0.2, 0.05]), "linear"), 0.25),
        (ScalarLags(jnp.array([0.2, 0.0, 0.05])), 0.25),
        (DiagonalLags(jnp.array([[0.2, 0.1], [0.05, 0.3]])), np.array([0.25, 0.4])),
        (FullLags(jnp.array([[[0.2, 0.0], [0.0, 0.1]], [[0.05, 0.0], [0.0, 0.3]]])),
         np.array([0.25, 0.4])),
    ],
    ids=["log averages", "averages", "scalar lags", "diagonal lags", "full lags"],
)  # fmt: skip
def test_without_a_gradient_weights_shrink_by_the_sum_of_m(controller, rate):
    tx = online_control(controller, optax.adam(0.1), weight_decay=0.4)
    start = x = jnp.array([3.0, -4.0])
    state, update = tx.init(x), jax.jit(tx.update)

    for _ in range(5):
        updates, state = update(jnp.zeros(2), state, x)
        x = optax.apply_updates(x, updates)

    np.testing.assert_allclose(x, start * (1 - 0.4 * rate) ** 5, rtol=1e-6)


def test_with_a_constant_m_the_gradient_over_its_rms_and_the_decay_are_adamw():
    mask = lambda x: jax.tree.map(lambda leaf: leaf.ndim > 1, x)  # noqa: E731
    ours = online_control(
        Averages((0.0,), jnp.log(jnp.array([0.03]))), optax.set_to_zero(), scale_by_rms(0.9),
        weight_decay=0.5, mask=mask,
    )  # fmt: skip
    adamw = optax.adamw(0.03, b1=0.0, b2=0.9, weight_decay=0.5, mask=mask)
    start = {"w": jnp.array([[1.0, -2.0], [3.0, 0.5]]), "b": jnp.array([1.0, -1.0])}

    def train(tx):
        x, state, update = start, tx.init(start), jax.jit(tx.update)
        for t in range(20):
            grads = jax.tree.map(lambda leaf, t=t: jnp.cos(t + leaf), x)
            updates, state = update(grads, state, x)
            x = optax.apply_updates(x, updates)
        return x

    for found, expected in zip(*map(jax.tree.leaves, map(train, (ours, adamw))), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-5)


@pytest.mark.parametrize(
    "mask, decays",
    [
        (None, (True, True, True)),
        ({"one": {"w": True, "b": False}, "two": {"w": False}}, (False, True, False)),
        ({"one": False, "two": True}, (False, False, True)),
        (lambda x: {"one": jax.tree.map(lambda leaf: leaf.ndim > 1, x["one"]), "two": True},
         (False, True, True)),
    ],
    ids=["none", "tree", "prefix", "function"],
)  # fmt: skip
def test_a_mask_leaves_parameters_out_as_in_optax(mask, decays):
    x = {"one": {"w": jnp.ones((2, 2)), "b": jnp.ones(2)}, "two": {"w": jnp.ones(3)}}
    tx = online_control(
        ScalarLags(jnp.array([0.5])), optax.set_to_zero(), weight_decay=0.2, mask=mask
    )

    updates, _ = jax.jit(tx.update)(jax.tree.map(jnp.zeros_like, x), tx.init(x), x)

    for leaf, decayed in zip(jax.tree.leaves(updates), decays, strict=True):
        np.testing.assert_array_equal(leaf, np.float32(-0.1) if decayed else 0.0)


@pytest.mark.parametrize(
    "disturbance, times",
    [
        (scale_by_polyak(), 1.0),
        (scale_by_level(), 1.0),
        (optax.chain(scale_by_polyak(preconditioner=optax.scale(7.0)), optax.identity()), 7.0),
    ],
    ids=["polyak", "level", "inside a chain"],
)
def test_decay_has_the_unit_of_the_direction_not_of_polyaks_factor(disturbance, times):
    # f = |x|^2 / 2: the step is M x / 2. The direction is x, or 7 x, and the rate M / 2 or M / 14.
    tx = online_control(
        ScalarLags(jnp.array([0.5])), optax.set_to_zero(), disturbance, weight_decay=0.2
    )
    x = jnp.array([3.0, -4.0])

    updates, _ = tx.update(x, tx.init(x), x, value=jnp.float32(12.5))

    np.testing.assert_allclose(updates, -0.25 * x - 0.2 * 0.25 / times * x, rtol=1e-6)


def test_a_mask_of_another_structure_is_refused():
    x = {"w": jnp.ones((2, 2)), "b": jnp.ones(2)}

    for mask in ({"w": True}, lambda x: {"w": True, "c": False}):
        tx = online_control(ScalarLags(jnp.array([0.1])), optax.sgd(0.1), mask=mask)
        with pytest.raises(ValueError, match=r"`mask` must be a tree of booleans .*, got"):
            tx.init(x)


def test_m_does_not_learn_from_the_decay():
    x, weights = jnp.array([1.0, -2.0]), []
    for weight_decay in (0.0, 0.3):
        tx = online_control(
            Averages((0.0, 0.9)), optax.adam(0.1), scale_by_rms(), weight_decay=weight_decay
        )
        state = tx.init(x)
        for t in range(10):
            _, state = tx.update(jnp.cos(t + x), state, x)
        weights.append(state.controller.weights)

    np.testing.assert_array_equal(*weights)
    assert np.abs(weights[0]).max() > 0.1


def test_decay_needs_parameters_and_a_positive_number():
    lag = ScalarLags(jnp.array([0.1]))
    tx = online_control(lag, optax.sgd(0.1), weight_decay=0.1)

    with pytest.raises(ValueError, match="`params` must be passed"):
        tx.update(jnp.ones(2), tx.init(jnp.ones(2)))
    for wrong in (-0.1, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="`weight_decay` must be at least 0 and finite, got"):
            online_control(lag, optax.sgd(0.1), weight_decay=wrong)
