"""Lines of handwritten digits, read from left to right as if they were speech.

A column of an image stands for a moment and a row for a frequency: a line of c columns is 8 c
samples. Tokens are digits plus 1, because token 0 is CTC's blank.
"""

import numpy as np

from metaopt.workloads.data.arrays import Arrays

ROWS = 8  # samples of a column
DIGITS = 3  # of the longest line
COLUMNS = 32  # three digits of 8, at most 2 empty columns before the first and after each
TOKENS = 11  # the blank and ten digits
COUNTS = {"train": 3_000, "validation": 250, "test": 200}
MEAN, DEVIATION = 0.3, 0.35  # of the samples, about
_NOISE = 0.1  # standard deviation; pixels reach from 0 to 1
_SHARES = (0.7, 0.85)  # of the digits: those of training lines end here, then those of validation


def load_lines() -> Arrays:
    """Draw lines of two or three digits, always the same: 3,000 / 250 / 200.

    Splits have no digit's image in common. ``inputs`` are ``(samples, paddings)``, both (n, 256);
    ``targets`` are ``(tokens, paddings)``, both (n, 3). All are float32, a padding is 1 where
    nothing is, and tokens are 0 there.
    """
    from sklearn import datasets

    inputs, digits = datasets.load_digits(return_X_y=True)
    images = np.asarray(inputs, np.float32).reshape(-1, ROWS, ROWS) / 16.0
    generator = np.random.default_rng(0)
    order = generator.permutation(len(images))
    parts = np.split(order, [round(share * len(images)) for share in _SHARES])
    splits = {}
    for (split, count), part in zip(COUNTS.items(), parts, strict=True):
        lines = [_line(images[part], np.asarray(digits)[part], generator) for _ in range(count)]
        samples, paddings, tokens, token_paddings = map(np.stack, zip(*lines, strict=True))
        splits[split] = {"inputs": (samples, paddings), "targets": (tokens, token_paddings)}
    return Arrays(**splits)


def _line(
    images: np.ndarray, digits: np.ndarray, generator: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return samples, their paddings, tokens and their paddings of a line."""
    columns = np.zeros((COLUMNS, ROWS), np.float32)
    chosen = generator.integers(len(images), size=generator.integers(2, DIGITS + 1))
    end = int(generator.integers(3))
    for digit in chosen:
        columns[end : end + ROWS] = images[digit].T
        end += ROWS + int(generator.integers(2))
    columns[:end] += generator.normal(scale=_NOISE, size=(end, ROWS))
    tokens = np.zeros(DIGITS, np.float32)
    tokens[: len(chosen)] = digits[chosen] + 1
    return (
        columns.ravel(),
        _padding(end * ROWS, columns.size),
        tokens,
        _padding(len(chosen), DIGITS),
    )


def _padding(length: int, size: int) -> np.ndarray:
    """Return 0 up to ``length``, then 1."""
    return (np.arange(size) >= length).astype(np.float32)
