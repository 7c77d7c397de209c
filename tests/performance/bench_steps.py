"""Time and memory of a step, for every controller and rollout, on a workload.

    python tests/performance/bench_steps.py mnist_mlp

History 32, Adam; the workload's own batch, dropout and model state, on this machine's default
device. ``time`` is over a step of SGD: all steps take turns in one process, each twice, and the
second counts, for the first finds the caches full of other steps' arrays. The ratio is that of the
medians, the range that of single rounds. ``floor`` is the arithmetic of a learning step and nothing
else, in the same unit: the training gradient, and the gradient through the rollout, unstored;
frozen, it is the gradient. It differentiates backpropagation by backpropagation, which rollouts do
not: with convolutions they are faster. Matrices (full lags) have no floor but their size.

Memory is what XLA reports of the compiled step, in copies of the parameters: ``state`` is that of
the optimizer; ``temp`` is what the step needs besides its arguments and results; ``peak`` is
arguments, results that do not reuse them, and temp. Batches count.

Rollouts are named by what is done with batches, and L: nothing is recorded where the batch is
fixed, or L is 1. What there was no time to compile is listed at the end: ask for it by name.
"""

import argparse
import dataclasses
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from metaopt import DiagonalLags, FullLags, ScalarLags, frozen_control, meta_optimizer
from metaopt.bench.contract import kit
from metaopt.workloads.registry import get_workload

RATE = 1e-3
CONTROLLERS = {
    "scalar": ScalarLags,
    "diagonal": DiagonalLags,
    "full": lambda: FullLags(limit_bytes=2**26),
}
ROLLOUTS = ("fixed:2", "recorded:2", "fixed:1", "fixed:4", "recorded:4")  # as they are compiled


@dataclasses.dataclass
class Problem:
    """A workload's first batch, as a loss."""

    params: Any
    datum: Any  # batch, dropout key, model state
    loss: Callable[[Any, Any], jax.Array]


@dataclasses.dataclass
class Case:
    """A row of the table."""

    name: str
    carry: Any  # parameters and state; donated
    step: Any  # compiled, (carry, datum) -> carry
    state_bytes: int
    compile_seconds: float
    floor: str | None = None  # the case that is its floor
    seconds: list[float] = dataclasses.field(default_factory=list)


def make_problem(name: str) -> Problem:
    """Return parameters, a datum and the training loss of a workload."""
    workload = get_workload(name)
    key = jax.random.PRNGKey(0)
    params, model_state = workload.init_model_fn(key)
    batch = next(workload._build_input_queue(np.array([0, 1], np.uint32), "train"))

    def loss(params: Any, datum: Any) -> jax.Array:
        batch, key, model_state = datum
        return kit.training_loss(workload, params, model_state, batch, key)[0]

    return Problem(params, (batch, key, model_state), loss)


def n_bytes(tree: Any) -> int:
    """Return the bytes of all arrays."""
    return sum(leaf.nbytes for leaf in jax.tree.leaves(tree))


def make_case(
    name: str, problem: Problem, tx: optax.GradientTransformation, history: int, **options: Any
) -> Case:
    """Compile the step of a transformation, and put it where it learns at every step."""
    transformation = optax.with_extra_args_support(tx)

    def step(carry: Any, datum: Any) -> Any:
        params, state = carry
        grads = jax.grad(problem.loss)(params, datum)
        updates, state = transformation.update(grads, state, params, datum=datum)
        return optax.apply_updates(params, updates), state

    params = jax.tree.map(jnp.array, problem.params)
    state: Any = transformation.init(params)
    if hasattr(state, "memory"):
        state = state._replace(count=jnp.int32(2 * history))
    return compile_case(name, step, (params, state), problem.datum, n_bytes(state), **options)


def compile_case(
    name: str, step: Callable, carry: Any, datum: Any, state_bytes: int, **options: Any
) -> Case:
    """Compile with the carry donated."""
    start = time.perf_counter()
    compiled = jax.jit(step, donate_argnums=0).lower(carry, datum).compile()
    return Case(name, carry, compiled, state_bytes, time.perf_counter() - start, **options)


def make_floor(problem: Problem, rollout: int) -> Case:
    """Compile the gradient, and the gradient through a rollout by the scale of its controls."""
    gradient = jax.grad(problem.loss)

    def step(carry: Any, datum: Any) -> Any:
        params, control, _ = carry

        def move(point: Any, slope: Any, scale: Any) -> Any:
            return jax.tree.map(lambda x, g, u: x - RATE * g - scale * u, point, slope, control)

        slope_now = gradient(params, datum)

        def rolled_out(scale: jax.Array) -> jax.Array:
            point = move(params, slope_now, scale)
            for _ in range(rollout - 1):
                point = move(point, gradient(point, datum), scale)
            return problem.loss(point, datum)

        return move(params, slope_now, 0.0), control, jax.grad(rolled_out)(jnp.float32(1e-3))

    copies = [jax.tree.map(jnp.array, problem.params) for _ in range(2)]
    return compile_case(f"floor {rollout}", step, (*copies, jnp.float32(0)), problem.datum, 0)


def planned(
    problem: Problem, controllers: list[str], rollouts: list[str], history: int
) -> Iterator[tuple[str, Callable[[], Case]]]:
    """Yield names of cases, and how to make them, in the order of their importance."""
    for kind in controllers:
        yield f"{kind}, frozen", lambda kind=kind: make_case(
            f"{kind}, frozen", problem,
            frozen_control(CONTROLLERS[kind]().init(problem.params, history), RATE),
            history, floor=None if kind == "full" else "SGD",
        )  # fmt: skip
    floors = set()
    for rollout in rollouts:
        batches, length = rollout.split(":")
        if length not in floors and set(controllers) != {"full"}:
            floors.add(length)
            yield f"floor {length}", lambda n=int(length): make_floor(problem, n)
        for kind in controllers:
            data: dict[str, Any] = (
                {"fixed": True} if batches == "fixed" else {"example": problem.datum}
            )
            name = f"{kind}, learning, {rollout}"
            yield name, lambda kind=kind, name=name, length=length, data=data: make_case(
                name, problem,
                meta_optimizer(
                    problem.loss, RATE, history=history, rollout=int(length),
                    controller=CONTROLLERS[kind](), **data,
                ),
                history, floor=None if kind == "full" else f"floor {length}",
            )  # fmt: skip


def take_turns(cases: list[Case], datum: Any, seconds: float) -> int:
    """Time the second of two steps of each, in turn, until the time is over; return the rounds."""
    start, rounds = time.perf_counter(), 0
    while rounds < 3 or time.perf_counter() - start < seconds:
        for case in cases:
            for _ in range(2):
                begun = time.perf_counter()
                case.carry = case.step(case.carry, datum)
                jax.block_until_ready(case.carry)
            case.seconds.append(time.perf_counter() - begun)
        rounds += 1
    return rounds


def print_table(cases: list[Case], problem: Problem) -> None:
    """Print a row for each case, of Markdown."""
    by_name = {case.name: case for case in cases}
    sgd, one = np.array(by_name["SGD"].seconds), n_bytes(problem.params)
    print("| step | time | range | floor | state | temp | peak | compiled in |")
    print("|---|---|---|---|---|---|---|---|")
    for case in cases:
        if case.name.startswith("floor"):
            continue
        times, memory = np.array(case.seconds), case.step.memory_analysis()
        low, high = np.quantile(times / sgd, [0.1, 0.9])
        floor = "" if case.floor is None else f"{_ratio(by_name[case.floor].seconds, sgd):.2f}"
        new = memory.output_size_in_bytes - memory.alias_size_in_bytes
        peak = memory.argument_size_in_bytes + new + memory.temp_size_in_bytes
        print(
            f"| {case.name} | {_ratio(times, sgd):.2f} | {low:.2f} to {high:.2f} | {floor} "
            f"| {case.state_bytes / one:.1f} | {memory.temp_size_in_bytes / one:.1f} "
            f"| {peak / one:.1f} | {case.compile_seconds:.1f} s |"
        )


def _ratio(times: Any, sgd: Any) -> float:
    return float(np.median(times) / np.median(sgd))


def main() -> None:
    """Print the table of a workload."""
    parser = argparse.ArgumentParser(description="Time and memory of every kind of step.")
    parser.add_argument("workload")
    parser.add_argument("--controllers", default=",".join(CONTROLLERS), help="separated by commas")
    parser.add_argument("--rollouts", default=",".join(ROLLOUTS), help="BATCHES:L, by commas")
    parser.add_argument("--history", type=int, default=32)
    parser.add_argument("--compile-seconds", type=float, default=180.0, help="at most, or so")
    parser.add_argument("--seconds", type=float, default=90.0, help="of timing")
    arguments = parser.parse_args()
    controllers, rollouts = (x.split(",") for x in (arguments.controllers, arguments.rollouts))
    unknown = [*sorted(set(controllers) - set(CONTROLLERS)), *sorted(set(rollouts) - set(ROLLOUTS))]
    if unknown:
        parser.error(
            f"no {', '.join(unknown)}; controllers are {', '.join(CONTROLLERS)}, "
            f"rollouts {', '.join(ROLLOUTS)}"
        )
    problem = make_problem(arguments.workload)
    cases, notes, start = [], [], time.perf_counter()
    for kind in list(controllers):
        try:
            jax.eval_shape(
                lambda kind=kind: CONTROLLERS[kind]().init_weights(
                    problem.params, arguments.history
                )
            )
        except ValueError as error:  # matrices that do not fit
            controllers.remove(kind)
            notes.append(f"Without {kind}: {error}")
    cases.append(make_case("SGD", problem, optax.sgd(RATE), arguments.history))
    plan = planned(problem, controllers, rollouts, arguments.history)
    for name, make in plan:
        if time.perf_counter() - start > arguments.compile_seconds:
            notes.append(f"No time to compile: {', '.join([name, *(n for n, _ in plan)])}.")
            break
        cases.append(make())
    rounds = take_turns(cases, problem.datum, arguments.seconds)
    size = sum(leaf.size for leaf in jax.tree.leaves(problem.params))
    sgd = np.median(cases[0].seconds) * 1e3
    print(
        f"{arguments.workload}, {size:,} parameters, history {arguments.history}, "
        f"{jax.devices()[0]}: {rounds} rounds, a step of SGD {sgd:.2f} ms\n"
    )
    print_table(cases, problem)
    print("", *notes, sep="\n")


if __name__ == "__main__":
    main()
