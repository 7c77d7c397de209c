"""The kit gives an optimizer the loss, its gradient, the loss as a function, and the point."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import metaopt
from metaopt.bench import records
from metaopt.bench.contract import kit
from metaopt.bench.contract.loading import load_submission
from metaopt.bench.contract.return_values import as_namedtuple
from metaopt.bench.contract.savable import find_unsavable
from metaopt.bench.contract.spaces import parse_space
from metaopt.bench.trial.runner import run_trial
from metaopt.workloads.registry import get_workload

SIZE = 8


class Bowl:
    """The loss 0.5 sum a (x - c)^2, where the batch, the key and the model state make c."""

    step_hint = 40
    reference_batch_size = 2 * SIZE

    def __init__(self):
        self.forward_passes = 0

    def model_fn(self, params, batch, model_state, mode, rng, update_batch_norm):
        def count(_):
            self.forward_passes += 1

        jax.debug.callback(count, jax.lax.stop_gradient(params["x"][0]))
        centre = 0.01 * jax.random.normal(rng, (3,)) + 0.001 * model_state["steps"]
        centre = centre + 0.01 * batch["inputs"].mean(0)
        return params["x"] - centre, {"steps": model_state["steps"] + 1.0}

    def loss_fn(self, label_batch, logits_batch, mask_batch=None):
        loss = 0.5 * jnp.sum(jnp.array([1.0, 3.0, 9.0]) * logits_batch**2)
        return {"summed": SIZE * loss, "n_valid_examples": SIZE, "per_example": None}


class Driven:
    """A baseline on its way over a bowl."""

    def __init__(self, optimizer, defaults=None, point=None, workload=None):
        self.workload = Bowl() if workload is None else workload
        self.baseline = optimizer
        if not isinstance(optimizer, kit.Baseline):
            self.baseline = kit.Baseline(optimizer, defaults or {})
        self.params, self.model_state = {"x": jnp.array([1.0, -2.0, 3.0])}, {"steps": jnp.zeros(())}
        self.state = self.baseline.init_optimizer_state(
            self.workload, self.params, self.model_state, as_namedtuple(point), None
        )

    def go(self, steps):
        for step in range(steps):
            key = jax.random.PRNGKey(step)
            batch = {"inputs": jax.random.normal(key, (SIZE, 3)), "targets": jnp.zeros(SIZE)}
            self.state, self.params, self.model_state = self.baseline.update_params(
                self.workload, self.params, None, self.model_state, None, batch, None, self.state,
                [], step, key,
            )  # fmt: skip
        return self

    @property
    def spent(self):
        return self.baseline.report(self.state)["gradient_evaluations"]

    @property
    def loss(self):
        return float(0.5 * jnp.sum(jnp.array([1.0, 3.0, 9.0]) * self.params["x"] ** 2))


class Seen(NamedTuple):
    value: jax.Array
    again: jax.Array
    grad: jax.Array
    slope: jax.Array


def spy(step_hint):
    """Gradient descent that keeps what it was given."""

    def update(updates, state, params, *, value, grad, value_fn):
        slope = jax.grad(value_fn)(params)["x"]
        seen = Seen(value, value_fn(params), grad["x"], slope)
        return jax.tree.map(lambda g: -0.05 * g, updates), seen

    return optax.GradientTransformationExtraArgs(
        lambda params: Seen(jnp.zeros(()), jnp.zeros(()), jnp.zeros(3), jnp.zeros(3)), update
    )


def test_value_fn_is_the_loss_of_the_step_with_its_batch_key_and_model_state():
    driven = Driven(spy)
    for _ in range(3):
        seen = driven.go(1).state[0].optimizer
        assert float(seen.value) == float(seen.again) > 0
        np.testing.assert_array_equal(seen.grad, seen.slope)


def halving(step_hint, *, trials):
    """Gradient descent that halves its step until the loss falls; ``trials`` at most."""

    def update(updates, state, params, *, value, value_fn, **_):
        def at(rate):
            return jax.tree.map(lambda x, g: x - rate * g, params, updates)

        rate = jax.lax.while_loop(
            lambda rate: (value_fn(at(rate)) > value) & (rate > 2.0**-trials),
            lambda rate: rate / 2,
            jnp.float32(1.0),
        )
        return jax.tree.map(lambda g: -rate * g, updates), state

    return optax.GradientTransformationExtraArgs(lambda params: optax.EmptyState(), update)


def all_at_once(step_hint, *, trials):
    """Gradient descent with the best of several steps, which it tries under ``vmap``."""

    def update(updates, state, params, *, value_fn, **_):
        rates = 2.0 ** -jnp.arange(5.0)
        losses = jax.vmap(
            lambda rate: value_fn(jax.tree.map(lambda x, g: x - rate * g, params, updates))
        )(rates)
        best = rates[jnp.argmin(losses)]
        return jax.tree.map(lambda g: -best * g, updates), state

    return optax.GradientTransformationExtraArgs(lambda params: optax.EmptyState(), update)


@pytest.mark.parametrize("search", [halving, all_at_once, spy])
def test_each_call_of_value_fn_costs_a_pass_wherever_it_stands(search):
    defaults = {} if search is spy else {"trials": 20.0}
    first = Driven(search, defaults).go(4)
    second = Driven(first.baseline, workload=first.workload).go(2)  # the same compiled step

    # The workload counts its own forward passes, which are all that is spent.
    passes = (first.spent + second.spent) * Bowl.reference_batch_size / SIZE
    jax.effects_barrier()
    assert passes == first.workload.forward_passes
    assert first.spent >= 4 and first.loss < 20


def test_steps_are_halved_as_often_as_the_curvature_says():
    # At x = (0, 0, 3) a step of rate r gives (1 - 9 r)^2 of the loss: 1, 1/2 and 1/4 are too long.
    driven = Driven(halving, {"trials": 20.0})
    driven.workload.model_fn = lambda params, batch, state, **_: (params["x"], state)
    driven.params = {"x": jnp.array([0.0, 0.0, 3.0])}

    assert driven.go(1).spent == (1 + 4) / 2
    assert driven.params["x"][2] == 3.0 * (1 - 9 / 8)


TRAINED = {
    "adam": lambda: optax.adam(0.3),
    "polyak_sgd": lambda: optax.polyak_sgd(max_learning_rate=1.0),
    "reduce_on_plateau": lambda: optax.chain(
        optax.adam(0.3), optax.contrib.reduce_on_plateau(patience=5)
    ),
    "backtracking": lambda: optax.chain(
        optax.sgd(1.0), optax.scale_by_backtracking_linesearch(max_backtracking_steps=10)
    ),
    "lbfgs": lambda: optax.lbfgs(),
    "minibatch_optimizer": lambda: metaopt.minibatch_optimizer(Bowl.step_hint, 30.0),
    "fixed_batch_optimizer": lambda: metaopt.fixed_batch_optimizer(),
}


@pytest.mark.parametrize("name", TRAINED)
def test_optimizers_that_need_the_loss_train_and_pay_for_what_they_evaluate(name):
    if name == "lbfgs" and not hasattr(optax, "lbfgs"):
        pytest.skip("optax 0.2.3 is needed")
    driven = Driven(lambda step_hint: TRAINED[name]())
    before = driven.loss

    driven.go(30)

    jax.effects_barrier()
    assert driven.loss < 0.5 * before
    assert driven.spent == driven.workload.forward_passes * SIZE / Bowl.reference_batch_size
    searches = name in ("backtracking", "lbfgs")
    assert (driven.spent > 15) == searches
    assert find_unsavable(driven.state[0], "state") is None


def styled(step_hint, *, rate, style, fast):
    assert type(style) is str and type(fast) is bool
    sign = {"down": -1.0, "up": 1.0}[style]
    return optax.scale(sign * rate * (2.0 if fast else 1.0))


STYLE = {"rate": 0.01, "style": "down", "fast": False}


def test_strings_and_booleans_are_compiled_once_per_value_and_numbers_are_not():
    workload, compiled = Bowl(), []

    @functools.wraps(styled)
    def noted(step_hint, **values):
        compiled.append((values["style"], values["fast"]))
        return styled(step_hint, **values)

    baseline = kit.Baseline(noted, STYLE)
    ends = {}
    for rate in (0.01, 0.02):
        for style in ("down", "up"):
            for fast in (False, True):
                point = {"rate": rate, "style": style, "fast": fast}
                driven = Driven(baseline, point=point, workload=workload).go(1)
                assert find_unsavable(driven.state[0], "state") is None
                ends[rate, style, fast] = float(driven.params["x"][2]) - 3.0

    assert len(compiled) == 2 * 4  # a program that initialises and a step for each
    unit = ends[0.01, "up", False]
    for (rate, style, fast), moved in ends.items():
        sign = {"down": -1, "up": 1}[style]
        assert moved == pytest.approx(sign * rate / 0.01 * (2 if fast else 1) * unit, rel=1e-3)


@pytest.mark.parametrize(
    "point, rule",
    [
        ({"style": 0.5}, "`style` must be a string, as its default 'down' is, got 0.5"),
        ({"style": True}, "`style` must be a string"),
        ({"fast": 1}, "`fast` must be a boolean, as its default False is, got 1"),
        ({"rate": "0.1"}, "`rate` must be a number, as its default 0.01 is, got '0.1'"),
        ({"rate": True}, "`rate` must be a number"),
    ],
)
def test_a_value_of_another_kind_than_its_default_is_refused(point, rule):
    with pytest.raises(ValueError, match=rule):
        Driven(styled, STYLE, point)


def test_strings_and_booleans_come_back_from_a_record_as_they_were(tmp_path, make_plan):
    (tmp_path / "submission.py").write_text(SUBMISSION)
    submission = load_submission(tmp_path, tmp_path)
    space = parse_space({"rate": {"feasible_points": [0.1]}, "style": {"feasible_points": ["up"]},
                         "fast": {"feasible_points": [True]}}, "space")  # fmt: skip
    (point,) = space.grid()
    plan = make_plan(submission, get_workload("breast_cancer_logistic"), hyperparameters=point)

    record = run_trial(plan, tmp_path / "trial", checkpoint_seconds=0.0)

    assert record.error is None
    read = records.read_trial(tmp_path / "trial" / records.RUN_FILE).hyperparameters
    assert read == point
    assert {name: type(value) for name, value in read.items()} == {
        "rate": float, "style": str, "fast": bool
    }  # fmt: skip


SUBMISSION = """
import optax
from metaopt.bench.contract import kit

def optimizer(step_hint, *, rate, style, fast):
    return optax.sgd(rate, momentum=0.9 if fast else None, nesterov=style == "up")

_baseline = kit.Baseline(optimizer, {"rate": 0.1, "style": "down", "fast": False})
get_batch_size, data_selection = kit.get_batch_size, kit.data_selection
init_optimizer_state, update_params = _baseline.init_optimizer_state, _baseline.update_params
"""
