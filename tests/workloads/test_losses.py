"""Losses and metrics of AlgoPerf's loss types against optax, closed forms and enumeration."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from metaopt.bench.contract.spec import LossType
from metaopt.workloads.losses import BLANK, Loss, edit_distances

SOFTMAX, SIGMOID = Loss(LossType.SOFTMAX_CROSS_ENTROPY), Loss(LossType.SIGMOID_CROSS_ENTROPY)
SQUARED, ABSOLUTE = Loss(LossType.MEAN_SQUARED_ERROR), Loss(LossType.MEAN_ABSOLUTE_ERROR)
CTC = Loss(LossType.CTC_LOSS)
FRAMES, TOKENS, CLASSES = 5, 3, 4


def normal(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def paddings(lengths, width):
    return jnp.asarray(np.arange(width)[None] >= np.array(lengths)[:, None], jnp.float32)


def speech(lengths=(3, 1, 0, 2), frames=(5, 4, 5, 3)):
    """Return labels and logits of CTC; tokens as floats, as AlgoPerf's are."""
    tokens = np.random.default_rng(1).integers(1, CLASSES, (len(lengths), TOKENS))
    logits = normal(len(lengths), FRAMES, CLASSES) * 2
    return (
        (jnp.asarray(tokens, jnp.float32), paddings(lengths, TOKENS)),
        (logits, paddings(frames, FRAMES)),
    )


EXAMPLES = {
    "softmax": (SOFTMAX, jnp.array([0, 2, 1, 3]), normal(4, CLASSES)),
    "softmax of sequences": (SOFTMAX, jnp.arange(12).reshape(4, 3) % CLASSES, normal(4, 3, 4)),
    "sigmoid": (SIGMOID, jnp.array([0, 1, 1, 0]), normal(4)),
    "sigmoid of tasks": (SIGMOID, jnp.array([[0.0, 1.0]] * 4), normal(4, 2)),
    "squared": (SQUARED, normal(4, 3, seed=1), normal(4, 3)),
    "absolute": (ABSOLUTE, normal(4, 3, 2, seed=1), normal(4, 3, 2)),
    "ctc": (CTC, *speech()),
}


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("kind", [np.int32, np.uint8, np.float32, "one-hot"], ids=str)
def test_softmax_takes_class_numbers_and_distributions_and_is_optaxs(kind, smoothing):
    classes, logits = np.array([0, 2, 1, 3]), normal(4, CLASSES)
    labels = jnp.eye(CLASSES)[classes] if kind == "one-hot" else jnp.asarray(classes.astype(kind))

    loss = SOFTMAX(labels, logits, label_smoothing=smoothing)

    smooth = optax.smooth_labels(jnp.eye(CLASSES)[classes], smoothing)
    expected = optax.softmax_cross_entropy(logits, smooth)
    np.testing.assert_allclose(loss["per_example"], expected, rtol=1e-6)
    assert loss["n_valid_examples"] == 4


@pytest.mark.parametrize("shape", [(4,), (4, 1)], ids=str)
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_sigmoid_is_the_logarithm_of_the_probability_of_the_label(shape, smoothing):
    labels, logits = np.array([0, 1, 1, 0]), normal(4)

    loss = SIGMOID(jnp.asarray(labels), logits.reshape(shape), label_smoothing=smoothing)

    p = 1 / (1 + np.exp(-np.asarray(logits, np.float64)))
    share = np.where(labels == 1, 1 - smoothing / 2, smoothing / 2)
    expected = -share * np.log(p) - (1 - share) * np.log(1 - p)
    np.testing.assert_allclose(loss["per_example"], expected, rtol=1e-5)


@pytest.mark.parametrize("loss, expected", [(SQUARED, [1, 0, 4]), (ABSOLUTE, [1, 0, 2])])
@pytest.mark.parametrize("dtype", [np.float32, np.int32], ids=["floats", "integers"])
def test_errors_are_those_of_subtraction(loss, expected, dtype):
    labels, logits = jnp.zeros(3, dtype), jnp.array([-1.0, 0.0, 2.0])

    for shape in ((3,), (3, 1)):
        found = loss(labels, logits.reshape(shape), label_smoothing=0.3)
        np.testing.assert_array_equal(found["per_example"], expected)
        assert found["summed"] == sum(expected)


@pytest.mark.parametrize("loss, norm", [(SQUARED, np.square), (ABSOLUTE, np.abs)])
def test_the_error_of_an_example_is_the_mean_over_its_numbers(loss, norm):
    labels, predictions = normal(4, 3, 2, seed=1), normal(4, 3, 2)

    found = loss(labels, predictions)

    expected = norm(np.asarray(labels) - np.asarray(predictions)).reshape(4, 6).mean(1)
    np.testing.assert_allclose(found["per_example"], expected, rtol=1e-6)
    assert found["n_valid_examples"] == 4


def collapse(path):
    return [token for token, _ in itertools.groupby(path) if token != BLANK]


def test_ctc_sums_over_all_paths_that_read_as_the_tokens():
    (tokens, token_paddings), (logits, frame_paddings) = labels, outputs = speech()

    found = jax.jit(CTC)(labels, outputs, label_smoothing=0.3)

    p = np.asarray(jax.nn.softmax(logits), np.float64)
    expected = []
    for i in range(len(tokens)):
        frames = int((frame_paddings[i] == 0).sum())
        true = [int(token) for token in tokens[i, : int((token_paddings[i] == 0).sum())]]
        paths = itertools.product(range(CLASSES), repeat=frames)
        total = sum(
            np.prod([p[i, t, token] for t, token in enumerate(path)])
            for path in paths
            if collapse(path) == true
        )
        expected.append(-np.log(total))
    np.testing.assert_allclose(found["per_example"], expected, rtol=1e-4)
    assert found["n_valid_examples"] == 3 + 1 + 0 + 2  # tokens, as in AlgoPerf


def test_the_mean_of_ctc_without_tokens_is_finite():
    labels, logits = speech(lengths=(0,) * 4, frames=(0,) * 4)

    loss = jax.jit(CTC)(labels, logits)

    assert loss["n_valid_examples"] == 1
    assert loss["summed"] == 0


def edits(source, target):
    """The definition: insert, drop or replace a token."""

    @functools.cache
    def distance(i, j):
        if i == 0 or j == 0:
            return i + j
        same = distance(i - 1, j - 1) + (source[i - 1] != target[j - 1])
        return min(same, distance(i - 1, j) + 1, distance(i, j - 1) + 1)

    return distance(len(source), len(target))


def test_the_error_rate_is_that_of_decoding_by_hand():
    random = np.random.default_rng(0)
    n, frames, k = 60, 9, 6
    tokens = random.integers(1, 3, (n, k))
    lengths, there = random.integers(0, k + 1, n), random.integers(1, frames + 1, n)
    labels = jnp.asarray(tokens, jnp.float32), paddings(lengths, k)
    logits = normal(n, frames, 3), paddings(there, frames)

    found = jax.jit(edit_distances)(labels, logits)

    best = np.asarray(logits[0]).argmax(-1)
    expected = [
        edits(tuple(collapse(row[:t])), tuple(true[:length]))
        for row, t, true, length in zip(best, there, tokens.tolist(), lengths, strict=True)
    ]
    np.testing.assert_array_equal(found, expected)
    assert len(set(expected)) > 4
    mask = jnp.arange(n) < 20
    rate = jax.jit(CTC.metrics["error_rate"])
    assert rate(labels, logits, None) == pytest.approx(sum(expected) / lengths.sum(), rel=1e-6)
    some = sum(expected[:20]) / lengths[:20].sum()
    assert rate(labels, logits, mask) == pytest.approx(some, rel=1e-6)


@pytest.mark.parametrize("name", EXAMPLES)
def test_masked_examples_do_not_change_the_loss(name):
    loss, labels, logits = EXAMPLES[name]

    @jax.jit
    def numbers(labels, logits, mask):
        found = loss(labels, logits, mask)
        metrics = {name: f(labels, logits, mask) for name, f in loss.metrics.items()}
        return found.pop("per_example"), {**found, **metrics}

    _, expected = numbers(*jax.tree.map(lambda leaf: leaf[:3], (labels, logits)), None)
    mask = jnp.array([1, 1, 1, 0])
    shape = numbers(labels, logits, mask)[0].shape
    of_each_loss = jnp.broadcast_to(mask.reshape(4, *(1,) * (len(shape) - 1)), shape)

    for weights in (mask, mask == 1, jnp.asarray(of_each_loss, jnp.float32)):
        per_example, found = numbers(labels, logits, weights)
        assert not per_example[3].any()
        for number, value in expected.items():
            np.testing.assert_allclose(found[number], value, rtol=1e-5, err_msg=number)


@pytest.mark.parametrize("name", EXAMPLES)
def test_gradients_are_finite_and_the_mean_falls_along_them(name):
    loss, labels, logits = EXAMPLES[name]
    scores, *rest = logits if isinstance(logits, tuple) else (logits,)

    @jax.jit
    @jax.value_and_grad
    def mean(scores):
        found = loss(labels, (scores, *rest) if rest else scores)
        return found["summed"] / found["n_valid_examples"]

    value, gradient = mean(scores)

    assert jnp.isfinite(gradient).all()
    assert mean(scores - 0.1 * gradient)[0] < value


def test_metrics_by_hand():
    ids, scores = jnp.array([0, 1, 1]), jnp.array([[2.0, 1.0], [3.0, 1.0], [0.0, 1.0]])
    weights = jnp.array([1.0, 1.0, 2.0])

    for labels in (ids, jnp.eye(2)[ids]):
        assert SOFTMAX.metrics["accuracy"](labels, scores, None) == pytest.approx(2 / 3)
        assert SOFTMAX.metrics["accuracy"](labels, scores, weights) == pytest.approx(3 / 4)
    margins = jnp.array([-1.0, -2.0, 5.0])
    for labels in (ids, jnp.asarray(ids, jnp.float32)):
        assert SIGMOID.metrics["accuracy"](labels, margins, None) == pytest.approx(2 / 3)
        assert SIGMOID.metrics["accuracy"](labels, margins[:, None], weights) == 3 / 4
    zeros = jnp.zeros(3)
    assert SQUARED.metrics["mean_absolute_error"](zeros, margins, None) == pytest.approx(8 / 3)
    assert ABSOLUTE.metrics["mean_squared_error"](zeros, margins, weights) == 55 / 4


@pytest.mark.parametrize(
    "loss, expected",
    [
        (SOFTMAX, [0.25, 0.75]), (CTC, [0.25, 0.75]), (SIGMOID, [0.5, 0.75]),
        (SQUARED, [0.0, np.log(3)]), (ABSOLUTE, [0.0, np.log(3)]),
    ],
)  # fmt: skip
def test_logits_become_probabilities_and_predicted_numbers_stay(loss, expected):
    logits = jnp.array([0.0, np.log(3.0)])

    np.testing.assert_allclose(loss.activation(logits), expected, rtol=1e-6)


@pytest.mark.parametrize(
    "loss, labels, logits, mask, message",
    [
        (SQUARED, (4,), (4, 2), None, r"`label_batch` must have the shape of the logits \(4, 2\)"),
        (ABSOLUTE, (4, 1), (4,), None, r"must have the shape of the logits \(4,\), got .*\(4, 1\)"),
        (SIGMOID, (4, 2), (4,), None, r"got shape \(4, 2\)"),
        (SOFTMAX, (4, 3), (4, 2), None, r"class numbers, or distributions, for .*\(4, 2\), got"),
        (SOFTMAX, (3,), (4, 2), None, r"for logits of shape \(4, 2\), got"),
        (SOFTMAX, (4,), (4, 2), (3,), r"`mask_batch` must have .* losses, \(4,\), .* got \(3,\)"),
        (SQUARED, (4, 2), (4, 2), (4, 2), r"`mask_batch` must have .* \(4,\), .* got \(4, 2\)"),
        (CTC, (4, 3), (4, 3, 2), None, r"labels of CTC must be a pair .* got shape \(4, 3\)"),
    ],
)
def test_shapes_that_would_broadcast_or_mean_something_else_are_refused(
    loss, labels, logits, mask, message
):
    mask = None if mask is None else jnp.ones(mask)

    with pytest.raises(ValueError, match=message):
        loss(jnp.zeros(labels), jnp.zeros(logits), mask)


@pytest.mark.parametrize("unknown", ["MEAN_SQUARED_ERROR", 2, None, {}], ids=str)
def test_an_unknown_type_is_refused_with_the_known_ones(unknown):
    with pytest.raises(ValueError, match=r"`loss_type` must be a LossType, one of \['SOFTMAX_CR"):
        Loss(unknown)


def test_every_loss_type_of_algoperf_is_supported():
    assert all(Loss(loss_type).metrics for loss_type in LossType)
