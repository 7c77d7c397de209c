"""Lion: every parameter moves by the learning rate, with the sign of a momentum.

Its steps have the same length in every coordinate, so that it wants learning rates 3 to 10 times
smaller than AdamW's and, since weight decay is scaled by the learning rate, decay that is as much
stronger (Chen et al., `Symbolic Discovery of Optimization Algorithms
<https://arxiv.org/abs/2302.06675>`_, 2023, section 5). The search space is NadamW's, moved so. The
steps shrink with the schedule alone, which therefore ends at zero.
"""

from typing import Any

import optax

from metaopt.bench.contract import kit

DEFAULTS = {
    "learning_rate": 3e-4,
    "one_minus_beta1": 0.1,  # of the gradient in the update
    "one_minus_beta2": 0.01,  # of the gradient in the momentum
    "weight_decay": 0.1,
    "warmup_factor": 0.05,  # of the step hint
    "end_factor": 0.0,  # of the learning rate, at the step hint; 1 keeps it
}


def optimizer(
    step_hint: int,
    *,
    learning_rate: Any,
    one_minus_beta1: Any,
    one_minus_beta2: Any,
    weight_decay: Any,
    warmup_factor: Any,
    end_factor: Any,
) -> optax.GradientTransformation:
    """Return optax's Lion with a schedule over the step hint."""
    schedule = kit.warmup_cosine(learning_rate, step_hint, warmup_factor, end_factor)
    return optax.lion(
        schedule, b1=1.0 - one_minus_beta1, b2=1.0 - one_minus_beta2, weight_decay=weight_decay
    )


_baseline = kit.Baseline(optimizer, DEFAULTS)
get_batch_size = kit.get_batch_size
data_selection = kit.data_selection
init_optimizer_state = _baseline.init_optimizer_state
update_params = _baseline.update_params
