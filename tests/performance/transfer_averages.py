"""Do the weights of averages that one problem learned train another, from its first step on?

    METAOPT_DATA_DIR=... python tests/performance/transfer_averages.py

On each source ``minibatch_optimizer`` learns in the first tenth of a run on changing batches. What
it has learned is saved as a controller, read again, and deployed frozen on each target for a whole
run, annealed as the recipe anneals. Prints the loss of the whole training set at the end: the
median over studies, each with its own controller, parameters and batches. The first row is each
target's own ``minibatch_optimizer``, which pays for its learning; the last ones are fixed numbers
in place of learned ones. Without MNIST under METAOPT_DATA_DIR the digits stand alone.

With ``--out FOLDER``, ``transfer.csv`` has every run, and ``transfer.png`` the medians.
"""

import argparse
import dataclasses
import math
import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import optax
import pandas as pd
from transfer import Problem, problems

from metaopt import (
    Averages,
    frozen_control,
    load_controller,
    minibatch_optimizer,
    save_controller,
)
from metaopt.recipes import (
    CHANGING_DECAYS,
    CHANGING_RMS_DECAY,
    DEPLOYED_FACTOR,
    LEARNING_SHARE,
)
from metaopt.scales import scale_by_rms

FIXED = (1e-4, 1e-3, 1e-2)  # M, not learned


def frozen(steps: int, weights: Any) -> optax.GradientTransformationExtraArgs:
    """Return averages with weights that stay, annealed over a run."""
    deployed = frozen_control(
        Averages(CHANGING_DECAYS, weights), disturbance=scale_by_rms(CHANGING_RMS_DECAY)
    )
    cosine = optax.cosine_decay_schedule(DEPLOYED_FACTOR, steps)
    return optax.with_extra_args_support(optax.chain(deployed, optax.scale_by_schedule(cosine)))


def make_runs(problem: Problem) -> tuple[Callable[..., Any], Callable[..., float]]:
    """Return ``learn(seed)``, the weights, and ``train(weights or None, seed)``, the loss."""

    def run(tx: Any, params: Any, batches: Any) -> Any:
        def step(carry: Any, batch: Any) -> tuple[Any, None]:
            params, state = carry
            value, grads = jax.value_and_grad(problem.loss)(params, batch)
            updates, state = tx.update(grads, state, params, value=value)
            return (optax.apply_updates(params, updates), state), None

        return jax.lax.scan(step, (params, tx.init(params)), batches)[0]

    @jax.jit
    def run_own(params: Any, batches: Any) -> Any:
        params, state = run(minibatch_optimizer(problem.steps), params, batches)
        return params, optax.tree_utils.tree_get(state, "controller").weights

    @jax.jit
    def run_frozen(params: Any, batches: Any, weights: Any) -> Any:
        return run(frozen(problem.steps, weights), params, batches)[0]

    loss = jax.jit(problem.loss)

    def start(seed: int) -> tuple[Any, Any]:
        params, _ = problem.workload.init_model_fn(jax.random.PRNGKey(seed))
        return params, problem.batches(seed, fixed=False)

    def learn(seed: int) -> Any:
        params, batches = start(seed)
        learning = math.ceil(LEARNING_SHARE * problem.steps)
        return run_own(params, jax.tree.map(lambda leaf: leaf[:learning], batches))[1]

    def train(weights: Any, seed: int) -> float:
        params, batches = start(seed + 1_000)
        if weights is None:
            params, _ = run_own(params, batches)
        else:
            params = run_frozen(params, batches, weights)
        return float(loss(params, problem.workload.arrays["train"]))

    return learn, train


def plot(table: pd.DataFrame, path: Path) -> None:
    """Draw the medians, coloured by how far they are from the lowest of their column."""
    import matplotlib.pyplot as plt
    import seaborn as sns

    medians = table.groupby(["source", "target"], sort=False).loss.median().unstack(sort=False)
    behind = (medians / medians.min()).map(math.log10)
    figure, axes = plt.subplots(figsize=(9, 4.5), layout="constrained")
    sns.heatmap(
        behind.clip(upper=3.0), annot=medians.map("{:.1e}".format), fmt="", cmap="crest", ax=axes,
        cbar_kws={"label": "behind the best of the column, powers of ten"},
    )  # fmt: skip
    axes.set(xlabel="trained", ylabel="learned on")
    axes.tick_params(axis="x", rotation=20)
    figure.savefig(path, dpi=150)


def main() -> None:
    """Learn everywhere, deploy everywhere, print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--studies", type=int, default=3)
    parser.add_argument("--digits-steps", type=int, default=800)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    targets = [
        dataclasses.replace(problem, steps=arguments.digits_steps)
        if problem.name.startswith("digits")
        else problem
        for problem in problems()
    ]
    runs = {target.name: make_runs(target) for target in targets}
    seeds = range(arguments.studies)
    sources: dict[str, list[Any]] = {"itself, while it trains": [None for _ in seeds]}
    with tempfile.TemporaryDirectory() as folder:
        for source in targets:
            learn, _ = runs[source.name]
            paths = [Path(folder) / f"{seed}.json" for seed in seeds]
            for seed, path in zip(seeds, paths, strict=True):
                save_controller(path, Averages(CHANGING_DECAYS, learn(seed)))
            sources[source.name] = [load_controller(path).weights for path in paths]
    for m in FIXED:
        log_m = jnp.full(len(CHANGING_DECAYS), math.log(m))
        sources[f"nobody, M = {m:g}"] = [log_m for _ in seeds]
    print(f"{'learned by':24}{'M':>20}" + "".join(f"{target.name:>24}" for target in targets))
    rows = []
    for name, controllers in sources.items():
        cells = []
        for target in targets:
            train = runs[target.name][1]
            losses = [train(w, seed) for seed, w in zip(seeds, controllers, strict=True)]
            finite = [loss if math.isfinite(loss) else math.inf for loss in losses]
            cells.append(f"{statistics.median(finite):24.2e}")
            rows += [
                (name, target.name, seed, loss) for seed, loss in zip(seeds, finite, strict=True)
            ]
        first = controllers[0]
        m = "" if first is None else ", ".join(f"{x:.1e}" for x in jnp.exp(first).tolist())
        print(f"{name:24}{m:>20}" + "".join(cells), flush=True)
    if arguments.out is not None:
        arguments.out.mkdir(parents=True, exist_ok=True)
        table = pd.DataFrame(rows, columns=["source", "target", "study", "loss"])
        table.to_csv(arguments.out / "transfer.csv", index=False)
        plot(table, arguments.out / "transfer.png")


if __name__ == "__main__":
    main()
