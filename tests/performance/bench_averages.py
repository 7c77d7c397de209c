"""Time and memory of the steps beyond the paper, over a step of momentum.

    python tests/performance/bench_averages.py

On the MNIST MLP (random data of its shape, batch 512), or a workload that is named. Steps take
turns as in bench_steps.py, where the columns are explained. All cost one gradient; what they cost
above it is memory bandwidth: arrays read and written once a step.
"""

import argparse
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from bench_optimizer import make_problem as make_mlp
from bench_steps import Case, Problem, compile_case, make_problem, n_bytes, take_turns

from metaopt import (
    Averages,
    StepSize,
    anytime_optimizer,
    end_learning,
    fixed_batch_optimizer,
    frozen_control,
    guard,
    long_memory_optimizer,
    minibatch_optimizer,
    online_control,
)
from metaopt.scales import by_log_loss, scale_by_polyak

RATE = 1e-3


def bank() -> Averages:
    """Return averages of three decays."""
    return Averages(weights=jnp.full(3, jnp.log(RATE)))


def learning(*, polyak: bool = False) -> optax.GradientTransformation:
    """Return online control over the averages."""
    rule = optax.chain(by_log_loss(), optax.adam(0.03))
    return online_control(bank(), rule, scale_by_polyak() if polyak else None)


def step_size() -> optax.GradientTransformation:
    """Return online control of the step size of NAdam, with a long memory."""
    rule = optax.chain(by_log_loss(), optax.adam(0.03))
    first = StepSize(jnp.log(RATE))
    return online_control(first, rule, optax.scale_by_adam(nesterov=True), discount=0.99)


OPTIMIZERS = {
    "momentum": lambda: optax.sgd(RATE, momentum=0.9),
    "SGD": lambda: optax.sgd(RATE),
    "AdamW": lambda: optax.adamw(RATE),
    "NAdam": lambda: optax.nadam(RATE),
    "online control of the step size": step_size,
    "long_memory_optimizer": lambda: long_memory_optimizer(10_000),
    "long_memory_optimizer, after learning": lambda: long_memory_optimizer(10_000),
    "anytime_optimizer": anytime_optimizer,
    "averages, frozen": lambda: frozen_control(bank()),
    "online control of averages": learning,
    "the same, towards Polyak's step": lambda: learning(polyak=True),
    "the same, with a guard": lambda: guard(learning(polyak=True)),
    "minibatch_optimizer": lambda: minibatch_optimizer(10_000),
    "fixed_batch_optimizer": fixed_batch_optimizer,
}


def make_case(name: str, problem: Problem) -> Case:
    """Compile a step that hands on the loss."""
    transformation = optax.with_extra_args_support(OPTIMIZERS[name]())

    def step(carry: Any, datum: Any) -> Any:
        params, state = carry
        value, grads = jax.value_and_grad(problem.loss)(params, datum)
        updates, state = transformation.update(grads, state, params, value=value)
        return optax.apply_updates(params, updates), state

    params = jax.tree.map(jnp.array, problem.params)
    state = transformation.init(params)
    if name.endswith("after learning"):
        state = end_learning(state)
    return compile_case(name, step, (params, state), problem.datum, n_bytes(state))


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description="Time and memory of the steps over averages.")
    parser.add_argument("workload", nargs="?")
    parser.add_argument("--seconds", type=float, default=30.0, help="of timing")
    arguments = parser.parse_args()
    if arguments.workload:
        problem = make_problem(arguments.workload)
    else:
        params, loss, batch = make_mlp()
        problem = Problem(params, batch, loss)
    cases = [make_case(name, problem) for name in OPTIMIZERS]
    rounds = take_turns(cases, problem.datum, arguments.seconds)
    momentum, one = np.array(cases[0].seconds), n_bytes(problem.params)
    print(
        f"{arguments.workload or 'MNIST MLP'}, {one // 4:,} parameters, {jax.devices()[0]}: "
        f"{rounds} rounds, a step of momentum {1e3 * np.median(momentum):.2f} ms\n"
    )
    print("| step | time | range | state | temp |")
    print("|---|---|---|---|---|")
    for case in cases:
        times = np.array(case.seconds)
        low, high = np.quantile(times / momentum, [0.1, 0.9])
        temp = case.step.memory_analysis().temp_size_in_bytes / one
        ratio = np.median(times) / np.median(momentum)
        print(
            f"| {case.name} | {ratio:.2f} | {low:.2f} to {high:.2f} | {case.state_bytes / one:.1f} "
            f"| {temp:.1f} |"
        )


if __name__ == "__main__":
    main()
