"""The paper's grid of AdamW, 72 points on digits_mlp (batch 64), two ways, to the same losses.

    python tests/performance/bench_trials.py

    one jit per trial   AlgoPerf's pattern: every trial makes its step anew, its hyperparameters in
                        it as constants, and compiles it; nothing is recorded
    one by one          ``run_trial`` for each point: compiled once, records on disk

Both start from the same parameters, see the same batches and are evaluated at the same steps. What
is compiled is part of the time, in every round: compiled steps are forgotten before it. Data and
JAX's own small operations are warm in both. Rounds alternate in one process; ratios are those of
medians, by the clock and in seconds of the processor, which other work on the machine disturbs
less.
"""

import argparse
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax

from metaopt.bench import records
from metaopt.bench.contract.loading import load_submission
from metaopt.bench.contract.rng import trial_keys
from metaopt.bench.contract.spaces import parse_space
from metaopt.bench.contract.spec import ForwardPassMode
from metaopt.bench.measure.targets import Target
from metaopt.bench.records import BudgetRecord, Seeds
from metaopt.bench.trial.plan import TrialPlan, plan_trial
from metaopt.bench.trial.runner import run_trial
from metaopt.workloads.registry import get_workload

SUBMISSIONS = Path(__file__).resolve().parents[2] / "submissions"
WORKLOAD = get_workload("digits_mlp")
ADAMW = load_submission("adamw", SUBMISSIONS)
SPLITS = ("train", "validation", "test")

Losses = list[list[float]]  # by trial: at every evaluation those of all splits
Way = Callable[[list[TrialPlan], Path], Losses]


def make_plans(points: list[dict[str, Any]], steps: int, period: int) -> list[TrialPlan]:
    """Return one trial for each point."""
    return [
        plan_trial(
            ADAMW,
            WORKLOAD,
            campaign="bench",
            contender="adamw@paper+grid",
            space="paper",
            study=1,
            trial=trial,
            seeds=Seeds(campaign=1, trial=trial),
            hyperparameters=point,
            budget=BudgetRecord(
                currency="steps", study=steps * len(points), trial=steps, eval_period=period
            ),
            target=Target("validation/loss", -1.0, "lower"),
            test_target=None,
        )
        for trial, point in enumerate(points, start=1)
    ]


def one_jit_per_trial(plans: list[TrialPlan], folder: Path) -> Losses:
    """Train as AlgoPerf's submissions do: ``init_optimizer_state`` makes and jits the step."""
    del folder
    return [_train_with_its_own_jit(plan) for plan in plans]


def _train_with_its_own_jit(plan: TrialPlan) -> list[float]:
    point = plan.settings.hyperparameters
    assert point is not None
    streams = trial_keys(plan.settings.seeds.trial)
    queue = WORKLOAD._build_input_queue(streams.data, "train")
    params, _ = WORKLOAD.init_model_fn(streams.model)
    transformation = optax.adamw(
        point["learning_rate"],
        b1=1.0 - point["one_minus_beta1"],
        b2=1.0 - point["one_minus_beta2"],
        weight_decay=point["weight_decay"],
    )

    def loss(params: Any, batch: Any) -> Any:
        logits, _ = WORKLOAD.model_fn(params, batch, None, ForwardPassMode.TRAIN, None, True)
        result = WORKLOAD.loss_fn(batch["targets"], logits)
        return result["summed"] / result["n_valid_examples"]

    @jax.jit
    def step(params: Any, state: Any, batch: Any) -> Any:
        updates, state = transformation.update(jax.grad(loss)(params, batch), state, params)
        return optax.apply_updates(params, updates), state

    state, losses = transformation.init(params), []
    for count in range(1, int(plan.allowance) + 1):
        params, state = step(params, state, next(queue))
        if count % plan.settings.budget.eval_period == 0:
            metrics = WORKLOAD.eval_model(64, params, None)
            losses += [metrics[f"{split}/loss"] for split in SPLITS]
    return losses


def one_by_one(plans: list[TrialPlan], folder: Path) -> Losses:
    """Train each point by the runner."""
    for plan in plans:
        run_trial(plan, folder / str(plan.settings.trial))
    return [_read_losses(folder / str(plan.settings.trial)) for plan in plans]


def _read_losses(folder: Path) -> list[float]:
    rows = records.read_evaluations(folder / records.EVAL_FILE)
    return [row[f"{split}/loss"] for row in rows for split in SPLITS]


WAYS: dict[str, Way] = {"one jit per trial": one_jit_per_trial, "one by one": one_by_one}


def main() -> None:
    """Print times, their ratio, and how far the losses are apart."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--period", type=int, default=50, help="steps between evaluations")
    arguments = parser.parse_args()
    points = list(parse_space(ADAMW.read_space("paper"), "paper.json").grid())
    plans = make_plans(points, arguments.steps, arguments.period)
    warm = make_plans(points[:2], 2, 1)
    seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in WAYS}
    losses: dict[str, np.ndarray] = {}
    with tempfile.TemporaryDirectory() as root:
        for round_ in range(arguments.rounds + 1):
            for name, way in WAYS.items():
                folder = Path(root) / "trials"
                shutil.rmtree(folder, ignore_errors=True)
                ADAMW.module._baseline.step_for.cache_clear()
                start = time.perf_counter(), time.process_time()
                found = way(plans if round_ else warm, folder)
                if round_:
                    end = time.perf_counter(), time.process_time()
                    seconds[name].append((end[0] - start[0], end[1] - start[1]))
                    losses[name] = np.array(found)
    print(f"{len(points)} points, {arguments.steps} steps each, median of {arguments.rounds}")
    medians = {name: np.median(np.array(values), axis=0) for name, values in seconds.items()}
    for name, (wall, processor) in medians.items():
        print(f"{name:18s} {wall:8.2f} s {processor:8.2f} s of the processor")
    each, once = WAYS
    wall, processor = medians[each] / medians[once]
    apart = np.abs(losses[each] - losses[once]) / np.maximum(1.0, np.abs(losses[each]))
    print(
        f"{each} over {once}: {wall:.1f} by the clock, {processor:.1f} of the processor; "
        f"losses at most {apart.max():.1e} apart"
    )


if __name__ == "__main__":
    main()
