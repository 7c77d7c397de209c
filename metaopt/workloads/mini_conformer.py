"""AlgoPerf's ``librispeech_conformer`` in miniature: lines of digits, a Conformer, CTC.

As there, inputs and targets are pairs with paddings, tokens are floats, the last batch of an
evaluation is shorter, and training moves the running averages in any case. The first step changes
their shape, from (d,) to (1, 1, d), so a step is compiled twice.
"""

import functools

import jax

from metaopt.bench.contract.spec import LossType
from metaopt.workloads.data.digit_lines import COUNTS, TOKENS, load_lines
from metaopt.workloads.data.queues import Batch
from metaopt.workloads.losses import Loss
from metaopt.workloads.models.conformer import Conformer
from metaopt.workloads.models.parameter_types import algoperf_types
from metaopt.workloads.models.speech import ConformerNetwork
from metaopt.workloads.supervised import SupervisedWorkload

_LOSS = Loss(LossType.CTC_LOSS)


def stay_short(batch: Batch, batch_size: int) -> Batch:
    """Return the batch as it is: the last one of an evaluation has no padding."""
    del batch_size
    return batch


def ctc_loss(labels: tuple, logits: tuple, mask: jax.Array | None) -> jax.Array:
    """Return the loss of a token."""
    loss = _LOSS(labels, logits, mask)
    return loss["summed"] / loss["n_valid_examples"]


speech = functools.partial(
    SupervisedWorkload,
    load=load_lines,
    whole=COUNTS,
    loss_type=LossType.CTC_LOSS,
    # A digit is a word: the rate of wrong tokens.
    metrics={"ctc_loss": ctc_loss, "wer": _LOSS.metrics["error_rate"]},
    target_metric="wer",
    pad=stay_short,
    has_modes=True,
    dropout_rate=0.1,
    parameter_types=algoperf_types,
    output_layer="Dense_0",
    reference_batch_size=16,
    step_hint=300,
    eval_train_size=60,
    max_allowed_runtime_sec=60.0,
    eval_period_time_sec=3.0,
)

MINI_CONFORMER = speech(
    name="mini_conformer",
    summary="lines of digits, Conformer with CTC (17,899 parameters)",
    model=Conformer(tokens=TOKENS, width=32, inner=64, heads=2, blocks=1),
    network_type=ConformerNetwork,
)
