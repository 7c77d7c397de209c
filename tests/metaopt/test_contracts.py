"""One table of contracts, for every public transformation: right numbers, or errors that help."""

import functools
import inspect
import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from contract_rows import EXACT, PHASE, REAL, ROWS, WHOLE, distance, loss, problem, train
from flax.training.train_state import TrainState

import metaopt

each_row = pytest.mark.parametrize("name", list(ROWS))
each_whole = pytest.mark.parametrize("name", WHOLE)


@functools.cache
def usual(name):
    """The run that all others are compared with."""
    return train(ROWS[name].make, *problem())[:2]


def call(row, **given):
    """Return the updates that a row gives, as shapes: nothing is compiled."""
    start, data = problem()
    extra = {"value": jnp.ones(()), "datum": jax.tree.map(lambda leaf: leaf[0], data), **given}

    def one(params):
        tx = optax.with_extra_args_support(row.make())
        return tx.update(params, tx.init(params), params, **extra)[0]

    return jax.eval_shape(one, start)


def test_every_public_transformation_has_a_row():
    things = {name: getattr(metaopt, name) for name in metaopt.__all__}
    kinds = (optax.GradientTransformation, optax.GradientTransformationExtraArgs)
    transformations = {
        name
        for name, thing in things.items()
        if inspect.isfunction(thing) and inspect.signature(thing).return_annotation in kinds
    }

    assert len(transformations) >= 10
    assert transformations == {row.function.__name__ for row in ROWS.values()}


@each_row
def test_a_scan_with_a_donated_state_descends(name):
    _, losses = usual(name)

    assert np.isfinite(losses).all()
    assert losses[-5:].mean() < losses[:5].mean() / 2


@each_whole
def test_a_phase_factor_on_complex_parameters_turns_the_updates_alike(name):
    # Without a conjugate somewhere the squares turn twice as far, or the other way round.
    start, data = problem()
    turned = jax.tree.map(lambda leaf: PHASE * leaf, start)
    data = {**data, "y": PHASE * data["y"]}

    path, losses, _ = train(ROWS[name].on(data).make, turned, data)

    expected = jax.tree.map(lambda leaf: PHASE * leaf, usual(name)[0])
    assert distance(path, expected) < 2e-3
    np.testing.assert_allclose(losses, usual(name)[1], rtol=5e-2, atol=1e-3)


@pytest.mark.parametrize("name", REAL)
def test_complex_parameters_are_refused_where_there_is_no_number_for_them(name):
    turned = jax.tree.map(lambda leaf: PHASE * leaf, problem()[0])

    with pytest.raises(
        ValueError, match="`controller` must be ScalarLags, Averages or StepSize if"
    ):
        ROWS[name].make().init(turned)


@pytest.mark.parametrize("name", [name for name, row in ROWS.items() if row.needs])
def test_a_constant_added_to_loss_and_bound_changes_nothing(name):
    start, data = problem()

    path, _, _ = train(ROWS[name].make, start, {**data, "constant": data["constant"] + 16}, 16.0)

    assert distance(path, usual(name)[0]) < 2e-3


@each_row
def test_a_noisy_first_batch_does_not_change_where_a_run_ends(name):
    start, data = problem()
    noisy = {**data, "y": data["y"].at[0].add(3.0)}

    _, losses, _ = train(ROWS[name].make, start, noisy)

    assert losses[0] > 3 * usual(name)[1][0]
    assert losses[-5:].mean() < usual(name)[1][:5].mean() / 2


@each_whole
def test_half_precision_stays_so_and_descends(name):
    start, data = problem()
    start = {"w": start["w"].astype(jnp.bfloat16), "b": start["b"].astype(jnp.float16)}

    path, losses, _ = train(ROWS[name].make, start, data)

    assert (path["w"].dtype, path["b"].dtype) == (jnp.bfloat16, jnp.float16)
    assert np.isfinite(losses).all()
    assert losses[-5:].mean() < losses[:5].mean() / 2


@each_whole
def test_doubles_give_the_numbers_of_floats(name):
    context = jax.enable_x64 if hasattr(jax, "enable_x64") else jax.experimental.enable_x64
    given = jax.tree.map(np.asarray, problem())
    with context(True):
        start, data = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float64), given)
        path, _, _ = train(ROWS[name].on(data).make, start, data)
        path = jax.tree.map(np.asarray, path)

    assert path["w"].dtype == np.float64
    assert distance(path, usual(name)[0]) < 2e-3


@each_whole
def test_masked_and_empty_leaves_and_accumulated_steps_change_nothing(name):
    # The mean of two equal gradients is that gradient, and an integer does no harm where
    # optax.masked leaves it out.
    row, (start, data) = ROWS[name], problem()
    keep = {"w": True, "b": True, "empty": True, "index": False}
    start = {**start, "empty": jnp.zeros((0, 3)), "index": jnp.arange(2)}

    def make(bound=0.0):
        every = optax.MultiSteps(row.make(bound), 2)
        both = optax.GradientTransformationExtraArgs(every.init, every.update)
        return optax.masked(both, keep)

    path, _, _ = train(make, start, jax.tree.map(lambda leaf: jnp.repeat(leaf, 2, 0), data))

    for key in ("w", "b"):
        assert distance(path[key][1::2], usual(name)[0][key]) < 2e-3


@each_whole
def test_injected_hyperparameters_keep_their_values(name):
    path, _, _ = train(lambda bound=0.0: ROWS[name].injected(), *problem())

    assert distance(path, usual(name)[0]) < 2e-3


@each_row
def test_a_state_keeps_its_dtypes_and_can_be_initialised_from_shapes(name):
    # Types, weak ones included, that change with the first step would compile every step twice.
    def described(tree):
        return [
            (jax.tree_util.keystr(path), leaf.shape, leaf.dtype, leaf.weak_type)
            for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
        ]

    def one(params, state, datum):
        return tx.update(params, state, params, value=loss(params, datum), datum=datum)[1]

    tx = optax.with_extra_args_support(ROWS[name].make())
    start, data = problem()
    shapes = jax.eval_shape(lambda: start)
    state = tx.init(start)

    assert described(jax.eval_shape(tx.init, start)) == described(state)
    assert described(tx.init(shapes)) == described(state)
    datum = jax.tree.map(lambda leaf: leaf[0], data)
    assert described(jax.eval_shape(one, start, state, datum)) == described(state)


@each_row
def test_integers_are_refused_and_empty_trees_are_not(name):
    tx = optax.with_extra_args_support(ROWS[name].make())
    with pytest.raises(ValueError, match=r"`params` must be real or complex.*int32.*optax.masked"):
        tx.init({"w": jnp.ones(3), "index": jnp.arange(3)})

    for tree in ({}, {"hidden": optax.MaskedNode()}):
        datum = jax.tree.map(lambda leaf: leaf[0], problem()[1])
        updates, _ = tx.update(tree, tx.init(tree), tree, value=jnp.ones(()), datum=datum)
        assert updates == tree


@each_row
def test_a_vector_of_losses_is_refused_by_transformations_that_need_the_loss(name):
    row = ROWS[name]
    if "value" not in row.needs:
        assert call(row, value=jnp.ones(3)) == jax.eval_shape(lambda: problem()[0])
        return
    for wrong, said in (
        (jnp.ones(3), r"got shape \(3,\). Average it"),
        ((jnp.ones(()), {}), "got a tuple"),
        (jnp.ones((), jnp.complex64), "got complex64. Take its real part"),
    ):
        with pytest.raises(ValueError, match=f"`value`, the loss, must be one real number, {said}"):
            call(row, value=wrong)


@each_row
def test_errors_name_the_arguments_that_flax_train_states_do_not_pass(name):
    row, (start, _) = ROWS[name], problem()

    def one(params):
        state = TrainState.create(apply_fn=lambda: None, params=params, tx=row.make())
        return state.apply_gradients(grads=params).params

    if not row.needs:
        assert jax.eval_shape(one, start) == jax.eval_shape(lambda: start)
        return
    with pytest.raises(ValueError, match=f"`{row.needs[0]}`.*must be passed.*apply_gradients"):
        jax.eval_shape(one, start)


def test_a_value_fn_must_return_a_scalar_and_accept_masked_leaves():
    start, data = problem()
    datum = jax.tree.map(lambda leaf: leaf[0], data)

    def update(value_fn, mask):
        tx = metaopt.meta_optimizer(**{**EXACT, "value_fn": value_fn}, fixed=True)
        tx = optax.masked(tx, mask)
        return jax.eval_shape(lambda p: tx.update(p, tx.init(p), p, datum=datum), start)

    both, half = {"w": True, "b": True}, {"w": True, "b": False}
    with pytest.raises(ValueError, match=r"`value_fn` returns must be one real number.*\(4,\)"):
        update(lambda params, datum: params["b"], both)
    with pytest.raises(ValueError, match=r"`value_fn` must take .*masked.*`online_control`"):
        update(loss, half)
    update(lambda params, datum: loss({**params, "b": datum["y"][0]}, datum), half)


@pytest.fixture(scope="module")
def meshes():
    """Distances from one device, and shares of the state, on four devices."""
    flags = "--xla_force_host_platform_device_count=4"
    root = Path(metaopt.__file__).parents[1]
    path = os.pathsep.join([str(root), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("contract_rows.py"))],
        env={**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu", "PYTHONPATH": path},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.slow  # a process of its own compiles every optimizer for a mesh
@pytest.mark.parametrize("mesh", ["Explicit", "Auto"])
@pytest.mark.parametrize("name", [*WHOLE, *REAL])
def test_a_mesh_gives_the_numbers_of_one_device_and_shards_the_state(name, mesh, meshes):
    far, share = meshes[f"{name}: {mesh}"]

    assert far < 2e-3
    assert share <= 0.5
