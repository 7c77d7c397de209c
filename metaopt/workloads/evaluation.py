"""Means of metrics over splits that are evaluated chunk by chunk, compiled once for each shape."""

from collections.abc import Callable, Iterable
from typing import Any

import jax
import numpy as np

from metaopt.workloads.queues import Batch

# From (parameters, model state, batches by split) to each split's metrics and their ``count``.
Evaluate = Callable[[Any, Any, dict[str, Batch]], dict[str, dict[str, Any]]]


def compiled(metrics: Callable[[Any, Any, Batch], dict[str, jax.Array]]) -> Evaluate:
    """Return a function that applies ``metrics`` to one batch of each of several splits."""
    return _of_each_split(jax.jit(metrics))


def compiled_for_many(metrics: Callable[[Any, Any, Batch], dict[str, jax.Array]]) -> Evaluate:
    """Return the same for stacks of parameters and model states: metrics get a first axis.

    One member after another, in one call: evaluation takes the memory of one.
    """

    @jax.jit
    def of_all(params: Any, model_state: Any, batch: Batch) -> dict[str, jax.Array]:
        return jax.lax.map(
            lambda member: metrics(member[0], member[1], batch), (params, model_state)
        )

    return _of_each_split(of_all)


def _of_each_split(metrics: Callable[[Any, Any, Batch], dict[str, jax.Array]]) -> Evaluate:
    # Split by split: those of one shape share a program, and a program of all takes thrice as long
    # to compile.
    def evaluate(params: Any, model_state: Any, splits: dict[str, Batch]) -> dict[str, Any]:
        return {name: metrics(params, model_state, batch) for name, batch in splits.items()}

    return evaluate


def mean_metrics_of_many(
    evaluate: Evaluate, params: Any, model_state: Any, data: Iterable[dict[str, Batch]], count: int
) -> list[dict[str, float]]:
    """Return what :func:`mean_metrics` returns, for each of ``count`` stacked members."""
    chunks = [jax.device_get(evaluate(params, model_state, splits)) for splits in data]
    return [_means([member(chunk, i) for chunk in chunks]) for i in range(count)]


def member(stack: Any, index: int) -> Any:
    """Return one member of a stack: the entry ``index`` of every array's first axis."""
    return jax.tree.map(lambda array: array[index], stack)


def mean_metrics(
    evaluate: Evaluate, params: Any, model_state: Any, data: Iterable[dict[str, Batch]]
) -> dict[str, float]:
    """Return ``<split>/<metric>`` over all of ``data``, chunks weighted by their counts."""
    return _means(jax.device_get(evaluate(params, model_state, splits)) for splits in data)


def _means(chunks: Iterable[dict[str, dict[str, Any]]]) -> dict[str, float]:
    found: dict[str, list[dict[str, float]]] = {}  # by split, of each chunk
    for chunk in chunks:
        for split, values in chunk.items():
            found.setdefault(split, []).append(values)
    return {
        f"{split}/{name}": _mean(chunks, name)
        for split, chunks in found.items()
        for name in chunks[0]
        if name != "count"
    }


def _mean(chunks: list[dict[str, float]], name: str) -> float:
    """Return the mean of a metric over chunks of different counts; of one chunk, its own."""
    counts = [float(chunk["count"]) for chunk in chunks]
    values = [float(chunk[name]) for chunk in chunks]
    return values[0] if len(chunks) == 1 else float(np.average(values, weights=counts))
