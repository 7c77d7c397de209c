"""AdamW (optax's: weight decay scaled by the learning rate), warm-up and cosine decay.

The defaults are calibrated on ``digits_mlp`` and ``digits_conv`` alone: of 100 Halton points of the
search space they have the lowest geometric mean of the final validation loss after one step hint,
0.156 over both workloads and five seeds (``python tests/performance/calibrate.py adamw``).
"""

from typing import Any

import optax

from metaopt.bench.contract import kit

DEFAULTS = {
    "learning_rate": 0.015,
    "one_minus_beta1": 0.17,
    "one_minus_beta2": 0.001,
    "weight_decay": 0.049,
    "warmup_factor": 0.0,  # of the step hint
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
    """Return optax's AdamW with a schedule over the step hint."""
    schedule = kit.warmup_cosine(learning_rate, step_hint, warmup_factor, end_factor)
    return optax.adamw(
        schedule, b1=1.0 - one_minus_beta1, b2=1.0 - one_minus_beta2, weight_decay=weight_decay
    )


_baseline = kit.Baseline(optimizer, DEFAULTS)
get_batch_size = kit.get_batch_size
data_selection = kit.data_selection
init_optimizer_state = _baseline.init_optimizer_state
update_params = _baseline.update_params
