"""A submission to start from: gradient descent with momentum, every function explained.

Copy the folder to ``external_tuning/<name>/`` (or ``self_tuning/<name>/`` without the search space)
and change ``_transformation``. The file runs unchanged here and under AlgoPerf's runner (v0.6):

    python -m tuning check FOLDER              # the rules, each with the fix
    python -m tuning run FOLDER digits_mlp     # one training run

It uses only JAX and optax, to show the whole contract. If ``metaopt`` is installed,
``metaopt.bench.contract.kit`` provides everything except the optimizer.

The runner calls, in this order and with AlgoPerf's names:

    get_batch_size(workload_name)                                                    once
    init_optimizer_state(workload, params, model_state, hyperparameters, rng)        once
    data_selection(workload, input_queue, optimizer_state, ...)                      every step
    update_params(workload=..., current_param_container=..., batch=..., ...)         every step

The last two are on the clock, compilation included. So is the second one here; under
AlgoPerf it is free.
"""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax

try:  # the enum must be the runner's own: a member of a copy is equal to none of AlgoPerf's
    from algoperf.spec import ForwardPassMode  # pyright: ignore[reportMissingImports]
except ImportError:
    from metaopt.bench.contract.spec import ForwardPassMode

# The hyperparameters of an untuned run here; AlgoPerf takes them from the search space. With a
# search space, names must be the same there; a self-tuning submission has neither.
DEFAULTS = {"learning_rate": 0.1, "one_minus_momentum": 0.1}

# Only `get_batch_size` may depend on the workload, so nothing else may read this table.
_BATCH_SIZES = {
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
    # of this suite
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
}


def get_batch_size(workload_name: str) -> int:
    """Return the number of examples in a training batch.

    Variants of a workload have names of their own. For a name that is not known raise
    ``ValueError``: on that, and on nothing else, the runner asks for the base workload's size.
    """
    if workload_name not in _BATCH_SIZES:
        raise ValueError(f"No batch size for workload {workload_name!r}.")
    return _BATCH_SIZES[workload_name]


def init_optimizer_state(
    workload: Any, model_params: Any, model_state: Any, hyperparameters: Any, rng: jax.Array
) -> tuple[Any, Callable]:
    """Return the optimizer state: the pair (pytree of arrays and numbers, function).

    AlgoPerf's checkpoints save the first part with flax and msgpack, so it holds arrays and numbers
    in dictionaries, lists and (named) tuples: no text, no functions, no typed random keys, no empty
    arrays. The second part is never saved; after an interruption the runner takes the one of a new
    call.

    ``hyperparameters`` is a namedtuple with the names of the search space, or ``None`` for a
    self-tuning submission. ``model_state`` holds batch-normalisation statistics, or is ``None``.
    """
    del model_state, rng  # AlgoPerf's arguments by AlgoPerf's names; what is not used is deleted
    values = {**DEFAULTS, **({} if hyperparameters is None else hyperparameters._asdict())}
    # As arrays in the state, another point of the search space is another argument of the compiled
    # step and not another function: a study compiles once.
    values = {name: jnp.asarray(value, jnp.float32) for name, value in values.items()}
    transformation = _transformation(workload.step_hint, **values)
    return {"values": values, "optax": transformation.init(model_params)}, _step


def data_selection(
    workload: Any,
    input_queue: Iterator[dict[str, Any]],
    optimizer_state: tuple[Any, Callable],
    current_param_container: Any,
    model_state: Any,
    hyperparameters: Any,
    global_step: int,
    rng: jax.Array,
) -> dict[str, Any]:
    """Return the batch of this step: the next one of an endless, shuffled queue."""
    del workload, optimizer_state, current_param_container, model_state
    del hyperparameters, global_step, rng
    return next(input_queue)


def update_params(
    workload: Any,
    current_param_container: Any,
    current_params_types: Any,
    model_state: Any,
    hyperparameters: Any,
    batch: dict[str, Any],
    loss_type: Any,
    optimizer_state: tuple[Any, Callable],
    eval_results: list[tuple[int, dict[str, float]]],
    global_step: int,
    rng: jax.Array,
) -> tuple[tuple[Any, Callable], Any, Any]:
    """Take one step; return optimizer state, parameters and model state, in this order.

    Parameters keep their structure, shapes and dtypes. A last argument ``train_state=None`` would
    get the runner's clock (``is_time_remaining``, ``accumulated_submission_time``, ...). Raise
    ``TrainingCompleteError`` of the module that ``ForwardPassMode`` comes from to end a run early.
    """
    del current_params_types, hyperparameters, loss_type, eval_results, global_step
    state, step = optimizer_state
    state, params, model_state = step(
        workload, state, current_param_container, model_state, batch, rng
    )
    return (state, step), params, model_state


# Optional: `prepare_for_eval`, with the arguments of `update_params` but `batch`, is called before
# every evaluation and returns the same triple, for optimizers that are evaluated elsewhere than
# they train (at an average of their iterates, say).


def _transformation(
    step_hint: int, *, learning_rate: Any, one_minus_momentum: Any
) -> optax.GradientTransformation:
    """Return the optimizer. This is the function to change.

    Args:
        step_hint: About how many steps a run has: the length of a schedule.
        learning_rate: A traced array, as every hyperparameter: no Python branches on it.
        one_minus_momentum: Likewise.
    """
    del step_hint
    return optax.sgd(learning_rate, momentum=1.0 - one_minus_momentum)


# Compiled once, at the top level: a `jax.jit` in `update_params` would compile at every step. The
# workload is hashable, so it can be static. State and parameters are donated: their memory is used
# again, and they are not read afterwards. The model state is small, and some change its shapes.
@partial(jax.jit, static_argnums=0, donate_argnums=(1, 2))
def _step(
    workload: Any, state: Any, params: Any, model_state: Any, batch: dict[str, Any], rng: jax.Array
) -> tuple[Any, Any, Any]:
    def loss_of(params: Any) -> tuple[jax.Array, Any]:
        # The batch by position, because workloads disagree on its name; all later ones by name.
        logits, new_model_state = workload.model_fn(
            params, batch, model_state, mode=ForwardPassMode.TRAIN, rng=rng, update_batch_norm=True
        )
        # `weights` is 0 where a batch is padded.
        loss = workload.loss_fn(batch["targets"], logits, mask_batch=batch.get("weights"))
        return loss["summed"] / loss["n_valid_examples"], new_model_state

    gradient, new_model_state = jax.grad(loss_of, has_aux=True)(params)
    transformation = _transformation(workload.step_hint, **state["values"])
    updates, optax_state = transformation.update(gradient, state["optax"], params)
    params = optax.apply_updates(params, updates)
    return {"values": state["values"], "optax": optax_state}, params, new_model_state
