"""Means of metrics over splits that are evaluated chunk by chunk, compiled once for each shape."""

from collections.abc import Callable, Iterable
from typing import Any

import jax
import numpy as np

from metaopt.workloads.data.queues import Batch

# From (parameters, model state, batches by split) to each split's metrics and their ``count``.
Evaluate = Callable[[Any, Any, dict[str, Batch]], dict[str, dict[str, Any]]]


def compiled(metrics: Callable[[Any, Any, Batch], dict[str, jax.Array]]) -> Evaluate:
    """Return a function that applies ``metrics`` to one batch of each of several splits."""
    of_one = jax.jit(metrics)

    # One call per split: splits of one shape share a program, and a joint program takes three times
    # as long to compile.
    def evaluate(params: Any, model_state: Any, splits: dict[str, Batch]) -> dict[str, Any]:
        return {name: of_one(params, model_state, batch) for name, batch in splits.items()}

    return evaluate


def mean_metrics(
    evaluate: Evaluate, params: Any, model_state: Any, data: Iterable[dict[str, Batch]]
) -> dict[str, float]:
    """Return ``<split>/<metric>`` over all of ``data``, chunks weighted by their counts."""
    found: dict[str, list[dict[str, float]]] = {}  # by split, of each chunk
    for splits in data:
        for split, values in jax.device_get(evaluate(params, model_state, splits)).items():
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
