"""Load a packaged submission as AlgoPerf does and take a step, in a process that has nothing else.

Run as a script, isolated, in an empty folder, and with nothing of this project to import. Its one
argument is JSON: ``root``, the folder that stands for the root of the other repository; ``module``,
the submission's name below it; ``hyperparameters``, a point of its search space or null.
"""

import collections
import enum
import importlib
import inspect
import json
import sys
from types import SimpleNamespace

FORBIDDEN = ("metaopt", "tuning", "analysis")
NAMES = ("mnist", "ogbg", "wmt", "fastmri", "criteo1tb")  # a submission knows one of them
TRIES = 3  # the first rate of a warm-up may be 0


class _Forbid:
    """The first finder: modules of this project cannot be imported."""

    @staticmethod
    def find_spec(name, path=None, target=None):
        if name.split(".")[0] in FORBIDDEN:
            raise ModuleNotFoundError(f"the package still needs {name!r}")


class LossType(enum.Enum):
    """The member of AlgoPerf's enum that the model needs."""

    SOFTMAX_CROSS_ENTROPY = 0


class LinearModel:
    """Softmax regression with AlgoPerf's interface: 4 features, 3 classes."""

    step_hint = 100
    num_train_examples = 1000
    max_allowed_runtime_sec = 60.0
    eval_period_time_sec = 10.0
    eval_batch_size = 64
    target_metric_name = "loss"
    validation_target_value = 0.0
    test_target_value = 0.0
    loss_type = LossType.SOFTMAX_CROSS_ENTROPY
    metrics_logger = None

    @property
    def param_shapes(self):
        """Shapes of the parameters, as leaves with ``shape_tuple``."""
        kernel, bias = (SimpleNamespace(shape_tuple=shape) for shape in ((4, 3), (3,)))
        return {"dense": {"kernel": kernel, "bias": bias}}

    @property
    def model_params_types(self):
        """What each parameter is for."""
        kinds = enum.Enum("ParameterType", "WEIGHT BIAS")
        return {"dense": {"kernel": kinds.WEIGHT, "bias": kinds.BIAS}}

    def is_output_params(self, param_key):
        """Whether a parameter is the output layer's."""
        return param_key == "dense"

    def init_model_fn(self, rng):
        """Return fresh parameters and no model state."""
        import jax

        kernel = jax.random.normal(rng, (4, 3)) / 2.0
        return {"dense": {"kernel": kernel, "bias": jax.numpy.zeros(3)}}, None

    def model_fn(self, params, batch, model_state, mode, rng, update_batch_norm,
                 dropout_rate=0.0, **_):  # fmt: skip
        """Return logits; refuses anything but training."""
        if mode.name != "TRAIN":
            raise ValueError(f"a step is taken in training mode, not in {mode}")
        dense = params["dense"]
        return batch["inputs"] @ dense["kernel"] + dense["bias"], model_state

    def loss_fn(self, label_batch, logits_batch, mask_batch=None, label_smoothing=0.0):
        """Return the cross-entropy."""
        import jax

        hot = jax.nn.one_hot(label_batch, 3) * (1.0 - label_smoothing) + label_smoothing / 3
        each = -(hot * jax.nn.log_softmax(logits_batch)).sum(axis=-1)
        mask = jax.numpy.ones_like(each) if mask_batch is None else mask_batch
        return {
            "summed": (each * mask).sum(),
            "n_valid_examples": mask.sum(),
            "per_example": each * mask,
        }


def take_step(module, hyperparameters):
    """Take one optimizer step; up to three while nothing changes.

    Returns:
        The parameters before and after.
    """
    import jax
    import numpy as np

    workload = LinearModel()
    size = _batch_size(module)
    random = np.random.default_rng(0)
    inputs = random.normal(size=(size, 4)).astype(np.float32)
    batch = {"inputs": jax.numpy.asarray(inputs), "targets": jax.numpy.arange(size) % 3}
    queue = iter(lambda: dict(batch), None)
    if hyperparameters is not None:
        point = collections.namedtuple("Hyperparameters", hyperparameters)
        hyperparameters = point(**hyperparameters)
    rng = jax.random.PRNGKey(0)
    params, model_state = workload.init_model_fn(rng)
    before = jax.tree.map(np.array, params)
    state = module.init_optimizer_state(workload, params, model_state, hyperparameters, rng)
    for step in range(TRIES):
        given = module.data_selection(
            workload, queue, state, params, model_state, hyperparameters, step, rng
        )
        arguments = {
            "workload": workload, "current_param_container": params,
            "current_params_types": workload.model_params_types, "model_state": model_state,
            "hyperparameters": hyperparameters, "loss_type": workload.loss_type,
            "optimizer_state": state, "eval_results": [], "global_step": step, "rng": rng,
        }  # fmt: skip
        update = dict(arguments, batch=given)
        if "train_state" in inspect.signature(module.update_params).parameters:
            update["train_state"] = {
                "validation_goal_reached": False, "test_goal_reached": False,
                "is_time_remaining": True, "last_eval_time": 0, "training_complete": False,
                "accumulated_submission_time": 0.0, "accumulated_eval_time": 0.0,
                "accumulated_logging_time": 0.0, "last_step_end_time": 0.0,
            }  # fmt: skip
        state, params, model_state = module.update_params(**update)
        after = jax.tree.map(np.array, params)
        if not jax.tree.all(jax.tree.map(np.array_equal, before, after)):
            break
    return before, after


def _batch_size(module):
    for name in NAMES:
        try:
            return module.get_batch_size(name)
        except (ValueError, KeyError):
            continue
    raise ValueError(f"get_batch_size knows none of AlgoPerf's workloads {', '.join(NAMES)}")


def check_step(before, after):
    """Raise ``ValueError`` unless shapes are kept, values are finite and something changed."""
    import jax
    import numpy as np

    if jax.tree.map(np.shape, before) != jax.tree.map(np.shape, after):
        raise ValueError("a step changed the parameters' shapes")
    pairs = list(zip(jax.tree.leaves(before), jax.tree.leaves(after), strict=True))
    if not all(np.isfinite(new).all() for _, new in pairs):
        raise ValueError("after a step the parameters are not finite")
    if all(np.array_equal(old, new) for old, new in pairs):
        raise ValueError(f"{TRIES} steps changed no parameter")


def main(argument):
    """Load, step, check."""
    given = SimpleNamespace(**json.loads(argument))
    sys.meta_path.insert(0, _Forbid)
    sys.path.insert(0, given.root)
    module = importlib.import_module(given.module)
    check_step(*take_step(module, given.hyperparameters))
    assert not set(FORBIDDEN) & set(sys.modules)


if __name__ == "__main__":
    main(sys.argv[1])
