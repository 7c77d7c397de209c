"""Generated clicks in the form of Criteo's, whose probabilities are known.

Letters: n impressions, j one of 26 categorical columns with v_j values of power-law frequency.

Each value of a column stands for a vector of normal numbers. A teacher adds up the vectors of an
impression and a linear map of its 13 counts; a layer of tanh and a linear layer give the log odds.
"""

import numpy as np

from metaopt.workloads.data.arrays import Arrays

COUNTS, CATEGORIES = 13, 26
# Each value has a row of its own in a table of this size, which ids are reduced to (modulo).
ROWS = 640
_POWER = 1.2  # of the frequencies: the k-th value has a share proportional to k**-_POWER
_LATENT, _HIDDEN = 8, 16
_LOG_ODDS_MEAN, _LOG_ODDS_DEVIATION = -1.4, 3.0
_MEAN, _DEVIATION = 0.806, 0.520  # of log(1 + count), rounded
_ID_RANGE = 4096  # times ROWS: below 2**24, so ids are exact as float32


def generate_clicks(examples: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return inputs (n, 39), clicks (n,) and the true probabilities of a click (n,).

    Inputs are 13 columns of log(1 + count), then 26 of ids as floats. The teacher is the same for
    every seed.
    """
    teacher, random = np.random.default_rng(0), np.random.default_rng([1, seed])
    values = teacher.integers(4, 40, CATEGORIES)  # v_j
    firsts = np.cumsum(values) - values  # the first row of each column
    ids = np.arange(ROWS) + ROWS * teacher.integers(0, _ID_RANGE, ROWS)
    vectors = teacher.standard_normal((ROWS, _LATENT)) / np.sqrt(CATEGORIES)
    of_counts = teacher.standard_normal((COUNTS, _HIDDEN)) / np.sqrt(COUNTS)
    of_vector = teacher.standard_normal((_LATENT, _HIDDEN))
    output = teacher.standard_normal(_HIDDEN) / np.sqrt(_HIDDEN)

    counts = np.log1p(random.lognormal(0.0, 1.0, (examples, COUNTS)))
    shares = [np.arange(1, size + 1) ** -_POWER for size in values]
    rows = np.stack(
        [
            first + random.choice(len(share), examples, p=share / share.sum())
            for first, share in zip(firsts, shares, strict=True)
        ],
        axis=1,
    )
    latent = vectors[rows].sum(1) @ of_vector + (counts - _MEAN) / _DEVIATION @ of_counts
    log_odds = _LOG_ODDS_MEAN + _LOG_ODDS_DEVIATION * np.tanh(0.5 * latent) @ output
    probabilities = 1.0 / (1.0 + np.exp(-log_odds))
    clicks = random.random(examples) < probabilities
    inputs = np.concatenate([counts, ids[rows]], axis=1)
    return inputs.astype(np.float32), clicks.astype(np.float32), probabilities


def load_clicks(train: int, held_out: int) -> Arrays:
    """Generate the splits.

    Args:
        train: The number of training examples.
        held_out: The number of validation examples, and of test examples.
    """
    parts = [generate_clicks(size, seed) for seed, size in enumerate((train, held_out, held_out))]
    return Arrays(*({"inputs": inputs, "targets": clicks} for inputs, clicks, _ in parts))
