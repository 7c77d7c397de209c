"""A workload over labelled arrays in memory, behind AlgoPerf's workload interface (v0.6).

The shapes of targets and logits are those of the loss type: see :mod:`metaopt.workloads.losses`.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import nnx

from metaopt.bench.contract.spec import ForwardPassMode, LossType
from metaopt.bench.measure.targets import Direction, Target, WorkloadTargets, targets_of
from metaopt.workloads import evaluation, losses
from metaopt.workloads.data.arrays import Arrays
from metaopt.workloads.data.datasets import Source, digests
from metaopt.workloads.data.queues import (
    Batch,
    ShuffledQueue,
    as_stored,
    count,
    in_order,
    pad_with_zeros,
)
from metaopt.workloads.model_interface import ModelInterface
from metaopt.workloads.models.network import Network, check_structure
from metaopt.workloads.models.parameter_types import types_by_layer
from metaopt.workloads.supervised_arguments import check_arguments
from metaopt.workloads.target_interface import TargetInterface

# Names of queues, and the splits that they take.
QUEUE_SPLITS = {"eval_train": "train", "validation": "validation", "test": "test"}


@dataclasses.dataclass(frozen=True, eq=False)
class SupervisedWorkload(ModelInterface, TargetInterface):
    """Train ``model`` on ``load()``'s arrays; metrics are the mean loss and those of its type.

    Parameters, model state and modes: see :class:`~metaopt.workloads.models.network.Network`.

    Workloads are compared and hashed by name, so that jitted functions that take one as a static
    argument are compiled once per process.

    Attributes:
        name: As ``python -m tuning list`` shows it.
        summary: One line: data, model, parameters.
        load: Returns the data; called when it is first needed.
        model: From inputs to logits: a ``flax.linen`` module, or a function of ``rngs`` that
            returns a ``flax.nnx`` module (its class, say).
        loss_type: The type of the loss, which sets the loss and the metrics. ``None`` if
            ``loss_fn`` has none of AlgoPerf's types.
        reference_batch_size: n examples cost n / this many gradient evaluations.
        step_hint: Steps of a trial at the reference batch size; what "1x" means in a budget.
        eval_period: Gradient evaluations between two evaluations, unless a campaign states others;
            so many that evaluations take at most a third of the time of training.
        target_metric: The metric of the targets, without its split.
        target_better: Whether it is better ``"lower"`` or ``"higher"``; ``None`` if its name says
            so (:data:`metaopt.bench.measure.targets.BETTER`).
        target_values: The validation and the test value to reach. ``None``: the frozen ones, which
            ``python -m tuning targets`` sets.
        eval_train_size: The number of training examples for ``train/`` metrics.
        files: The files that ``load`` reads; empty if the data comes with a dependency.
        whole: The number of examples of each split in the whole data set, if known.
        model_inputs: The keys of a batch that ``model`` is called with, in its order.
        has_modes: Whether ``model`` takes the keywords ``train`` and ``dropout_rate``.
        dropout_rate: The rate in training, unless the submission sets one.
        complete: A function from a stored batch to the batch in use, so that bytes can stay bytes
            in memory; may add ``weights`` with the shape of the targets.
        complete_eval: The same for batches that are evaluated, where they differ from those that
            train; ``None``: ``complete``. Padded batches arrive with ``weights``.
        pad: ``pad(batch, batch_size)`` completes the last batch of an evaluation if it is not full.
        max_eval_batch_size: The number of examples evaluated at a time; ``None``: all.
        more_metrics: ``more_metrics(workload, params, model_state)`` returns further metrics, named
            with their split, computed on the host. Its attribute ``names`` lists them.
        loss_fn: A custom loss with AlgoPerf's signature, ``loss_fn(label_batch, logits_batch,
            mask_batch=None, label_smoothing=0.0)``, which returns ``summed``, ``n_valid_examples``
            and ``per_example``. ``None``: the loss of ``loss_type``.
        metrics: Custom metrics that replace those of the type, by name: ``metric(label_batch,
            logits_batch, mask_batch)`` returns the mean over the valid targets of a batch. The
            loss is always reported.
        metric_inputs: The keys of a batch that ``metrics`` get as ``label_batch``: the value of
            one key, or a tuple of the values of several.
        network_type: :class:`~metaopt.workloads.models.network.Network`, or a subclass with other
            rules for modes and model state.
        parameter_types: A function from the parameters' shapes to ``model_params_types``.
        output_layer: The name of the last layer, see ``is_output_params``.

    Raises:
        ValueError: An argument cannot be used; the message names it, the rule and the value.
    """

    name: str
    summary: str
    load: Callable[[], Arrays]
    model: nn.Module | Callable[..., nnx.Module]
    loss_type: LossType | None
    reference_batch_size: int
    step_hint: int
    eval_period: int = 25
    target_metric: str = "loss"
    max_allowed_runtime_sec: float = 60.0
    eval_period_time_sec: float = 1.0
    eval_train_size: int = 10_000
    files: tuple[Source, ...] = ()
    whole: Mapping[str, int] = dataclasses.field(default_factory=dict)
    model_inputs: tuple[str, ...] = ("inputs",)
    has_modes: bool = False
    dropout_rate: float = 0.0
    complete: Callable[[Batch], Batch] = as_stored
    complete_eval: Callable[[Batch], Batch] | None = None
    pad: Callable[[Batch, int], Batch] = pad_with_zeros
    max_eval_batch_size: int | None = None
    more_metrics: Callable[["SupervisedWorkload", Any, Any], dict[str, float]] | None = None
    loss_fn: Any = None  # a losses.LossFn as soon as the workload is made
    metrics: Mapping[str, losses.Metric] | None = None
    metric_inputs: tuple[str, ...] = ("targets",)
    network_type: Callable[..., Network] = Network
    parameter_types: Callable[[Any], Any] = types_by_layer
    output_layer: str = "output"
    target_better: Direction | None = None
    target_values: tuple[float, float] | None = None
    is_fixed_batch = False

    def __post_init__(self) -> None:
        """Check the arguments and find the loss of the type."""
        if isinstance(self.loss_fn, losses.Loss):  # of a copy, which may be of another type
            object.__setattr__(self, "loss_fn", None)
        check_arguments(self)
        if self.loss_fn is None:
            object.__setattr__(self, "loss_fn", losses.Loss(self.loss_type))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, SupervisedWorkload) and self.name == other.name

    def __hash__(self) -> int:
        return hash(self.name)

    # Data.

    def check_data(self) -> None:
        """Raise ``FileNotFoundError``, with the remedy, if a file of the data is missing."""
        for file in self.files:
            file.locate()

    def describe_data(self) -> dict[str, Any]:
        """Return the description of the data for records, as JSON data.

        * ``files``: SHA-256 of every file that was read, by path under ``METAOPT_DATA_DIR``; empty
          where the data comes with a dependency;
        * ``examples``: how many there are in each split;
        * ``whole``: whether that is the whole data set: false for a subset or for other data, null
          where the size of some split is not known.

        Loads the data. Files are read once more for their digests, once per process.

        Raises:
            FileNotFoundError: A file of the data is missing.
        """
        examples = {split: count(arrays) for split, arrays in self.arrays.items()}
        differs = any(examples[split] != count for split, count in self.whole.items())
        known = set(self.whole) == set(examples)
        whole = False if differs else True if known else None
        return {"files": digests(self.files), "examples": examples, "whole": whole}

    @functools.cached_property
    def arrays(self) -> dict[str, Batch]:
        """The splits ``train``, ``validation`` and ``test``, on the default device."""
        with jax.ensure_compile_time_eval():  # kept, so it must not be a trace's
            return jax.tree.map(jnp.asarray, dataclasses.asdict(self.load()))

    @property
    def num_train_examples(self) -> int:
        """Examples in the training split."""
        return count(self.arrays["train"])

    @property
    def num_eval_train_examples(self) -> int:
        """The number of training examples in evaluations."""
        return min(self.eval_train_size, self.num_train_examples)

    @property
    def num_validation_examples(self) -> int:
        """Examples in the validation split."""
        return count(self.arrays["validation"])

    @property
    def num_test_examples(self) -> int:
        """Examples in the test split."""
        return count(self.arrays["test"])

    @property
    def eval_batch_size(self) -> int:
        """The number of examples evaluated at once: a split, or at most ``max_eval_batch_size``."""
        whole = max(self.num_eval_train_examples, self.num_validation_examples)
        return whole if self.max_eval_batch_size is None else min(whole, self.max_eval_batch_size)

    train_mean = 0.0
    train_stddev = 1.0
    metrics_logger = None  # as AlgoPerf's without a log directory; submissions ask whether it is

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
        """Return AlgoPerf's iterator over a split; endless and shuffled for ``train``."""
        del data_dir, cache, repeat_final_dataset, num_batches
        size = self.reference_batch_size if global_batch_size is None else global_batch_size
        if split == "train":
            return ShuffledQueue(self.arrays["train"], data_rng, size, self.complete)
        if split not in QUEUE_SPLITS:
            raise ValueError(f"`split` must be one of {['train', *QUEUE_SPLITS]}, got {split!r}.")
        if size < 1:
            raise ValueError(f"`global_batch_size` must be at least 1, got {size}.")
        batches = in_order(self._evaluation_arrays(split), size, self.pad)
        return map(self._complete_evaluated, batches)

    def batch_shapes(self, batch_size: int | None = None) -> Any:
        """Return the shapes and dtypes of a training batch, by default of the reference size."""
        batch_size = batch_size or self.reference_batch_size

        def cut(arrays: Batch) -> Batch:
            return self.complete(jax.tree.map(lambda array: array[:batch_size], arrays))

        return jax.eval_shape(cut, self.arrays["train"])

    @property
    def _complete_evaluated(self) -> Callable[[Batch], Batch]:
        return self.complete if self.complete_eval is None else self.complete_eval

    def _evaluation_arrays(self, split: str) -> Batch:
        arrays = self.arrays[QUEUE_SPLITS[split]]
        limit = self.num_eval_train_examples if split == "eval_train" else None
        return jax.tree.map(lambda array: array[:limit], arrays)

    # Evaluation.

    @property
    def metric_functions(self) -> Mapping[str, losses.Metric]:
        """The metrics beside the loss, by name: the workload's own, or those of its loss type."""
        if self.metrics is not None:
            return self.metrics
        return {} if self.loss_type is None else losses.Loss(self.loss_type).metrics

    @property
    def metric_names(self) -> frozenset[str] | None:
        """The names of all reported metrics, without loading data; ``None`` if not declared."""
        names = {
            f"{split}/{name}"
            for split in QUEUE_SPLITS.values()
            for name in ("loss", *self.metric_functions)
        }
        if self.more_metrics is None:
            return frozenset(names)
        more = getattr(self.more_metrics, "names", None)
        return None if more is None else frozenset(names | {*more})

    def eval_model(
        self,
        global_batch_size: int,
        params: Any,
        model_state: Any,
        rng: jax.Array | None = None,
        data_dir: str | None = None,
        imagenet_v2_data_dir: str | None = None,
        global_step: int = 0,
    ) -> dict[str, float]:
        """Return the metrics on the training (part), validation and test examples.

        The arguments are AlgoPerf's, in its order; only the parameters and the model state matter,
        because the data lies in memory and nothing is random.

        Raises:
            ValueError: Parameters or model state do not have the structure of
                ``init_model_fn``'s.
        """
        del global_batch_size, rng, data_dir, imagenet_v2_data_dir, global_step
        metrics = self._mean_metrics(params, model_state)
        if self.more_metrics is not None:
            metrics |= self.more_metrics(self, params, model_state)
        return self._all_splits(metrics)

    def _all_splits(self, metrics: dict[str, float]) -> dict[str, float]:
        return {
            **metrics,
            "validation/num_examples": self.num_validation_examples,
            "test/num_examples": self.num_test_examples,
        }

    def _mean_metrics(self, params: Any, model_state: Any) -> dict[str, float]:
        check_structure("params", params, self._shapes[0])
        check_structure("model_state", model_state, self._shapes[1])
        return evaluation.mean_metrics(self._evaluate, params, model_state, self._evaluation_data)

    @functools.cached_property
    def _evaluation_data(self) -> list[dict[str, Batch]]:
        """The batches to evaluate: all splits at once, or chunks of them."""
        splits = {name: self._evaluation_arrays(split) for split, name in QUEUE_SPLITS.items()}
        size = self.eval_batch_size
        if self.max_eval_batch_size is None:
            return [splits]
        # With weights in every chunk: one structure is one program.
        return [
            {name: chunk}
            for name, arrays in splits.items()
            for chunk in in_order({"weights": jnp.ones(count(arrays)), **arrays}, size, self.pad)
        ]

    @functools.cached_property
    def _evaluate(self) -> evaluation.Evaluate:
        return evaluation.compiled(
            lambda params, state, batch: self._metrics(
                params, state, self._complete_evaluated(batch)
            )
        )

    def _metrics(self, params: Any, model_state: Any, batch: Batch) -> dict[str, Any]:
        """Return mean loss and metrics over one batch's valid targets, and their ``count``."""
        # Of a fixed batch, the function that is trained: with the batch's own statistics.
        mode, running_averages = ForwardPassMode.EVAL, None
        if self.is_fixed_batch:
            mode, running_averages = ForwardPassMode.TRAIN, False
        rng = jax.random.PRNGKey(0)  # nothing is random without dropout
        logits, _ = self.model_fn(
            params, batch, model_state, mode, rng, False, 0.0, running_averages
        )
        weights = batch.get("weights")
        loss = self.loss_fn(batch["targets"], logits, weights)
        labels = tuple(batch[key] for key in self.metric_inputs)
        labels = labels[0] if len(labels) == 1 else labels
        return {
            "loss": loss["summed"] / loss["n_valid_examples"],
            **{name: f(labels, logits, weights) for name, f in self.metric_functions.items()},
            "count": loss["n_valid_examples"],
        }

    # Targets.

    @functools.cached_property
    def targets(self) -> WorkloadTargets:
        """The workload's own targets, or the frozen ones."""
        if self.target_values is None:
            return targets_of(self.name)
        validation, test = (
            Target(f"{split}/{self.target_metric}", float(value), self.better)
            for split, value in zip(("validation", "test"), self.target_values, strict=True)
        )
        source = {"source": "the workload itself"}
        return WorkloadTargets(validation, test, self.step_hint, provenance=source)

    def attach_metrics_logger(self, metrics_logger: Any) -> None:
        """Do nothing: our records hold what the runner measures."""
