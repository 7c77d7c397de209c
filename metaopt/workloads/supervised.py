"""A workload over labelled arrays in memory, behind AlgoPerf's workload interface (v0.6).

Letters: n examples, d features, c classes, t positions. Logits are (n, c) with integer targets
(n,), or (n, t, c) with targets and weights (n, t), or (n,) with targets in {0, 1} for the logistic
loss.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from metaopt.bench.spec import ForwardPassMode, LossType, ShapeTuple
from metaopt.bench.targets import Target, WorkloadTargets, targets_of
from metaopt.workloads import evaluation, losses
from metaopt.workloads.data import Source, digests
from metaopt.workloads.network import Network, check_structure, parameter_type
from metaopt.workloads.queues import Batch, ShuffledQueue, as_stored, in_order

SPLITS = {"eval_train": "train", "validation": "validation", "test": "test"}
METRICS = ("loss", "accuracy")  # of each split


@dataclasses.dataclass(frozen=True)
class Arrays:
    """A data set: a dictionary with ``inputs`` and ``targets`` for each split."""

    train: dict[str, np.ndarray]
    validation: dict[str, np.ndarray]
    test: dict[str, np.ndarray]

    def __post_init__(self) -> None:
        """Check that inputs and targets belong together."""
        for field in dataclasses.fields(self):
            split = getattr(self, field.name)
            inputs, targets = split["inputs"], split["targets"]
            if len(inputs) != len(targets) or len(inputs) == 0:
                raise ValueError(
                    f"`{field.name}` needs as many targets as inputs, and at least one, "
                    f"got {len(inputs)} inputs and {len(targets)} targets."
                )


@dataclasses.dataclass(frozen=True, eq=False)
class SupervisedWorkload:
    """Train ``model`` on ``load()``'s arrays; metrics are the mean loss and the accuracy.

    Parameters, model state and modes are those of :class:`metaopt.workloads.network.Network`.

    Workloads are compared and hashed by name, so that jitted functions that take one as a static
    argument are compiled once per process.

    Attributes:
        name: As ``python -m tuning list`` shows it.
        summary: One line: data, model, parameters.
        load: Returns the data; called when it is first needed.
        model: A flax module from inputs to logits.
        loss_type: Softmax or sigmoid cross-entropy.
        reference_batch_size: n examples cost n / this many gradient evaluations.
        step_hint: Steps of a trial at the reference batch size; what "1x" means in a budget.
        target_metric: The metric of the targets, without its split.
        eval_train_size: How many training examples ``train/`` metrics are computed on.
        files: What ``load`` reads; empty where the data comes with a dependency.
        whole: Examples of each split in the whole data set, where that is known.
        model_inputs: The keys of a batch that ``model`` is called with, in its order.
        has_modes: Whether ``model`` takes the keywords ``train`` and ``dropout_rate``.
        dropout_rate: In training, where the submission does not say.
        complete: From a batch as it is stored to one as it is used, so that bytes can stay bytes in
            memory; may add ``weights`` with the shape of the targets.
        max_eval_batch_size: Evaluation takes this many examples at a time; ``None``: all.
        more_metrics: ``more_metrics(workload, params, model_state)`` returns further metrics, named
            with their split, computed on the host. Its attribute ``names`` lists them.
    """

    name: str
    summary: str
    load: Callable[[], Arrays]
    model: nn.Module
    loss_type: LossType
    reference_batch_size: int
    step_hint: int
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
    max_eval_batch_size: int | None = None
    more_metrics: Callable[["SupervisedWorkload", Any, Any], dict[str, float]] | None = None
    is_fixed_batch = False

    def __eq__(self, other: object) -> bool:
        return isinstance(other, SupervisedWorkload) and self.name == other.name

    def __hash__(self) -> int:
        return hash(self.name)

    # Data.

    def check_data(self) -> None:
        """Raise ``FileNotFoundError``, which says what to do, if a file of the data is missing."""
        for file in self.files:
            file.locate()

    def describe_data(self) -> dict[str, Any]:
        """Return what a result on this data must say of it, as JSON.

        * ``files``: SHA-256 of every file that was read, by path under ``METAOPT_DATA_DIR``; empty
          where the data comes with a dependency;
        * ``examples``: how many there are in each split;
        * ``whole``: whether that is the whole data set: false for a subset or for other data, null
          where the size of some split is not known.

        Loads the data. Files are read once more for their digests, once per process.

        Raises:
            FileNotFoundError: A file of the data is missing.
        """
        examples = {split: len(arrays["targets"]) for split, arrays in self.arrays.items()}
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
        return len(self.arrays["train"]["targets"])

    @property
    def num_eval_train_examples(self) -> int:
        """Training examples that evaluation looks at."""
        return min(self.eval_train_size, self.num_train_examples)

    @property
    def num_validation_examples(self) -> int:
        """Examples in the validation split."""
        return len(self.arrays["validation"]["targets"])

    @property
    def num_test_examples(self) -> int:
        """Examples in the test split."""
        return len(self.arrays["test"]["targets"])

    @property
    def eval_batch_size(self) -> int:
        """Examples that evaluation looks at at once: a whole split, unless that is too many."""
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
        size = global_batch_size or self.reference_batch_size
        if split == "train":
            return ShuffledQueue(self.arrays["train"], data_rng, size, self.complete)
        if split not in SPLITS:
            raise ValueError(f"`split` must be one of {['train', *SPLITS]}, got {split!r}.")
        return map(self.complete, in_order(self._evaluation_arrays(split), size))

    def batch_shapes(self, batch_size: int) -> Any:
        """Return the shapes and dtypes of a training batch."""

        def cut(arrays: Batch) -> Batch:
            return self.complete({name: array[:batch_size] for name, array in arrays.items()})

        return jax.eval_shape(cut, self.arrays["train"])

    def _evaluation_arrays(self, split: str) -> Batch:
        arrays = self.arrays[SPLITS[split]]
        limit = self.num_eval_train_examples if split == "eval_train" else None
        return {name: array[:limit] for name, array in arrays.items()}

    # Model and loss.

    @functools.cached_property
    def network(self) -> Network:
        """The model and how it is called."""
        return Network(self.model, self.model_inputs, self.has_modes, self.dropout_rate)

    @functools.cached_property
    def _init(self) -> Callable[[jax.Array], Any]:
        stored = jax.tree.map(lambda array: array[:1], self.arrays["train"])
        return jax.jit(lambda rng: self.network.init(rng, self.complete(stored)))

    def init_model_fn(self, rng: jax.Array) -> tuple[Any, Any]:
        """Return fresh parameters and the model state, ``None`` if there is none."""
        return self._init(rng)

    @functools.cached_property
    def _shapes(self) -> tuple[Any, Any]:
        return jax.eval_shape(self._init, jax.random.PRNGKey(0))

    @property
    def param_shapes(self) -> Any:
        """The parameters' shapes, as AlgoPerf's ``ShapeTuple``."""
        return jax.tree.map(lambda array: ShapeTuple(array.shape), self._shapes[0])

    @functools.cached_property
    def model_params_types(self) -> Any:
        """What each array of parameters is for."""
        return jax.tree_util.tree_map_with_path(
            lambda path, _: parameter_type([str(entry.key) for entry in path]), self._shapes[0]
        )

    def is_output_params(self, param_key: str) -> bool:
        """Return whether ``param_key`` names the output layer."""
        return param_key == "output"

    def model_fn(
        self,
        params: Any,
        augmented_and_preprocessed_input_batch: Batch,
        model_state: Any,
        mode: ForwardPassMode,
        rng: jax.Array,
        update_batch_norm: bool,
        dropout_rate: float | None = None,
        use_running_average_bn: bool | None = None,
    ) -> tuple[jax.Array, Any]:
        """Return ``(logits, model_state)``; see :meth:`Network.apply`.

        Raises:
            ValueError: ``update_batch_norm`` is set in evaluation mode.
        """
        return self.network.apply(
            params,
            augmented_and_preprocessed_input_batch,
            model_state,
            mode,
            rng,
            update_batch_norm,
            dropout_rate,
            use_running_average_bn,
        )

    def loss_fn(
        self,
        label_batch: jax.Array,
        logits_batch: jax.Array,
        mask_batch: jax.Array | None = None,
        label_smoothing: float = 0.0,
    ) -> dict[str, jax.Array]:
        """Return the loss ``summed`` over valid targets, their number, and ``per_example``."""
        return losses.cross_entropy(
            self.loss_type, label_batch, logits_batch, mask_batch, label_smoothing
        )

    def output_activation_fn(self, logits_batch: jax.Array, framework: str = "jax") -> jax.Array:
        """Turn logits into probabilities."""
        del framework
        return losses.probabilities(self.loss_type, logits_batch)

    # Evaluation.

    @property
    def metric_names(self) -> frozenset[str] | None:
        """What evaluation reports, known without data; ``None`` if that is not declared."""
        ours = SupervisedWorkload
        if type(self).metrics is not ours.metrics or type(self).eval_model is not ours.eval_model:
            return None
        names = {f"{split}/{name}" for split in SPLITS.values() for name in METRICS}
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
            ValueError: Parameters or model state have not the structure that ``init_model_fn``
                returns.
        """
        del global_batch_size, rng, data_dir, imagenet_v2_data_dir, global_step
        metrics = self._mean_metrics(params, model_state)
        if self.more_metrics is not None:
            metrics |= self.more_metrics(self, params, model_state)
        return self._all_splits(metrics)

    def eval_models(self, params: Any, model_state: Any, count: int) -> list[dict[str, float]]:
        """Return what :meth:`eval_model` returns, for each of ``count`` trials.

        Args:
            params: Parameters with a first axis over the trials.
            model_state: Likewise.
            count: How long that axis is.
        """
        found = evaluation.mean_metrics_of_many(
            self._evaluate_many, params, model_state, self._evaluation_data, count
        )
        if self.more_metrics is not None:
            for index, metrics in enumerate(found):
                one = evaluation.member((params, model_state), index)
                metrics |= self.more_metrics(self, *one)
        return [self._all_splits(metrics) for metrics in found]

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
        """What is evaluated together: everything, or one chunk after the other."""
        splits = {name: self._evaluation_arrays(split) for split, name in SPLITS.items()}
        size = self.eval_batch_size
        if self.max_eval_batch_size is None:
            return [splits]
        return [
            {name: chunk} for name, arrays in splits.items() for chunk in in_order(arrays, size)
        ]

    @functools.cached_property
    def _evaluate(self) -> evaluation.Evaluate:
        return evaluation.compiled(
            lambda params, state, batch: self.metrics(params, state, self.complete(batch))
        )

    @functools.cached_property
    def _evaluate_many(self) -> evaluation.Evaluate:
        return evaluation.compiled_for_many(
            lambda params, state, batch: self.metrics(params, state, self.complete(batch))
        )

    def metrics(self, params: Any, model_state: Any, batch: Batch) -> dict[str, jax.Array]:
        """Return mean loss and accuracy over one batch's valid targets, and their ``count``."""
        mode = ForwardPassMode.TRAIN if self.is_fixed_batch else ForwardPassMode.EVAL
        rng = jax.random.PRNGKey(0)  # nothing is random without dropout
        logits, _ = self.model_fn(params, batch, model_state, mode, rng, False, 0.0)
        labels, weights = batch["targets"], batch.get("weights")
        loss = self.loss_fn(labels, logits, weights)
        return {
            "loss": loss["summed"] / loss["n_valid_examples"],
            "accuracy": losses.accuracy(self.loss_type, labels, logits, weights),
            "count": loss["n_valid_examples"],
        }

    # Targets.

    @functools.cached_property
    def targets(self) -> WorkloadTargets:
        """The frozen targets."""
        return targets_of(self.name)

    @property
    def target_metric_name(self) -> str:
        """AlgoPerf's name for the metric of the targets."""
        return self.target_metric

    @property
    def validation_target_value(self) -> float:
        """The frozen validation target."""
        return self.targets.validation.value

    @property
    def test_target_value(self) -> float:
        """The frozen test target."""
        return self.targets.test.value

    def has_reached_validation_target(self, eval_result: dict[str, float]) -> bool:
        """Return whether an evaluation meets the validation target."""
        return _meets(eval_result, self.targets.validation)

    def has_reached_test_target(self, eval_result: dict[str, float]) -> bool:
        """Return whether an evaluation meets the test target."""
        return _meets(eval_result, self.targets.test)

    def attach_metrics_logger(self, metrics_logger: Any) -> None:
        """Do nothing: our records hold what the runner measures."""


def _meets(eval_result: dict[str, float], target: Target) -> bool:
    return target.is_met(eval_result[target.metric])
