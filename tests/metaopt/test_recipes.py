"""The recipes: what they promise of any scale, what they are made of, and what they refuse."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from metaopt import (
    anytime_optimizer,
    carry_over,
    fixed_batch_optimizer,
    long_memory_optimizer,
    minibatch_optimizer,
)
from metaopt.episodes import has_controller
from metaopt.recipes import CHANGING_META_RATE, DEPLOYED_FACTOR, learning_steps


def scanned(tx, value_fn, x, steps):
    """Return the last point and the last state, and the losses before each step."""

    def step(carry, _):
        x, state = carry
        value, grads = jax.value_and_grad(value_fn)(x)
        updates, state = tx.update(grads, state, x, value=value)
        return (optax.apply_updates(x, updates), state), value

    return jax.lax.scan(step, (x, tx.init(x)), length=steps)


def train(tx, value_fn, x, steps):
    """Return the losses before each step, the last point and the last state."""
    (x, state), losses = jax.jit(lambda x: scanned(tx, value_fn, x, steps))(x)
    return np.asarray(losses), x, state


def memorise(mlp):
    return lambda params: mlp.loss(params, mlp.data[0])


def learners_in(state):
    return [p for p in jax.tree.leaves(state, is_leaf=has_controller) if has_controller(p)]


def count_arrays(state, size):
    """Return how many copies of the parameters a state holds."""
    return sum(leaf.size for leaf in jax.tree.leaves(state) if leaf.size >= size) / size


def test_on_one_batch_any_scale_to_start_from_reaches_the_target(mlp):
    @jax.vmap
    def run(scale):
        return scanned(fixed_batch_optimizer(scale), memorise(mlp), mlp.params, 200)

    (x, _), losses = jax.jit(run)(jnp.array([1e-4, 1.0, 1e2]))

    assert (losses <= 1e-4).any(axis=1).all()
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(x))


def test_the_unit_of_the_parameters_does_not_matter_on_one_batch(mlp):
    # f(c y) in place of f(x): with M in the unit of y, all steps are the same ones. A power of two,
    # so that nothing rounds differently; only eps of the RMS has a unit.
    unit = 2.0**-3

    losses, *_ = train(
        fixed_batch_optimizer(disturbances=["polyak"]), memorise(mlp), mlp.params, 30
    )
    scaled = lambda y: memorise(mlp)(jax.tree.map(lambda leaf: unit * leaf, y))  # noqa: E731
    others, *_ = train(
        fixed_batch_optimizer(disturbances=["polyak"]), scaled,
        jax.tree.map(lambda leaf: leaf / unit, mlp.params), 30,
    )  # fmt: skip

    np.testing.assert_allclose(others, losses, rtol=1e-4)


RECIPES = pytest.mark.parametrize(
    "make",
    [
        fixed_batch_optimizer,
        functools.partial(minibatch_optimizer, 400),
        functools.partial(long_memory_optimizer, 400),
    ],
)


@RECIPES
def test_a_loss_with_a_bound_below_zero_trains_as_one_above_it(mlp, make):
    # The difference is rounding, which grows while it trains.
    losses, *_ = train(make(), memorise(mlp), mlp.params, 60)
    lower, *_ = train(make(lower_bound=-2.0), lambda x: memorise(mlp)(x) - 2.0, mlp.params, 60)

    assert lower[-1] < 0.7 * losses[0] - 2.0
    np.testing.assert_allclose(lower[:30] + 2.0, losses[:30], rtol=1e-4)


@RECIPES
def test_a_loss_below_its_bound_changes_no_weights(mlp, make):
    tx = make()

    losses, _, state = train(tx, lambda x: memorise(mlp)(x) - 100.0, mlp.params, 40)

    assert np.isfinite(losses).all()
    assert losses[-1] < losses[0]  # by the steps that it starts with
    assert int(state.restarts) == 0
    for now, first in zip(*map(learners_in, (state, tx.init(mlp.params))), strict=True):
        np.testing.assert_array_equal(now.controller.weights, first.controller.weights)


def test_there_is_one_base_step_however_many_learners():
    x, grads = jnp.ones(2), jnp.array([1.0, -2.0])
    tx = fixed_batch_optimizer(1e-20, learning_rate=0.1)

    updates, _ = jax.jit(tx.update)(grads, tx.init(x), x, value=jnp.float32(3.0))

    np.testing.assert_allclose(updates, -0.1 * grads, rtol=1e-6)


@pytest.mark.parametrize("learning_rate", [0.0, 0.1])
def test_lags_start_from_the_scale_or_from_zero_with_a_base_step(learning_rate):
    tx = fixed_batch_optimizer(
        0.5, disturbances=["gradient"], controller="lags", learning_rate=learning_rate,
        meta_rate=1e-4,
    )  # fmt: skip
    x, grads = jnp.ones(2), jnp.array([1.0, -2.0])

    updates, state = jax.jit(tx.update)(grads, tx.init(x), x, value=jnp.float32(3.0))

    first = 0.0 if learning_rate else 0.5 * 0.1
    np.testing.assert_allclose(learners_in(state)[0].controller.weights, [first] + 31 * [0.0])
    np.testing.assert_allclose(updates, -(first + learning_rate) * grads, rtol=1e-6)


@pytest.mark.parametrize(
    "make, arrays",
    [
        (fixed_batch_optimizer, 8),
        (lambda: fixed_batch_optimizer(guarded=False), 7),
        (lambda: fixed_batch_optimizer(disturbances=["level", "rms"]), 9),
        (lambda: fixed_batch_optimizer(disturbances=["gradient"]), 4),
        (lambda: fixed_batch_optimizer(disturbances=["polyak"], guarded=False), 3),
        (lambda: fixed_batch_optimizer(weight_decay=0.1), 8),
        (lambda: minibatch_optimizer(100), 4),
        (lambda: minibatch_optimizer(100, weight_decay=0.1), 4),
        (lambda: minibatch_optimizer(100, guarded=False), 3),
        (anytime_optimizer, 4),
        (lambda: long_memory_optimizer(100), 3),
        (lambda: long_memory_optimizer(100, direction=optax.scale_by_lion()), 2),
    ],
)
def test_memory_use_equals_the_documented_size(make, arrays):
    assert count_arrays(make().init(jnp.zeros(1000)), 1000) == arrays


def test_on_changing_batches_it_learns_first_and_anneals_then():
    steps, tx = 50, minibatch_optimizer(50)
    params, state = jnp.ones(4), None
    state = tx.init(params)
    weights, sizes, update = [], [], jax.jit(tx.update)

    for _ in range(steps + 5):  # the same gradient: what it commands is M and the schedule
        updates, state = update(jnp.ones(4), state, params, value=jnp.float32(1.0))
        weights.append(np.asarray(learners_in(state)[0].controller.weights))
        sizes.append(float(jnp.linalg.norm(updates)))

    learning = int(learning_steps(steps))
    moved = [not np.array_equal(a, b) for a, b in itertools.pairwise(weights)]
    # The first step has no past to learn from, and Adam moves each weight by its rate, or so.
    assert moved == [True] * learning + [False] * (len(moved) - learning)
    np.testing.assert_allclose(weights[-1] - weights[0], learning * CHANGING_META_RATE, rtol=0.05)
    late = sizes[learning + 20 :]
    assert late == sorted(late, reverse=True)
    np.testing.assert_allclose(sizes[steps:], 0.0, atol=1e-9)
    assert sizes[learning] / sizes[learning - 1] > 0.9 * DEPLOYED_FACTOR


def shrinkages(tx, losses, x=1.0):
    """Return by which share a parameter shrinks at each step without a gradient."""

    def step(carry, loss):
        x, state = carry
        updates, state = tx.update(jnp.zeros_like(x), state, x, value=loss)
        return (optax.apply_updates(x, updates), state), -updates / x

    x = jnp.full(1, x)
    _, shares = jax.jit(lambda x: jax.lax.scan(step, (x, tx.init(x)), jnp.float32(losses)))(x)
    return np.asarray(shares[:, 0])


def test_on_changing_batches_decay_follows_the_schedule():
    steps, decay = 40, 0.5
    t = np.arange(steps + 5)
    share = np.clip((t - 0.1 * steps) / (0.9 * steps), 0, 1)
    schedule = np.where(t < 0.1 * steps, 1.0, DEPLOYED_FACTOR * 0.5 * (1 + np.cos(np.pi * share)))

    found = shrinkages(minibatch_optimizer(steps, weight_decay=decay), np.ones(steps + 5))

    # Two averages of 1e-3 each: M learns nothing from a gradient of zero.
    np.testing.assert_allclose(found, decay * 2e-3 * schedule, rtol=2e-4, atol=1e-9)


def test_after_the_last_step_nothing_changes():
    found = shrinkages(minibatch_optimizer(20, weight_decay=0.5), np.ones(30))

    assert (found[:20] > 0).all()
    np.testing.assert_array_equal(found[20:], 0.0)


def test_a_state_restored_into_a_longer_run_goes_on_at_its_share():
    short, long = (minibatch_optimizer(n, weight_decay=0.5) for n in (40, 80))
    x = jnp.ones(1)
    state = short.init(x)
    for _ in range(40):
        _, state = short.update(jnp.zeros(1), state, x, value=jnp.float32(1.0))

    updates, _ = long.update(jnp.zeros(1), state, x, value=jnp.float32(1.0))

    expected = 0.5 * 2e-3 * DEPLOYED_FACTOR * 0.5 * (1 + np.cos(np.pi * 32 / 72))
    np.testing.assert_allclose(-updates, expected, rtol=1e-4)


def test_accumulated_batches_with_their_mean_loss_are_one_batch(mlp):
    whole = minibatch_optimizer(30, 10.0, weight_decay=0.1)
    parts = optax.MultiSteps(optax.chain(optax.clip_by_global_norm(1.0), whole), 2)
    whole = optax.chain(optax.clip_by_global_norm(1.0), whole)

    @jax.jit
    def step(x, y, state, others, first, second):
        losses, grads = zip(
            *(jax.value_and_grad(mlp.loss)(x, d) for d in (first, second)), strict=True
        )
        mean = jax.tree.map(lambda *leaves: sum(leaves) / 2, *grads)
        updates, state = whole.update(mean, state, x, value=sum(losses) / 2)
        total = 0.0
        for datum in (first, second):
            loss, slope = jax.value_and_grad(mlp.loss)(y, datum)
            total += loss
            more, others = parts.update(slope, others, y, value=total / 2)
            y = optax.apply_updates(y, more)
        return optax.apply_updates(x, updates), y, state, others

    x, y, state, others = mlp.params, mlp.params, whole.init(mlp.params), parts.init(mlp.params)
    for t in range(0, 8, 2):
        x, y, state, others = step(x, y, state, others, mlp.data[t], mlp.data[t + 1])

    assert not np.array_equal(mlp.ravel(x), mlp.ravel(mlp.params))
    np.testing.assert_allclose(mlp.ravel(y), mlp.ravel(x), rtol=1e-3, atol=1e-5)


def test_a_wrapper_that_drops_the_loss_is_named():
    inner = optax.MultiSteps(minibatch_optimizer(10), 2).gradient_transformation()
    tx = optax.chain(inner, optax.identity())
    x = jnp.ones(2)

    with pytest.raises(ValueError, match="`value`, the loss, must be passed"):
        tx.update(x, tx.init(x), x, value=jnp.float32(1.0))


def test_after_a_restart_the_decay_is_half_as_well():
    losses = np.ones(30)
    losses[10:12] = np.nan  # held; the second time back to the best point

    found = shrinkages(minibatch_optimizer(1000, weight_decay=0.5), losses, 64.0)

    np.testing.assert_allclose(found[:10], 1e-3, rtol=1e-2)
    assert found[10] == 0
    assert found[11] < 0
    np.testing.assert_allclose(found[12:], 0.5e-3, rtol=1e-2)


def test_on_one_batch_the_shares_of_learners_and_base_step_add_up():
    tx = fixed_batch_optimizer(
        disturbances=["rms", "gradient"], learning_rate=0.03, weight_decay=0.5
    )

    found = shrinkages(tx, np.ones(10))

    np.testing.assert_allclose(found, 0.5 * (3 * 1e-3 + 3 * 1e-1 + 0.03), rtol=1e-4)


def test_exact_rollouts_of_one_learner_need_the_loss(mlp):
    value_fn = lambda params, datum: mlp.loss(params, datum)  # noqa: E731
    tx = fixed_batch_optimizer(
        disturbances=["gradient"], controller="lags", log_loss=False, guarded=False,
        meta_rate=1e-4, learning_rate=0.1, value_fn=value_fn, rollout=2,
    )  # fmt: skip
    x, state, losses = mlp.params, tx.init(mlp.params), []

    @jax.jit
    def step(x, state):
        value, grads = jax.value_and_grad(mlp.loss)(x, mlp.data[0])
        updates, state = tx.update(grads, state, x, value=value, datum=mlp.data[0])
        return optax.apply_updates(x, updates), state, value

    for _ in range(60):
        x, state, value = step(x, state)
        losses.append(float(value))

    assert losses[-1] < losses[0]
    assert np.abs(learners_in(state)[0].controller.weights).max() > 0


def test_restart_keeps_the_learned_state_and_resets_the_rest(mlp):
    tx = fixed_batch_optimizer()
    _, _, before = train(tx, memorise(mlp), mlp.params, 20)
    fresh = tx.init(mlp.params)

    carried = carry_over(before, fresh)

    for old, new, blank in zip(*map(learners_in, (before, carried, fresh)), strict=True):
        for name in new._fields:
            source = old if name in ("controller", "meta_state") else blank
            assert jax.tree.all(
                jax.tree.map(np.array_equal, getattr(new, name), getattr(source, name))
            )
        assert not np.array_equal(old.controller.weights, blank.controller.weights)
    assert np.isinf(carried.best_loss)


def test_only_states_of_as_many_learners_carry_over():
    one, two = (fixed_batch_optimizer(disturbances=d) for d in (["rms"], ["rms", "level"]))
    x = jnp.zeros(2)

    with pytest.raises(ValueError, match="at least one; got 1 and 2"):
        carry_over(one.init(x), two.init(x))
    with pytest.raises(ValueError, match="at least one; got 0 and 0"):
        carry_over((), ())


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: fixed_batch_optimizer(0.0), "`scale` must be positive"),
        (lambda: fixed_batch_optimizer(disturbances=[]), r"`disturbances` must be some of"),
        (lambda: fixed_batch_optimizer(disturbances=["adam"]), r"got \['adam'\]"),
        (lambda: fixed_batch_optimizer(controller="full"), "got 'full'"),
        (lambda: fixed_batch_optimizer(value_fn=lambda x, d: 0.0), "where `value_fn` is given"),
        (lambda: fixed_batch_optimizer(float("inf")), "`scale` must be positive, got inf"),
        (lambda: fixed_batch_optimizer(meta_rate=0.0), "`meta_rate` must be positive, got 0"),
        (lambda: fixed_batch_optimizer(halving=0), "`halving` must be positive, got 0"),
        (lambda: fixed_batch_optimizer(weight_decay=-1.0), "`weight_decay` must be at least 0"),
        (
            lambda: fixed_batch_optimizer(
                weight_decay=0.1, value_fn=lambda x, d: 0.0, disturbances=["rms"]
            ),
            "`weight_decay` must be 0 where",
        ),
        (lambda: minibatch_optimizer(10, weight_decay=-1.0), "`weight_decay` must be at least 0"),
        (lambda: minibatch_optimizer(0), "`steps` must be at least 1, got 0"),
        (lambda: minibatch_optimizer(10, -1.0), "`scale` must be positive"),
    ],
)
def test_invalid_arguments_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
