"""A state that no checkpoint can hold is refused when the trial is set up, whatever its length."""

import re
from collections import namedtuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metaopt.bench.contract.savable import find_unrestorable, find_unsavable
from metaopt.bench.trial.checkpoints import load_checkpoint, save_checkpoint
from metaopt.bench.trial.runner import run_trial
from metaopt.workloads.synthetic import Quadratic

WORKLOAD = Quadratic(curvatures=(1.0, 5.0))
Pair = namedtuple("Pair", "first second")


@jax.tree_util.register_pytree_node_class
class Unknown:
    """A node that JAX knows and flax does not."""

    def tree_flatten(self):
        return (jnp.ones(2),), None

    @classmethod
    def tree_unflatten(cls, _, children):
        return cls()


REFUSED = {
    "array of size zero": (jnp.zeros((0, 3)), r"an array of size zero, of shape \(0, 3\)"),
    "numpy array of size zero": (np.zeros(0), r"an array of size zero, of shape \(0,\)"),
    "typed key": (jax.random.key(0), "a typed random key"),
    "text": ("adam", "neither an array nor a number, but of type str"),
    "complex number": (1j, "neither an array nor a number, but of type complex"),
    "numpy boolean": (np.bool_(True), "neither an array nor a number, but of type numpy.bool"),
    "object": (object(), "neither an array nor a number, but of type object"),
    "function": (print, "neither an array nor a number, but of type builtin_function"),
    "array of objects": (np.array([None]), "an array of dtype object"),
    "array of text": (np.array(["a"]), "an array of dtype <U1"),
    "node that flax does not know": (
        Unknown(),
        "neither an array nor a number, but of type .*Unknown",
    ),
}


@pytest.mark.parametrize("leaf, why", REFUSED.values(), ids=REFUSED)
def test_a_leaf_that_cannot_be_saved_is_named(leaf, why):
    state = {"one": [jnp.ones(2), Pair(None, leaf)], "two": 3}

    assert re.fullmatch(f"leaf is {why}.*", find_unsavable(leaf, "leaf"))
    found = find_unsavable(state, "optimizer_state")
    assert re.fullmatch(rf"optimizer_state\.one\.1\.second is {why}.*", found)


def test_arrays_and_numbers_in_known_containers_can_be_saved(tmp_path):
    state = {
        "numbers": (1, 2.5, True, np.float32(1), np.int64(3)),
        "arrays": [jnp.ones(2, jnp.bfloat16), np.arange(3), jnp.array(1j), jnp.array([True])],
        "nothing": Pair(None, {"empty": {}, "tuple": ()}),
        "raw key": jax.random.PRNGKey(0),
    }

    assert find_unsavable(state, "state") is None
    save_checkpoint(tmp_path / "file", {"state": state}, {})
    trees, _ = load_checkpoint(tmp_path / "file", {"state": state})
    assert jax.tree.structure(trees["state"]) == jax.tree.structure(state)
    jax.tree.map(np.testing.assert_array_equal, trees["state"], state)


def test_numbers_of_64_bits_on_the_host_keep_them(tmp_path):
    state = {"count": np.array(2**40 + 1), "none yet": np.array([1.0 + 2**-40]), "device": 1.0}
    template = {"count": np.array(0), "none yet": None, "device": jnp.zeros(2)}
    save_checkpoint(tmp_path / "file", {"state": state | {"device": np.ones(2, np.float32)}}, {})

    found = load_checkpoint(tmp_path / "file", {"state": template})[0]["state"]

    assert found["count"] == 2**40 + 1
    assert found["none yet"] == [1.0 + 2**-40]
    assert isinstance(found["count"], np.ndarray)
    assert isinstance(found["device"], jax.Array)


FIRST = {"count": 0, "part": None, "moments": [jnp.ones(2)]}
RESTORED = {
    "the same": FIRST,
    "a part that is gone": FIRST | {"moments": None},
    "a part that was None": FIRST | {"part": {"momentum": [jnp.ones(2), 3]}},
}
LOST = {
    "a new part": (FIRST | {"momentum": jnp.ones(2)}, r"optimizer_state\['momentum'\]"),
    "one part less": ({"count": 0, "part": None}, "optimizer_state cannot be read back"),
    "a longer list": (FIRST | {"moments": [1.0, 2.0]}, "optimizer_state cannot be read back"),
    "a tuple": (FIRST | {"part": (1, 2)}, "optimizer_state.* in another structure"),
    "a named tuple": (FIRST | {"part": Pair(1, 2)}, r"optimizer_state\['part'\].first"),
}


@pytest.mark.parametrize("state", RESTORED.values(), ids=RESTORED)
def test_a_part_may_vanish_and_nothing_may_become_something(state):
    assert find_unrestorable(FIRST, state, "optimizer_state") is None


@pytest.mark.parametrize("state, why", LOST.values(), ids=LOST)
def test_a_state_that_would_come_back_otherwise_is_named(state, why):
    assert re.match(why, find_unrestorable(FIRST, state, "optimizer_state"))


@pytest.mark.parametrize("checkpoint_seconds", [0.0, 1e9], ids=["checkpoints", "no checkpoint"])
@pytest.mark.parametrize("late", [jnp.zeros(0), {"momentum": 1.0, "count": 1}], ids=["size", "key"])
def test_a_state_that_changes_late_ends_the_trial_at_the_same_evaluation(
    late, checkpoint_seconds, tmp_path, make_plan, make_gradient_descent
):
    submission = make_gradient_descent()
    submission.module.init_optimizer_state = lambda *_: ({"part": {"count": 0}}, None)
    update_params = submission.module.update_params

    def changing(*, global_step, **arguments):
        _, params, model_state = update_params(global_step=global_step, **arguments)
        part = late if global_step >= 33 else {"count": global_step}
        return ({"part": part}, None), params, model_state

    submission.module.update_params = changing
    plan = make_plan(submission, WORKLOAD)
    record = run_trial(plan, tmp_path, checkpoint_seconds=checkpoint_seconds)

    assert record.status == "invalid"
    assert record.ledger.cost.steps == 40


@pytest.mark.parametrize("at_step", [None, 1], ids=["from the start", "from the first step on"])
@pytest.mark.parametrize("checkpoint_seconds", [0.0, 1e9], ids=["long trial", "short trial"])
def test_it_ends_a_trial_of_any_length_as_invalid(
    at_step, checkpoint_seconds, tmp_path, make_plan, make_gradient_descent
):
    submission = make_gradient_descent()
    good, bad = ({"part": {"key": key(0)}} for key in (jax.random.PRNGKey, jax.random.key))
    update_params = submission.module.update_params

    def changing(*, optimizer_state, **arguments):
        _, params, model_state = update_params(optimizer_state=optimizer_state, **arguments)
        return (bad if at_step else optimizer_state[0], None), params, model_state

    submission.module.init_optimizer_state = lambda *_: (good if at_step else bad, None)
    submission.module.update_params = changing

    plan = make_plan(submission, WORKLOAD)
    record = run_trial(plan, tmp_path, checkpoint_seconds=checkpoint_seconds)

    assert record.status == "invalid"
    by = "update_params" if at_step else "init_optimizer_state"
    assert f"{by} returned a state that cannot be saved" in record.error
    assert "optimizer_state.part.key is a typed random key" in record.error
    assert record.ledger.cost.steps == (10 if at_step else 0)
