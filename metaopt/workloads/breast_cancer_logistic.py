"""Logistic regression on scikit-learn's tumours, a convex problem: seconds on two CPU cores."""

import flax.linen as nn
import jax

from metaopt.bench.contract.spec import LossType
from metaopt.workloads.data.scikit_learn import load_breast_cancer
from metaopt.workloads.supervised import SupervisedWorkload


class Logistic(nn.Module):
    """A linear model with one logit, started at zero."""

    @nn.compact
    def __call__(self, inputs: jax.Array) -> jax.Array:
        """Map (n, d) to logits (n,)."""
        return nn.Dense(1, name="output", kernel_init=nn.initializers.zeros)(inputs)[..., 0]


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
