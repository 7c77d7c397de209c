"""Meta-gradients that remember: discounted rollouts, for one discount and for several."""

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
    StepSize,
    end_learning,
    online_control,
    scale_by_rms,
    start_episode,
    sum_updates,
)
from metaopt.recipes import growing_memory
from tests.metaopt.test_online import CURVATURES, DECAYS, WEIGHTS, descend, keep_slopes

START = [1.0, -2.0]


def slopes_of(tx, steps):
    """Return the iterates and the meta-gradients on the quadratic, M unchanged."""

    def step(carry, _):
        x, state = carry
        updates, state = tx.update(jnp.float32(CURVATURES) * x, state, x)
        x = optax.apply_updates(x, updates)
        return (x, state), (x, state.meta_state)

    start = jnp.float32(START)
    _, (path, slopes) = jax.lax.scan(step, (start, tx.init(start)), length=steps)
    return np.vstack([start[None], path]), np.asarray(slopes)


CONTROLLERS = {
    "step size": StepSize(jnp.log(0.05)),
    "averages": Averages(DECAYS, WEIGHTS, "linear"),
    "averages in log space": Averages(DECAYS, jnp.log(jnp.abs(WEIGHTS))),
    "scalar lags": ScalarLags(WEIGHTS / 4),
    "diagonal lags": DiagonalLags(jnp.tile(WEIGHTS[:, None] / 4, 2)),
    "full lags": FullLags(jnp.tile(jnp.eye(2), (3, 1, 1)) * WEIGHTS[:, None, None] / 4),
}


@pytest.mark.parametrize("controller", CONTROLLERS.values(), ids=CONTROLLERS.keys())
@pytest.mark.parametrize("gamma", [0.0, 0.7, 1.0])
def test_the_meta_gradient_is_the_discounted_sum_over_all_past_controls(controller, gamma):
    steps = 8
    path, slopes = slopes_of(online_control(controller, keep_slopes(), discount=gamma), steps)
    gradients = jnp.float32(CURVATURES * path[:-1])

    def alignment(weights, t):
        """<g_t, S_t>, with S_t written out from the past gradients."""
        ready = controller.init(jnp.zeros(2), controller.history).with_weights(weights)
        memory, total = ready.init_memory(jnp.zeros(2), rollout=0), jnp.zeros(2)
        for i in range(t):
            memory = ready.observe(memory, gradients[i])
            total += gamma ** (t - 1 - i) * ready.controls(memory, 1, gradients[0])[0]
        return gradients[t] @ total

    weights = controller.init(jnp.zeros(2), controller.history).weights
    expected = -jax.jit(jax.grad(alignment), static_argnums=1)(weights, steps - 1)
    np.testing.assert_allclose(slopes[-1], expected, rtol=2e-5, atol=1e-6)


def test_with_discount_1_a_step_size_sees_the_whole_way_from_the_start():
    """Mechanic's statistic: <g_t, x_t - x_1>."""
    path, slopes = slopes_of(online_control(StepSize(jnp.log(0.05)), keep_slopes(), discount=1), 20)

    expected = [CURVATURES * x @ (x - path[0]) for x in path[:-1]]

    np.testing.assert_allclose(slopes[1:], expected[1:], rtol=1e-4, atol=1e-5)


def test_a_growing_memory_weighs_every_control_by_its_number():
    """After t steps, control i counts i / t: the discount is a schedule."""
    tx = online_control(StepSize(jnp.log(0.05)), keep_slopes(), discount=growing_memory)
    path, slopes = slopes_of(tx, 20)

    gradients = CURVATURES * path[:-1]
    for t in range(1, 20):
        weights = np.arange(1, t + 1) / t
        expected = -gradients[t] @ (0.05 * weights @ gradients[:t])
        np.testing.assert_allclose(slopes[t], expected, rtol=1e-4, atol=1e-5)


def test_discount_0_is_the_rule_without_memory():
    learned = [
        descend(online_control(controller, optax.sgd(0.01), discount=gamma), START, 30)
        for controller, gamma in (
            (Averages((0.0,), jnp.log(jnp.array([0.05]))), 0.0),
            (StepSize(jnp.log(0.05)), 0.0),
            (StepSize(jnp.log(0.05)), jnp.zeros(())),  # an array, which may only be traced
            (Averages((0.0,), jnp.log(jnp.array([0.05]))), jnp.zeros(())),
        )
    ]

    for path, weights in learned[1:]:
        np.testing.assert_array_equal(path, learned[0][0])
        np.testing.assert_array_equal(np.ravel(weights), np.ravel(learned[0][1]))
    assert abs(np.ravel(learned[0][1])[-1] - np.log(0.05)) > 0.05


@pytest.mark.parametrize(
    "controller",
    [StepSize(jnp.log(0.06)), Averages((0.0, 0.9), jnp.log(jnp.array([0.06, 0.03]))),
     ScalarLags(jnp.array([0.06, 0.03]))],
    ids=["step size", "averages", "scalar lags"],
)  # fmt: skip
def test_several_discounts_are_as_many_learners_whose_controls_add_up(controller):
    discounts = (0.0, 0.9, 1.0)
    rate = optax.sgd(1e-3)
    together = online_control(controller, rate, scale_by_rms(), discount=discounts)
    third = controller.scaled(1 / 3)
    apart = sum_updates(
        *(online_control(third, rate, scale_by_rms(), discount=gamma) for gamma in discounts)
    )

    def path(tx):
        def step(carry, _):
            x, state = carry
            updates, state = tx.update(jnp.float32(CURVATURES) * x, state, x)
            x = optax.apply_updates(x, updates)
            return (x, state), x

        start = jnp.float32(START)
        (_, state), iterates = jax.lax.scan(step, (start, tx.init(start)), length=40)
        return iterates, state

    (ours, state), (theirs, states) = path(together), path(apart)

    np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)
    learned = np.stack([one.controller.weights for one in states])
    np.testing.assert_allclose(state.controller.weights, learned, rtol=1e-5, atol=1e-6)
    assert np.ptp(learned, axis=0).max() > 1e-3  # each learned something else
    merged = state.controller.merged()
    total = sum(one.controller.steady_control(jnp.ones(2)) for one in states)
    np.testing.assert_allclose(merged.steady_control(jnp.ones(2)), total, rtol=1e-5)


def sizes(state, like):
    """The number of arrays of the parameters' size."""
    return sum(leaf.size // like.size for leaf in jax.tree.leaves(state) if leaf.size >= like.size)


@pytest.mark.parametrize(
    "controller, discount, arrays, after",
    [
        (StepSize(), 0.0, 1, 0), (StepSize(), 0.9, 1, 0), (StepSize(), (0.9, 0.99, 1.0), 3, 0),
        (Averages((0.0, 0.9)), 0.0, 2, 2), (Averages((0.0, 0.9)), 0.9, 4, 2),
        (ScalarLags(jnp.zeros(3)), (0.0, 0.9), 6, 3),
    ],
)  # fmt: skip
def test_the_state_has_as_many_arrays_as_documented_and_learning_ends(
    controller, discount, arrays, after
):
    x = jnp.ones(50)
    tx = online_control(controller, optax.sgd(1e-3), scale_by_rms(), discount=discount)
    state = tx.init(x)
    assert sizes(state, x) == arrays + 1  # and the mean squares
    for _ in range(5):
        _, state = tx.update(x, state, x)

    ended = end_learning(state)

    assert sizes(ended, x) == after + 1
    frozen = online_control(controller, optax.set_to_zero(), scale_by_rms(), discount=discount)
    expected, _ = frozen.update(x, state._replace(meta_state=frozen.init(x).meta_state), x)
    updates, later = tx.update(x, ended, x)
    np.testing.assert_allclose(updates, expected, rtol=1e-6)
    assert jax.tree.structure(later) == jax.tree.structure(ended)
    again = start_episode(later, x)
    assert sizes(again, x) == after + 1 and int(again.count) == 0


@pytest.mark.parametrize("discount", [-0.1, 1.1, float("nan"), (), (0.5, 2.0)])
def test_a_discount_outside_of_0_to_1_is_refused(discount):
    with pytest.raises(ValueError, match="`discount` must lie in"):
        online_control(StepSize(), optax.sgd(0.1), discount=discount)


def test_there_is_nothing_to_end_without_online_control():
    with pytest.raises(ValueError, match="no state of online_control"):
        end_learning(optax.adam(0.1).init(jnp.ones(2)))
