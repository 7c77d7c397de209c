"""A controller travels in the state: saved, restored, compiled once, scaled without a list."""

import functools
import shutil
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import serialization
from flax.training import checkpoints

import metaopt
from metaopt import (
    Averages,
    DiagonalLags,
    FullLags,
    ScalarLags,
    carry_over,
    fixed_batch_optimizer,
    frozen_control,
    meta_optimizer,
    minibatch_optimizer,
    online_control,
    scale_controls,
)
from metaopt.bench.contract.savable import find_unsavable

PARAMS = {"w": jnp.ones((2, 3)), "b": jnp.zeros(3)}
BANK = Averages((0.0, 0.5), jnp.array([-1.0, -2.0]))
OPTIMIZERS = {
    "rollouts": lambda: meta_optimizer(
        lambda x, datum: jnp.sum(x["w"] ** 2), 0.1, fixed=True, history=2, controller=FullLags()
    ),
    "online": lambda: online_control(DiagonalLags(), optax.adam(0.1), optax.scale_by_adam()),
    "frozen": lambda: frozen_control(BANK),
    "one batch": fixed_batch_optimizer,
    "changing batches": lambda: minibatch_optimizer(10),
}
each_optimizer = pytest.mark.parametrize("make", OPTIMIZERS.values(), ids=OPTIMIZERS)


def numbered(state):
    """The state with other numbers in every array."""
    return jax.tree.map(lambda leaf: jnp.full_like(leaf, 1), state)


@each_optimizer
def test_a_state_comes_back_from_a_checkpoint_with_its_controllers(make, tmp_path):
    template = make().init(PARAMS)
    state = numbered(template)

    assert find_unsavable(state, "state") is None
    content = serialization.msgpack_serialize(serialization.to_state_dict(state))
    found = serialization.from_state_dict(template, serialization.msgpack_restore(content))
    checkpoints.save_checkpoint(tmp_path, state, step=1)  # as AlgoPerf does
    other = checkpoints.restore_checkpoint(tmp_path, template)

    for restored in (found, other):
        assert jax.tree.structure(restored) == jax.tree.structure(state)
        jax.tree.map(np.testing.assert_array_equal, restored, state)


@pytest.mark.parametrize(
    "kind", [ScalarLags(), FullLags(limit_bytes=2**20), Averages((0.0, 0.3), space="linear")]
)
def test_weights_are_leaves_of_a_controller_and_settings_are_static(kind):
    controller = kind.init(jnp.ones(2), 4)

    mapped = jax.tree.map(lambda leaf: leaf + 1.0, controller)

    assert type(mapped) is type(kind)
    assert mapped.settings == kind.settings
    np.testing.assert_array_equal(mapped.weights, np.asarray(controller.weights) + 1.0)
    assert jax.tree.structure(mapped) == jax.tree.structure(kind.init(jnp.ones(2), 4))
    others = jax.tree.structure(Averages((0.0, 0.4), space="linear").init(jnp.ones(2), 4))
    assert jax.tree.structure(mapped) != others


def test_equal_optimizers_share_one_compiled_step():
    traces = []

    @functools.partial(jax.jit, donate_argnums=0)
    def step(state, grads):
        traces.append(1)
        return online_control(BANK, optax.adam(0.1)).update(grads, state)[1]

    for _ in range(2):
        state = online_control(Averages(BANK.decays, BANK.weights), optax.adam(0.1)).init(PARAMS)
        for _ in range(2):
            state = step(state, PARAMS)

    assert len(traces) == 1
    np.testing.assert_array_equal(BANK.weights, [-1.0, -2.0])  # states are donated, it is not


def test_scaling_finds_every_controller_of_a_state():
    tx = optax.chain(
        online_control(BANK, optax.adam(0.1)), frozen_control(ScalarLags(jnp.array([2.0])))
    )
    state = tx.init(PARAMS)

    scaled = scale_controls(state, 3.0)

    np.testing.assert_allclose(scaled[0].controller.weights, BANK.weights + np.log(3.0), rtol=1e-6)
    np.testing.assert_allclose(scaled[1].controller.weights, [6.0])
    np.testing.assert_array_equal(scaled[0].count, state[0].count)


def test_a_learned_controller_is_frozen_by_carrying_it_over():
    learner = online_control(BANK, optax.adam(0.1))
    state = learner.update(PARAMS, learner.update(PARAMS, learner.init(PARAMS))[1])[1]

    frozen = carry_over(state, frozen_control(BANK).init(PARAMS))

    assert not np.array_equal(state.controller.weights, BANK.weights)
    np.testing.assert_array_equal(frozen.controller.weights, state.controller.weights)
    assert int(frozen.count) == 0


def test_a_copy_under_another_name_works_and_imports_nothing_of_metaopt(tmp_path):
    source, copy = Path(metaopt.__file__).parent, tmp_path / "vendored" / "optimizer"
    for path in [*source.glob("*.py"), *source.glob("controllers/*"), *source.glob("xla/*")]:
        if path.suffix == ".py":
            target = copy / path.relative_to(source)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, target)
    code = (
        "import sys, vendored.optimizer as copy\n"
        "assert 'jax' not in sys.modules\n"
        "for name in copy.__all__: getattr(copy, name)\n"
        "assert not [m for m in sys.modules if m.split('.')[0] == 'metaopt']\n"
        "print(*copy.__all__)"
    )

    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False
    )

    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == metaopt.__all__
