"""Lines of digits, the two networks for speech, CTC and its error rate."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from metaopt.bench.contract.spec import ForwardPassMode
from metaopt.workloads.mini_conformer import MINI_CONFORMER, ctc_loss
from metaopt.workloads.mini_deepspeech import MINI_DEEPSPEECH
from metaopt.workloads.models.conformer import DepthwiseConv
from metaopt.workloads.models.deepspeech import LSTM
from metaopt.workloads.models.speech import BatchNorm, ConformerNetwork, DeepSpeechNetwork

KEY = jax.random.PRNGKey(0)
TRAIN, EVAL = ForwardPassMode.TRAIN, ForwardPassMode.EVAL
B, SAMPLES, FRAMES, DIGITS, TOKENS = 16, 256, 16, 3, 11


@pytest.fixture(params=[MINI_CONFORMER, MINI_DEEPSPEECH], ids=lambda w: w.name, scope="module")
def workload(request):
    return request.param


@pytest.fixture(scope="module")
def batch(draw):
    return draw(MINI_CONFORMER, B)


@pytest.fixture(scope="module")
def trees(workload):
    return workload.init_model_fn(KEY)


@pytest.fixture(scope="module")
def forward(workload):
    """``model_fn``, compiled for each mode."""
    return jax.jit(workload.model_fn, static_argnums=(3, 5))


def test_paddings_are_one_after_the_end(batch):
    (samples, paddings), (tokens, token_paddings) = batch["inputs"], batch["targets"]
    for padding in (paddings, token_paddings):
        assert set(np.unique(padding)) == {0.0, 1.0}
        assert (np.diff(padding, axis=1) >= 0).all()  # at the end
    assert not np.asarray(samples)[np.asarray(paddings) == 1].any()
    lengths = (np.asarray(token_paddings) == 0).sum(1)
    assert set(lengths) == {2, 3}
    there = np.asarray(token_paddings) == 0
    assert not np.asarray(tokens)[~there].any()
    assert set(np.asarray(tokens)[there]) <= set(range(1, TOKENS))


def test_logits_come_with_paddings_of_two_columns_each(workload, batch, trees, forward):
    (logits, paddings), _ = forward(*trees[:1], batch, trees[1], EVAL, KEY, False, 0.5)

    assert logits.shape == (B, FRAMES, TOKENS)
    columns = (np.asarray(batch["inputs"][1]) == 0).sum(1) / 8
    np.testing.assert_array_equal((paddings == 0).sum(1), np.ceil(columns / 2))


def test_what_lies_in_the_padding_changes_nothing(workload, batch, trees, forward):
    (samples, paddings), targets = batch["inputs"], batch["targets"]
    noise = 100.0 * jax.random.normal(KEY, samples.shape, jnp.float32)
    other = {**batch, "inputs": (samples + noise * paddings, paddings)}

    one, two = (forward(trees[0], each, trees[1], TRAIN, KEY, True, 0.0) for each in (batch, other))

    losses = [workload.loss_fn(targets, logits)["per_example"] for logits, _ in (one, two)]
    np.testing.assert_allclose(*losses, rtol=1e-3)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-4), one[1], two[1])
    shown = (one[0][1][..., None] == 0).astype(jnp.float32)
    np.testing.assert_allclose(one[0][0] * shown, two[0][0] * shown, atol=1e-3)


class Normed(nn.Module):
    """Batch normalisation alone, which makes rules quick to test."""

    @nn.compact
    def __call__(self, inputs, *, train=False, dropout_rate=0.0):
        return BatchNorm()(*inputs, not train), inputs[1]


@pytest.mark.parametrize("ignores", [False, True], ids=["mini_conformer", "mini_deepspeech"])
def test_running_averages_follow_algoperfs_rules(ignores):
    network = (DeepSpeechNetwork if ignores else ConformerNetwork)(Normed(), has_modes=True)
    batch = {"inputs": (jax.random.normal(KEY, (2, 3, 4), jnp.float32), jnp.zeros((2, 3)))}
    params, start = network.init(KEY, batch)

    def moves(mode, update, stored=None):
        _, state = network.apply(params, batch, start, mode, KEY, update, None, stored)
        pairs = zip(jax.tree.leaves(start), jax.tree.leaves(state), strict=True)
        return any(not np.allclose(old.ravel(), new.ravel()) for old, new in pairs)

    assert moves(TRAIN, True) and moves(TRAIN, False)
    assert moves(EVAL, True)  # runs as training
    assert not moves(EVAL, False)
    assert moves(TRAIN, True, True) == ignores


def test_running_averages_change_their_shape_in_the_first_step(workload, batch, trees):
    def after(state):
        return jax.eval_shape(
            lambda state: workload.model_fn(trees[0], batch, state, TRAIN, KEY, True)[1], state
        )

    width = trees[0]["Dense_0"]["kernel"].shape[0]
    assert {leaf.shape for leaf in jax.tree.leaves(trees[1])} == {(width,)}
    for later in (after(trees[1]), after(after(trees[1]))):
        assert jax.tree.structure(later) == jax.tree.structure(trees[1])
        assert {leaf.shape for leaf in jax.tree.leaves(later)} == {(1, 1, width)}


def test_dropout_acts_in_training_alone(workload, batch, trees, forward):
    def logits(mode, rate, key=KEY):
        return forward(trees[0], batch, trees[1], mode, key, mode is TRAIN, rate)[0][0]

    other = jax.random.PRNGKey(1)
    np.testing.assert_array_equal(logits(TRAIN, 0.0), logits(TRAIN, 0.0, other))
    np.testing.assert_array_equal(logits(EVAL, 0.5), logits(EVAL, 0.5, other))
    assert not np.allclose(logits(TRAIN, 0.5), logits(TRAIN, 0.5, other))


def summed_over_paths(log_probabilities, tokens):
    """CTC's loss from its definition: the sum over all paths that decode to the tokens."""
    frames, classes = log_probabilities.shape
    total = -np.inf
    for path in np.ndindex(*(classes,) * frames):
        merged = [c for i, c in enumerate(path) if i == 0 or c != path[i - 1]]
        if [c for c in merged if c] == list(tokens):
            total = np.logaddexp(total, sum(log_probabilities[i, c] for i, c in enumerate(path)))
    return -total


def test_the_loss_is_ctcs_by_its_definition():
    logits = jax.random.normal(KEY, (2, 5, 3), jnp.float32)
    paddings = jnp.array([[0.0] * 5, [0, 0, 0, 0, 1]])
    tokens, token_paddings = jnp.array([[1.0, 2, 2], [2, 0, 0]]), jnp.array([[0.0] * 3, [0, 1, 1]])

    loss = MINI_CONFORMER.loss_fn((tokens, token_paddings), (logits, paddings))

    log_probabilities = np.asarray(jax.nn.log_softmax(logits))
    expected = [
        summed_over_paths(log_probabilities[0], [1, 2, 2]),
        summed_over_paths(log_probabilities[1, :4], [2]),
    ]
    np.testing.assert_allclose(loss["per_example"], expected, rtol=1e-4)
    assert loss["n_valid_examples"] == 4  # tokens, not lines
    found = ctc_loss((tokens, token_paddings), (logits, paddings), None)
    assert float(found) == pytest.approx(sum(expected) / 4, rel=1e-4)


def distance(one, other):
    """The edit distance, by its recursion."""
    if not one or not other:
        return len(one) + len(other)
    return min(
        distance(one[1:], other) + 1, distance(one, other[1:]) + 1,
        distance(one[1:], other[1:]) + (one[0] != other[0]),
    )  # fmt: skip


def test_the_error_rate_counts_edits_of_decoded_tokens(batch):
    logits = jax.random.normal(KEY, (B, FRAMES, 4), jnp.float32)  # few tokens: some are right
    paddings = jnp.asarray(np.arange(FRAMES)[None] >= np.arange(1, B + 1)[:, None], jnp.float32)
    tokens, token_paddings = batch["targets"]
    tokens = jnp.where(token_paddings == 0, (tokens - 1) % 3 + 1, 0.0)

    found = MINI_CONFORMER.metric_functions["wer"](
        (tokens, token_paddings), (logits, paddings), None
    )

    edits = count = 0
    for row in range(B):
        best = np.asarray(logits[row].argmax(-1))[: row + 1]
        merged = [c for i, c in enumerate(best) if i == 0 or c != best[i - 1]]
        true = [int(t) for t, p in zip(tokens[row], token_paddings[row], strict=True) if p == 0]
        edits += distance([int(c) for c in merged if c], true)
        count += len(true)
    assert float(found) == pytest.approx(edits / count)


def test_batch_normalisation_uses_the_frames_that_are_there():
    hidden = jax.random.normal(KEY, (3, 5, 4), jnp.float32)
    paddings = jnp.array([[0.0] * 5, [0, 0, 1, 1, 1], [1] * 5])
    module = BatchNorm()
    variables = module.init(KEY, hidden, paddings, False)

    out, state = module.apply(variables, hidden, paddings, False, mutable=["batch_stats"])

    there = np.asarray(hidden)[np.asarray(paddings) == 0]
    assert len(there) == 7
    expected = (there - there.mean(0)) / np.sqrt(there.var(0) + 1e-3)
    np.testing.assert_allclose(out[np.asarray(paddings) == 0], expected, rtol=1e-4, atol=1e-5)
    assert not np.asarray(out)[np.asarray(paddings) == 1].any()
    mean = np.ravel(state["batch_stats"]["mean"])
    np.testing.assert_allclose(mean, 0.1 * there.mean(0), rtol=1e-4, atol=1e-6)


def test_the_two_directions_are_flaxs_cells():
    hidden = jax.random.normal(KEY, (2, 6, 8), jnp.float32)
    lengths = np.array([6, 4])
    there = jnp.asarray(np.arange(6)[None] < lengths[:, None], jnp.float32)[..., None]
    params = jax.jit(LSTM().init)(KEY, hidden, there)["params"]
    params = jax.tree.map(lambda p: p + 0.1, params)

    found = jax.jit(LSTM().apply)({"params": params}, hidden, there)

    for direction, options in enumerate(({}, {"reverse": True, "keep_order": True})):
        cell = params[f"LSTMSequenceEncoder_{direction}"]["cell"]
        layer = nn.RNN(nn.OptimizedLSTMCell(4), **options)
        states = jax.jit(layer.apply)(
            {"params": {"cell": cell}}, hidden, seq_lengths=jnp.asarray(lengths)
        )
        expected = states * there
        part = found[..., 4 * direction : 4 * direction + 4]
        np.testing.assert_allclose(part, expected, rtol=1e-4, atol=1e-5)


def test_shifted_products_are_a_depthwise_convolution():
    hidden = jax.random.normal(KEY, (2, 7, 3), jnp.float32)
    params = DepthwiseConv().init(KEY, hidden)
    convolution = nn.Conv(3, (5,), feature_group_count=3, use_bias=False)

    np.testing.assert_allclose(
        DepthwiseConv().apply(params, hidden), convolution.apply(params, hidden),
        rtol=1e-4, atol=1e-5,
    )  # fmt: skip


def test_types_are_algoperfs():
    conformer, deepspeech = (w.model_params_types for w in (MINI_CONFORMER, MINI_DEEPSPEECH))

    block = conformer["conformerblock_0"]
    attention = block["multiheadedselfattention_0"]["multiheaddotproductattention_0"]
    assert attention["query"]["kernel"].name == "ATTENTION_Q"
    assert attention["queryscaler_0"]["scale"].name == "WEIGHT"
    assert block["convolutionblock_0"]["dense_0"]["kernel"].name == "CONV_WEIGHT"
    assert block["convolutionblock_0"]["batchnorm_0"]["scale"].name == "BATCH_NORM_SCALE"
    assert conformer["subsample_0"]["conv2dsubsampling_0"]["kernel"].name == "CONV_WEIGHT"
    cell = deepspeech["batchrnn_0"]["lstm_0"]["lstm"]["lstmsequenceencoder_1"]["cell"]
    assert set(cell) == {"hi", "hf", "hg", "ho", "ii", "if", "ig", "io"}
    assert {kind.name for kind in jax.tree.leaves(cell)} == {"WEIGHT", "BIAS"}
    assert "bias" not in cell["ii"]
    for workload in (MINI_CONFORMER, MINI_DEEPSPEECH):
        assert workload.is_output_params("Dense_0")
