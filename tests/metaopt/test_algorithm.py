"""The optimizer against closed forms, a hand derivation, and a literal transcription."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from metaopt import (
    DiagonalLags,
    FullLags,
    ScalarLags,
    frozen_control,
    meta_optimizer,
    start_episode,
)
from metaopt.rollout import rollout_adjoints

A = jnp.array([1.0, 5.0])


def quadratic(x, datum):
    return 0.5 * jnp.sum(datum * x**2)


@pytest.mark.parametrize("decay", [0.0, 0.1])
@pytest.mark.parametrize("learn", [False, True], ids=["frozen", "learning, before H + L"])
def test_without_weights_it_is_gradient_descent_in_closed_form(train, decay, learn):
    tx = frozen_control(ScalarLags(), 0.1, weight_decay=decay)
    if learn:
        tx = meta_optimizer(quadratic, 0.1, fixed=True, history=25, weight_decay=decay)

    iterates = train(tx, quadratic, jnp.ones(2), [A] * 20).iterates

    t = np.arange(21)[:, None]
    np.testing.assert_allclose(iterates, (1 - decay - 0.1 * np.asarray(A)) ** t, rtol=2e-5)


def test_without_weights_updates_are_those_of_optax_sgd_to_the_last_bit(mlp):
    ours, theirs = frozen_control(ScalarLags(), 0.1), optax.sgd(0.1)
    grads = jax.grad(mlp.loss)(mlp.params, mlp.data[0])

    updates, _ = ours.update(grads, ours.init(mlp.params))
    expected, _ = theirs.update(grads, theirs.init(mlp.params))

    jax.tree.map(np.testing.assert_array_equal, updates, expected)


@pytest.mark.parametrize("mu", [0.0, 0.5, 0.9])
def test_geometric_weights_are_heavy_ball_until_history_runs_out(train, mu):
    history, rate = 6, 0.1
    weights = rate * mu ** jnp.arange(history, dtype=jnp.float32)
    ours = frozen_control(ScalarLags(weights))
    heavy_ball, x = optax.sgd(rate, momentum=mu), jnp.array([1.0, -2.0])

    iterates = train(ours, quadratic, x, [A] * (history + 3)).iterates

    state, expected = heavy_ball.init(x), [x]
    for _ in range(history + 3):
        updates, state = heavy_ball.update(jax.grad(quadratic)(x, A), state)
        x = optax.apply_updates(x, updates)
        expected.append(x)
    same = history + 1
    np.testing.assert_allclose(iterates[:same], expected[:same], rtol=1e-5)
    if mu == 0.9:
        assert not np.allclose(iterates[-1], expected[-1], rtol=1e-3)


def test_adjoints_of_a_quadratic_equal_those_derived_by_hand():
    # f(y) = sum(a y^2) / 2:  y_2 = (1 - delta - eta a) y_1 - u,  lambda_2 = a y_2,
    # lambda_1 = (1 - delta - eta a) lambda_2.
    y, u, eta, delta = jnp.array([2.0, -1.0]), jnp.array([0.3, 0.1]), 0.1, 0.05

    adjoints = rollout_adjoints(lambda y, a: a * y, y, [u], [A, A], [eta], delta)

    factor = 1 - delta - eta * np.asarray(A)
    newest = np.asarray(A) * (factor * np.asarray(y) - np.asarray(u))
    np.testing.assert_allclose(adjoints, [newest, factor * newest], rtol=1e-6)


def test_meta_gradient_equals_finite_differences(train, transcribe):
    # With plain gradient descent as O the first change of M is the meta-gradient itself.
    history, rollout, rate = 2, 3, 0.05
    tx = meta_optimizer(
        quadratic, rate, fixed=True, history=history, rollout=rollout,
        meta_optimizer=optax.sgd(1.0),
    )  # fmt: skip
    steps = history + rollout
    x = np.float64([1.0, 0.5])
    a = np.float64([1.0, 5.0])
    points = [x * (1 - rate * a) ** t for t in range(steps)]

    def rolled_out(weights):
        y = points[steps - 1 - rollout]
        for j in range(rollout):
            s = steps - 1 - rollout + j
            y = y - rate * a * y - sum(weights[h] * a * points[s - h] for h in range(history))
        return 0.5 * np.sum(a * y**2)

    slopes = [(rolled_out(1e-5 * e) - rolled_out(-1e-5 * e)) / 2e-5 for e in np.eye(history)]

    weights = train(tx, quadratic, jnp.float32(x), [A] * steps).weights

    np.testing.assert_array_equal(weights[-2], 0)
    np.testing.assert_allclose(weights[-1], -np.array(slopes), rtol=1e-4)


@pytest.mark.parametrize(
    "kind, rollout", [(ScalarLags, 1), (ScalarLags, 4), (DiagonalLags, 2)], ids=str
)
def test_runs_equal_the_transcription_of_the_paper(mlp, train, transcribe, rollout, kind):
    options = {"history": 5, "rollout": rollout}
    outer, data = optax.adam(1e-2), mlp.data[:14]
    tx = meta_optimizer(
        mlp.loss, 0.3, example=mlp.data[0], meta_optimizer=outer, weight_decay=0.02,
        controller=kind(), **options,
    )  # fmt: skip

    ours = train(tx, mlp.loss, mlp.params, data)
    theirs = transcribe(
        mlp.flat_loss, mlp.vector, data, rate=lambda t: 0.3, decay=0.02, outer=outer,
        kind=kind.family, **options,
    )  # fmt: skip

    assert np.abs(theirs.weights[-1]).max() > 1e-2
    np.testing.assert_allclose(ours.weights, theirs.weights, rtol=1e-3, atol=1e-4)
    iterates = np.array([mlp.ravel(x) for x in ours.iterates])
    np.testing.assert_allclose(iterates, theirs.iterates, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "kind, rollout", [(ScalarLags, 2), (DiagonalLags, 3), (FullLags, 1), (FullLags, 2)], ids=str
)
def test_the_meta_gradient_agrees_with_autodiff_to_one_in_a_hundred_thousand(
    mlp, train, transcribe, rollout, kind
):
    options = {"history": 4, "rollout": rollout}
    data = mlp.data[: 4 + rollout]
    tx = meta_optimizer(
        mlp.loss, 0.3, example=data[0], meta_optimizer=optax.sgd(1.0),
        controller=kind(), **options,
    )  # fmt: skip

    ours = train(tx, mlp.loss, mlp.params, data).weights[-1]
    theirs = transcribe(
        mlp.flat_loss, mlp.vector, data, rate=lambda t: 0.3, decay=0.0, outer=optax.sgd(1.0),
        kind=kind.family, **options,
    ).weights[-1]  # fmt: skip

    error = np.linalg.norm(ours - theirs) / np.linalg.norm(theirs)
    assert error < 1e-5


def test_schedules_and_transformed_disturbances_are_replayed_as_they_were(mlp, train, transcribe):
    schedule = optax.exponential_decay(0.5, 5, 0.7)
    options = {"history": 4, "rollout": 3}
    outer, disturbance, data = optax.adam(1e-2), optax.scale_by_adam(), mlp.data[:12]
    tx = meta_optimizer(
        mlp.loss, schedule, example=mlp.data[0], meta_optimizer=outer, disturbance=disturbance,
        **options,
    )  # fmt: skip

    ours = train(tx, mlp.loss, mlp.params, data)
    theirs = transcribe(
        mlp.flat_loss, mlp.vector, data, rate=schedule, decay=0.0, outer=outer,
        disturbance=disturbance, **options,
    )  # fmt: skip

    np.testing.assert_allclose(ours.weights, theirs.weights, rtol=1e-3, atol=1e-5)
    iterates = np.array([mlp.ravel(x) for x in ours.iterates])
    np.testing.assert_allclose(iterates, theirs.iterates, rtol=1e-3, atol=1e-4)


def test_episodes_carry_over_only_the_learned_state(mlp, train, transcribe):
    options = {"history": 4, "rollout": 2}
    outer, data = optax.adam(1e-2), mlp.data[:9]
    tx = meta_optimizer(mlp.loss, 0.3, example=data[0], meta_optimizer=outer, **options)

    first = train(tx, mlp.loss, mlp.params, data)
    restarted = start_episode(first.state, mlp.params)
    second = train(tx, mlp.loss, mlp.params, data, restarted)

    fresh = tx.init(mlp.params)
    for name in ("count", "memory", "prepared", "bases", "data"):
        jax.tree.map(np.testing.assert_array_equal, getattr(restarted, name), getattr(fresh, name))
    common = {"rate": lambda t: 0.3, "decay": 0.0, "outer": outer, **options}
    episode = transcribe(mlp.flat_loss, mlp.vector, data, **common)
    episode = transcribe(
        mlp.flat_loss, mlp.vector, data, weights=jnp.array(episode.weights[-1]),
        meta_state=episode.meta_state, **common,
    )  # fmt: skip
    np.testing.assert_allclose(second.weights, episode.weights, rtol=1e-3, atol=1e-5)


def test_an_episode_restarts_the_disturbances_state(mlp, train):
    controller, data = ScalarLags(jnp.array([0.1, 0.1])), mlp.data[:5]
    tx = frozen_control(controller, 0.1, disturbance=optax.trace(0.9))

    once = train(tx, mlp.loss, mlp.params, data)
    again = train(tx, mlp.loss, mlp.params, data, start_episode(once.state, mlp.params))

    jax.tree.map(np.testing.assert_array_equal, once.iterates, again.iterates)


def test_a_fixed_batch_recorded_is_a_fixed_batch(mlp, train):
    common = {"history": 4, "rollout": 3, "meta_optimizer": optax.adam(1e-2)}
    data = mlp.data[:1] * 12

    recorded = train(
        meta_optimizer(mlp.loss, 0.3, example=data[0], **common), mlp.loss, mlp.params, data
    )
    fixed = train(meta_optimizer(mlp.loss, 0.3, fixed=True, **common), mlp.loss, mlp.params, data)

    np.testing.assert_allclose(recorded.weights, fixed.weights, rtol=1e-5, atol=1e-7)
    assert fixed.state.data is None


def test_a_frozen_run_repeats_the_updates_of_the_learned_weights(mlp, train):
    learning = meta_optimizer(mlp.loss, 0.3, example=mlp.data[0], history=4)
    data = mlp.data[:10]
    learned = train(learning, mlp.loss, mlp.params, data).state.controller

    frozen = frozen_control(learned, 0.3)
    still = meta_optimizer(
        mlp.loss, 0.3, example=mlp.data[0], controller=learned, meta_optimizer=optax.sgd(0.0)
    )

    one, other = (train(tx, mlp.loss, mlp.params, data) for tx in (frozen, still))
    for a, b in zip(one.iterates, other.iterates, strict=True):
        np.testing.assert_allclose(mlp.ravel(a), mlp.ravel(b), rtol=1e-5, atol=1e-6)


def test_the_meta_gradient_vanishes_at_the_best_filter_of_a_one_step_quadratic():
    # From y_1 the loss of y_1 - M g is least where M = <y_1, A g> / <g, A g>.
    x = jnp.array([1.0, 0.5])
    gradient = A * x
    best = jnp.sum(x * A * gradient) / jnp.sum(gradient * A * gradient)
    controller = ScalarLags(best[None])
    memory = controller.observe(controller.init_memory(x, 1), gradient)
    memory = controller.observe(memory, jnp.full(2, 9.0))  # at the end point: met by no control

    adjoints = rollout_adjoints(lambda y, a: a * y, x - best * gradient, [], [A], [], 0.0)

    slope = controller.meta_gradient(memory, adjoints)
    np.testing.assert_allclose(slope, 0.0, atol=1e-6)


def test_meta_every_updates_every_so_many_steps(mlp, train):
    tx = meta_optimizer(mlp.loss, 0.3, example=mlp.data[0], history=4, rollout=2, meta_every=3)

    weights = train(tx, mlp.loss, mlp.params, mlp.data[:14]).weights[:, 0]

    changes = np.flatnonzero(np.diff(weights, prepend=0.0)) + 1  # the paper's t
    np.testing.assert_array_equal(changes, [6, 9, 12])
