"""What the optimizer's steps cost on the MNIST MLP, each over a step of SGD.

    python tests/performance/bench_optimizer.py

Batch 512, history 32, rollout 2, on this machine's default device; random data of MNIST's shape
(the cost does not depend on it). All steps are jitted with their state donated, and take turns in
one process, so that what disturbs one disturbs all. ``floor`` is the arithmetic of a learning step
and nothing else: the training gradient and the gradient through a two-step rollout, unstored. The
rows "without" leave out one part of a learning step, which shows what it costs. Other controllers,
rollouts and workloads, and memory: bench_steps.py.
"""

import argparse
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from metaopt import ScalarLags, frozen_control, meta_optimizer
from metaopt.workloads.models.mlp import MLP

BATCH = 512
RATE = 0.1


def make_problem() -> tuple[Any, Callable, Any]:
    """Return parameters, loss and a batch."""
    model = MLP(widths=(100, 100), outputs=10)
    keys = jax.random.split(jax.random.PRNGKey(0), 3)
    batch = {
        "inputs": jax.random.uniform(keys[0], (BATCH, 784)),
        "targets": jax.random.randint(keys[1], (BATCH,), 0, 10),
    }

    def loss(params: Any, batch: Any) -> jax.Array:
        logits = model.apply({"params": params}, batch["inputs"])
        return optax.softmax_cross_entropy_with_integer_labels(logits, batch["targets"]).mean()

    return model.init(keys[2], batch["inputs"])["params"], loss, batch


class WithoutControls(ScalarLags):
    """Never reads the history to make a control."""

    def controls(self, memory: Any, count: int, like: Any) -> list[Any]:
        """Return something that depends on the weights."""
        return [
            jax.tree.map(lambda x, i=i: jnp.full_like(x, self.weights[i]), like)
            for i in range(count)
        ]


class WithoutInnerProducts(ScalarLags):
    """Never reads the history to make a meta-gradient."""

    def meta_gradient(self, memory: Any, adjoints: Any, ago: int = 1) -> Any:
        """Return something that depends on the adjoints."""
        return 1e-9 * sum(leaf.sum() for leaf in jax.tree.leaves(adjoints)) + self.weights


class WithoutReading(WithoutControls, WithoutInnerProducts):
    """Writes the history and never reads it."""


def make_steps(history: int, rollout: int) -> dict[str, tuple[Callable, Any]]:
    """Return by name a donating step ``carry -> carry`` and its first carry."""
    params, loss, batch = make_problem()
    steps = {}

    def add(name: str, tx: optax.GradientTransformation) -> None:
        tx = optax.with_extra_args_support(tx)

        def step(carry: Any, batch: Any) -> Any:
            params, state = carry
            grads = jax.grad(loss)(params, batch)
            updates, state = tx.update(grads, state, params, datum=batch)
            return optax.apply_updates(params, updates), state

        copy = jax.tree.map(jnp.array, params)
        steps[name] = jax.jit(step, donate_argnums=0), (copy, tx.init(copy)), batch

    def learning(controller: Any, **options: Any) -> optax.GradientTransformation:
        return meta_optimizer(
            loss, RATE, history=history, rollout=rollout, controller=controller, **options
        )

    add("SGD", optax.sgd(RATE))
    add("AdamW", optax.adamw(1e-3))
    add("frozen, scalar", frozen_control(ScalarLags(jnp.full(history, 1e-4)), RATE))
    add("learning, scalar", learning(ScalarLags(), example=batch))
    add("learning, scalar, fixed batch", learning(ScalarLags(), fixed=True))
    add("  without inner products", learning(WithoutInnerProducts(), fixed=True))
    add("  without controls", learning(WithoutControls(), fixed=True))
    add("  without either", learning(WithoutReading(), fixed=True))

    def floor(carry: Any, batch: Any) -> Any:
        params, control, _ = carry
        grads = jax.grad(loss)(params, batch)

        def rolled_out(scale: jax.Array) -> jax.Array:
            point = jax.tree.map(lambda x, g, u: x - RATE * g - scale * u, params, grads, control)
            slope = jax.grad(loss)(point, batch)
            point = jax.tree.map(lambda x, g, u: x - RATE * g - scale * u, point, slope, control)
            return loss(point, batch)

        slope = jax.grad(rolled_out)(jnp.float32(1e-3))
        return jax.tree.map(lambda x, g: x - RATE * g, params, grads), control, slope

    copies = [jax.tree.map(jnp.array, params) for _ in range(2)]
    steps["floor"] = jax.jit(floor, donate_argnums=0), (*copies, jnp.float32(0)), batch
    return steps


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--steps", type=int, default=10, help="of each kind in a round")
    parser.add_argument("--history", type=int, default=32)
    parser.add_argument("--rollout", type=int, default=2)
    arguments = parser.parse_args()
    steps = make_steps(arguments.history, arguments.rollout)
    carries = {name: carry for name, (_, carry, _) in steps.items()}
    seconds: dict[str, list[float]] = {name: [] for name in steps}

    def take(name: str, count: int) -> float:
        step, _, batch = steps[name]
        start = time.perf_counter()
        for _ in range(count):
            carries[name] = step(carries[name], batch)
        jax.block_until_ready(carries[name])
        return (time.perf_counter() - start) / count

    for name in steps:  # compile, and go past the first H + L steps, which do not learn
        take(name, arguments.history + arguments.rollout + 5)
    for _ in range(arguments.rounds):
        for name in steps:
            seconds[name].append(take(name, arguments.steps))
    times = {name: np.array(values) for name, values in seconds.items()}
    print(f"history {arguments.history}, rollout {arguments.rollout}, {jax.devices()[0]}")
    for name, values in times.items():
        ratio = np.median(values) / np.median(times["SGD"])
        low, high = np.quantile(values / times["SGD"], [0.1, 0.9])
        print(
            f"{name:30s} {np.median(values) * 1e3:7.3f} ms   {ratio:5.2f} x SGD "
            f"({low:.2f} to {high:.2f})"
        )


if __name__ == "__main__":
    main()
