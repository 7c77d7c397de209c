"""What the runner costs: 500 steps of AdamW on digits_mlp (batch 64) against a bare Python loop.

    python tests/performance/bench_runner.py

The bare loop calls one jitted step, with AdamW's hyperparameters as constants, on batches that lie
on the device before the clock starts, and donates its arrays as ours does; it draws no keys, counts
nothing and asks nobody. Both wait for the device at the end, evaluation is excluded in both, and
both have compiled before. Rounds alternate in one process; the ratio is that of the medians, the
range that of single rounds.
"""

import argparse
import functools
import shutil
import tempfile
import time
from pathlib import Path

import jax
import numpy as np
import optax

from metaopt.bench.contract.loading import load_submission
from metaopt.bench.contract.spec import ForwardPassMode
from metaopt.bench.measure.targets import Target
from metaopt.bench.records import BudgetRecord, Seeds
from metaopt.bench.trial.plan import plan_trial
from metaopt.bench.trial.runner import run_trial
from metaopt.workloads.registry import get_workload

SUBMISSIONS = Path(__file__).resolve().parents[2] / "submissions"
WORKLOAD = get_workload("digits_mlp")


def make_bare_loop(steps: int):
    """Return a function that trains for ``steps`` and returns its seconds."""
    transformation = optax.adamw(1e-3)

    def loss(params, batch):
        logits, _ = WORKLOAD.model_fn(params, batch, None, ForwardPassMode.TRAIN, None, True)
        result = WORKLOAD.loss_fn(batch["targets"], logits)
        return result["summed"] / result["n_valid_examples"]

    @functools.partial(jax.jit, donate_argnums=(0, 1))
    def step(params, state, batch):
        updates, state = transformation.update(jax.grad(loss)(params, batch), state, params)
        return optax.apply_updates(params, updates), state

    queue = WORKLOAD._build_input_queue(np.array([0, 1], np.uint32), "train")
    batches = jax.block_until_ready([next(queue) for _ in range(steps)])

    def run() -> float:
        params, _ = WORKLOAD.init_model_fn(jax.random.PRNGKey(0))
        state = transformation.init(params)
        jax.block_until_ready((params, state))
        start = time.perf_counter()
        for batch in batches:
            params, state = step(params, state, batch)
        jax.block_until_ready((params, state))
        return time.perf_counter() - start

    return run


def make_runner(steps: int, folder: Path):
    """Return a function that trains through the runner and returns its charged seconds."""
    submission = load_submission("adamw", SUBMISSIONS)
    plan = plan_trial(
        submission,
        WORKLOAD,
        campaign="bench",
        contender="adamw+none",
        study=1,
        trial=1,
        seeds=Seeds(campaign=1, trial=1),
        hyperparameters=submission.defaults,
        budget=BudgetRecord(
            currency="gradient_evaluations", study=steps, trial=steps, eval_period=steps
        ),
        target=Target("validation/loss", -1.0, "lower"),
        test_target=None,
    )

    def run() -> float:
        shutil.rmtree(folder, ignore_errors=True)
        return run_trial(plan, folder).ledger.cost.seconds

    return run


def main() -> None:
    """Print the ratio."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--steps", type=int, default=500)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        contestants = {
            "bare loop": make_bare_loop(arguments.steps),
            "runner": make_runner(arguments.steps, Path(folder) / "trial"),
        }
        for run in contestants.values():
            run()
        seconds = {name: [] for name in contestants}
        for _ in range(arguments.rounds):
            for name, run in contestants.items():
                seconds[name].append(run())
    bare, ours = (np.array(values) for values in seconds.values())
    for name, values in seconds.items():
        per_step = np.median(values) / arguments.steps * 1e6
        print(f"{name:10s} {per_step:7.1f} us a step (median of {arguments.rounds})")
    low, high = np.quantile(ours / bare, [0.1, 0.9])
    print(
        f"runner over bare loop: {np.median(ours) / np.median(bare):.2f} ({low:.2f} to {high:.2f})"
    )


if __name__ == "__main__":
    main()
