"""The dry run: a few observed steps of a submission on a small workload.

It calls the functions in AlgoPerf's order with AlgoPerf's arguments and keeps observations, which
the rules read. It ends at the first breach of the contract.
"""

import contextlib
import dataclasses
import math
import time
from collections.abc import Callable, Iterator
from types import MappingProxyType
from typing import Any

import jax
import jax.monitoring
import jax.numpy as jnp
import numpy as np

from metaopt.bench.contract.bound_submission import BoundSubmission, Trees
from metaopt.bench.contract.facade import CountedQueue, Facade
from metaopt.bench.contract.return_values import WrongReturnError, as_namedtuple, is_pair
from metaopt.bench.contract.rng import pinned_randomness
from metaopt.bench.contract.spec import TrainingCompleteError
from metaopt.bench.contract.train_state import fresh_train_state
from metaopt.bench.rules.checked_submission import CheckedSubmission

STEPS = 6
_SEED = 0
_DELAY_SECONDS = 0.2  # delay of the batch that shows whether a step waits for the device
_ARITHMETIC = 256  # rows of a square matrix
_PROBE = 20  # products, to measure the time of one
# Precedes every compilation, including those that a cache on disk replaces.
_LOWERING = "/jax/core/compile/jaxpr_to_mlir_module_duration"


@dataclasses.dataclass
class DryRun:
    """The observations of a few steps.

    Attributes:
        submission: The submission.
        workload: The workload on which the steps were taken.
        crash: The function that raised, and the exception.
        states: The returned optimizer states, the first from the initialisation.
        wrong_return: The function that returned a wrong type, and the returned value.
        wrong_params: The function that changed the parameters' structure, shapes or dtypes, and
            the change.
        compiled: The number of functions that each step compiled.
        waits: Whether a step returns when the device is done.
        complete: Whether all steps were taken.
    """

    submission: CheckedSubmission
    workload: Any
    crash: tuple[str, BaseException] | None = None
    states: list[Any] = dataclasses.field(default_factory=list)
    wrong_return: tuple[str, Any] | None = None
    wrong_params: tuple[str, str] | None = None
    compiled: list[int] = dataclasses.field(default_factory=list)
    waits: bool = True
    complete: bool = False


class _EndedError(Exception):
    """The dry run is over; the observations say why."""


@pinned_randomness()
def dry_run(submission: CheckedSubmission, workload: Any) -> DryRun:
    """Take a few steps with a submission that can be called; its mistakes raise no exception."""
    observed = DryRun(submission, workload)
    if submission.point()[0]:
        with contextlib.suppress(_EndedError):
            StepRunner(observed).run()
    return observed


class StepRunner:
    """Takes steps with a submission as a runner does, always from the same seed.

    Args:
        observed: The submission and the workload; receives the observations. The submission must
            be callable and have hyperparameters.
        facade: The class of the submission's view of the workload.
    """

    def __init__(self, observed: DryRun, facade: type[Facade] = Facade) -> None:
        submission = observed.submission
        self.observed = observed
        self.workload = observed.workload
        self.batch_size = usable_batch_size(submission, self.workload)
        self.bound = BoundSubmission(
            module=submission.module,
            workload=facade(self.workload, self.batch_size),
            hyperparameters=as_namedtuple(submission.point()[1]),
            wants_train_state="train_state" in submission.signature("update_params").parameters,  # type: ignore[union-attr]
        )

    def take(self, steps: int) -> tuple[Any, Any]:
        """Take steps; return the parameters before and after, on the host.

        Args:
            steps: The number of steps.
        """
        self._start()
        before = _on_host(self.trees[1])
        for step in range(steps):
            self._step(step)
        return before, _on_host(self.trees[1])

    def run(self) -> None:
        """Initialise, take steps, prepare an evaluation and continue, as a runner does."""
        observed = self.observed
        self._start()
        for step in range(STEPS):
            with _counting_compilations() as compiled:
                self._step(step)
            observed.compiled.append(len(compiled))
        if self.bound.prepares:
            self._call("prepare_for_eval", STEPS, lambda: self.bound.prepare(
                self.trees, STEPS, next(self.keys), []))  # fmt: skip
            self._step(STEPS)
        observed.states.append(self._state_on_host())
        observed.waits = self._waits(STEPS + 1)
        observed.complete = True

    def _start(self) -> None:
        self.keys = iter(jax.random.split(jax.random.PRNGKey(_SEED), 4 * STEPS + 3))
        self.queue = CountedQueue(
            self.workload._build_input_queue(
                next(self.keys), "train", data_dir="", global_batch_size=self.batch_size
            ),
            lambda batch: None,
        )
        params, model_state = self.workload.init_model_fn(next(self.keys))
        self.signature = _signature(params)
        self.trees: Trees = None, params, model_state

        def init() -> Trees:
            return self.bound.init(params, model_state, next(self.keys)), params, model_state

        self._call("init_optimizer_state", None, init)
        # A copy: a step may donate the arrays themselves.
        self.observed.states.append(self._state_on_host())

    def _step(self, step: int, delay: Any = None) -> None:
        queue, keys = self.queue, self.keys
        batch = self._guard("data_selection", step, lambda: self.bound.select(
            queue, self.trees, step, next(keys)))  # fmt: skip
        if delay is not None:
            batch = delay(batch)
        train_state = MappingProxyType(fresh_train_state())
        self._call("update_params", step, lambda: self.bound.update(
            batch, self.trees, step, next(keys), [], train_state))  # fmt: skip

    def _guard(self, name: str, step: int | None, call: Callable[[], Any]) -> Any:
        self.observed.submission.on_start(
            f"`{name}`" + ("" if step is None else f" at step {step}")
        )
        try:
            return call()
        except TrainingCompleteError:
            raise _EndedError from None
        except WrongReturnError as error:
            if error.by == "init_optimizer_state":
                self.observed.states.append(error.returned)
            else:
                self.observed.wrong_return = error.by, error.returned
            raise _EndedError from None
        except (Exception, SystemExit) as error:
            self.observed.crash = name, error
            raise _EndedError from None

    def _call(self, name: str, step: int | None, call: Callable[[], Trees]) -> None:
        """Keep the returned trees for the next call, if they have the right form."""
        state, params, model_state = self._guard(name, step, call)
        if not is_pair(state):
            self.observed.states.append(state)
            raise _EndedError
        if changed := _difference(self.signature, _signature(params)):
            self.observed.wrong_params = name, changed
            raise _EndedError
        self.trees = state, params, model_state

    def _state_on_host(self) -> tuple[Any, Any]:
        """Copy the arrays of the state to the host."""
        return _on_host(self.trees[0][0]), self.trees[0][1]

    def _waits(self, step: int) -> bool:
        """Return whether a step on a delayed batch returns only after the batch is ready."""
        self._step(step, _come_late)
        results = jax.tree.leaves(self.trees[1:])
        arrays: list[Any] = [array for array in results if isinstance(array, jax.Array)]
        return all(array.is_ready() for array in arrays)


def _come_late(batch: Any) -> Any:
    """Return the batch as arrays that the device is still computing."""
    # Compile before the delay begins: on a busy machine, compiling takes longer than the delay.
    jax.block_until_ready(_delay(batch, jnp.zeros(())))
    return _delay(batch, _late_zero())


def _late_zero() -> jax.Array:
    """Return a zero that the device computes for a while after this function has returned."""
    square = jnp.zeros((_ARITHMETIC, _ARITHMETIC), jnp.float32)
    jax.block_until_ready(_multiply(square, 1))  # compiled
    start = time.perf_counter()
    jax.block_until_ready(_multiply(square, _PROBE))
    seconds = (time.perf_counter() - start) / _PROBE
    return _multiply(square, max(1, int(_DELAY_SECONDS / seconds)))


@jax.jit
def _multiply(square: jax.Array, times: int) -> jax.Array:
    return jax.lax.fori_loop(0, times, lambda _, product: product @ product, square)[0, 0]


@jax.jit
def _delay(batch: Any, zero: jax.Array) -> Any:
    return jax.tree.map(lambda array: array + zero.astype(array.dtype), batch)


def usable_batch_size(submission: CheckedSubmission, workload: Any) -> int:
    """Return the submission's batch size if it is usable, else the reference batch size."""
    for name in (workload.name, getattr(workload, "base_name", "")):
        with contextlib.suppress(Exception, SystemExit):  # reported by a rule of its own
            size = submission.module.get_batch_size(name)  # type: ignore[union-attr]
            most = getattr(workload, "num_train_examples", math.inf)
            usable = isinstance(size, int | np.integer) and 0 < size <= most
            if usable:
                return int(size)
    return workload.reference_batch_size


def _on_host(tree: Any) -> Any:
    """Copy the arrays of a pytree to the host; leave other leaves."""
    return jax.tree.map(
        lambda leaf: np.array(leaf) if isinstance(leaf, jax.Array) and is_raw(leaf) else leaf, tree
    )


def is_raw(leaf: jax.Array) -> bool:
    """Return whether an array is not a typed random key."""
    return not jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _signature(params: Any) -> dict[str, str]:
    """Return path, shape and dtype of every leaf, and the containers."""
    return {
        "the structure": str(jax.tree.structure(params)),
    } | {
        jax.tree_util.keystr(path) or "the array": (
            f"{leaf.dtype}{list(leaf.shape)}" if hasattr(leaf, "dtype") else type(leaf).__name__
        )
        for path, leaf in jax.tree_util.tree_leaves_with_path(params)
    }


def _difference(before: dict[str, str], after: dict[str, str]) -> str:
    """Return the first change as text; empty without one."""
    for path in [*list(before)[1:], *list(after)[1:], "the structure"]:
        was, now = before.get(path, "not there"), after.get(path, "gone")
        if was != now:
            return f"{path} changed from {was} to {now}"
    return ""


_listening: list[list[str]] = []  # the lists to which events are added


@contextlib.contextmanager
def _counting_compilations() -> Iterator[list[str]]:
    """Collect, in the block, an event for each function that is compiled."""
    events: list[str] = []
    _listening.append(events)
    try:
        yield events
    finally:
        _listening.remove(events)


def _on_duration(event: str, duration_secs: float, **_: Any) -> None:
    del duration_secs
    if event == _LOWERING:
        for events in _listening:
            events.append(event)


jax.monitoring.register_event_duration_secs_listener(_on_duration)
