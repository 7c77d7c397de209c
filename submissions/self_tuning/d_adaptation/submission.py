"""D-Adaptation on AdamW: the learning rate is an estimate of the distance to the solution.

Untuned, as in the paper: optax's defaults, a constant schedule, no weight decay.
"""

import optax

from metaopt.bench.contract import kit


def optimizer(step_hint: int) -> optax.GradientTransformation:
    """Return optax's D-Adaptation."""
    del step_hint
    return optax.contrib.dadapt_adamw()


_baseline = kit.Baseline(optimizer, {})
get_batch_size = kit.get_batch_size
data_selection = kit.data_selection
init_optimizer_state = _baseline.init_optimizer_state
update_params = _baseline.update_params
