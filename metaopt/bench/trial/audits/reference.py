"""The duration of AdamW's gradient evaluations on this machine: the unit of time factors."""

import functools
import time
from typing import Any

import jax
import numpy as np
import optax

from metaopt.bench.contract import kit
from metaopt.bench.contract.bound_submission import BoundSubmission
from metaopt.bench.contract.facade import Facade
from metaopt.bench.contract.rng import step_keys, trial_keys

_STEPS = 30
_BLOCK = 10  # steps that are timed at once; the median of the blocks counts
_WARM_UP = 3  # steps before them, which compile


@functools.cache
def reference_seconds(workload: Any, wait_every: int) -> float:
    """Return AdamW's seconds per gradient evaluation, compilation left out.

    Measured once per process, workload and rhythm: 30 steps at the reference batch size.

    Args:
        workload: The workload.
        wait_every: Steps after which the device is waited for, as it is before an evaluation.
    """
    size = workload.reference_batch_size
    baseline = kit.Baseline(lambda step_hint: optax.adamw(1e-3), {})
    submission = BoundSubmission(baseline, Facade(workload, size), None)
    streams = trial_keys(0)
    keys = step_keys(streams.steps)
    queue = workload._build_input_queue(streams.data, "train", data_dir="", global_batch_size=size)
    params, model_state = workload.init_model_fn(streams.model)
    trees = submission.init(params, model_state, streams.optimizer), params, model_state
    rates, step = [], 0
    while step < _WARM_UP + _STEPS:
        start, before = time.perf_counter(), step
        while step < before + min(wait_every, _BLOCK):
            batch = kit.data_selection(None, queue, None, None, None, None, step, None)
            trees = submission.update(batch, trees, step, keys(step)[1], [], None)
            step += 1
        jax.block_until_ready(trees[1])
        if before >= _WARM_UP:
            rates.append((time.perf_counter() - start) / (step - before))
    return float(np.median(rates))
