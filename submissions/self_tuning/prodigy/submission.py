"""Prodigy: D-Adaptation on AdamW with an estimate that grows faster.

Untuned: optax's defaults, a constant schedule, no weight decay.
"""

import optax

from metaopt.bench.contract import kit


def optimizer(step_hint: int) -> optax.GradientTransformation:
    """Return optax's Prodigy."""
    del step_hint
    return optax.contrib.prodigy()


_baseline = kit.Baseline(optimizer, {})
get_batch_size = kit.get_batch_size
data_selection = kit.data_selection
init_optimizer_state = _baseline.init_optimizer_state
update_params = _baseline.update_params
