"""Input queues: every example once an epoch, and any position again."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metaopt.workloads.data.queues import ShuffledQueue, in_order

KEY = np.asarray(jax.random.PRNGKey(3))


def make_queue(examples=50, batch_size=8, key=KEY):
    arrays = {"inputs": jnp.arange(examples) * 10, "targets": jnp.arange(examples)}
    return ShuffledQueue(arrays, key, batch_size)


def take(queue, count):
    return [np.asarray(next(queue)["targets"]).tolist() for _ in range(count)]


def test_an_epoch_holds_every_example_at_most_once_and_drops_the_remainder():
    epochs = take(make_queue(), 12)

    for epoch in (epochs[:6], epochs[6:]):
        seen = [target for batch in epoch for target in batch]
        assert len(seen) == len(set(seen)) == 48
    assert epochs[:6] != epochs[6:]


def test_inputs_stay_with_their_targets():
    batch = next(make_queue())

    np.testing.assert_array_equal(batch["inputs"], batch["targets"] * 10)


@pytest.mark.parametrize("position", [0, 1, 5, 6, 31, 32, 33, 100])
def test_any_position_can_be_reached_again(position):
    unbroken = take(make_queue(), 110)
    queue = make_queue()

    queue.seek(position)

    assert queue.position == position
    assert take(queue, 110 - position) == unbroken[position:]


def test_the_key_decides_the_order():
    other = np.asarray(jax.random.PRNGKey(4))

    assert take(make_queue(), 3) == take(make_queue(), 3)
    assert take(make_queue(), 3) != take(make_queue(key=other), 3)


def test_a_batch_larger_than_the_data_is_refused():
    with pytest.raises(ValueError, match="batch of 8 does not fit into 7"):
        make_queue(examples=7)


def test_only_a_padded_batch_has_weights():
    batches = list(in_order({"targets": jnp.arange(1, 6)}, 2))

    assert [batch.get("weights", jnp.ones(2)).tolist() for batch in batches] == [
        [1, 1], [1, 1], [1, 0],
    ]  # fmt: skip
    assert ["weights" in batch for batch in batches] == [False, False, True]
    assert [batch["targets"].tolist() for batch in batches] == [[1, 2], [3, 4], [5, 0]]


def test_weights_of_the_data_stay_in_every_batch_and_padding_weighs_nothing():
    arrays = {"targets": jnp.arange(3), "weights": jnp.array([0.5, 2.0, 3.0])}

    batches = list(in_order(arrays, 2))

    assert [batch["weights"].tolist() for batch in batches] == [[0.5, 2.0], [3.0, 0.0]]


def test_a_last_batch_may_stay_short():
    batches = list(in_order({"targets": jnp.arange(5)}, 2, lambda batch, batch_size: batch))

    assert [{key: value.tolist() for key, value in batch.items()} for batch in batches] == [
        {"targets": [0, 1]}, {"targets": [2, 3]}, {"targets": [4]},
    ]  # fmt: skip
