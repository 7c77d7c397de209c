"""The deterministic setting: a workload on one batch; its training loss is the only metric."""

import dataclasses
import functools
from collections.abc import Callable, Iterator
from typing import Any

import jax

from metaopt.bench.contract.rng import pinned_randomness
from metaopt.workloads.data.queues import Batch, ShuffledQueue
from metaopt.workloads.supervised import QUEUE_SPLITS, SupervisedWorkload


@dataclasses.dataclass(frozen=True, eq=False)
class FixedBatchWorkload(SupervisedWorkload):
    """The deterministic setting: one batch, the same for all studies; the metric is its loss.

    ``train/``, ``validation/`` and ``test/`` all report the loss on that batch, in training mode:
    batch normalisation uses the batch's statistics. There is no dropout unless the submission asks
    for it. Studies differ in their initial parameters: with a batch for each, they would differ in
    how low its loss can get, and no target would repeat. Make one with :func:`fix_batch`.

    Attributes:
        base: The stochastic form, whose data and compiled initialisation are shared.
        batch_seed: The seed that chooses the batch; recorded with every trial.
    """

    base: SupervisedWorkload = dataclasses.field(kw_only=True)
    batch_seed: int = 0
    is_fixed_batch = True

    @property
    def base_name(self) -> str:
        """The name of the stochastic form."""
        return self.base.name

    @functools.cached_property
    def arrays(self) -> dict[str, Batch]:
        """The splits ``train``, ``validation`` and ``test``, on the default device."""
        return self.base.arrays

    @functools.cached_property
    def _init(self) -> Callable[[jax.Array, Batch], Any]:
        return self.base._init

    @functools.cached_property
    def batch(self) -> Batch:
        """The batch, of the reference size."""
        with jax.ensure_compile_time_eval():
            return self.complete(self._stored_batch)

    @functools.cached_property
    def _stored_batch(self) -> Batch:
        with jax.ensure_compile_time_eval(), pinned_randomness():
            key = jax.random.PRNGKey(self.batch_seed)
            return next(ShuffledQueue(self.arrays["train"], key, self.reference_batch_size))

    def _build_input_queue(
        self,
        data_rng: Any,
        split: str,
        data_dir: str = "",
        global_batch_size: int | None = None,
        cache: bool | None = None,
        repeat_final_dataset: bool | None = None,
        num_batches: int | None = None,
    ) -> Iterator[Batch]:
        """Return an iterator that yields the batch for ever."""
        del data_rng, data_dir, cache, repeat_final_dataset, num_batches
        if global_batch_size not in (None, self.reference_batch_size):
            raise ValueError(
                f"{self.name} has one batch of {self.reference_batch_size} examples, "
                f"a batch size of {global_batch_size} is impossible."
            )
        if split not in ("train", *QUEUE_SPLITS):
            raise ValueError(f"`split` must be one of {['train', *QUEUE_SPLITS]}, got {split!r}.")
        return RepeatedBatch(self.batch)

    @functools.cached_property
    def _evaluation_data(self) -> list[dict[str, Batch]]:
        return [{"train": self._stored_batch}]

    def _all_splits(self, metrics: dict[str, float]) -> dict[str, float]:
        # The loss on the batch goes under the names of all three.
        return {
            f"{split}/{name.removeprefix('train/')}": value
            for split in ("train", "validation", "test")
            for name, value in metrics.items()
        }


class RepeatedBatch(Iterator[Batch]):
    """The same batch for ever."""

    def __init__(self, batch: Batch) -> None:
        self._batch = batch
        self.position = 0

    def seek(self, position: int) -> None:
        """Go to the position after the first ``position`` batches."""
        self.position = position

    def __next__(self) -> Batch:
        """Return the batch in a new dictionary, which the caller may change."""
        self.position += 1
        return dict(self._batch)


def fix_batch(workload: SupervisedWorkload) -> FixedBatchWorkload:
    """Return the ``_fixed`` form of a workload: its target is the training loss of one batch."""
    fields: dict[str, Any] = {
        field.name: getattr(workload, field.name) for field in dataclasses.fields(workload)
    }
    fields |= {
        "name": f"{workload.name}_fixed",
        "summary": f"{workload.summary}; one fixed batch of {workload.reference_batch_size}",
        "eval_period": 5,
        "target_metric": "loss",
        "target_better": None,
        "target_values": None,
        "dropout_rate": 0.0,
        "more_metrics": None,
        "complete_eval": None,  # it evaluates what it trains
        "base": workload,
    }
    return FixedBatchWorkload(**fields)
