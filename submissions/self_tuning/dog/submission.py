"""DoG, distance over gradients: gradient descent with a step size from the path so far.

Untuned, as in the paper: optax's defaults, no decay, the last iterate and no average.
AlgoPerf's optax is too old for it: see requirements.txt.
"""

import optax

from metaopt.bench.contract import kit


def optimizer(step_hint: int) -> optax.GradientTransformation:
    """Return optax's DoG."""
    del step_hint
    return optax.contrib.dog()


_baseline = kit.Baseline(optimizer, {})
get_batch_size = kit.get_batch_size
data_selection = kit.data_selection
init_optimizer_state = _baseline.init_optimizer_state
update_params = _baseline.update_params
