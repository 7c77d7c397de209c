"""The walk: a few steps of a submission on a small workload, watched.

It calls the functions in AlgoPerf's order and with AlgoPerf's arguments and notes what they do; the
rules read its notes. It ends where the contract is broken: only the first breach counts.
"""

import contextlib
import dataclasses
import math
import time
from collections import namedtuple
from collections.abc import Iterator
from types import MappingProxyType
from typing import Any

import jax
import jax.monitoring
import jax.numpy as jnp
import numpy as np

from metaopt.bench.rng import pinned_randomness
from metaopt.bench.rules.subject import Subject
from metaopt.bench.spec import TrainingCompleteError
from metaopt.bench.train_state import fresh_train_state

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


class _EndedError(Exception):
    """The walk is over; the notes say why."""


@pinned_randomness()
def take_steps(subject: Subject) -> Walk:
    """Take a few steps with a submission that can be called; never raises for its mistakes."""
    walk = Walk()
    has_point, point = subject.point()
    if has_point:
        with contextlib.suppress(_EndedError):
            _Walker(subject, walk, point).run()
    return walk


class _Walker:
    def __init__(self, subject: Subject, walk: Walk, point: dict[str, Any] | None) -> None:
        self.subject = subject
        self.walk = walk
        self.point = point
        self.module: Any = subject.module
        self.workload = workload_of(subject)

    def run(self) -> None:
        """Do what a runner does: initialise, take steps, prepare an evaluation, go on."""
        workload, walk = self.workload, self.walk
        keys = iter(jax.random.split(jax.random.PRNGKey(_SEED), 4 * STEPS + 3))
        self.hyperparameters = None
        if self.point is not None:
            self.hyperparameters = namedtuple("Hyperparameters", self.point)(**self.point)
        size = _batch_size(self.subject)
        self.queue = workload._build_input_queue(
            next(keys), "train", data_dir="", global_batch_size=size
        )
        self.params, self.model_state = workload.init_model_fn(next(keys))
        self.signature = _signature(self.params)
        self.state = self._call(
            "init_optimizer_state",
            workload, self.params, self.model_state, self.hyperparameters, next(keys),
        )  # fmt: skip
        walk.states.append(self.state)
        if not is_pair(self.state):
            raise _EndedError
        # What a checkpoint of the start would hold; a step may donate the arrays themselves.
        walk.states[0] = _on_host(self.state)
        for step in range(STEPS):
            with _counting_compilations() as lowered:
                self._step(step, next(keys), next(keys))
            walk.lowered.append(len(lowered))
        if callable(getattr(self.module, "prepare_for_eval", None)):
            self._prepare(STEPS, next(keys))
            self._step(STEPS, next(keys), next(keys))
        walk.states.append(_on_host(self.state))
        walk.waits = self._waits(STEPS + 1, next(keys), next(keys))

    def _step(self, step: int, select_key: Any, update_key: Any, delay: Any = None) -> None:
        batch = self._call(
            "data_selection",
            self.workload, self.queue, self.state, self.params, self.model_state,
            self.hyperparameters, step, select_key,
        )  # fmt: skip
        if delay is not None:
            batch = delay(batch)
        arguments = {**self._common(step, update_key), "batch": batch}
        if "train_state" in self.subject.signature("update_params").parameters:  # type: ignore[union-attr]
            arguments["train_state"] = MappingProxyType(fresh_train_state())
        self._take("update_params", self._call("update_params", **arguments))

    def _prepare(self, step: int, key: Any) -> None:
        returned = self._call("prepare_for_eval", **self._common(step, key))
        self._take("prepare_for_eval", returned)

    def _common(self, step: int, key: Any) -> dict[str, Any]:
        return {
            "workload": self.workload,
            "current_param_container": self.params,
            "current_params_types": self.workload.model_params_types,
            "model_state": self.model_state,
            "hyperparameters": self.hyperparameters,
            "loss_type": self.workload.loss_type,
            "optimizer_state": self.state,
            "eval_results": [],
            "global_step": step,
            "rng": key,
        }

    def _call(self, name: str, *arguments: Any, **named: Any) -> Any:
        step = named.get("global_step")
        self.subject.say(f"`{name}`" + ("" if step is None else f" at step {step}"))
        try:
            return getattr(self.module, name)(*arguments, **named)
        except TrainingCompleteError:
            raise _EndedError from None
        except (Exception, SystemExit) as error:
            self.walk.crash = name, error
            raise _EndedError from None

    def _take(self, name: str, returned: Any) -> None:
        """Go on with what a function returned, if it is what it must be."""
        if not isinstance(returned, tuple | list) or len(returned) != 3:
            self.walk.wrong_return = name, returned
            raise _EndedError
        self.state, params, self.model_state = returned
        if not is_pair(self.state):
            self.walk.states.append(self.state)
            raise _EndedError
        if changed := _difference(self.signature, _signature(params)):
            self.walk.wrong_params = name, changed
            raise _EndedError
        self.params = params

    def _waits(self, step: int, select_key: Any, update_key: Any) -> bool:
        """Return whether a step on a batch that comes late returns late as well."""
        self._step(step, select_key, update_key, _come_late)
        results = jax.tree.leaves((self.params, self.model_state))
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
        from metaopt.workloads.embedded import DIGITS_MLP

        subject.workload = DIGITS_MLP
    return subject.workload


def is_pair(state: Any) -> bool:
    """Return whether a state is a pair of a pytree and a function."""
    # A chain of two optax transformations has a state of two parts as well, and no function.
    pair = isinstance(state, tuple | list) and len(state) == 2 and not hasattr(state, "_fields")
    return pair and (state[1] is None or callable(state[1]))


def _on_host(state: Any) -> Any:
    """Copy the arrays of a state to the host; leave what is none."""
    copied = jax.tree.map(
        lambda leaf: np.array(leaf) if isinstance(leaf, jax.Array) and is_raw(leaf) else leaf,
        state[0],
    )
    return copied, state[1]


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
