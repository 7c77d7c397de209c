"""The paper's deterministic setting on MNIST: does the loss fall from episode to episode?

    METAOPT_DATA_DIR=... python tests/performance/mnist_episodes.py

One fixed batch of 512, base learning rate 0.1, history 32, rollout 2, Adam 1e-4 as meta-optimizer,
500 steps an episode, new parameters in each. Prints the training loss at the end of each episode.
"""

import argparse
import functools
import time
from typing import Any

import jax
import optax

from metaopt import meta_optimizer, start_episode
from metaopt.bench.submission_kit import training_loss
from metaopt.workloads.registry import get_workload


def main() -> None:
    """Train and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--episodes", type=int, default=16)
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    workload = get_workload("mnist_mlp_fixed").with_batch_seed(arguments.seed)

    def loss(params: Any, batch: Any) -> jax.Array:
        return training_loss(workload, params, None, batch, None)[0]

    tx = meta_optimizer(loss, 0.1, fixed=True, meta_optimizer=optax.adam(1e-4))

    @functools.partial(jax.jit, donate_argnums=(0, 1))
    def train(params: Any, state: Any, batch: Any) -> tuple[Any, Any, jax.Array]:
        def step(carry: Any, _: None) -> tuple[Any, None]:
            params, state = carry
            updates, state = tx.update(jax.grad(loss)(params, batch), state, params, datum=batch)
            return (optax.apply_updates(params, updates), state), None

        carry, _ = jax.lax.scan(step, (params, state), length=arguments.steps)
        return *carry, loss(carry[0], batch)

    state = None
    start = time.perf_counter()
    for episode in range(1, arguments.episodes + 1):
        params, _ = workload.init_model_fn(
            jax.random.fold_in(jax.random.PRNGKey(arguments.seed), episode)
        )
        state = tx.init(params) if state is None else start_episode(state, params)
        _, state, last = train(params, state, workload.batch)
        print(f"episode {episode:2d}  loss {float(last):.2e}  {time.perf_counter() - start:5.0f} s",
              flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
