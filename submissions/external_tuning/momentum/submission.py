"""Heavy-ball momentum with coupled weight decay, warm-up and cosine decay."""

from typing import Any

import optax

from metaopt.bench.contract import kit

DEFAULTS = {
    "learning_rate": 0.1,
    "one_minus_momentum": 0.1,
    "weight_decay": 0.0,
    "warmup_factor": 0.0,  # of the step hint
    "end_factor": 1.0,  # of the learning rate, at the step hint; 1 keeps it
}


def optimizer(
    step_hint: int,
    *,
    learning_rate: Any,
    one_minus_momentum: Any,
    weight_decay: Any,
    warmup_factor: Any,
    end_factor: Any,
) -> optax.GradientTransformation:
    """Return ``v <- mu v + (g + delta x)``, ``x <- x - eta v``."""
    schedule = kit.warmup_cosine(learning_rate, step_hint, warmup_factor, end_factor)
    return optax.chain(
        optax.add_decayed_weights(weight_decay),
        optax.trace(decay=1.0 - one_minus_momentum),
        optax.scale_by_learning_rate(schedule),
    )


_baseline = kit.Baseline(optimizer, DEFAULTS)
get_batch_size = kit.get_batch_size
data_selection = kit.data_selection
init_optimizer_state = _baseline.init_optimizer_state
update_params = _baseline.update_params
