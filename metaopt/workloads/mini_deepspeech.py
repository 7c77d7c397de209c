"""AlgoPerf's ``librispeech_deepspeech`` in miniature: lines of digits, a recurrent network, CTC.

Batches, and running averages that change their shape, are those of
:mod:`~metaopt.workloads.mini_conformer`.
"""

from metaopt.workloads.data.digit_lines import TOKENS
from metaopt.workloads.mini_conformer import speech
from metaopt.workloads.models.deepspeech import DeepSpeech
from metaopt.workloads.models.speech import DeepSpeechNetwork

MINI_DEEPSPEECH = speech(
    name="mini_deepspeech",
    summary="lines of digits, bidirectional LSTM with CTC (18,859 parameters)",
    model=DeepSpeech(tokens=TOKENS, width=48, recurrent=1, dense=1),
    network_type=DeepSpeechNetwork,
)
