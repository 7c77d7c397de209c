"""Arguments that break a rule are refused, with the rule and the value."""

import jax
import jax.numpy as jnp
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

SUM = lambda x, datum: jnp.sum(datum * x)  # noqa: E731


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"history": 0}, "`history` must be an integer of at least 1, got 0"),
        ({"rollout": 0}, "`rollout` must be an integer of at least 1, got 0"),
        ({"meta_every": 1.5}, "`meta_every` must be an integer of at least 1, got 1.5"),
        ({"value_fn": None}, "`value_fn` must be a function of parameters and datum, got None"),
        ({"episode_steps": 33}, r"at least `history` \+ `rollout`, 32 \+ 2, got 33"),
        ({"episode_steps": 0}, "`episode_steps` must be at least `history`"),
        ({"fixed": False}, "`example` must be given for a rollout of 2 on changing data"),
    ],
)
def test_a_bad_argument_is_refused_before_anything_is_traced(arguments, message):
    with pytest.raises(ValueError, match=message):
        meta_optimizer(**{"value_fn": SUM, "learning_rate": 0.1, "fixed": True, **arguments})


def test_an_episode_may_be_as_long_as_the_past_of_a_rollout():
    meta_optimizer(SUM, 0.1, fixed=True, episode_steps=34)


def test_weights_decay_with_parameters_only():
    tx = frozen_control(ScalarLags(), 0.1, weight_decay=0.1)

    with pytest.raises(ValueError, match="`params` must be passed to update"):
        tx.update(jnp.ones(3), tx.init(jnp.ones(3)))


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"params": None, "datum": jnp.ones(3)}, "`params` must be passed to update"),
        ({"params": jnp.ones(3)}, "`datum` must be passed to update"),
        ({"params": jnp.ones(3), "datum": jnp.ones(4)}, r"\[4\] where `example` has float32\[3\]"),
        ({"params": jnp.ones(3), "datum": jnp.ones(3, jnp.int32)}, r"int32\[3\] where"),
        ({"params": jnp.ones(3), "datum": [jnp.ones(3)]}, "`datum` has the structure"),
    ],
)  # fmt: skip
def test_errors_for_a_bad_update_state_the_expected_form(arguments, message):
    tx = meta_optimizer(SUM, 0.1, example=jnp.ones(3))
    arguments = dict(arguments)
    params = arguments.pop("params")

    with pytest.raises(ValueError, match=message):
        tx.update(jnp.ones(3), tx.init(jnp.ones(3)), params, **arguments)


def test_matrices_that_do_not_fit_are_refused_with_their_size():
    tx = meta_optimizer(SUM, 0.1, fixed=True, controller=FullLags())

    with pytest.raises(ValueError, match=r"32 matrices of 89,610 x 89,610: 957.2 GiB, above its"):
        tx.init(jax.ShapeDtypeStruct((89_610,), jnp.float32))


@pytest.mark.parametrize(
    "controller",
    [ScalarLags(jnp.ones(3)), DiagonalLags(jnp.ones((4, 3))), FullLags(jnp.ones((4, 3, 3)))],
)
def test_weights_of_another_shape_are_refused(controller):
    tx = meta_optimizer(SUM, 0.1, fixed=True, history=4, controller=controller)

    with pytest.raises(ValueError, match="`controller` has weights of shape"):
        tx.init(jnp.ones(5))


def test_an_episode_needs_a_state_with_a_controller_and_parameters_of_its_size(mlp):
    learner = meta_optimizer(mlp.loss, 0.3, fixed=True, history=4)
    with pytest.raises(ValueError, match="holds no state with a controller"):
        start_episode(optax.sgd(0.1).init(mlp.params), mlp.params)
    with pytest.raises(ValueError, match="`params` have 1 arrays with 2 numbers, the state"):
        start_episode(learner.init(mlp.params), jnp.ones(2))
