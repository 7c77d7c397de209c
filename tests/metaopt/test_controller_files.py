"""Controller files: exact, and nothing else is read."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from metaopt import (
    Averages,
    DiagonalLags,
    FullLags,
    ScalarLags,
    StepSize,
    frozen_control,
    load_controller,
    meta_optimizer,
    save_controller,
)

WEIGHTS = jnp.array([0.1, -1e-30, 3.3333333], jnp.float32)


@pytest.mark.parametrize(
    "controller",
    [
        ScalarLags(WEIGHTS),
        DiagonalLags(jnp.stack([WEIGHTS, -WEIGHTS])),
        Averages((0.0, 0.9, 1 - 1e-3), WEIGHTS, "linear"),
        Averages((0.1, 0.2, 0.3), WEIGHTS),
        StepSize(WEIGHTS[2]),
    ],
)
def test_a_controller_comes_back_to_the_last_bit(controller, tmp_path):
    save_controller(tmp_path / "c.json", controller, {"workload": "w"})

    loaded = load_controller(tmp_path / "c.json")

    assert type(loaded) is type(controller)
    np.testing.assert_array_equal(loaded.weights, controller.weights)
    assert loaded.settings == controller.settings
    assert json.loads((tmp_path / "c.json").read_text())["provenance"] == {"workload": "w"}
    assert [path.name for path in tmp_path.iterdir()] == ["c.json"]


@pytest.mark.parametrize("weights", [None, jnp.array([1.0, jnp.nan])], ids=["none", "NaN"])
def test_a_controller_without_finite_weights_is_not_written(weights, tmp_path):
    with pytest.raises(ValueError, match="`controller`"):
        save_controller(tmp_path / "c.json", ScalarLags(weights))

    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "change, message",
    [
        ({"schema_version": 2}, "schema version 1, got 2"),
        ({"family": "oracle"}, r"no controller family 'oracle', only \['averages', 'diag"),
        ({"shape": [4]}, r"`weights` have shape \[3\], the file states \[4\]"),
        ({"family": "full_lags"}, r"`weights` of full_lags must have 3 axes.* got shape \[3\]"),
        ({"weights": [[1.0]], "shape": [1, 1]}, r"`weights` of scalar_lags must have 1 axes"),
        ({"weights": [1.0, None, 2.0]}, "`weights` must be"),
        ({"weights": [[1.0], 2.0, 3.0]}, "`weights` must be numbers in a regular array"),
        ({"weights": [1e999, 1.0, 2.0]}, "`weights` must be finite"),
        ({"schema_version": True}, "schema version 1, got True"),
        ({"weights": [True, 1.0, 2.0]}, "`weights` must be numbers"),
        ({"weights": ["1", "2", "3"]}, "`weights` must be numbers"),
        ({"weights": [], "shape": [0]}, "`weights` must not be empty"),
        ({"family": "averages"}, r"`settings` of averages must be \['decays', 'space'\], got {}"),
        ({"settings": {"decays": []}}, "`settings` of scalar_lags must be left out, got"),
        ({"family": "averages", "settings": {"decays": "9", "space": "log"}}, "must be numbers"),
        ({"family": "averages", "settings": {"decays": [0, 2, 3], "space": "log"}}, "lie in"),
        ({"family": "averages", "settings": {"decays": [0, 0.5], "space": "log"}}, "each of the 2"),
        ({"family": "averages", "settings": {"decays": [0], "space": ["log"]}}, "`space` must be"),
    ],
)
def test_another_file_is_refused(change, message, tmp_path):
    path = tmp_path / "c.json"
    save_controller(path, ScalarLags(WEIGHTS))
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))

    with pytest.raises(ValueError, match=message):
        load_controller(path)


@pytest.mark.parametrize("family", ["scalar_lags", "diagonal_lags"])
def test_a_file_for_another_history_is_refused_where_it_is_used(family, tmp_path):
    kind = {"scalar_lags": ScalarLags, "diagonal_lags": DiagonalLags}[family]
    save_controller(tmp_path / "c.json", kind(WEIGHTS))
    controller = load_controller(tmp_path / "c.json")
    tx = meta_optimizer(lambda x, datum: 0.0, 0.1, fixed=True, history=4, controller=controller)

    with pytest.raises(ValueError, match=r"`controller` has weights of shape \(3,\), but history"):
        tx.init({"a": jnp.ones(2), "b": jnp.ones(5)})


@pytest.mark.parametrize("content", ["", "[]", "not json", "[" * 100_000])
def test_malformed_controller_files_are_refused(content, tmp_path):
    path = tmp_path / "c.json"
    path.write_text(content)

    with pytest.raises(ValueError, match="not a controller file"):
        load_controller(path)


@pytest.mark.parametrize(
    "kind", [ScalarLags, DiagonalLags, FullLags, Averages], ids=lambda kind: kind.family
)
def test_a_learned_controller_is_deployed_from_its_file_as_from_its_state(
    kind, mlp, train, tmp_path
):
    learner = meta_optimizer(
        mlp.loss, 0.3, example=mlp.data[0], history=4, controller=kind(),
        meta_optimizer=optax.adam(1e-2),
    )  # fmt: skip
    learned = train(learner, mlp.loss, mlp.params, mlp.data[:8]).state.controller
    save_controller(tmp_path / "c.json", learned)
    loaded = load_controller(tmp_path / "c.json")

    @jax.jit
    def steps(controller):  # a controller is a tree, and its family is static
        tx, grads = frozen_control(controller, 0.3), mlp.params
        updates, state = tx.update(grads, tx.init(mlp.params))
        return updates, tx.update(grads, state)[0]

    jax.tree.map(np.testing.assert_array_equal, steps(learned), steps(loaded))
    assert loaded.settings == learned.settings


@pytest.mark.parametrize("shape", [(2, 3), (6,), ()])
def test_diagonal_lags_of_a_single_array_come_back(shape, tmp_path):
    for params in (jnp.ones(shape), {"w": jnp.ones(shape)}):
        save_controller(tmp_path / "c.json", DiagonalLags().init(params, 4))

        controller = load_controller(tmp_path / "c.json")

        assert controller.history == 4
        leaves = jax.tree.leaves(controller.init(params, 4).weights)
        assert [leaf.shape for leaf in leaves] == [(4, *shape)]
