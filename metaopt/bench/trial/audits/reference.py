"""The duration of AdamW's gradient evaluations on this machine: the unit of time factors."""

import time
from typing import Any

import jax
import numpy as np
import optax

from metaopt.bench.contract import kit
from metaopt.bench.contract.bound_submission import BoundSubmission
from metaopt.bench.contract.facade import Facade
from metaopt.bench.contract.rng import step_keys, trial_keys
from metaopt.bench.trial.audits.host_copies import to_device, to_host

_MOST_STEPS = 10  # that are timed at once
_WARM_UP = 3  # steps before the first ones, which compile


class Reference:
    """AdamW on a workload, at its reference batch size.

    Between measurements its state lies on the host. So it takes memory of the device only while the
    submission takes no step; if that is too little, nothing is measured.

    Args:
        workload: The workload.
    """

    def __init__(self, workload: Any) -> None:
        self.workload = workload
        self._rates: list[float] = []
        self._on_host: Any = None
        self._step = 0
        self._fits = True

    @property
    def seconds(self) -> float | None:
        """Seconds per gradient evaluation: the median over measurements; ``None`` without any."""
        return float(np.median(self._rates)) if self._rates else None

    def forget(self) -> None:
        """Forget what was measured."""
        self._rates = []

    def time_steps(self, most: int) -> None:
        """Time a few steps.

        Args:
            most: Steps after which the device is waited for in what is compared; at most ten are
                taken.
        """
        if not self._fits:
            return
        try:
            trees = self._start() if self._on_host is None else to_device(self._on_host)
            count = max(1, min(most, _MOST_STEPS))
            jax.block_until_ready(trees)  # the copy to the device is not AdamW's
            start = time.perf_counter()
            trees = self._train(trees, count)
            self._rates.append((time.perf_counter() - start) / count)
            self._on_host = to_host(trees)
        except jax.errors.JaxRuntimeError:  # out of memory
            self._fits = False

    def _start(self) -> Any:
        size = self.workload.reference_batch_size
        baseline = kit.Baseline(lambda step_hint: optax.adamw(1e-3), {})
        self._submission = BoundSubmission(baseline, Facade(self.workload, size), None)
        streams = trial_keys(0)
        self._keys = step_keys(streams.steps)
        self._queue = self.workload._build_input_queue(
            streams.data, "train", data_dir="", global_batch_size=size
        )
        params, model_state = self.workload.init_model_fn(streams.model)
        trees = self._submission.init(params, model_state, streams.optimizer), params, model_state
        return self._train(trees, _WARM_UP)

    def _train(self, trees: Any, count: int) -> Any:
        for _ in range(count):
            batch = kit.data_selection(None, self._queue, None, None, None, None, self._step, None)
            key = self._keys(self._step)[1]
            trees = self._submission.update(batch, trees, self._step, key, [], None)
            self._step += 1
        return jax.block_until_ready(trees)
