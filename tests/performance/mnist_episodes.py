"""The paper's deterministic setting on MNIST: does the loss fall from episode to episode?

    METAOPT_DATA_DIR=... python tests/performance/mnist_episodes.py

The workload's batch, base learning rate 0.1, history 32, rollout 2, Adam 1e-4 as meta-optimizer,
500 steps an episode, new parameters in each. Prints the training loss at the end of each episode.
"""

import argparse
import functools
import sys
import time
from collections.abc import Iterator
from typing import Any

import jax
import optax

from metaopt import meta_optimizer, start_episode
from metaopt.bench.contract.kit import training_loss
from metaopt.workloads.registry import get_workload


def final_losses(steps: int, seed: int) -> Iterator[float]:
    """Yield the training loss at the end of each episode, for ever."""
    workload = get_workload("mnist_mlp_fixed")

    def loss(params: Any, batch: Any) -> jax.Array:
        return training_loss(workload, params, None, batch, None)[0]

    tx = meta_optimizer(loss, 0.1, fixed=True, meta_optimizer=optax.adam(1e-4))

    @functools.partial(jax.jit, donate_argnums=1)
    def train(params: Any, state: Any, batch: Any) -> tuple[Any, jax.Array]:
        def step(carry: Any, _: None) -> tuple[Any, None]:
            params, state = carry
            updates, state = tx.update(jax.grad(loss)(params, batch), state, params, datum=batch)
            return (optax.apply_updates(params, updates), state), None

        (params, state), _ = jax.lax.scan(step, (params, state), length=steps)
        return state, loss(params, batch)

    state, keys = None, jax.random.PRNGKey(seed)
    while True:
        keys, key = jax.random.split(keys)
        params, _ = workload.init_model_fn(key)
        state = tx.init(params) if state is None else start_episode(state, params)
        state, last = train(params, state, workload.batch)
        yield float(last)


def main() -> None:
    """Train and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--episodes", type=int, default=16)
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    losses = final_losses(arguments.steps, arguments.seed)
    start = time.perf_counter()
    try:
        for episode in range(1, arguments.episodes + 1):
            loss = next(losses)
            seconds = time.perf_counter() - start
            print(f"episode {episode:2d}  loss {loss:.2e}  {seconds:5.0f} s", flush=True)
    except FileNotFoundError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
