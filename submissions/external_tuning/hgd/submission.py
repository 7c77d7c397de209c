"""Hypergradient descent on gradient descent: the learning rate follows its own gradient.

The initial learning rate is searched as for SGD. ``hyper_rate`` has the scale of a learning rate
over a squared gradient norm, so its useful values span decades: from hardly any change over a run
to one that diverges, around the paper's 1e-5 to 1e-2. With ``hyper_rate`` 0 it is SGD: the paper
tunes SGD first and then ``hyper_rate`` on top of it, which is ``hgd@paper+stagewise``.
"""

from typing import Any

import optax

from metaopt import hypergradient_descent
from metaopt.bench.contract import kit

DEFAULTS = {"learning_rate": 0.1, "hyper_rate": 1e-3, "weight_decay": 0.0}


def optimizer(
    step_hint: int, *, learning_rate: Any, hyper_rate: Any, weight_decay: Any
) -> optax.GradientTransformation:
    """Return Baydin et al.'s Algorithm 4 on the gradient with coupled weight decay."""
    del step_hint
    return optax.chain(
        optax.add_decayed_weights(weight_decay), hypergradient_descent(learning_rate, hyper_rate)
    )


_baseline = kit.Baseline(optimizer, DEFAULTS)
get_batch_size = kit.get_batch_size
data_selection = kit.data_selection
init_optimizer_state = _baseline.init_optimizer_state
update_params = _baseline.update_params
