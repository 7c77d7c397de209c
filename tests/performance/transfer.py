"""Does a learned controller transfer to another problem, another width, changing batches?

    METAOPT_DATA_DIR=... python tests/performance/transfer.py

On each source a controller learns over episodes on one fixed batch (the paper's setting: scalar
lags, base rate 0.1, history 32, rollout 2, Adam 1e-4). It is saved, read again, and deployed frozen
on each target, on one fixed batch and on changing batches. Prints the loss at the end of training,
of the fixed batch or of the whole training set: the median over studies, each with its own
controller, parameters and batches. Without MNIST under METAOPT_DATA_DIR the digits stand alone.
"""

import argparse
import dataclasses
import functools
import math
import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import optax

from metaopt import (
    ScalarLags,
    frozen_control,
    load_controller,
    meta_optimizer,
    save_controller,
    start_episode,
)
from metaopt.bench.contract.kit import training_loss
from metaopt.workloads.data.queues import ShuffledQueue
from metaopt.workloads.digits_mlp import DIGITS_MLP
from metaopt.workloads.mnist import MNIST_MLP
from metaopt.workloads.models.mlp import MLP
from metaopt.workloads.supervised import SupervisedWorkload

RATE = 0.1


@dataclasses.dataclass(frozen=True)
class Problem:
    """A workload at some width, and how many steps one training run takes."""

    name: str
    workload: SupervisedWorkload
    steps: int

    def loss(self, params: Any, batch: Any) -> jax.Array:
        """Return the mean loss of a batch."""
        return training_loss(self.workload, params, None, batch, None)[0]

    def batches(self, seed: int, fixed: bool) -> Any:
        """Return the batches of a run, stacked along a first axis of ``steps``."""
        workload = self.workload
        queue = ShuffledQueue(
            workload.arrays["train"], jax.random.PRNGKey(seed), workload.reference_batch_size
        )
        drawn = [next(queue)] * self.steps if fixed else [next(queue) for _ in range(self.steps)]
        return jax.tree.map(lambda *leaves: jnp.stack(leaves), *drawn)


def widened(name: str, workload: SupervisedWorkload, width: int, steps: int) -> Problem:
    """Return a workload with hidden layers of another width."""
    model = MLP(widths=(width, width), outputs=10)
    return Problem(name, dataclasses.replace(workload, name=name, model=model), steps)


def problems() -> list[Problem]:
    """Return what can be loaded here."""
    found = [
        Problem("digits_mlp", DIGITS_MLP, 200),
        widened("digits_mlp, width 16", DIGITS_MLP, 16, 200),
        widened("digits_mlp, width 256", DIGITS_MLP, 256, 200),
    ]
    try:
        MNIST_MLP.check_data()
    except FileNotFoundError:
        return found
    return [
        *found,
        Problem("mnist_mlp", MNIST_MLP, 500),
        widened("mnist_mlp, width 400", MNIST_MLP, 400, 500),
    ]


def learn(problem: Problem, seed: int, episodes: int, path: Path) -> None:
    """Learn a controller on one fixed batch and save it."""
    tx = meta_optimizer(problem.loss, RATE, fixed=True, meta_optimizer=optax.adam(1e-4))
    batch = jax.tree.map(lambda leaf: leaf[0], problem.batches(seed, fixed=True))

    @functools.partial(jax.jit, donate_argnums=1)
    def train(params: Any, state: Any) -> Any:
        def step(carry: Any, _: None) -> tuple[Any, None]:
            params, state = carry
            grads = jax.grad(problem.loss)(params, batch)
            updates, state = tx.update(grads, state, params, datum=batch)
            return (optax.apply_updates(params, updates), state), None

        return jax.lax.scan(step, (params, state), length=problem.steps)[0][1]

    state, keys = None, jax.random.split(jax.random.PRNGKey(seed), episodes)
    for key in keys:
        params, _ = problem.workload.init_model_fn(key)
        state = tx.init(params) if state is None else start_episode(state, params)
        state = train(params, state)
    assert state is not None
    save_controller(path, state.controller)


def make_deployment(problem: Problem) -> Callable[..., float]:
    """Return ``deploy(weights, seed, fixed)``, the loss at the end of a frozen run."""

    @jax.jit
    def train(weights: Any, params: Any, batches: Any) -> Any:
        tx = frozen_control(ScalarLags(weights), RATE)

        def step(carry: Any, batch: Any) -> tuple[Any, None]:
            params, state = carry
            updates, state = tx.update(jax.grad(problem.loss)(params, batch), state, params)
            return (optax.apply_updates(params, updates), state), None

        return jax.lax.scan(step, (params, tx.init(params)), batches)[0][0]

    loss = jax.jit(problem.loss)

    def deploy(weights: Any, seed: int, fixed: bool) -> float:
        params, _ = problem.workload.init_model_fn(jax.random.PRNGKey(seed + 1_000))
        batches = problem.batches(seed + 1_000, fixed)
        params = train(weights, params, batches)
        judged = (
            jax.tree.map(lambda x: x[0], batches) if fixed else problem.workload.arrays["train"]
        )
        return float(loss(params, judged))

    return deploy


def main() -> None:
    """Learn everywhere, deploy everywhere, print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--episodes", type=int, default=8)
    parser.add_argument("--studies", type=int, default=3)
    arguments = parser.parse_args()
    targets = problems()
    deployments = {target.name: make_deployment(target) for target in targets}
    sources: dict[str, list[Any]] = {"none (M = 0: SGD)": [jnp.zeros(32)] * arguments.studies}
    with tempfile.TemporaryDirectory() as folder:
        for source in (t for t in targets if t.workload.model.widths[0] <= 100):
            paths = [Path(folder) / f"{seed}.json" for seed in range(arguments.studies)]
            for seed, path in enumerate(paths):
                learn(source, seed, arguments.episodes, path)
            sources[source.name] = [load_controller(path).weights for path in paths]
    for fixed in (True, False):
        print(f"\n{'one fixed batch' if fixed else 'changing batches'}: loss after training")
        print(f"{'learned on':24}" + "".join(f"{target.name:>24}" for target in targets))
        for name, controllers in sources.items():
            cells = []
            for target in targets:
                losses = [
                    deployments[target.name](weights, seed, fixed)
                    for seed, weights in enumerate(controllers)
                ]
                finite = [loss if math.isfinite(loss) else math.inf for loss in losses]
                cells.append(f"{statistics.median(finite):24.2e}")
            print(f"{name:24}" + "".join(cells), flush=True)


if __name__ == "__main__":
    main()
