"""A workload over labelled arrays in memory, behind AlgoPerf's workload interface (v0.6).

Letters: n examples, d features, c classes, t positions. Logits are (n, c) with integer targets
(n,), or (n, t, c) with targets and weights (n, t), or (n,) with targets in {0, 1} for the logistic
loss.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterator
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from metaopt.bench.spec import ForwardPassMode, LossType, ParameterType
from metaopt.bench.targets import Target, WorkloadTargets, targets_of
from metaopt.workloads.data import Source
from metaopt.workloads.queues import Batch, ShuffledQueue, as_stored, in_order

SPLITS = {"eval_train": "train", "validation": "validation", "test": "test"}


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

    The model state is what ``model`` keeps beside its parameters, running averages of batch
    normalisation say, and ``None`` if that is nothing. The mode alone decides which statistics are
    used, the batch's (training) or the running averages (evaluation); ``update_batch_norm`` decides
    whether the averages move.

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
        model_inputs: The keys of a batch that ``model`` is called with, in its order.
        has_modes: Whether ``model`` takes the keywords ``train`` and ``dropout_rate``.
        dropout_rate: In training, where the submission does not say.
        complete: From a batch as it is stored to one as it is used, so that bytes can stay bytes in
            memory; may add ``weights`` with the shape of the targets.
        max_eval_batch_size: Evaluation takes this many examples at a time; ``None``: all.
        more_metrics: ``more_metrics(workload, params, model_state)`` returns further metrics, named
            with their split, computed on the host.
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
    def _init(self) -> Callable[[jax.Array], Any]:
        stored = jax.tree.map(lambda array: array[:1], self.arrays["train"])
        modes = {"train": False, "dropout_rate": 0.0} if self.has_modes else {}

        def init(rng: jax.Array) -> tuple[Any, Any]:
            example = self.complete(stored)
            inputs = [example[key] for key in self.model_inputs]
            variables = dict(self.model.init(rng, *inputs, **modes))
            params = variables.pop("params")
            return params, variables or None

        return jax.jit(init)

    def init_model_fn(self, rng: jax.Array) -> tuple[Any, Any]:
        """Return fresh parameters and the model state, ``None`` if there is none."""
        return self._init(rng)

    @functools.cached_property
    def param_shapes(self) -> Any:
        """The parameters' shapes."""
        return jax.eval_shape(self._init, jax.random.PRNGKey(0))[0]

    @functools.cached_property
    def model_params_types(self) -> Any:
        """What each array of parameters is for."""
        return jax.tree_util.tree_map_with_path(
            lambda path, _: parameter_type([str(entry.key) for entry in path]), self.param_shapes
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
    ) -> tuple[jax.Array, Any]:
        """Return ``(logits, model_state)``; a ``dropout_rate`` of ``None`` is the workload's own.

        Raises:
            ValueError: ``update_batch_norm`` is set in evaluation mode.
        """
        train = mode == ForwardPassMode.TRAIN
        if update_batch_norm and not train:
            raise ValueError(
                "`update_batch_norm` must be False in evaluation mode, which uses the running "
                "averages and leaves them as they are; got True."
            )
        modes: dict[str, Any] = {}
        if self.has_modes:
            rate = self.dropout_rate if dropout_rate is None else dropout_rate
            modes = {"train": train, "dropout_rate": rate if train else 0.0}
        logits, new_model_state = self.model.apply(
            {"params": params, **(model_state or {})},
            *(augmented_and_preprocessed_input_batch[key] for key in self.model_inputs),
            mutable=list(model_state or {}) if train else [],
            rngs={"dropout": rng} if train and self.has_modes else None,
            **modes,
        )
        kept = update_batch_norm and model_state is not None
        return logits, dict(new_model_state) if kept else model_state

    def loss_fn(
        self,
        label_batch: jax.Array,
        logits_batch: jax.Array,
        mask_batch: jax.Array | None = None,
        label_smoothing: float = 0.0,
    ) -> dict[str, jax.Array]:
        """Return the loss ``summed`` over valid targets, their number, and ``per_example``."""
        if self.loss_type is LossType.SOFTMAX_CROSS_ENTROPY:
            classes = logits_batch.shape[-1]
            one_hot = jax.nn.one_hot(label_batch, classes, dtype=logits_batch.dtype)
            labels = optax.smooth_labels(one_hot, label_smoothing)
            per_example = optax.softmax_cross_entropy(logits_batch, labels)
        else:
            labels = label_batch.astype(logits_batch.dtype)
            labels = (1.0 - label_smoothing) * labels + 0.5 * label_smoothing
            per_example = optax.sigmoid_binary_cross_entropy(logits_batch, labels)
        if mask_batch is None:
            valid = jnp.asarray(float(per_example.size), per_example.dtype)
        else:
            per_example = per_example * mask_batch
            valid = mask_batch.sum()
        return {
            "summed": per_example.sum(),
            "n_valid_examples": valid,
            "per_example": per_example,
        }

    def output_activation_fn(self, logits_batch: jax.Array, framework: str = "jax") -> jax.Array:
        """Turn logits into probabilities."""
        del framework
        if self.loss_type is LossType.SOFTMAX_CROSS_ENTROPY:
            return jax.nn.softmax(logits_batch)
        return jax.nn.sigmoid(logits_batch)

    # Evaluation.

    def eval_model(
        self,
        global_batch_size: int,
        params: Any,
        model_state: Any,
        rng: jax.Array,
        data_dir: str | None = None,
        imagenet_v2_data_dir: str | None = None,
        global_step: int = 0,
    ) -> dict[str, float]:
        """Return the metrics on the training (part), validation and test examples."""
        del global_batch_size, rng, data_dir, imagenet_v2_data_dir, global_step
        metrics = self._mean_metrics(params, model_state)
        if self.more_metrics is not None:
            metrics |= self.more_metrics(self, params, model_state)
        return {
            **metrics,
            "validation/num_examples": self.num_validation_examples,
            "test/num_examples": self.num_test_examples,
        }

    def _mean_metrics(self, params: Any, model_state: Any) -> dict[str, float]:
        found: dict[str, list[dict[str, float]]] = {}  # by split, of each chunk
        for chunks in self._evaluation_data:
            metrics = jax.device_get(self._evaluate(params, model_state, chunks))
            for split, values in metrics.items():
                found.setdefault(split, []).append(values)
        return {
            f"{split}/{name}": _mean(chunks, name)
            for split, chunks in found.items()
            for name in chunks[0]
            if name != "count"
        }

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
    def _evaluate(self) -> Callable[..., dict[str, dict[str, jax.Array]]]:
        @jax.jit
        def each(params: Any, model_state: Any, batches: list[Batch]) -> list[dict[str, Any]]:
            return [self.metrics(params, model_state, self.complete(b)) for b in batches]

        def evaluate(params: Any, model_state: Any, splits: dict[str, Batch]) -> dict[str, Any]:
            # Compiled for shapes, whatever the names of the splits.
            found = each(params, model_state, list(splits.values()))
            return dict(zip(splits, found, strict=True))

        return evaluate

    def metrics(self, params: Any, model_state: Any, batch: Batch) -> dict[str, jax.Array]:
        """Return mean loss and accuracy over one batch's valid targets, and their ``count``."""
        mode = ForwardPassMode.TRAIN if self.is_fixed_batch else ForwardPassMode.EVAL
        rng = jax.random.PRNGKey(0)  # nothing is random without dropout
        logits, _ = self.model_fn(params, batch, model_state, mode, rng, False, 0.0)
        weights = batch.get("weights")
        loss = self.loss_fn(batch["targets"], logits, weights)
        if self.loss_type is LossType.SOFTMAX_CROSS_ENTROPY:
            predictions = logits.argmax(-1)
        else:
            predictions = jnp.int32(logits > 0.0)
        right = jnp.asarray(predictions == batch["targets"], jnp.float32)
        return {
            "loss": loss["summed"] / loss["n_valid_examples"],
            "accuracy": right.mean() if weights is None else jnp.average(right, weights=weights),
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


def parameter_type(path: list[str]) -> ParameterType:
    """Return what the array at ``path`` is for, which the names of its layers say.

    Layers are named after their kind: ``conv``, ``bn``, ``ln``, ``embedding``, ``attention``.

    Examples:
        >>> parameter_type(["encoder", "ln_attention", "scale"]).name
        'LAYER_NORM_SCALE'
    """
    *layers, leaf = path
    kinds = {word for layer in layers[-1:] for word in layer.split("_")}
    if "bn" in kinds or "ln" in kinds:
        norm = "BATCH_NORM" if "bn" in kinds else "LAYER_NORM"
        return ParameterType[f"{norm}_{leaf.upper()}"]
    if len(layers) > 1 and "attention" in layers[-2]:
        roles = {"query": "Q", "key": "K", "value": "V", "out": "OUT"}
        return ParameterType[f"ATTENTION_{'BIAS' if leaf == 'bias' else roles[layers[-1]]}"]
    if leaf == "embedding":
        return ParameterType.EMBEDDING
    if leaf == "bias":
        return ParameterType.BIAS
    return ParameterType.CONV_WEIGHT if "conv" in kinds else ParameterType.WEIGHT


def _mean(chunks: list[dict[str, float]], name: str) -> float:
    """Return the mean of a metric over chunks of different counts; of one chunk, its own."""
    counts = [float(chunk["count"]) for chunk in chunks]
    values = [float(chunk[name]) for chunk in chunks]
    return values[0] if len(chunks) == 1 else float(np.average(values, weights=counts))


def _meets(eval_result: dict[str, float], target: Target) -> bool:
    return target.is_met(eval_result[target.metric])


@dataclasses.dataclass(frozen=True, eq=False)
class FixedBatchWorkload(SupervisedWorkload):
    """The deterministic setting: one batch, drawn once; its training loss is the only metric.

    ``train/``, ``validation/`` and ``test/`` all report the loss on that batch, in training mode:
    batch normalisation uses the batch's statistics. There is no dropout unless the submission asks
    for it. Make one with :func:`fix_batch`, and choose the batch with :meth:`with_batch_seed`.
    """

    batch_seed: int = 0
    base_name: str = ""
    is_fixed_batch = True

    def with_batch_seed(self, seed: int) -> "FixedBatchWorkload":
        """Return the same workload on another batch; compiled functions and data are shared."""
        other = dataclasses.replace(self, batch_seed=seed)
        for shared in ("arrays", "_init", "_evaluate"):
            other.__dict__[shared] = getattr(self, shared)
        return other

    @functools.cached_property
    def batch(self) -> Batch:
        """The batch, of the reference size."""
        with jax.ensure_compile_time_eval():
            return self.complete(self._stored_batch)

    @functools.cached_property
    def _stored_batch(self) -> Batch:
        with jax.ensure_compile_time_eval():
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
        if split not in ("train", *SPLITS):
            raise ValueError(f"`split` must be one of {['train', *SPLITS]}, got {split!r}.")
        return RepeatedBatch(self.batch)

    @functools.cached_property
    def _evaluation_data(self) -> list[dict[str, Batch]]:
        return [{"train": self._stored_batch}]

    def eval_model(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """Return the loss on the batch under the names of all three splits."""
        params, model_state = _params_and_state(*args, **kwargs)
        metrics = self._mean_metrics(params, model_state)
        return {
            f"{split}/{name.removeprefix('train/')}": value
            for split in ("train", "validation", "test")
            for name, value in metrics.items()
        }


def _params_and_state(
    global_batch_size: int, params: Any, model_state: Any, *_: Any, **__: Any
) -> tuple[Any, Any]:
    del global_batch_size
    return params, model_state


class RepeatedBatch(Iterator[Batch]):
    """The same batch for ever."""

    def __init__(self, batch: Batch) -> None:
        self._batch = batch
        self.position = 0

    def seek(self, position: int) -> None:
        """Go to where ``position`` batches have been taken."""
        self.position = position

    def __next__(self) -> Batch:
        """Return the batch, in a dictionary that its taker may change."""
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
        "target_metric": "loss",
        "dropout_rate": 0.0,
        "more_metrics": None,
        "base_name": workload.name,
    }
    return FixedBatchWorkload(**fields)
