"""Mechanic around AdamW: the scale of AdamW's steps is learned online.

The search covers AdamW's other hyperparameters, in AdamW's ranges; the learning rate stays at 1.
The paper searches AdamW's grid, learning rate included. The learning rate matters: Mechanic starts
at 1e-6 of it, so with a small rate it takes more steps until the scale has grown.
"""

from typing import Any

import optax

from metaopt.bench.contract import kit

DEFAULTS = {
    "learning_rate": 1.0,  # multiplied by Mechanic's scale
    "one_minus_beta1": 0.1,
    "one_minus_beta2": 0.001,
    "weight_decay": 1e-4,  # AdamW's; Mechanic's own stays at optax's default
    "warmup_factor": 0.0,  # of the step hint
    "end_factor": 1.0,  # of the learning rate, at the step hint; 1 keeps it
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
    """Return optax's Mechanic around optax's AdamW with a schedule over the step hint."""
    schedule = kit.warmup_cosine(learning_rate, step_hint, warmup_factor, end_factor)
    adamw = optax.adamw(
        schedule, b1=1.0 - one_minus_beta1, b2=1.0 - one_minus_beta2, weight_decay=weight_decay
    )
    return optax.contrib.mechanize(adamw)


_baseline = kit.Baseline(optimizer, DEFAULTS)
get_batch_size = kit.get_batch_size
data_selection = kit.data_selection
init_optimizer_state = _baseline.init_optimizer_state
update_params = _baseline.update_params
