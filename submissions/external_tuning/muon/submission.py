"""Muon: orthogonalised momentum for matrices and convolutions, AdamW for everything else.

Matrices are all parameters with two axes, the first and the last layer's and embeddings included;
convolutions are those with four, (height, width, in, out), as matrices with ``out`` columns.
Updates are scaled to the size of AdamW's (``consistent_rms``), so one learning rate serves both
and has AdamW's range. AlgoPerf's optax is too old for it: see requirements.txt.
"""

from typing import Any

import jax
import optax

from metaopt.bench.contract import kit

DEFAULTS = {
    "learning_rate": 2e-3,
    "one_minus_momentum": 0.05,
    "weight_decay": 1e-2,  # of what is orthogonalised, scaled by the learning rate
    "warmup_factor": 0.0,  # of the step hint
    "end_factor": 1.0,  # of the learning rate, at the step hint; 1 keeps it
}
ADAMW_RMS = 0.2  # of an update of AdamW's over its learning rate (Liu et al., 2025)


def optimizer(
    step_hint: int,
    *,
    learning_rate: Any,
    one_minus_momentum: Any,
    weight_decay: Any,
    warmup_factor: Any,
    end_factor: Any,
) -> optax.GradientTransformation:
    """Return optax's Muon with a schedule over the step hint."""
    schedule = kit.warmup_cosine(learning_rate, step_hint, warmup_factor, end_factor)
    return optax.contrib.muon(
        schedule,
        beta=1.0 - one_minus_momentum,
        weight_decay=weight_decay,
        muon_weight_dimension_numbers=_as_matrices,
        consistent_rms=ADAMW_RMS,
    )


def _as_matrices(params: Any) -> Any:
    """Return the axes of rows and columns of every parameter; ``None`` for those of AdamW."""
    numbers = optax.contrib.MuonDimensionNumbers
    axes = {2: numbers(0, 1), 4: numbers((0, 1, 2), 3)}
    return jax.tree.map(lambda leaf: axes.get(leaf.ndim), params)


_baseline = kit.Baseline(optimizer, DEFAULTS)
get_batch_size = kit.get_batch_size
data_selection = kit.data_selection
init_optimizer_state = _baseline.init_optimizer_state
update_params = _baseline.update_params
