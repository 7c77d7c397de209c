"""MoMo-Adam: Adam whose step is a Polyak step for the averaged model of the loss, capped.

Untuned, as in Schaipp et al., 2023 (arXiv 2305.07583): optax's defaults, the cap 0.01 constant,
zero as the lower bound of the loss, no weight decay.
AlgoPerf's optax is too old for it: see requirements.txt.
"""

import optax

from metaopt.bench.contract import kit


def optimizer(step_hint: int) -> optax.GradientTransformation:
    """Return optax's MoMo-Adam."""
    del step_hint
    return optax.contrib.momo_adam()


_baseline = kit.Baseline(optimizer, {})
get_batch_size = kit.get_batch_size
data_selection = kit.data_selection
init_optimizer_state = _baseline.init_optimizer_state
update_params = _baseline.update_params
