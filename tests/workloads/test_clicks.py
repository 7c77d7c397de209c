"""The generated clicks of mini_criteo: their true probabilities bound every model's loss."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss

from metaopt.workloads.data.clicks import CATEGORIES, COUNTS, ROWS, generate_clicks, load_clicks
from metaopt.workloads.mini_criteo import Dlrm

KEY = jax.random.PRNGKey(0)


@pytest.fixture(scope="module")
def clicks():
    return generate_clicks(20_000, seed=7)


def entropy(p):
    return -(p * np.log(p) + (1 - p) * np.log(1 - p))


def test_the_loss_of_the_true_probabilities_is_their_entropy(clicks):
    _, targets, probabilities = clicks

    found = log_loss(targets, probabilities)

    # A click's loss deviates from the entropy by the log odds, with the variance of a coin.
    odds = np.log(probabilities / (1 - probabilities))
    error = np.sqrt((probabilities * (1 - probabilities) * odds**2).sum()) / len(targets)
    assert found == pytest.approx(entropy(probabilities).mean(), abs=4 * error)
    assert error < 0.005


def test_no_constant_and_no_linear_model_reaches_the_bayes_loss(clicks):
    inputs, targets, probabilities = clicks
    bayes = log_loss(targets, probabilities)
    constant = log_loss(targets, np.full(len(targets), targets.mean()))
    values = (inputs[:, COUNTS:] % ROWS).astype(int)
    one_hot = np.zeros((len(inputs), ROWS), np.float32)
    np.put_along_axis(one_hot, values, 1.0, axis=1)
    features = np.concatenate([inputs[:, :COUNTS], one_hot], axis=1)

    model = LogisticRegression(C=0.1, max_iter=200).fit(features[:15_000], targets[:15_000])
    linear = log_loss(targets[15_000:], model.predict_proba(features[15_000:])[:, 1])

    assert bayes + 0.01 < linear < constant - 0.05


def test_among_impressions_of_about_one_probability_that_share_is_clicked(clicks):
    _, targets, probabilities = clicks
    order = np.argsort(probabilities).reshape(20, -1)

    clicked, expected = targets[order].mean(1), probabilities[order].mean(1)

    deviation = np.sqrt((probabilities * (1 - probabilities))[order].sum(1)) / order.shape[1]
    assert np.abs((clicked - expected) / deviation).max() < 4
    error = np.sqrt((probabilities * (1 - probabilities)).sum()) / len(targets)
    assert targets.mean() == pytest.approx(probabilities.mean(), abs=4 * error)


def test_ids_are_whole_numbers_that_keep_a_row_of_their_own(clicks):
    inputs, *_ = clicks
    ids = inputs[:, COUNTS:].astype(np.int64)

    assert inputs.shape[1] == COUNTS + CATEGORIES == 39
    np.testing.assert_array_equal(ids, inputs[:, COUNTS:])
    assert ids.min() >= 0 and ROWS < ids.max() < 2**24  # exact as float32
    assert len(np.unique(ids)) == len(np.unique(ids % ROWS))
    rows = [set(np.unique(column % ROWS)) for column in ids.T]
    assert sum(map(len, rows)) == len(set.union(*rows)) <= ROWS


def test_values_have_power_law_frequencies(clicks):
    inputs, *_ = clicks
    column = max(inputs[:, COUNTS:].T, key=lambda column: len(np.unique(column)))

    shares = np.sort(np.unique(column, return_counts=True)[1])[::-1] / len(column)

    expected = np.arange(1, len(shares) + 1) ** -1.2
    np.testing.assert_allclose(shares, expected / expected.sum(), atol=0.012)


def test_splits_share_the_teacher_and_differ_in_their_impressions():
    arrays = load_clicks(train=500, held_out=400)
    parts = list(vars(arrays).values())

    assert [len(part["targets"]) for part in parts] == [500, 400, 400]
    ids = [set(np.unique(part["inputs"][:, COUNTS])) for part in parts]
    assert ids[0] & ids[1] & ids[2]
    counts = [set(part["inputs"][:, 0]) for part in parts]
    assert not counts[0] & counts[1] and not counts[1] & counts[2]
    again = load_clicks(train=500, held_out=400)
    np.testing.assert_array_equal(again.test["inputs"], parts[2]["inputs"])


def test_ids_count_modulo_the_rows_of_the_table(clicks):
    inputs = jnp.asarray(clicks[0][:8])
    model = Dlrm(rows=64, bottom=(4,), top=(4,))
    variables = model.init(KEY, inputs)

    shifted = inputs.at[:, COUNTS:].add(64 * 1000)

    np.testing.assert_array_equal(model.apply(variables, inputs), model.apply(variables, shifted))


def test_the_products_are_those_of_every_pair_of_vectors(clicks):
    inputs = jnp.asarray(clicks[0][:3])
    model = Dlrm(rows=ROWS, bottom=(4,), top=(5,))
    variables = model.init(KEY, inputs)
    params = jax.tree.map(np.asarray, variables["params"])

    def dense(name, values):
        return values @ params[name]["kernel"] + params[name]["bias"]

    expected = []
    for row in np.asarray(inputs):
        hidden = np.maximum(dense("Dense_0", row[:COUNTS]), 0)
        table = params["embedding_table"]
        vectors = [hidden, *table[row[COUNTS:].astype(int) % ROWS]]
        pairs = [vectors[i] @ vectors[j] for i in range(27) for j in range(i, 27)]
        hidden = np.maximum(dense("Dense_1", np.array([*hidden, *pairs])), 0)
        expected.append(dense("Dense_2", hidden))
    np.testing.assert_allclose(model.apply(variables, inputs), expected, rtol=1e-3, atol=1e-5)
