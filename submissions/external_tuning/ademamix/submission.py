r"""AdEMAMix: AdamW with a second, slow average of the gradients, warm-up and cosine decay.

The slow average is added with weight ``alpha``. Both ``alpha`` and the slow ``beta3`` grow over the
step hint :math:`T` as in the paper, which keeps early steps stable:

.. math:: \alpha_t = \alpha \, t / T, \quad \beta_{3,t} =
    \exp \frac{\ln\beta_1 \ln\beta_3}{(1 - t/T) \ln\beta_3 + (t/T) \ln\beta_1}

``beta3`` is given by the memory of the slow average as a share of the step hint: 1 / (1 - beta3)
steps. The paper's 0.9999 over 256,000 steps is a share of 0.04. AlgoPerf's optax is too old for it:
see requirements.txt.

Reference: Pagliardini et al., `The AdEMAMix Optimizer: Better, Faster, Older
<https://arxiv.org/abs/2409.03137>`_, 2024.
"""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from metaopt.bench.contract import kit

DEFAULTS = {
    "learning_rate": 1e-3,
    "one_minus_beta1": 0.1,
    "one_minus_beta2": 0.002,
    "alpha": 5.0,  # of the slow average; the fast one has weight 1
    "memory_factor": 0.1,  # steps that the slow average remembers, of the step hint
    "weight_decay": 1e-2,
    "warmup_factor": 0.05,  # of the step hint
    "end_factor": 0.0,  # of the learning rate, at the step hint; 1 keeps it
}


def optimizer(
    step_hint: int,
    *,
    learning_rate: Any,
    one_minus_beta1: Any,
    one_minus_beta2: Any,
    alpha: Any,
    memory_factor: Any,
    weight_decay: Any,
    warmup_factor: Any,
    end_factor: Any,
) -> optax.GradientTransformation:
    """Return optax's AdEMAMix with the paper's schedules over the step hint."""
    beta1 = 1.0 - one_minus_beta1
    beta3 = jnp.maximum(beta1, 1.0 - 1.0 / jnp.maximum(1.0, memory_factor * step_hint))

    def share(count: Any) -> jax.Array:
        return jnp.minimum(1.0, jnp.asarray(count, jnp.float32) / step_hint)

    def slow(count: Any) -> jax.Array:
        start, end, done = jnp.log(beta1), jnp.log(beta3), share(count)
        return jnp.exp(start * end / ((1.0 - done) * end + done * start))

    return optax.contrib.ademamix(
        kit.warmup_cosine(learning_rate, step_hint, warmup_factor, end_factor),
        b1=beta1,
        b2=1.0 - one_minus_beta2,
        b3=slow,
        alpha=lambda count: alpha * share(count),
        weight_decay=weight_decay,
    )


_baseline = kit.Baseline(optimizer, DEFAULTS)
get_batch_size = kit.get_batch_size
data_selection = kit.data_selection
init_optimizer_state = _baseline.init_optimizer_state
update_params = _baseline.update_params
