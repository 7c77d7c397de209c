"""Whether two batches are the same: every bit counts, and so does where it lies."""

import numpy as np
import pytest

from metaopt.bench.contract.fingerprints import batch_fingerprint

BATCH = {
    "inputs": np.arange(12, dtype=np.float32).reshape(4, 3),
    "targets": np.array([1, 0, 1, 2], np.int32),
    "weights": np.array([True, True, False, True]),
}


def changed(name, value):
    return {**BATCH, name: value}


def test_equal_batches_have_equal_fingerprints():
    copy = {name: array.copy() for name, array in BATCH.items()}

    np.testing.assert_array_equal(batch_fingerprint(BATCH), batch_fingerprint(copy))


@pytest.mark.parametrize(
    "other",
    [
        changed("inputs", np.nextafter(BATCH["inputs"], 100, dtype=np.float32)),
        changed("inputs", BATCH["inputs"][::-1].copy()),
        changed("inputs", BATCH["inputs"].reshape(3, 4)),
        changed("targets", BATCH["targets"].astype(np.uint32)),
        changed("weights", ~BATCH["weights"]),
        {**BATCH, "inputs": BATCH["targets"], "targets": BATCH["inputs"]},
        {name: BATCH[name] for name in ("inputs", "targets")},
    ],
    ids=["a bit", "the order", "a shape", "a type", "a mask", "the names", "a part"],
)
def test_a_change_of_any_kind_changes_the_fingerprint(other):
    assert not np.array_equal(batch_fingerprint(BATCH), batch_fingerprint(other))
