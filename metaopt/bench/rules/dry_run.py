"""The walk: a few steps of a submission on a small workload, watched.

It calls the functions in AlgoPerf's order and with AlgoPerf's arguments and notes what they do; the
rules read its notes. It ends where the contract is broken: only the first breach counts.
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
from metaopt.bench.rules.checked_submission import Subject

STEPS = 6
_SEED = 0
_DELAY_SECONDS = 0.2  # how late a batch comes, for a step that waits for it
_ARITHMETIC = 256  # rows of a square matrix
_PROBE = 20  # products, to see how long one takes
# Precedes every compilation, those too that a cache on disk answers.
_LOWERING = "/jax/core/compile/jaxpr_to_mlir_module_duration"


@dataclasses.dataclass
class Walk:
    """What was seen."""

    crash: tuple[str, BaseException] | None = None  # in which call
    states: list[Any] = dataclasses.field(default_factory=list)  # as returned, the first from init
    wrong_return: tuple[str, Any] | None = None  # by which function
    wrong_params: tuple[str, str] | None = None  # by which function, and what changed
    lowered: list[int] = dataclasses.field(default_factory=list)  # functions compiled, by step
    waits: bool = True  # whether a step returns when the device is done
    complete: bool = False  # whether it came to its end


class _EndedError(Exception):
    """The walk is over; the notes say why."""


@pinned_randomness()
def take_steps(subject: Subject) -> Walk:
    """Take a few steps with a submission that can be called; never raises for its mistakes."""
    walk = Walk()
    if subject.point()[0]:
        with contextlib.suppress(_EndedError):
            Walker(subject, walk=walk).run()
    return walk


class Walker:
    """Takes steps with a submission as a runner does, always from the same seed.

    Args:
        subject: A submission that can be called and has a point to run.
        facade: The class of what it sees of the workload.
        walk: Where notes go.
    """

    def __init__(
        self, subject: Subject, facade: type[Facade] = Facade, *, walk: Walk | None = None
    ) -> None:
        self.subject = subject
        self.walk = walk or Walk()
        self.workload = workload_of(subject)
        self.batch_size = _batch_size(subject)
        self.bound = BoundSubmission(
            module=subject.module,
            workload=facade(self.workload, self.batch_size),
            hyperparameters=as_namedtuple(subject.point()[1]),
            wants_train_state="train_state" in subject.signature("update_params").parameters,  # type: ignore[union-attr]
        )

    def take(self, steps: int) -> tuple[Any, Any]:
        """Take steps; return the parameters before and after, on the host. Raises what it raises.

        Args:
            steps: How many.
        """
        self._start()
        before = _on_host(self.trees[1])
        for step in range(steps):
            self._step(step)
        return before, _on_host(self.trees[1])

    def run(self) -> None:
        """Do what a runner does: initialise, take steps, prepare an evaluation, go on."""
        walk = self.walk
        self._start()
        for step in range(STEPS):
            with _counting_compilations() as lowered:
                self._step(step)
            walk.lowered.append(len(lowered))
        if self.bound.prepares:
            self._call("prepare_for_eval", STEPS, lambda: self.bound.prepare(
                self.trees, STEPS, next(self.keys), []))  # fmt: skip
            self._step(STEPS)
        walk.states.append(self._state_on_host())
        walk.waits = self._waits(STEPS + 1)
        walk.complete = True

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
        # What a checkpoint of the start would hold; a step may donate the arrays themselves.
        self.walk.states.append(self._state_on_host())

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
        self.subject.say(f"`{name}`" + ("" if step is None else f" at step {step}"))
        try:
            return call()
        except TrainingCompleteError:
            raise _EndedError from None
        except WrongReturnError as error:
            if error.by == "init_optimizer_state":
                self.walk.states.append(error.returned)
            else:
                self.walk.wrong_return = error.by, error.returned
            raise _EndedError from None
        except (Exception, SystemExit) as error:
            self.walk.crash = name, error
            raise _EndedError from None

    def _call(self, name: str, step: int | None, call: Callable[[], Trees]) -> None:
        """Go on with what a function returned, if it is what it must be."""
        state, params, model_state = self._guard(name, step, call)
        if not is_pair(state):
            self.walk.states.append(state)
            raise _EndedError
        if changed := _difference(self.signature, _signature(params)):
            self.walk.wrong_params = name, changed
            raise _EndedError
        self.trees = state, params, model_state

    def _state_on_host(self) -> tuple[Any, Any]:
        """Copy the arrays of the state to the host."""
        return _on_host(self.trees[0][0]), self.trees[0][1]

    def _waits(self, step: int) -> bool:
        """Return whether a step on a batch that comes late returns late as well."""
        self._step(step, _come_late)
        results = jax.tree.leaves(self.trees[1:])
        arrays: list[Any] = [array for array in results if isinstance(array, jax.Array)]
        return all(array.is_ready() for array in arrays)


def _come_late(batch: Any) -> Any:
    """Return the batch, as arrays that the device has not computed yet."""
    # Compiled before the delay begins: that would take up a part of it, on a busy machine all.
    jax.block_until_ready(_delay(batch, jnp.zeros(())))
    return _delay(batch, _late_zero())


def _late_zero() -> jax.Array:
    """Return a zero on which the device works for a while after this has returned."""
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


def _batch_size(subject: Subject) -> int:
    """Return the batch size of a walk: the submission's, if that is possible."""
    workload = workload_of(subject)
    for name in (workload.name, getattr(workload, "base_name", "")):
        with contextlib.suppress(Exception, SystemExit):  # has a rule of its own
            size = subject.module.get_batch_size(name)  # type: ignore[union-attr]
            most = getattr(workload, "num_train_examples", math.inf)
            usable = isinstance(size, int | np.integer) and 0 < size <= most
            if usable:
                return int(size)
    return workload.reference_batch_size


def workload_of(subject: Subject) -> Any:
    """Return what the steps are taken on: ``digits_mlp`` unless another was chosen."""
    if subject.workload is None:
        from metaopt.workloads.digits_mlp import DIGITS_MLP

        subject.workload = DIGITS_MLP
    return subject.workload


def _on_host(tree: Any) -> Any:
    """Copy the arrays of a pytree to the host; leave what is none."""
    return jax.tree.map(
        lambda leaf: np.array(leaf) if isinstance(leaf, jax.Array) and is_raw(leaf) else leaf, tree
    )


def is_raw(leaf: jax.Array) -> bool:
    """Return whether an array is anything but a typed random key."""
    return not jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _signature(params: Any) -> dict[str, str]:
    """Return what must stay the same: path, shape and dtype of every leaf, and the containers."""
    return {
        "the structure": str(jax.tree.structure(params)),
    } | {
        jax.tree_util.keystr(path) or "the array": (
            f"{leaf.dtype}{list(leaf.shape)}" if hasattr(leaf, "dtype") else type(leaf).__name__
        )
        for path, leaf in jax.tree_util.tree_leaves_with_path(params)
    }


def _difference(before: dict[str, str], after: dict[str, str]) -> str:
    """Return the first thing that changed, as text; empty if nothing did."""
    for path in [*list(before)[1:], *list(after)[1:], "the structure"]:
        was, now = before.get(path, "not there"), after.get(path, "gone")
        if was != now:
            return f"{path} was {was} and is {now}"
    return ""


_listening: list[list[str]] = []  # where events go, while something counts them


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
