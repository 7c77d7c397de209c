"""The digits of scikit-learn under a multi-layer perceptron: seconds on two CPU cores."""

from metaopt.bench.contract.spec import LossType
from metaopt.workloads.data.scikit_learn import load_digits
from metaopt.workloads.models.mlp import MLP
from metaopt.workloads.supervised import SupervisedWorkload

DIGITS_MLP = SupervisedWorkload(
    name="digits_mlp",
    summary="8x8 digits, MLP 64-64-64-10 (8,970 parameters)",
    load=load_digits,
    whole={"train": 1_079, "validation": 359, "test": 359},
    model=MLP(widths=(64, 64), outputs=10),
    loss_type=LossType.SOFTMAX_CROSS_ENTROPY,
    reference_batch_size=64,
    step_hint=400,
    eval_train_size=359,
    max_allowed_runtime_sec=10.0,
    eval_period_time_sec=0.5,
)
