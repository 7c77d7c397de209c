"""Schedule-Free AdamW: no decay; evaluated at an average of the iterates.

Letters as in Defazio et al., 2024: z is the base optimizer's iterate, x the average that is
evaluated, y between them, where gradients are taken. ``update_params`` holds y; at an evaluation
the runner gets x, and training goes on from y.

Ranges: rates are one to ten times AdamW's, which the average bears; ``beta1`` is one of the three
values that the authors name; the others are AdamW's. AlgoPerf's optax is too old for it: see
requirements.txt.
"""

from typing import Any

import optax

from metaopt.bench.contract import kit

DEFAULTS = {
    "learning_rate": 2.5e-3,
    "one_minus_beta1": 0.1,
    "one_minus_beta2": 0.001,
    "weight_decay": 0.0,
    "warmup_factor": 0.05,  # of the step hint
}


def optimizer(
    step_hint: int,
    *,
    learning_rate: Any,
    one_minus_beta1: Any,
    one_minus_beta2: Any,
    weight_decay: Any,
    warmup_factor: Any,
) -> optax.GradientTransformation:
    """Return ``optax.contrib.schedule_free_adamw`` from its parts.

    That function needs the length of the warm-up as a Python number; here it is traced. Its parts
    also count differently: the average's weight at a step comes from the next step's rate. Here it
    comes from the step's own, as the authors have it.
    """
    schedule = kit.warmup_cosine(learning_rate, step_hint, warmup_factor, end_factor=1.0)
    adamw_without_momentum = optax.chain(
        optax.scale_by_rms(
            decay=1.0 - one_minus_beta2, eps_in_sqrt=False, bias_correction=True, eps=1e-8
        ),
        optax.add_decayed_weights(weight_decay),
        optax.scale_by_learning_rate(schedule),
    )
    return optax.contrib.schedule_free(
        adamw_without_momentum,
        learning_rate=lambda count: schedule(count - 1),  # counts from 1
        b1=1.0 - one_minus_beta1,
    )


_baseline = kit.Baseline(optimizer, DEFAULTS, eval_params=optax.contrib.schedule_free_eval_params)
get_batch_size = kit.get_batch_size
data_selection = kit.data_selection
init_optimizer_state = _baseline.init_optimizer_state
update_params = _baseline.update_params
prepare_for_eval = _baseline.prepare_for_eval
