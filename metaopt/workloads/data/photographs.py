"""scikit-learn's two photographs in grey at half their size, as a file beside this one.

``python -m metaopt.workloads.data.photographs`` makes the file again. It needs Pillow, which
reading the file does not.
"""

import hashlib
from pathlib import Path

import numpy as np

FILE = Path(__file__).with_name("photographs.npz")
SHA256 = "16861aab99e9746131c5dcaf0bd3057d81b6a9fb77631d5f8a5e3b644c00fcb3"  # of the array's bytes
_LUMINANCE = 0.299, 0.587, 0.114  # of red, green and blue (ITU-R BT.601)


def load_photographs() -> np.ndarray:
    """Read the photographs, (2, 213, 320) of uint8.

    Raises:
        ValueError: The file holds something else.
    """
    with np.load(FILE, allow_pickle=False) as file:
        photographs = file["photographs"]
    digest = hashlib.sha256(photographs.tobytes()).hexdigest()
    if digest != SHA256:
        raise ValueError(f"{FILE}: the SHA-256 of the array must be {SHA256}, got {digest}.")
    return photographs


def make_photographs() -> np.ndarray:
    """Return the photographs in grey, each pixel the mean of 2 x 2 of the original."""
    from sklearn.datasets import load_sample_images

    grey = np.stack([np.asarray(image) @ _LUMINANCE for image in load_sample_images().images])
    count, height, width = grey.shape
    height, width = height // 2, width // 2
    squares = grey[:, : 2 * height, : 2 * width].reshape(count, height, 2, width, 2)
    return squares.mean((2, 4)).round().astype(np.uint8)


if __name__ == "__main__":
    made = make_photographs()
    np.savez_compressed(FILE, photographs=made)
    print(f"{FILE}: SHA-256 {hashlib.sha256(made.tobytes()).hexdigest()}")
