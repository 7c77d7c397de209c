"""The workload as a submission sees it: AlgoPerf's public interface and two more attributes.

A submission that runs here therefore depends on nothing that AlgoPerf lacks. It gets no data, no
network and no way to build a queue of its own.
"""

from collections.abc import Iterator
from typing import Any

from metaopt.bench.contract.return_values import ContractError

# The public attributes of ``algoperf.spec.Workload``, v0.6. ``eval_model`` is left to the runner.
ALGOPERF_INTERFACE = frozenset({
    "attach_metrics_logger", "eval_batch_size", "eval_period_time_sec",
    "has_reached_test_target", "has_reached_validation_target", "init_model_fn",
    "is_output_params", "loss_fn", "loss_type", "max_allowed_runtime_sec", "metrics_logger",
    "model_fn", "model_params_types", "num_eval_train_examples", "num_test_examples",
    "num_train_examples", "num_validation_examples", "output_activation_fn", "param_shapes",
    "step_hint", "target_metric_name", "test_target_value", "train_mean", "train_stddev",
    "validation_target_value",
})  # fmt: skip


class Facade:
    """A workload as a submission sees it.

    Facades are equal, and have the same hash, if they stand for the same workload with the same
    step hint: a jitted function that takes one as a static argument is compiled once per process.

    Args:
        workload: The workload.
        batch_size: The number of examples in a training batch of this submission.
        step_hint: The step hint that the submission sees; by default the workload's.
    """

    __slots__ = ("__batch_size", "__step_hint", "__workload")

    def __init__(self, workload: Any, batch_size: int, step_hint: int | None = None) -> None:
        self.__workload = workload
        self.__batch_size = batch_size
        self.__step_hint = step_hint

    def __getattr__(self, name: str) -> Any:
        """Return a public attribute of AlgoPerf's workloads.

        Raises:
            AttributeError: AlgoPerf's interface has no such attribute.
        """
        if name not in ALGOPERF_INTERFACE:
            raise AttributeError(
                f"`workload.{name}` is not in AlgoPerf's interface. A submission sees AlgoPerf's "
                "public attributes, `batch_shapes` and `reference_batch_size`.",
                name=name,
                obj=self,
            )
        if name == "step_hint" and self.__step_hint is not None:
            return self.__step_hint
        return getattr(self.__workload, name)

    @property
    def reference_batch_size(self) -> int:
        """The examples of one gradient evaluation; by default those of a batch."""
        return getattr(self.__workload, "reference_batch_size", self.__batch_size)

    def batch_shapes(self, batch_size: int | None = None) -> Any:
        """Return the shapes and dtypes of a training batch, by default of this submission's."""
        return self.__workload.batch_shapes(batch_size or self.__batch_size)

    def eval_model(self, *_: Any, **__: Any) -> Any:
        """Refuse: only the runner evaluates, and passes the results as ``eval_results``.

        Raises:
            ContractError: Always.
        """
        raise ContractError(
            "`workload.eval_model` is the runner's. Read `eval_results`, or train on the batches."
        )

    def _identity(self) -> tuple[Any, ...]:
        return type(self), self.__workload, getattr(self, "step_hint", None)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Facade) and self._identity() == other._identity()

    def __hash__(self) -> int:
        return hash(self._identity())

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of a workload>"


class CountedQueue(Iterator[Any]):
    """The input queue of a submission: it only yields batches, and reports each one.

    Args:
        queue: The workload's queue.
        on_batch: Called with every batch before the submission gets it.
    """

    def __init__(self, queue: Iterator[Any], on_batch: Any) -> None:
        self.__queue = queue
        self.__on_batch = on_batch

    def __next__(self) -> Any:
        """Return the next batch."""
        batch = next(self.__queue)
        self.__on_batch(batch)
        return batch
