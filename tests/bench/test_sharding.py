"""Several devices give the numbers of one, and share the gradient history."""

import json
import os
import subprocess
import sys

import pytest

CODE = """
import json, sys
import jax, numpy as np
from metaopt.bench.loading import load_submission
from metaopt.workloads.registry import get_workload
from tuning.contenders import SUBMISSIONS

module = load_submission("metaopt", SUBMISSIONS).module
workload = get_workload("digits_mlp")
key = jax.random.PRNGKey(1)
queue = workload._build_input_queue(key, "train", global_batch_size=64)
params, model_state = workload.init_model_fn(key)
state = module.init_optimizer_state(workload, params, model_state, None, key)
losses = []
for step in range(60):
    batch = module.data_selection(workload, queue, state, params, model_state, None, step, key)
    state, params, model_state = module.update_params(
        workload=workload, current_param_container=params, current_params_types=None,
        model_state=model_state, hyperparameters=None, batch=batch, loss_type=None,
        optimizer_state=state, eval_results=[], global_step=step, rng=key)
    losses.append(float(state[0].loss))
rings = jax.tree.leaves(state[0].optimizer.memory.rows)
held = [sum(r.addressable_shards[i].data.nbytes for r in rings) for i in range(jax.device_count())]
everywhere = all(leaf.sharding.is_fully_replicated for leaf in jax.tree.leaves(params))
print(json.dumps({"devices": jax.device_count(), "losses": losses, "everywhere": everywhere,
                  "held": held, "whole": sum(r.nbytes for r in rings),
                  "weights": np.asarray(state[0].optimizer.weights).tolist()}))
"""


@pytest.fixture(scope="module")
def runs(root):
    results = {}
    for devices in (1, 8):
        flags = f"--xla_force_host_platform_device_count={devices}"
        done = subprocess.run(
            [sys.executable, "-c", CODE],
            cwd=root,
            env={**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"},
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert done.returncode == 0, done.stderr[-3000:]
        results[devices] = json.loads(done.stdout.splitlines()[-1])
    assert [results[n]["devices"] for n in (1, 8)] == [1, 8]
    return results


def test_eight_devices_give_the_numbers_of_one(runs):
    assert runs[8]["losses"] == pytest.approx(runs[1]["losses"], rel=1e-4)
    assert runs[8]["weights"] == pytest.approx(runs[1]["weights"], rel=1e-4, abs=1e-6)
    assert runs[8]["everywhere"]


def test_each_device_holds_its_share_of_the_history(runs):
    # All but the ten biases of the output divide by eight.
    whole = runs[8]["whole"]
    rows = whole // 4 // 8_970
    expected = 4 * rows * ((8_970 - 10) // 8 + 10)

    assert runs[8]["held"] == [expected] * 8
    assert expected / whole < 0.127
    assert runs[1]["held"] == [whole]
