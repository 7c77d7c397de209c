"""Seeds: SHA-256 of named axes, and never of the contender.

Study k of every contender draws the same seeds, so its trials start from the same parameters and
see the data in the same order: comparisons are paired. Nothing here needs JAX.
"""

import hashlib
import json
from typing import Literal

Purpose = Literal["trial", "tuner"]


def derive_seed(
    campaign_seed: int, workload: str, study: int, purpose: Purpose, trial: int | None = None
) -> int:
    """Return a seed in ``[0, 2**31)`` that depends on exactly these arguments.

    Args:
        campaign_seed: The campaign's seed; any integer, 0 is a seed like any other.
        workload: The workload's name.
        study: The study's number, from 1.
        purpose: ``"trial"`` (parameters, data order, dropout) or ``"tuner"`` (the sampler).
        trial: The trial's number, from 1; given for the purpose ``"trial"`` only.

    Examples:
        >>> derive_seed(1, "digits_mlp", 1, "trial", 1)
        1147521269
        >>> derive_seed(1, "digits_mlp", 1, "trial", 2)
        1478388368
    """
    if (trial is not None) != (purpose == "trial"):
        raise ValueError(f"`trial` goes with the purpose 'trial' only, got {purpose!r}, {trial!r}.")
    axes = json.dumps([campaign_seed, workload, study, trial, purpose])
    return int.from_bytes(hashlib.sha256(axes.encode()).digest()[:4], "big") & 0x7FFFFFFF
