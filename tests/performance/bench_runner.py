"""What the runner costs: 500 steps of AdamW on digits_mlp (batch 64) against a bare Python loop.

    python tests/performance/bench_runner.py

The bare loop calls one jitted step, with AdamW's hyperparameters as constants, and donates its
arrays as the runner does; it draws no keys and counts nothing. It draws its batches from the
workload's queue, or finds them on the device (the time that no loop can beat). All wait for the
device at the end, evaluation is excluded, and all have compiled before. Rounds alternate in one
process; a ratio is the median over rounds, the range from 10 % to 90 % of the rounds.
"""

import argparse
import functools
import itertools
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


def make_bare_loop(steps: int, *, prepared: bool):
    """Return a function that trains for ``steps`` and returns its seconds.

    Args:
        steps: The number of steps.
        prepared: Whether the batches are on the device before the clock starts.
    """
    transformation = optax.adamw(1e-3)

    def loss(params, batch):
        logits, _ = WORKLOAD.model_fn(params, batch, None, ForwardPassMode.TRAIN, None, True)
        result = WORKLOAD.loss_fn(batch["targets"], logits)
        return result["summed"] / result["n_valid_examples"]

    @functools.partial(jax.jit, donate_argnums=(0, 1))
    def step(params, state, batch):
        updates, state = transformation.update(jax.grad(loss)(params, batch), state, params)
        return optax.apply_updates(params, updates), state

    def run() -> float:
        queue = WORKLOAD._build_input_queue(np.array([0, 1], np.uint32), "train")
        batches = itertools.islice(queue, steps)
        if prepared:
            batches = jax.block_until_ready([*batches])
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
    """Print the ratios."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--steps", type=int, default=500)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        contestants = {
            "bare loop": make_bare_loop(arguments.steps, prepared=False),
            "prepared": make_bare_loop(arguments.steps, prepared=True),
            "runner": make_runner(arguments.steps, Path(folder) / "trial"),
        }
        for run in contestants.values():
            run()
        seconds = {name: [] for name in contestants}
        for _ in range(arguments.rounds):
            for name, run in contestants.items():
                seconds[name].append(run())
    for name, values in seconds.items():
        per_step = np.median(values) / arguments.steps * 1e6
        print(f"{name:10s} {per_step:7.1f} us a step (median of {arguments.rounds})")
    for name in ("bare loop", "prepared"):
        low, ratio, high = np.quantile(
            np.array(seconds["runner"]) / np.array(seconds[name]), [0.1, 0.5, 0.9]
        )
        print(f"runner over {name}: {ratio:.2f} ({low:.2f} to {high:.2f})")


if __name__ == "__main__":
    main()
