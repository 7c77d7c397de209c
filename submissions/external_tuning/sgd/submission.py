"""Stochastic gradient descent with coupled weight decay, warm-up and cosine decay."""

from typing import Any

import optax

from metaopt.bench.contract import kit

DEFAULTS = {
    "learning_rate": 0.1,
    "weight_decay": 0.0,
    "warmup_factor": 0.0,  # of the step hint
    "end_factor": 1.0,  # of the learning rate, at the step hint; 1 keeps it
}


def optimizer(
    step_hint: int, *, learning_rate: Any, weight_decay: Any, warmup_factor: Any, end_factor: Any
) -> optax.GradientTransformation:
    """Return ``x <- x - eta (g + delta x)``."""
    schedule = kit.warmup_cosine(learning_rate, step_hint, warmup_factor, end_factor)
    return optax.chain(
        optax.add_decayed_weights(weight_decay), optax.scale_by_learning_rate(schedule)
    )


_baseline = kit.Baseline(optimizer, DEFAULTS)
get_batch_size = kit.get_batch_size
data_selection = kit.data_selection
init_optimizer_state = _baseline.init_optimizer_state
update_params = _baseline.update_params
