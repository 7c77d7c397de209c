"""Seeds pair contenders; random streams are AlgoPerf's."""

import inspect

import jax
import numpy as np
import pytest

from metaopt.bench.rng import step_keys, trial_keys
from metaopt.bench.seeds import derive_seed


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
