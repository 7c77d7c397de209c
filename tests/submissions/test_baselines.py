"""Baselines are what they are named after: optax's own functions, or the formula by hand."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from metaopt.bench import records
from metaopt.bench.contract.kit import Baseline, warmup_cosine
from metaopt.bench.contract.loading import load_submission
from metaopt.bench.contract.spaces import parse_space
from metaopt.bench.trial.runner import run_trial
from metaopt.workloads.registry import get_workload
from tests.performance import calibrate
from tuning.contenders import SUBMISSIONS
from tuning.tuners import get_tuner

STEPS = 100  # the step hint
START = {"matrix": jnp.array([[1.0, -2.0, 0.5], [0.3, 1.0, -1.0]]), "vector": jnp.array([1.0, -1])}
BETAS = {"one_minus_beta1": 0.25, "one_minus_beta2": 0.0625}  # one minus them is exact
SCHEDULE = {"warmup_factor": 0.05, "end_factor": 0.1}
RATE = warmup_cosine(0.02, STEPS, 0.05, 0.1)

# Name, a point, and optax's own function with the point's values.
CASES = {
    "nadamw": (
        {"learning_rate": 0.02, "weight_decay": 0.3, **BETAS, **SCHEDULE},
        lambda: optax.nadamw(RATE, b1=0.75, b2=0.9375, weight_decay=0.3),
    ),
    "mechanic": (
        {"learning_rate": 0.02, "weight_decay": 0.3, **BETAS, **SCHEDULE},
        lambda: optax.contrib.mechanize(optax.adamw(RATE, b1=0.75, b2=0.9375, weight_decay=0.3)),
    ),
    "schedule_free_adamw": (
        {"learning_rate": 0.02, "weight_decay": 0.3, **BETAS, "warmup_factor": 0.0},
        lambda: optax.contrib.schedule_free_adamw(0.02, b1=0.75, b2=0.9375, weight_decay=0.3),
    ),
    "muon": (
        {"learning_rate": 0.02, "one_minus_momentum": 0.125, "weight_decay": 0.3, **SCHEDULE},
        lambda: optax.contrib.muon(RATE, beta=0.875, weight_decay=0.3, consistent_rms=0.2),
    ),
    "dog": ({}, lambda: optax.contrib.dog()),
    "d_adaptation": ({}, optax.contrib.dadapt_adamw),
    "prodigy": ({}, optax.contrib.prodigy),
    "momo_adam": ({}, lambda: optax.contrib.momo_adam(0.01)),
}
SELF_SCALED = ("mechanic", "dog", "d_adaptation", "prodigy", "momo_adam")


def module_of(name):
    return load_submission(name, SUBMISSIONS).module


def quadratic(params):
    """A quadratic with curvatures 1, 2, 3, ... leaf by leaf."""
    return 0.5 * sum(
        jnp.sum(p**2 * jnp.arange(1.0, p.size + 1).reshape(p.shape))
        for p in jax.tree.leaves(params)
    )


def iterates(transformation, start, steps=20):
    transformation = optax.with_extra_args_support(transformation)

    @jax.jit
    def step(params, state):
        value, gradient = jax.value_and_grad(quadratic)(params)
        updates, state = transformation.update(gradient, state, params, value=value)
        return optax.apply_updates(params, updates), state

    params, state, found = start, transformation.init(start), []
    for _ in range(steps):
        params, state = step(params, state)
        found.append((params, state))
    return found


def by_hand(peak, step):
    """The learning rate of ``SCHEDULE`` over ``STEPS``."""
    cosine = (1 + np.cos(np.pi * min(1.0, step / STEPS))) / 2
    return peak * min(1.0, (step + 1) / 5) * (0.1 + 0.9 * cosine)


@pytest.mark.parametrize("name", CASES)
def test_a_baseline_is_optax_own_function(name):
    point, reference = CASES[name]
    traced = {key: jnp.float32(value) for key, value in point.items()}

    steps = 200 if name in SELF_SCALED else 20  # what learns its own scale starts slowly
    ours = iterates(module_of(name).optimizer(STEPS, **traced), START, steps)
    theirs = iterates(reference(), START, steps)

    for (a, _), (b, _) in zip(ours, theirs, strict=True):
        jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=2e-4, atol=1e-5), a, b)
    assert np.abs(ours[-1][0]["matrix"] - START["matrix"]).max() > 0.2


@pytest.mark.parametrize("name", sorted({*CASES, "ademamix", "hgd", "lion", "schedule_free_plus"}))
def test_no_two_arrays_of_a_fresh_state_share_memory(name):
    module, params = module_of(name), jax.tree.map(jnp.copy, START)  # the step donates both

    workload = get_workload("digits_mlp")
    state, _ = module.init_optimizer_state(workload, params, None, None, None)

    arrays = jax.tree.leaves((state.hyperparameters, state.optimizer, params))
    places = [array.unsafe_buffer_pointer() for array in arrays]
    assert len(set(places)) == len(places)


def test_hypergradient_descent_sees_the_decayed_gradient():
    point = {"learning_rate": 0.05, "hyper_rate": 0.001, "weight_decay": 0.5}

    found = iterates(module_of("hgd").optimizer(STEPS, **point), jnp.ones(3))

    x, alpha, before = np.ones(3), 0.05, np.zeros(3)
    for params, _ in found:
        g = np.arange(1, 4) * x + 0.5 * x
        alpha += 0.001 * g @ before
        x, before = x - alpha * g, g
        np.testing.assert_allclose(params, x, rtol=1e-4, atol=1e-6)


def test_lion_equals_its_formula_by_hand():
    point = {
        "learning_rate": 0.1, "one_minus_beta1": 0.25, "one_minus_beta2": 0.0625,
        "weight_decay": 0.3, **SCHEDULE,
    }  # fmt: skip

    found = iterates(module_of("lion").optimizer(STEPS, **point), jnp.ones(3))

    x, m = np.ones(3), np.zeros(3)
    for t, (params, _) in enumerate(found):
        g = np.arange(1, 4) * x
        x = x - by_hand(0.1, t) * (np.sign(0.75 * m + 0.25 * g) + 0.3 * x)
        m = 0.9375 * m + 0.0625 * g
        np.testing.assert_allclose(params, x, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("memory, beta3", [(0.5, 0.98), (0.01, 0.75)])  # at least the fast beta
@pytest.mark.uses_submission("ademamix")
def test_ademamix_equals_its_formulas_by_hand(memory, beta3):
    point = {
        "learning_rate": 0.02, **BETAS, "alpha": 6.0, "memory_factor": memory,
        "weight_decay": 0.3, **SCHEDULE,
    }  # fmt: skip
    steps = STEPS + 20  # the schedules end at the step hint

    found = iterates(module_of("ademamix").optimizer(STEPS, **point), jnp.ones(3), steps)

    x, fast, slow, v = np.ones(3), np.zeros(3), np.zeros(3), np.zeros(3)
    for t, (params, _) in enumerate(found):
        done, start, end = min(1.0, t / STEPS), np.log(0.75), np.log(beta3)
        beta = np.exp(start * end / ((1 - done) * end + done * start))
        g = np.arange(1, 4) * x
        fast = 0.75 * fast + 0.25 * g
        slow = beta * slow + (1 - beta) * g
        v = 0.9375 * v + 0.0625 * g**2
        direction = fast / (1 - 0.75 ** (t + 1)) + 6.0 * done * slow
        scale = np.sqrt(v / (1 - 0.9375 ** (t + 1))) + 1e-8
        x = x - by_hand(0.02, t) * (direction / scale + 0.3 * x)
        if t < 20 or t == STEPS:  # later, rounding is as large as x
            np.testing.assert_allclose(params, x, rtol=1e-3, atol=1e-5)


@pytest.mark.uses_submission("muon")
def test_muon_treats_a_convolution_as_a_matrix_with_out_columns():
    point = {"learning_rate": 0.02, "one_minus_momentum": 0.1, "weight_decay": 0.3, **SCHEDULE}
    matrix = jax.random.normal(jax.random.PRNGKey(0), (12, 5))
    muon = module_of("muon").optimizer(STEPS, **point)

    as_matrix = iterates(muon, {"kernel": matrix})
    as_convolution = iterates(muon, {"kernel": matrix.reshape(2, 2, 3, 5)})

    for (a, _), (b, _) in zip(as_matrix, as_convolution, strict=True):
        reshaped = b["kernel"].reshape(12, 5)
        np.testing.assert_allclose(a["kernel"], reshaped, rtol=1e-3, atol=1e-5)


@pytest.mark.uses_submission("schedule_free_adamw")
def test_schedule_free_adamw_equals_its_three_sequences_by_hand():
    point = {
        "learning_rate": 0.1, "one_minus_beta1": 0.2, "one_minus_beta2": 0.05,
        "weight_decay": 0.3, "warmup_factor": 0.1,
    }  # fmt: skip
    evaluated = optax.contrib.schedule_free_eval_params

    found = iterates(module_of("schedule_free_adamw").optimizer(STEPS, **point), jnp.ones(3))

    x, y, z, v, weights = np.ones(3), np.ones(3), np.ones(3), np.zeros(3), 0.0
    for t, (params, state) in enumerate(found, start=1):
        rate = 0.1 * min(1.0, t / 10)
        g = np.arange(1, 4) * y
        v = 0.95 * v + 0.05 * g**2
        z = z - rate * (g / (np.sqrt(v / (1 - 0.95**t)) + 1e-8) + 0.3 * y)
        weights += rate**2
        x = x + rate**2 / weights * (z - x)
        y = 0.8 * x + 0.2 * z
        np.testing.assert_allclose(params, y, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(state.z, z, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(evaluated(state, params), x, rtol=1e-4, atol=1e-5)


@pytest.mark.uses_submission("schedule_free_plus")
def test_schedule_free_plus_equals_its_three_sequences_by_hand():
    module = module_of("schedule_free_plus")

    found = iterates(module.optimizer(STEPS), jnp.array([1.0, -0.5, 2.0]))

    y = np.array([1.0, -0.5, 2.0])
    x, z, m, v, weights, largest = y, y, np.zeros(3), np.zeros(3), 0.0, 0.0
    for t, (params, state) in enumerate(found, start=1):
        g = np.arange(1, 4) * y
        loss = g @ y / 2
        rate = min(1.0, t / 5) * max(0.0, loss + 0.9 * g @ (z - x))
        rate /= np.sqrt(np.pi / 2) * np.abs(g).sum()
        m, v = 0.9 * m + 0.1 * g, 0.95 * v + 0.05 * g**2
        z = z - rate * (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.95**t)) + 1e-8)
        largest = max(largest, rate)
        weights += largest**2 if t > 5 else 0.0
        x = x + (largest**2 / weights if t > 5 else 1.0) * (z - x)
        y = 0.9 * x + 0.1 * z
        np.testing.assert_allclose(params, y, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(module.average(state, params), x, rtol=1e-4, atol=1e-5)
    assert np.abs(x - found[0][0]).max() > 0.2


class Loop:
    """Drives the functions of a submission by hand."""

    def __init__(self, module, workload):
        self.module, self.workload = module, workload
        key = jax.random.PRNGKey(0)
        self.queue = workload._build_input_queue(key, "train", data_dir="", global_batch_size=64)
        self.params, self.model_state = workload.init_model_fn(key)
        self.state = module.init_optimizer_state(
            workload, self.params, self.model_state, None, key
        )  # fmt: skip

    def common(self):
        return {
            "workload": self.workload, "current_param_container": self.params,
            "current_params_types": None, "model_state": self.model_state,
            "hyperparameters": None, "loss_type": None, "optimizer_state": self.state,
            "eval_results": [], "global_step": 0, "rng": jax.random.PRNGKey(1),
        }  # fmt: skip

    def step(self):
        self.state, self.params, self.model_state = self.module.update_params(
            batch=next(self.queue), **self.common()
        )

    def prepare(self):
        self.state, self.params, self.model_state = self.module.prepare_for_eval(**self.common())


@pytest.mark.uses_submission("schedule_free_adamw")
def test_an_evaluation_does_not_disturb_schedule_free_training():
    module, workload = module_of("schedule_free_adamw"), get_workload("digits_mlp")
    plain, watched = Loop(module, workload), Loop(module, workload)

    for step in range(30):
        plain.step()
        watched.step()
        training = jax.device_get(watched.params)
        jax.tree.map(np.testing.assert_array_equal, training, jax.device_get(plain.params))
        if step % 7 == 0:
            watched.prepare()
            watched.prepare()  # a second time changes nothing
            z = watched.state[0].optimizer.z
            average = jax.tree.map(lambda y, z: (y - 0.1 * z) / 0.9, training, z)
            close = functools.partial(np.testing.assert_allclose, rtol=1e-3, atol=1e-5)
            jax.tree.map(close, watched.params, average)
    assert not np.array_equal(training["hidden_0"]["kernel"], average["hidden_0"]["kernel"])


@pytest.mark.uses_submission("schedule_free_adamw")
def test_the_runner_scores_the_average_of_schedule_free(tmp_path, make_plan, monkeypatch):
    submission, workload = load_submission("schedule_free_adamw", SUBMISSIONS), "digits_mlp"

    def losses(folder, **changes):
        plan = make_plan(
            submission, get_workload(workload), hyperparameters=submission.defaults, **changes
        )
        assert run_trial(plan, tmp_path / folder).error is None
        rows = records.read_evaluations(tmp_path / folder / records.EVAL_FILE)
        return {row["global_step"]: row["train/loss"] for row in rows}

    averaged, seldom = losses("averaged"), losses("seldom", eval_period=50.0)
    monkeypatch.delattr(submission.module, "prepare_for_eval")
    last = losses("last")

    assert seldom == {step: averaged[step] for step in seldom}
    assert all(averaged[step] != last[step] for step in averaged if step > 10)


def test_a_baseline_without_evaluation_parameters_returns_its_parameters():
    baseline, marker = Baseline(lambda hint: optax.sgd(0.1), {}), object()

    state, params, model_state = baseline.prepare_for_eval(
        None, marker, None, "model state", None, None, ("state", "step"), [], 0, None
    )  # fmt: skip

    assert (state, params, model_state) == (("state", "step"), marker, "model state")


def test_the_papers_adamw_is_the_same_whatever_the_defaults_are():
    submission = load_submission("adamw", SUBMISSIONS)
    document = submission.read_space("paper")
    before = {
        "learning_rate": [0.0001, 0.0004, 0.001], "one_minus_beta1": [0.1, 0.01],
        "one_minus_beta2": [0.1, 0.01, 0.001], "weight_decay": [0.0, 1e-5, 1e-4, 1e-3],
    }  # fmt: skip
    defaults = {"warmup_factor": 0.0, "end_factor": 1.0}  # of before: a constant rate

    points = [dict(zip(before, values, strict=True)) | defaults
              for values in itertools.product(*before.values())]  # fmt: skip
    assert list(parse_space(document, "paper").grid()) == points
    assert set(points[0]) == set(submission.defaults)
    searched = {name: document[name] for name in before}
    drawn = [get_tuner("random")(parse_space(space, "paper"), 3, {})
             for space in (document, searched)]  # fmt: skip
    for _ in range(5):  # a parameter with one value takes no random number
        assert drawn[0].ask() == drawn[1].ask() | defaults


@pytest.mark.parametrize("name", ["adamw", "nadamw"])
def test_calibrated_defaults_name_the_workloads_that_they_were_chosen_on(name):
    assert load_submission(name, SUBMISSIONS).developed_on == calibrate.WORKLOADS


@pytest.mark.parametrize(
    "name", ["dog", "d_adaptation", "momo_adam", "prodigy", "schedule_free_plus"]
)
def test_submissions_without_a_search_space_are_self_tuning(name):
    submission = load_submission(name, SUBMISSIONS)

    assert submission.ruleset == "self-tuning"
    assert (submission.defaults, submission.spaces()) == ({}, [])
