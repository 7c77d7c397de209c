"""Numbers and their words, packed rows, decoding with a cache, and BLEU."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import sacrebleu

from metaopt.bench.contract.spec import ForwardPassMode
from metaopt.workloads.data.number_words import END, LENGTH, PAD, VOCABULARY, pack, words_of
from metaopt.workloads.mini_wmt import MINI_WMT, TokenBleu, token_bleu, unpack
from metaopt.workloads.models.transformer import greedy

KEY = jax.random.PRNGKey(0)
TRAIN, EVAL = ForwardPassMode.TRAIN, ForwardPassMode.EVAL
B = MINI_WMT.reference_batch_size


@pytest.fixture(scope="module")
def batch(draw):
    return draw(MINI_WMT, B)


@pytest.fixture(scope="module")
def params():
    return MINI_WMT.init_model_fn(KEY)[0]


@functools.partial(jax.jit, static_argnames="mode")
def apply(params, batch, mode=EVAL, dropout_rate=None, rng=KEY):
    return MINI_WMT.model_fn(params, batch, None, mode, rng, False, dropout_rate)[0]


def sentence(tokens):
    words = []
    for token in tokens:
        if token in (END, PAD):
            break
        words.append(VOCABULARY[token])
    return words


def test_numbers_have_words():
    found = {n: " ".join(words_of(n)) for n in (0, 13, 20, 42, 100, 110, 999, 1000, 2013, 9_999)}

    assert found == {
        0: "zero", 13: "thirteen", 20: "twenty", 42: "forty two", 100: "one hundred",
        110: "one hundred and ten", 999: "nine hundred and ninety nine", 1000: "one thousand",
        2013: "two thousand and thirteen",
        9_999: "nine thousand nine hundred and ninety nine",
    }  # fmt: skip
    assert len({" ".join(words_of(n)) for n in range(10_000)}) == 10_000


def test_every_number_is_in_one_split_with_its_words():
    seen = []
    for split in ("train", "validation", "test"):
        arrays = {key: np.asarray(value) for key, value in MINI_WMT.arrays[split].items()}
        for source, target in zip(arrays["inputs"], arrays["targets"], strict=True):
            numbers = "".join(VOCABULARY[t] if t > END else " " for t in source if t != PAD)
            words = [VOCABULARY[t] if t != END else "." for t in target if t != PAD]
            assert words == [w for n in numbers.split() for w in (*words_of(int(n)), ".")]
            seen += map(int, numbers.split())
    assert sorted(seen) == list(range(10_000))


def test_weights_segments_and_positions_describe_the_tokens(batch):
    np.testing.assert_array_equal(batch["weights"], batch["targets"] > 0)
    for key in ("inputs", "targets"):
        segments, places = (np.asarray(batch[f"{key}_{w}"]) for w in ("segmentation", "position"))
        np.testing.assert_array_equal(segments > 0, batch[key] > 0)
        starts = (places == 0) & (segments > 0)
        np.testing.assert_array_equal(starts.cumsum(1) * (segments > 0), segments)
    assert np.asarray(batch["targets_segmentation"]).max() > 1


def test_evaluated_rows_hold_one_pair_and_padded_ones_none():
    for split in ("validation", "test"):
        full, _, padded = MINI_WMT._build_input_queue(None, split, "", 80)
        np.testing.assert_array_equal(padded["weights"], padded["targets"] > 0)
        assert not padded["weights"][40:].any()
        for key in ("inputs", "targets"):
            assert ((np.asarray(full[key]) == END).sum(1) == 1).all()


def test_packing_changes_no_sentence(params):
    pairs = [([5, 6, END], [20, 21, 22, END]), ([7, END], [23, END]), ([8, END], [24, 25, END])]
    packed = pack(pairs)
    assert len(packed["inputs"]) == 1

    together = apply(params, jax.tree.map(jnp.asarray, packed))[0]

    start = 0
    for pair in pairs:
        alone = {key: jnp.asarray(value) for key, value in pack([pair]).items()}
        rows = unpack(alone)  # without positions and segments
        length = len(pair[1])
        expected = apply(params, {key: rows[key] for key in ("inputs", "targets")})[0, :length]
        np.testing.assert_allclose(together[start : start + length], expected, rtol=1e-3, atol=1e-4)
        start += length


def test_the_cache_decodes_what_the_whole_model_predicts(params):
    inputs = MINI_WMT.arrays["test"]["inputs"][:5]
    sharp = jax.tree.map(lambda p: 1.5 * p, params)

    found = np.asarray(greedy(MINI_WMT.model, sharp, inputs, LENGTH, END))

    logits = np.asarray(apply(sharp, {"inputs": inputs, "targets": jnp.asarray(found)}))
    for row, best in zip(found, logits.argmax(-1), strict=True):
        ended = np.flatnonzero(row == END)
        length = ended[0] + 1 if len(ended) else LENGTH
        np.testing.assert_array_equal(row[:length], best[:length])
        assert not row[length:].any()


@pytest.mark.parametrize("changes", [0.0, 0.1, 0.5, 1.0])
def test_bleu_is_sacrebleus(changes):
    generator = np.random.default_rng(7)
    references = np.asarray(MINI_WMT.arrays["validation"]["targets"])[:60]
    words = generator.integers(3, len(VOCABULARY), references.shape)
    replaced = (generator.random(references.shape) < changes) & (references > END)
    translations = np.where(replaced, words, references)
    translations[:, 5:] = np.where(generator.random((60, 1)) < changes / 2, END,
                                   translations[:, 5:])  # fmt: skip

    found = token_bleu(jnp.asarray(translations, jnp.int32), jnp.asarray(references))

    ours, theirs = ([" ".join(sentence(r)) for r in rows] for rows in (translations, references))
    expected = sacrebleu.corpus_bleu(ours, [theirs], tokenize="none").score
    assert float(found) == pytest.approx(expected, rel=1e-4)
    if changes == 0.0:
        assert expected == pytest.approx(100.0)


def test_bleu_of_empty_translations_is_zero():
    references = MINI_WMT.arrays["validation"]["targets"][:4]

    assert float(token_bleu(jnp.zeros_like(references), references)) == 0.0


def test_the_metric_scores_the_first_sentences_of_each_split(params):
    found = TokenBleu(sentences=6)(MINI_WMT, params, None)

    assert set(found) == {"train/bleu", "validation/bleu", "test/bleu"}
    rows = {key: array[:6] for key, array in MINI_WMT.arrays["test"].items()}
    tokens = greedy(MINI_WMT.model, params, rows["inputs"], LENGTH, END)
    assert found["test/bleu"] == pytest.approx(float(token_bleu(tokens, rows["targets"])), rel=1e-4)


def test_the_loss_ignores_padding_and_smoothing_mixes_in_all_tokens(batch, params):
    logits = jax.random.normal(KEY, (B, LENGTH, len(VOCABULARY)), jnp.float32)
    there = np.asarray(batch["targets"]) > 0

    for smoothing in (0.0, 0.1):
        loss = MINI_WMT.loss_fn(batch["targets"], logits, batch["weights"], smoothing)

        logs = np.asarray(jax.nn.log_softmax(logits))
        right = np.take_along_axis(logs, np.asarray(batch["targets"])[..., None], -1)[..., 0]
        each = -(1 - smoothing) * right - smoothing * logs.mean(-1)
        assert loss["per_example"].shape == (B, LENGTH)
        assert int(loss["n_valid_examples"]) == there.sum()
        assert float(loss["summed"]) == pytest.approx(each[there].sum(), rel=1e-4)


def test_dropout_acts_in_training_alone(batch, params):
    other = jax.random.PRNGKey(1)

    np.testing.assert_array_equal(
        apply(params, batch, EVAL, 0.5), apply(params, batch, EVAL, 0.5, other)
    )
    assert not np.allclose(
        apply(params, batch, TRAIN, 0.5), apply(params, batch, TRAIN, 0.5, other)
    )


def test_one_embedding_is_input_and_output():
    types = MINI_WMT.model_params_types

    assert types["shared_embedding"]["embedding"].name == "EMBEDDING"
    block = types["decoder"]["encoderdecoderblock_0"]
    assert block["layernorm_2"]["scale"].name == "LAYER_NORM_SCALE"
    values = block["multiheaddotproductattention_1"]["value"]
    assert {name: kind.name for name, kind in values.items()} == {"kernel": "ATTENTION_V"}
