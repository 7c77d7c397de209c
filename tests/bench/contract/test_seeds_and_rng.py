"""Seeds pair contenders; random streams are AlgoPerf's."""

import contextlib
import dataclasses
import inspect

import jax
import numpy as np
import pytest

from metaopt.bench import records
from metaopt.bench.contract.loading import load_submission
from metaopt.bench.contract.rng import pinned_randomness, step_keys, trial_keys
from metaopt.bench.measure.seeds import derive_seed
from metaopt.bench.trial.runner import run_trial
from metaopt.workloads.registry import get_workload


def test_a_seed_depends_on_every_axis_and_knows_no_contender():
    base = (1, "digits_mlp", 1, "trial", 1)
    others = [
        (2, "digits_mlp", 1, "trial", 1),
        (1, "digits_mlp_fixed", 1, "trial", 1),
        (1, "digits_mlp", 2, "trial", 1),
        (1, "digits_mlp", 1, "tuner"),
        (1, "digits_mlp", 1, "trial", 2),
    ]

    seeds = {derive_seed(*axes) for axes in [base, *others]}

    assert len(seeds) == 6
    assert "contender" not in inspect.signature(derive_seed).parameters


def test_a_trial_number_goes_with_trials_only():
    with pytest.raises(ValueError, match="'trial' only"):
        derive_seed(1, "w", 1, "tuner", 3)


def test_streams_are_those_of_the_official_runners_external_tuning():
    rng, _ = jax.random.split(jax.random.PRNGKey(5), 2)
    data, optimizer, model, rng = jax.random.split(rng, 4)

    ours = trial_keys(5)
    keys = step_keys(ours.steps)

    for mine, theirs in zip(ours, (data, optimizer, model, rng), strict=True):
        np.testing.assert_array_equal(mine, theirs)
    for step in (0, 1, 255, 256, 1000, 3):
        theirs = jax.random.split(jax.random.fold_in(rng, step), 4)
        np.testing.assert_array_equal(keys(step), theirs)


@contextlib.contextmanager
def configured(name, value):
    """Let JAX be configured as an environment variable would."""
    before = getattr(jax.config, name)
    jax.config.update(name, value)
    try:
        yield
    finally:
        jax.config.update(name, before)


AMBIENT = {
    "nothing": contextlib.nullcontext,
    "another implementation": lambda: configured("jax_default_prng_impl", "rbg"),
    "another one in a context": lambda: jax.default_prng_impl("unsafe_rbg"),
    "not partitionable": lambda: configured("jax_threefry_partitionable", False),
    "typed keys": lambda: configured("jax_enable_custom_prng", True),
    "raw keys refused": lambda: configured("jax_legacy_prng_key", "error"),
    "an offset of seeds": lambda: configured("jax_random_seed_offset", 5),
}


# Draws from a key of JAX 0.10.2 as it comes, which are those of 0.7.0 too.
DRAWS = [1.6226421594619751, 2.02526468038559, -0.43359443899243655]


@pytest.mark.parametrize("ambient", AMBIENT)
def test_numbers_follow_from_the_seed_whatever_jax_is_configured_to(ambient):
    with AMBIENT[ambient](), pinned_randomness():
        draws = jax.random.normal(jax.random.PRNGKey(0), 3)

    np.testing.assert_array_equal(draws, np.asarray(DRAWS, np.float32))


@pytest.mark.parametrize("setting", ["jax_default_prng_impl", "jax_random_seed_offset"])
def test_the_configuration_is_as_it_was_afterwards(setting):
    value = {"jax_default_prng_impl": "rbg", "jax_random_seed_offset": 5}[setting]
    with configured(setting, value):
        with pinned_randomness():
            assert getattr(jax.config, setting) != value

        assert getattr(jax.config, setting) == value


def test_a_trial_is_the_same_whatever_jax_is_configured_to(root, tmp_path, make_plan):
    submission = load_submission("sgd", root / "submissions")
    point = {**submission.defaults, "learning_rate": 0.1}
    found = {}
    for ambient, configure in AMBIENT.items():
        # Its batch is drawn again for each, and its parameters.
        workload = dataclasses.replace(get_workload("digits_mlp_fixed"))
        plan = make_plan(submission, workload, hyperparameters=point, allowance=4.0, eval_period=2)
        with configure():
            record = run_trial(plan, tmp_path / ambient)
        assert record.environment["random"] == {
            "key_implementation": "threefry2x32", "partitionable": "True"
        }  # fmt: skip
        rows = records.read_evaluations(tmp_path / ambient / records.EVAL_FILE)
        found[ambient] = [row["train/loss"] for row in rows]

    assert len(found["nothing"]) == 2
    assert found == dict.fromkeys(AMBIENT, found["nothing"])
