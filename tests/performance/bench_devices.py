"""Numbers and memory of ``metaopt`` on several devices, forced on the host.

    python tests/performance/bench_devices.py --devices 8

Prints the loss of the last of 60 learning steps on ``digits_mlp`` and the share of the gradient
history that each device holds; with ``--json`` every loss, the controller and the bytes. The
devices are the host's: their times mean nothing.
"""

import argparse
import json
import os
from pathlib import Path
from typing import Any

STEPS = 60
SUBMISSIONS = Path(__file__).parents[2] / "submissions"


def measure() -> dict[str, Any]:
    """Train on the devices that there are."""
    import jax

    from metaopt.bench.contract.loading import load_submission
    from metaopt.workloads.registry import get_workload

    module: Any = load_submission("metaopt", SUBMISSIONS).module
    workload = get_workload("digits_mlp")
    key = jax.random.PRNGKey(1)
    queue = workload._build_input_queue(key, "train", global_batch_size=64)
    params, model_state = workload.init_model_fn(key)
    state = module.init_optimizer_state(workload, params, model_state, None, key)
    losses = []
    for step in range(STEPS):
        batch = module.data_selection(workload, queue, state, params, model_state, None, step, key)
        state, params, model_state = module.update_params(
            workload=workload, current_param_container=params, current_params_types=None,
            model_state=model_state, hyperparameters=None, batch=batch, loss_type=None,
            optimizer_state=state, eval_results=[], global_step=step, rng=key,
        )  # fmt: skip
        losses.append(float(state[0].loss))
    rings = jax.tree.leaves(state[0].learner.memory.rows)
    return {
        "devices": jax.device_count(),
        "losses": losses,
        "weights": state[0].learner.controller.weights.tolist(),
        "replicated": all(leaf.is_fully_replicated for leaf in jax.tree.leaves(params)),
        "whole": sum(ring.nbytes for ring in rings),
        "held": [
            sum(ring.addressable_shards[device].data.nbytes for ring in rings)
            for device in range(jax.device_count())
        ],
    }


def main() -> None:
    """Force the devices, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--devices", type=int, default=8)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    # Read when JAX is first imported, which is in measure().
    os.environ["XLA_FLAGS"] = f"--xla_force_host_platform_device_count={arguments.devices}"
    os.environ["JAX_PLATFORMS"] = "cpu"
    found = measure()
    if arguments.json:
        print(json.dumps(found))
        return
    shares = sorted({held / found["whole"] for held in found["held"]})
    print(f"{found['devices']} devices: loss {found['losses'][-1]:.6f} after {STEPS} steps")
    print(f"each holds {', '.join(f'{share:.2%}' for share in shares)} of the gradient history")


if __name__ == "__main__":
    main()
