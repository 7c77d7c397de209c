"""Several trials of one submission as one: pytrees with a first axis over trials, and one step.

Letters: n trials. A *stack* is a pytree whose arrays have n as their first axis. What all trials
share, the function in the optimizer state's second place above all, is taken off before stacking
and put back inside of the compiled step.
"""

import collections
import functools
from collections.abc import Callable, Iterator, Sequence
from types import ModuleType, SimpleNamespace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

Point = dict[str, Any] | None


class Trees(NamedTuple):
    """What training changes, of one trial or a stack."""

    optimizer_state: Any  # without the function
    params: Any
    model_state: Any


class Apart(Exception):
    """Trials cannot train together; says why."""


def stack(trees: Sequence[Any]) -> Any:
    """Stack pytrees of equal structure, through the host: nothing is compiled.

    Raises:
        Apart: Their structures, shapes or dtypes differ.
    """
    first, *others = (jax.tree.structure(tree) for tree in trees)
    if any(structure != first for structure in others):
        raise Apart("the states of the trials have different structures")
    leaves = zip(*(jax.tree.leaves(jax.device_get(tree)) for tree in trees), strict=True)
    return jax.tree.unflatten(first, [_stack_leaves(column) for column in leaves])


def _stack_leaves(column: Sequence[Any]) -> jax.Array:
    arrays = [jnp.asarray(leaf) if np.isscalar(leaf) else leaf for leaf in column]
    if len({(np.shape(array), array.dtype) for array in arrays}) > 1:
        raise Apart("the states of the trials have different shapes or dtypes")
    return jnp.asarray(np.stack(arrays))


def unstack(stacked: Any, index: int, like: Any) -> Any:
    """Return one member of a stack; what is a number of the host in ``like`` is one again."""
    numbers = {
        path
        for path, leaf in jax.tree_util.tree_flatten_with_path(like)[0]
        if isinstance(leaf, int | float)
    }
    return jax.tree_util.tree_map_with_path(
        lambda path, array: array.item() if path in numbers else array, _member(stacked, index)
    )


@jax.jit
def _member(stacked: Any, index: Any) -> Any:
    return jax.tree.map(lambda array: array[index], stacked)


def split_points(points: Sequence[Point]) -> tuple[dict[str, np.ndarray] | None, Point]:
    """Return what differs between points, by name, (n,) each, and what all of them share.

    Numbers are traced, so another value compiles nothing; names and switches are static.

    Raises:
        Apart: Points differ in something that is no number, or name different things.
    """
    if all(point is None for point in points):
        return None, None
    names = {tuple(point or ()) for point in points}
    if len(names) > 1:
        raise Apart("the trials' hyperparameters have different names")
    numbers, shared = {}, {}
    for name in names.pop():
        values = [point[name] for point in points if point is not None]
        if all(isinstance(value, int | float) and not isinstance(value, bool) for value in values):
            whole = all(isinstance(value, int) for value in values)
            numbers[name] = np.asarray(values, np.int32 if whole else np.float32)
        elif all(value == values[0] for value in values):
            shared[name] = values[0]
        else:
            raise Apart(f"the trials differ in {name!r}, which is no number")
    return numbers, shared


class Programs(NamedTuple):
    """The compiled functions of a submission on a workload, for stacks of any length.

    Attributes:
        step: ``(trees, numbers, batch, keys, step) -> trees`` for a stack of batches; ``keys`` are
            those that step keys are folded from, (n, 2). Takes its first argument's memory.
        step_on_shared: The same for one batch that all trials share.
        prepare: ``(trees, numbers, keys, step) -> trees``, the submission's ``prepare_for_eval``;
            ``None`` if it has none.
        one: What ``step`` does with one trial of the stack; for estimates.
    """

    step: Callable[..., Trees]
    step_on_shared: Callable[..., Trees]
    prepare: Callable[..., Trees] | None
    one: Callable[..., Trees]


@functools.cache
def programs_for(
    module: ModuleType | SimpleNamespace,
    workload: Any,
    function: Any,
    names: tuple[str, ...] | None,
    shared: tuple[tuple[str, Any], ...],
) -> Programs:
    """Return the functions, the same at every call with these arguments, so compiled once.

    Args:
        module: The submission.
        workload: What it trains on.
        function: The second element of the optimizer state.
        names: Of the hyperparameters in AlgoPerf's order; ``None`` without any.
        shared: Those that all trials share, with their values.
    """

    def arguments(trees: Trees, numbers: Any, step: Any, key: Any) -> dict[str, Any]:
        point = None
        if names is not None:
            values = {**dict(shared), **numbers}
            point = collections.namedtuple("Hyperparameters", names)(**values)
        return {
            "workload": workload,
            "current_param_container": trees.params,
            "current_params_types": workload.model_params_types,
            "model_state": trees.model_state,
            "hyperparameters": point,
            "loss_type": workload.loss_type,
            "optimizer_state": (trees.optimizer_state, function),
            "eval_results": [],
            "global_step": step,
            "rng": key,
        }

    def one(trees: Trees, numbers: Any, batch: Any, key: Any, step: Any) -> Trees:
        select_key, update_key, _, _ = jax.random.split(jax.random.fold_in(key, step), 4)
        given = arguments(trees, numbers, step, update_key)
        chosen = module.data_selection(
            workload, _only(batch), given["optimizer_state"], trees.params, trees.model_state,
            given["hyperparameters"], step, select_key,
        )  # fmt: skip
        return _checked(module.update_params(batch=chosen, **given), function)

    def prepare(trees: Trees, numbers: Any, key: Any, step: Any) -> Trees:
        prepare_key = jax.random.split(jax.random.fold_in(key, step - 1), 4)[2]
        given = arguments(trees, numbers, step, prepare_key)
        return _checked(module.prepare_for_eval(**given), function)

    return Programs(
        step=jax.jit(over_lanes(one, (0, 0, 0, 0, None)), donate_argnums=0),
        step_on_shared=jax.jit(over_lanes(one, (0, 0, None, 0, None)), donate_argnums=0),
        prepare=jax.jit(over_lanes(prepare, (0, 0, 0, None)))
        if hasattr(module, "prepare_for_eval")
        else None,
        one=one,
    )


def over_lanes(function: Callable[..., Any], in_axes: tuple[int | None, ...]) -> Callable[..., Any]:
    """Return ``function`` for stacks, as ``jax.vmap(function, in_axes)``, with axes 0 or ``None``.

    On a processor lane after lane: a lane's products are then those of a trial alone, in the same
    order, and take no more time, as small ones share nothing there. Elsewhere side by side: a
    device that waits for work is what vmap is for.
    """
    if jax.default_backend() != "cpu":
        return jax.vmap(function, in_axes)

    def mapped(*arguments: Any) -> Any:
        stacked = [a for a, axis in zip(arguments, in_axes, strict=True) if axis == 0]

        def one_lane(lane: list[Any]) -> Any:
            parts = iter(lane)
            given = zip(arguments, in_axes, strict=True)
            return function(*(next(parts) if axis == 0 else a for a, axis in given))

        return jax.lax.map(one_lane, stacked)

    return mapped


def _only(batch: Any) -> Iterator[Any]:
    """Yield a batch, in a dictionary that its taker may change, and no other."""
    yield dict(batch) if isinstance(batch, dict) else batch
    raise Apart("a step takes several batches")


def _checked(returned: Any, function: Any) -> Trees:
    (optimizer_state, after), params, model_state = returned
    if after is not function:
        raise Apart("the second element of the optimizer state changes")
    return Trees(optimizer_state, params, model_state)


def bytes_of_step(one: Callable[..., Trees], *arguments: Any) -> int:
    """Return the bytes of everything that a step of one trial reads or computes.

    An upper bound on the memory that it takes, several times of what XLA needs: as if no array
    were ever freed, and none fused into another. Only shapes are looked at.
    """
    closed = jax.make_jaxpr(one)(*arguments)
    inputs = sum(_bytes(variable) for variable in closed.jaxpr.invars)
    return inputs + _bytes_computed(closed.jaxpr)


def _bytes_computed(jaxpr: Any) -> int:
    return sum(
        sum(_bytes(variable) for variable in equation.outvars)
        + sum(_bytes_computed(inner) for inner in _inner_jaxprs(equation.params))
        for equation in jaxpr.eqns
    )


def _inner_jaxprs(params: dict[str, Any]) -> Iterator[Any]:
    for leaf in jax.tree.leaves(list(params.values()), is_leaf=lambda x: hasattr(x, "eqns")):
        if hasattr(leaf, "eqns"):
            yield getattr(leaf, "jaxpr", leaf)


def _bytes(variable: Any) -> int:
    shape, dtype = variable.aval.shape, variable.aval.dtype
    return int(np.prod(shape, dtype=np.int64)) * getattr(dtype, "itemsize", 8)
