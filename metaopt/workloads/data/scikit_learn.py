"""Data sets that ship inside scikit-learn, split into training, validation and test examples."""

import numpy as np

from metaopt.workloads.data.arrays import Arrays

_SPLIT_SEED = 0  # the splits are part of the problem, not of a run


def load_digits() -> Arrays:
    """Load 8 x 8 images of ten digits, scaled to [0, 1]: 1,079 / 359 / 359 examples.

    Inputs are (n, 64) of float32, targets (n,) of int32 from 0 to 9.
    """
    from sklearn import datasets

    inputs, targets = datasets.load_digits(return_X_y=True)
    return split_at_random(np.asarray(inputs, np.float32) / 16.0, np.asarray(targets, np.int32))


def load_breast_cancer() -> Arrays:
    """Load 30 standardised features of two classes of tumours: 341 / 114 / 114 examples.

    Inputs are (n, 30) of float32, targets (n,) of int32, 0 or 1.
    """
    from sklearn import datasets

    inputs, targets = datasets.load_breast_cancer(return_X_y=True)
    arrays = split_at_random(np.asarray(inputs, np.float32), np.asarray(targets, np.int32))
    mean, deviation = arrays.train["inputs"].mean(0), arrays.train["inputs"].std(0)

    def standardise(part: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        return {**part, "inputs": (part["inputs"] - mean) / deviation}

    return Arrays(*(standardise(p) for p in (arrays.train, arrays.validation, arrays.test)))


def split_at_random(inputs: np.ndarray, targets: np.ndarray, share: float = 0.2) -> Arrays:
    """Split examples into training, validation and test examples, always in the same way.

    Args:
        inputs: An array (n, ...).
        targets: An array (n, ...).
        share: The share of the examples that validate; as many test, and the rest train.
    """
    order = np.random.default_rng(_SPLIT_SEED).permutation(len(inputs))
    held_out = round(share * len(inputs))
    parts = order[2 * held_out :], order[held_out : 2 * held_out], order[:held_out]
    return Arrays(*({"inputs": inputs[part], "targets": targets[part]} for part in parts))


def load_noisy_digits(noise: float, copies: int) -> Arrays:
    """Load the digits with normal noise: copies of 1,297, 250 and 250 different images.

    Inputs are (n, 8, 8, 1) of float32, standardised by the training images' mean and deviation;
    targets are (n,) of int32 from 0 to 9. Clean digits are too easy to tell optimizers apart.

    Args:
        noise: The standard deviation of the noise; pixels are in [0, 1].
        copies: How often the training split holds every image, each time with other noise.
    """
    from sklearn import datasets

    inputs, targets = datasets.load_digits(return_X_y=True)
    images = np.asarray(inputs, np.float32).reshape(-1, 8, 8, 1) / 16.0
    clean = split_at_random(images, np.asarray(targets, np.int32), share=250 / len(images))
    random = np.random.default_rng(_SPLIT_SEED)

    def noisy(part: dict[str, np.ndarray], times: int) -> dict[str, np.ndarray]:
        images = np.tile(part["inputs"], (times, 1, 1, 1))
        images = images + noise * random.standard_normal(images.shape, np.float32)
        return {"inputs": images, "targets": np.tile(part["targets"], times)}

    parts = [noisy(clean.train, copies), noisy(clean.validation, 1), noisy(clean.test, 1)]
    mean, deviation = parts[0]["inputs"].mean(), parts[0]["inputs"].std()
    return Arrays(*({**part, "inputs": (part["inputs"] - mean) / deviation} for part in parts))
