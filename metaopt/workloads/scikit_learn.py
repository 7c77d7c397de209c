"""Workloads on data that ships inside scikit-learn: seconds to a minute on two CPU cores."""

import flax.linen as nn
import jax
import numpy as np

from metaopt.bench.contract.spec import LossType
from metaopt.workloads.supervised import Arrays, SupervisedWorkload

# Made for ReLU. With LeCun's, the paper's setting on MNIST stalls for some seeds: 4.6e-4 after 16
# episodes where the others reach 9e-5 (measured).
_HE = nn.initializers.he_normal()
_SPLIT_SEED = 0  # the splits are part of the problem, not of a run


class MLP(nn.Module):
    """Dense layers with ReLU between them; He's truncated-normal kernels, zero biases."""

    widths: tuple[int, ...]  # hidden layers
    outputs: int

    @nn.compact
    def __call__(self, inputs: jax.Array) -> jax.Array:
        """Map (n, d) to logits (n, outputs)."""
        hidden = inputs
        for index, width in enumerate(self.widths):
            hidden = nn.relu(nn.Dense(width, name=f"hidden_{index}", kernel_init=_HE)(hidden))
        return nn.Dense(self.outputs, name="output", kernel_init=_HE)(hidden)


class Logistic(nn.Module):
    """A linear model with one logit, started at zero."""

    @nn.compact
    def __call__(self, inputs: jax.Array) -> jax.Array:
        """Map (n, d) to logits (n,)."""
        return nn.Dense(1, name="output", kernel_init=nn.initializers.zeros)(inputs)[..., 0]


def load_digits() -> Arrays:
    """Load 8 x 8 images of ten digits, scaled to [0, 1]: 1,079 / 359 / 359 examples."""
    from sklearn import datasets

    inputs, targets = datasets.load_digits(return_X_y=True)
    return split(np.asarray(inputs, np.float32) / 16.0, np.asarray(targets, np.int32))


def load_breast_cancer() -> Arrays:
    """Load 30 standardised features of two classes of tumours: 341 / 114 / 114 examples."""
    from sklearn import datasets

    inputs, targets = datasets.load_breast_cancer(return_X_y=True)
    arrays = split(np.asarray(inputs, np.float32), np.asarray(targets, np.int32))
    mean, deviation = arrays.train["inputs"].mean(0), arrays.train["inputs"].std(0)

    def standardise(part: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        return {**part, "inputs": (part["inputs"] - mean) / deviation}

    return Arrays(*(standardise(p) for p in (arrays.train, arrays.validation, arrays.test)))


def split(inputs: np.ndarray, targets: np.ndarray, share: float = 0.2) -> Arrays:
    """Shuffle; let a ``share`` of the examples validate, as many test, and the rest train."""
    order = np.random.default_rng(_SPLIT_SEED).permutation(len(inputs))
    held_out = round(share * len(inputs))
    parts = order[2 * held_out :], order[held_out : 2 * held_out], order[:held_out]
    return Arrays(*({"inputs": inputs[part], "targets": targets[part]} for part in parts))


DIGITS_MLP = SupervisedWorkload(
    name="digits_mlp",
    summary="8x8 digits, MLP 64-64-64-10 (8,970 parameters)",
    load=load_digits,
    whole={"train": 1_079, "validation": 359, "test": 359},
    model=MLP(widths=(64, 64), outputs=10),
    loss_type=LossType.SOFTMAX_CROSS_ENTROPY,
    reference_batch_size=64,
    step_hint=400,
    max_allowed_runtime_sec=10.0,
    eval_period_time_sec=0.5,
)

BREAST_CANCER_LOGISTIC = SupervisedWorkload(
    name="breast_cancer_logistic",
    summary="30 features of tumours, logistic regression (31 parameters; convex)",
    load=load_breast_cancer,
    whole={"train": 341, "validation": 114, "test": 114},
    model=Logistic(),
    loss_type=LossType.SIGMOID_CROSS_ENTROPY,
    reference_batch_size=64,
    step_hint=200,
    max_allowed_runtime_sec=5.0,
    eval_period_time_sec=0.25,
)
