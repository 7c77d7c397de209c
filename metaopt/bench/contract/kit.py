"""The common parts of our submissions: batch sizes, data selection, loss, one compiled step.

A submission built on :class:`Baseline` is one function from hyperparameters to an optax
transformation. Its step is compiled once per workload: numeric hyperparameters are arrays in the
optimizer state, so another point of the search space is another argument, not another function.
Each value of a string or boolean has a compiled step of its own.
"""

import functools
import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

# Relative: packages of submissions hold copies of this module and of those that it imports.
from .call_counter import CallCounter
from .sharding import replicate, shard_batch
from .spec import ForwardPassMode

# Examples per optimizer step. AlgoPerf's are those of its baselines.
BATCH_SIZES = {
    "breast_cancer_logistic": 64,
    "cifar10_vgg16": 512,
    "cifar10_vgg16_small": 128,
    "digits_autoencoder": 64,
    "digits_conv": 64,
    "digits_mlp": 64,
    "digits_transformer": 8,
    "ende_transformer": 16,
    "ende_transformer_small": 32,
    "mini_conformer": 16,
    "mini_criteo": 256,
    "mini_deepspeech": 16,
    "mini_fastmri": 8,
    "mini_lm": 16,
    "mini_ogbg": 16,
    "mini_resnet": 24,
    "mini_vit": 16,
    "mini_wmt": 12,
    "mnist_mlp": 512,
    "poisson_pinn": 64,
    "cifar": 128,
    "criteo1tb": 262_144,
    "fastmri": 32,
    "finewebedu_lm": 64,
    "imagenet_resnet": 1024,
    "imagenet_vit": 1024,
    "librispeech_conformer": 256,
    "librispeech_deepspeech": 256,
    "mnist": 16,
    "ogbg": 512,
    "wmt": 128,
}


# Hyperparameters of any search space, whatever the optimizer: the arguments of the workload's
# ``model_fn`` and ``loss_fn``, under the names that AlgoPerf's submissions use.
REGULARISATION = ("dropout_rate", "label_smoothing")

Hyperparameter = float | str | bool
Static = tuple[tuple[str, str | bool], ...]  # hyperparameters by name, in the defaults' order
_STATIC = {bool: "a boolean", str: "a string"}


def get_batch_size(workload_name: str) -> int:
    """Return the number of examples per step; a workload's ``_fixed`` form has the same.

    Raises:
        ValueError: The workload is unknown. Runners then ask for the base workload's name.
    """
    try:
        return BATCH_SIZES[workload_name.removesuffix("_fixed")]
    except KeyError:
        raise ValueError(
            f"No batch size for workload {workload_name!r}, only for {sorted(BATCH_SIZES)}."
        ) from None


def data_selection(
    workload: Any,
    input_queue: Any,
    optimizer_state: Any,
    current_param_container: Any,
    model_state: Any,
    hyperparameters: Any,
    global_step: int,
    rng: Any,
) -> dict[str, Any]:
    """Take the next batch, split over the devices where there are several."""
    del workload, optimizer_state, current_param_container, model_state
    del hyperparameters, global_step, rng
    return shard_batch(next(input_queue))


def with_defaults(hyperparameters: Any, defaults: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``defaults``, overridden by the given hyperparameters.

    For submissions that tune themselves, whose configuration an ablation may vary.

    Raises:
        ValueError: A name is unknown, or a value not of the type of its default; an integer may
            stand for a float.
    """
    given = {} if hyperparameters is None else hyperparameters._asdict()
    if unknown := sorted(set(given) - set(defaults)):
        raise ValueError(f"Unknown hyperparameters {unknown}, known are {sorted(defaults)}.")
    return {
        name: _typed(name, given.get(name, default), type(default))
        for name, default in defaults.items()
    }


def _typed(name: str, value: Any, kind: type) -> Any:
    if type(value) is int and kind is float:
        return float(value)
    if type(value) is not kind:
        raise ValueError(f"`{name}` must be of type {kind.__name__}, got {value!r}.")
    return value


def training_loss(
    workload: Any,
    params: Any,
    model_state: Any,
    batch: dict[str, Any],
    rng: Any,
    dropout_rate: float | None = None,
    label_smoothing: float | None = None,
) -> tuple[jax.Array, Any]:
    """Return the mean loss of a batch in training mode, and the new model state.

    ``weights`` in the batch masks examples; batch-normalisation statistics are updated. Inputs and
    targets may be tuples: they are handed on as they are. ``None`` leaves dropout and smoothing to
    the workload.
    """
    # Passed only if they are chosen; otherwise the workload's own default holds.
    dropout = {} if dropout_rate is None else {"dropout_rate": dropout_rate}
    smoothing = {} if label_smoothing is None else {"label_smoothing": label_smoothing}
    logits, new_model_state = workload.model_fn(
        params, batch, model_state, mode=ForwardPassMode.TRAIN, rng=rng, update_batch_norm=True,
        **dropout,
    )  # fmt: skip
    mask = batch.get("weights")
    loss = workload.loss_fn(batch["targets"], logits, mask_batch=mask, **smoothing)
    return loss["summed"] / loss["n_valid_examples"], new_model_state


def warmup_cosine(
    peak: Any, steps: int, warmup_factor: Any, end_factor: Any
) -> Callable[[Any], jax.Array]:
    r"""Return a schedule: linear from 0 to ``peak``, then a half cosine to ``end_factor * peak``.

    .. math:: \eta_t = p \min(1, (t + 1) / w) \, (e + (1 - e) (1 + \cos(\pi \min(1, t / T))) / 2)

    with :math:`w` = ``warmup_factor * steps`` (no warm-up where it is 0) and :math:`T` =
    ``steps``. ``end_factor = 1`` keeps the rate. Unlike optax's schedules it takes traced
    arguments, so a search over them compiles once.
    """

    def schedule(count: Any) -> jax.Array:
        step = jnp.asarray(count, jnp.float32)
        warmup = jnp.minimum(1.0, (step + 1.0) / jnp.maximum(1.0, warmup_factor * steps))
        cosine = 0.5 * (1.0 + jnp.cos(math.pi * jnp.minimum(1.0, step / steps)))
        return peak * warmup * (end_factor + (1.0 - end_factor) * cosine)

    return schedule


class BaselineState(NamedTuple):
    """State of a :class:`Baseline`; the cost stays on the host, where reading it is free."""

    hyperparameters: dict[str, jax.Array]  # the numeric ones, 0-d arrays
    optimizer: optax.OptState
    gradient_evaluations: float  # so far
    training_params: Any = None  # those of the last step, if evaluation has parameters of its own


class Baseline:
    """AlgoPerf's functions around an optax transformation.

    The transformation's ``update`` gets the loss as ``value``, the gradient as ``grad``, and as
    ``value_fn`` the function from parameters to the loss of this step: the same batch, random key
    and model state. A transformation that calls ``value_fn``, a line search, spends more than one
    pass per step: such a submission exports ``report``, which counts the calls.

    Args:
        optimizer: ``optimizer(step_hint, **hyperparameters)`` returns the transformation. Numeric
            hyperparameters are traced 0-d arrays: no Python branches on them. Strings and booleans
            are themselves.
        defaults: Every hyperparameter with the value of an untuned run, which also says whether it
            is a number, a string or a boolean; a search space may leave any of them out. It may
            also name those of ``REGULARISATION``, which the optimizer does not see; each of their
            values is compiled.
        eval_params: ``eval_params(optimizer_state, params)`` returns the parameters to evaluate,
            for optimizers that train at another point (an average, say). A submission with it also
            exports ``prepare_for_eval``.
    """

    def __init__(
        self,
        optimizer: Callable[..., optax.GradientTransformation],
        defaults: Mapping[str, Hyperparameter],
        *,
        eval_params: Callable[[Any, Any], Any] | None = None,
    ) -> None:
        self.optimizer = optimizer
        self.defaults = defaults
        self._eval_params = None if eval_params is None else jax.jit(eval_params)

    def init_optimizer_state(
        self, workload: Any, model_params: Any, model_state: Any, hyperparameters: Any, rng: Any
    ) -> tuple[BaselineState, Callable]:
        """Return ``(state, step)``, the pair AlgoPerf's checkpoints expect."""
        del model_state, rng
        given = {} if hyperparameters is None else hyperparameters._asdict()
        regularisation = {name: given.pop(name) for name in REGULARISATION if name in given}
        unknown = sorted(set(given) - set(self.defaults))
        if unknown:
            known = sorted({*self.defaults, *REGULARISATION})
            raise ValueError(f"Unknown hyperparameters {unknown}, known are {known}.")
        values = {
            name: _like(default, given.get(name, default), name)
            for name, default in self.defaults.items()
        }
        static = tuple((name, v) for name, v in values.items() if isinstance(v, str | bool))
        traced = {name: v for name, v in values.items() if not isinstance(v, str | bool)}
        traced, inner = self.init_for(workload, static)(traced, model_params)
        state = BaselineState(traced, inner, 0.0)
        if self._eval_params is not None:  # from the start, for checkpoints cannot add it later
            state = state._replace(training_params=model_params)
        return state, self.step_for(workload, static, **regularisation)

    def update_params(
        self,
        workload: Any,
        current_param_container: Any,
        current_params_types: Any,
        model_state: Any,
        hyperparameters: Any,
        batch: dict[str, Any],
        loss_type: Any,
        optimizer_state: tuple[BaselineState, Callable],
        eval_results: Any,
        global_step: int,
        rng: Any,
    ) -> tuple[tuple[BaselineState, Callable], Any, Any]:
        """Take one optimizer step."""
        del current_params_types, hyperparameters, loss_type, eval_results, global_step
        state, step = optimizer_state
        params = self._training_params(state, current_param_container)
        inner, params, model_state, calls = step(
            state.hyperparameters, state.optimizer, params, model_state, batch, rng
        )
        spent = (1 + calls) * gradient_evaluations(workload, batch)
        state = state._replace(
            optimizer=inner,
            gradient_evaluations=state.gradient_evaluations + spent,
            training_params=None if self._eval_params is None else params,
        )
        return (state, step), params, model_state

    def prepare_for_eval(
        self,
        workload: Any,
        current_param_container: Any,
        current_params_types: Any,
        model_state: Any,
        hyperparameters: Any,
        loss_type: Any,
        optimizer_state: tuple[BaselineState, Callable],
        eval_results: Any,
        global_step: int,
        rng: Any,
    ) -> tuple[tuple[BaselineState, Callable], Any, Any]:
        """Return the evaluation parameters; the state keeps those that training goes on from.

        Training does not notice: the next step starts, to the last bit, where the last one ended.
        Batch-normalisation statistics stay those of the training parameters.
        """
        del workload, current_params_types, hyperparameters, loss_type, eval_results
        del global_step, rng
        if self._eval_params is None:
            return optimizer_state, current_param_container, model_state
        state = optimizer_state[0]
        params = self._eval_params(state.optimizer, state.training_params)
        return optimizer_state, params, model_state

    @staticmethod
    def report(optimizer_state: tuple[BaselineState, Callable]) -> dict[str, Any]:
        """Declare the cost: a pass over the batch per step, and one for each ``value_fn`` call.

        A call is a forward pass, and counts as a whole gradient evaluation. A submission whose
        transformation never calls ``value_fn`` need not export this: the runner counts its passes.
        """
        spent = float(optimizer_state[0].gradient_evaluations)
        return {"gradient_evaluations": spent, "episode": 0, "phase": "training"}

    def _training_params(self, state: BaselineState, current: Any) -> Any:
        return current if self._eval_params is None else state.training_params

    @functools.cache  # noqa: B019 (baselines live as long as the process)
    def init_for(self, workload: Any, static: Static = ()) -> Callable:
        """Return the jitted ``(hyperparameters, params) -> (hyperparameters, optimizer state)``.

        One program, where the transformation alone would be a call for every array of its state.
        """

        @jax.jit
        def init(hyperparameters: dict[str, jax.Array], params: Any) -> tuple[Any, optax.OptState]:
            transformation = self.optimizer(workload.step_hint, **hyperparameters, **dict(static))
            # Some keep the starting point: as a copy, for the step donates the parameters.
            return hyperparameters, jax.tree.map(jnp.copy, transformation.init(params))

        return init

    @functools.cache  # noqa: B019 (baselines live as long as the process)
    def step_for(
        self,
        workload: Any,
        static: Static = (),
        dropout_rate: float | None = None,
        label_smoothing: float | None = None,
    ) -> Callable:
        """Return the compiled step for a workload, the same function at every call.

        It returns the optimizer's state, parameters, model state and the number of calls of
        ``value_fn``, for which it waits if there can be any.
        """
        counter = CallCounter()

        # The model state is not donated: it is small, and some workloads change its shapes.
        @functools.partial(jax.jit, donate_argnums=(1, 2))
        def compiled(
            hyperparameters: dict[str, jax.Array],
            inner: optax.OptState,
            params: Any,
            model_state: Any,
            batch: dict[str, Any],
            rng: Any,
        ) -> tuple[optax.OptState, Any, Any]:
            def loss(params: Any) -> tuple[jax.Array, Any]:
                return training_loss(
                    workload, params, model_state, batch, rng, dropout_rate, label_smoothing
                )

            (value, new_model_state), grads = jax.value_and_grad(loss, has_aux=True)(params)
            value_fn = counter.counting(lambda params: loss(params)[0])
            transformation = optax.with_extra_args_support(
                self.optimizer(workload.step_hint, **hyperparameters, **dict(static))
            )
            updates, inner = transformation.update(
                grads, inner, params, value=value, grad=grads, value_fn=value_fn
            )
            return inner, *replicate((optax.apply_updates(params, updates), new_model_state))

        def step(*arguments: Any) -> tuple[optax.OptState, Any, Any, int]:
            counter.take()  # drops the calls of a step that failed
            return *compiled(*arguments), counter.take()

        return step


def _like(default: Hyperparameter, value: Any, name: str) -> str | bool | np.float32:
    """Return a hyperparameter, which must be of its default's kind; numbers in 32 bits."""
    kind = next((kind for kind in _STATIC if isinstance(default, kind)), None)
    if kind is None and not isinstance(value, str | bool):
        return np.float32(value)
    if kind is None or not isinstance(value, kind):
        raise ValueError(
            f"`{name}` must be {_STATIC.get(kind, 'a number')}, as its default {default!r} is, "
            f"got {value!r}."
        )
    return value


def gradient_evaluations(workload: Any, batch: dict[str, Any]) -> float:
    """Return the cost of one pass over ``batch``: its examples over the reference batch size."""
    graphs = getattr(batch.get("inputs"), "n_node", None)
    if graphs is not None:  # the last graph is padding
        examples = len(graphs) - 1
    else:
        examples = jax.tree.leaves(batch["targets"])[0].shape[0]
    return examples / getattr(workload, "reference_batch_size", examples)


def budget_fraction(workload: Any, train_state: Mapping[str, Any] | None) -> float:
    """Return the spent share of a self-tuning run's budget; 0 if it is not known.

    Our runner passes it, in the budget's currency. AlgoPerf's passes the time, of which its rules
    allow one and a half times the workload's own.
    """
    if train_state is None:
        return 0.0
    if "budget_fraction" in train_state:
        return train_state["budget_fraction"]
    return train_state["accumulated_submission_time"] / (1.5 * workload.max_allowed_runtime_sec)
