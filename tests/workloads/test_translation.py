"""The Transformer: its size, its masks, its greedy decoding and its BLEU."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import sacrebleu

from metaopt.bench.contract.kit import training_loss
from metaopt.bench.contract.spec import ForwardPassMode
from metaopt.workloads.data.subwords import END, PAD
from metaopt.workloads.data.text import AlignedText
from metaopt.workloads.fixed_batch import fix_batch
from metaopt.workloads.models.transformer import Transformer, dropout, greedy, positions
from metaopt.workloads.registry import get_workload
from metaopt.workloads.supervised import SupervisedWorkload
from metaopt.workloads.translation import (
    ENDE_TRANSFORMER,
    ENDE_TRANSFORMER_SMALL,
    Corpus,
    GreedyBleu,
    as_tokens,
    bleu,
)

KEY = jax.random.PRNGKey(0)
TINY = Transformer(vocabulary=300, width=16, inner=32, heads=2, layers=1)
apply = jax.jit(TINY.apply)
TRAIN, EVAL = ForwardPassMode.TRAIN, ForwardPassMode.EVAL


@pytest.fixture
def tokens():
    """Three sentences with padding: (sources, targets)."""
    rows = np.random.default_rng(0).integers(2, 300, (2, 3, 7)).astype(np.int32)
    rows[:, 0, 4:] = [END, PAD, PAD]
    rows[:, 1:, 6] = END
    return jnp.asarray(rows)


@pytest.fixture(scope="module")
def params():
    return jax.jit(TINY.init)(KEY, *jnp.ones((2, 3, 7), jnp.int32))["params"]


@pytest.fixture(scope="module")
def copying(tmp_path_factory):
    """A tiny workload whose translations are its sources."""
    folder = tmp_path_factory.mktemp("data")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("METAOPT_DATA_DIR", str(folder))
        workload = make_copying(folder)
        _ = workload.arrays  # read now, because other tests of the file need the real folder
    return workload


def make_copying(folder):
    generator = np.random.default_rng(0)
    (folder / "copy").mkdir()
    for stem, count in (("train", 40), ("val", 9), ("test", 8)):
        lines = "".join(
            " ".join(generator.choice(list("abcdefgh"), 6)) + ".\n" for _ in range(count)
        )
        for language in ("en", "de"):
            (folder / "copy" / f"{stem}.{language}").write_text(lines)
    texts = (AlignedText("copy", stem, "ask") for stem in ("train", "val", "test"))
    corpus = Corpus(*texts, vocabulary=300, length=10)
    return SupervisedWorkload(
        name="copying", summary="for tests", load=corpus.load, model=TINY, step_hint=10,
        loss_type=ENDE_TRANSFORMER.loss_type, reference_batch_size=4, complete=as_tokens,
        model_inputs=("inputs", "targets"), has_modes=True, dropout_rate=0.1,
        max_eval_batch_size=5, more_metrics=GreedyBleu(corpus, sentences=8, batch_size=3),
    )  # fmt: skip


@pytest.fixture(scope="module")
def forward(copying):
    """``model_fn``, compiled once for each mode."""
    return jax.jit(copying.model_fn, static_argnums=(3, 5))


def count(model):
    example = jnp.zeros((1, 4), jnp.int32)
    shapes = jax.eval_shape(functools.partial(model.init, KEY), example, example)
    return sum(leaf.size for leaf in jax.tree.leaves(shapes["params"]))


@pytest.mark.parametrize("vocabulary", [300, 32_000, 37_000])
def test_the_base_model_has_the_parameters_that_a_hand_count_gives(vocabulary):
    d, inner = 512, 2048
    attention, forward, norm = 4 * d * d, 2 * d * inner + inner + d, 2 * d
    encoder = attention + forward + 2 * norm
    decoder = 2 * attention + forward + 3 * norm

    found = count(Transformer(vocabulary))

    assert found == vocabulary * d + 6 * (encoder + decoder) + 2 * norm
    assert found == 512 * vocabulary + 44_103_680


def test_summaries_state_the_number_of_parameters():
    assert f"({count(ENDE_TRANSFORMER.model):,} parameters)" in ENDE_TRANSFORMER.summary
    assert f"({count(ENDE_TRANSFORMER_SMALL.model):,} parameters)" in ENDE_TRANSFORMER_SMALL.summary


def by_hand(params, inputs, targets):
    """The logits, layer by layer in numpy, of sentence after sentence without its padding."""
    params = jax.tree.map(np.float64, params)
    table = np.float64(positions(20, TINY.width))

    def norm(values, name):
        standard = (values - values.mean(-1, keepdims=True)) / np.sqrt(
            values.var(-1, keepdims=True) + 1e-6
        )
        return standard * name["scale"] + name["bias"]

    def attend(values, memory, kernels, causal=False):
        summed = 0.0
        for head in range(TINY.heads):
            query, key, value = (
                source @ kernels[name]["kernel"][:, head]
                for name, source in (("query", values), ("key", memory), ("value", memory))
            )
            scores = query @ key.T / np.sqrt(TINY.width // TINY.heads)
            if causal:
                scores[np.triu_indices(len(scores), 1)] = -np.inf
            weights = np.exp(scores) / np.exp(scores).sum(-1, keepdims=True)
            summed = summed + weights @ value @ kernels["out"]["kernel"][head]
        return summed

    def forward(values, layers):
        inner = values @ layers["expand"]["kernel"] + layers["expand"]["bias"]
        return np.maximum(inner, 0) @ layers["contract"]["kernel"] + layers["contract"]["bias"]

    def logits(source, target):
        embedding = params["embedding"]["embedding"]
        memory = embedding[source] + table[: len(source)]
        layer = params["encoder_0"]
        normed = norm(memory, layer["ln_attention"])
        memory = memory + attend(normed, normed, layer["self_attention"])
        memory = memory + forward(norm(memory, layer["ln_forward"]), layer["forward"])
        memory = norm(memory, params["ln_encoder"])
        hidden = embedding[[PAD, *target[:-1]]] + table[: len(target)]
        layer = params["decoder_0"]
        normed = norm(hidden, layer["ln_attention"])
        hidden = hidden + attend(normed, normed, layer["self_attention"], causal=True)
        normed = norm(hidden, layer["ln_cross"])
        hidden = hidden + attend(normed, memory, layer["cross_attention"])
        hidden = hidden + forward(norm(hidden, layer["ln_forward"]), layer["forward"])
        return norm(hidden, params["ln_decoder"]) @ embedding.T / np.sqrt(TINY.width)

    sentences = zip(np.asarray(inputs), np.asarray(targets), strict=True)
    return [logits(source[source != PAD], target[target != PAD]) for source, target in sentences]


def test_the_logits_are_those_of_the_formulas(params, tokens):
    generator = np.random.default_rng(1)  # scales and biases off their start, so that they count
    params = jax.tree.map(
        lambda leaf: leaf + jnp.asarray(0.1 * generator.standard_normal(leaf.shape), leaf.dtype),
        params,
    )

    found = apply({"params": params}, *tokens)

    for ours, expected in zip(found, by_hand(params, *tokens), strict=True):
        np.testing.assert_allclose(ours[: len(expected)], expected, atol=1e-5)


def test_dropout_falls_where_flaxs_example_has_it(params, tokens, monkeypatch):
    shapes = []

    def record(module, values, rate):
        assert rate == 0.1
        shapes.append(values.shape)
        return values

    monkeypatch.setattr("metaopt.workloads.models.transformer.dropout", record)
    jax.eval_shape(lambda: TINY.apply({"params": params}, *tokens, train=True, dropout_rate=0.1))

    embedded = sublayer = (3, 7, 16)
    attention, forward = [(3, 2, 7, 7), sublayer], [(3, 7, 32), sublayer]
    encoder = [embedded, *attention, *forward]
    assert shapes == [*encoder, embedded, *attention, *attention, *forward]


def test_later_tokens_do_not_influence_earlier_ones(params, tokens):
    inputs, targets = tokens
    changed = targets.at[:, 3:].set(7)

    one, two = (apply({"params": params}, inputs, t) for t in (targets, changed))

    np.testing.assert_array_equal(one[:, :4], two[:, :4])  # position 3 sees tokens 0 to 2
    assert np.abs(np.asarray(one[:, 4:] - two[:, 4:])).max() > 0.01


def test_a_token_depends_on_the_source_and_on_the_tokens_before_it(params, tokens):
    inputs, targets = tokens
    logits = apply({"params": params}, inputs, targets)

    other_source = apply({"params": params}, inputs.at[:, 0].set(9), targets)
    other_past = apply({"params": params}, inputs, targets.at[:, 0].set(9))

    assert np.abs(np.asarray(logits - other_source)).min(-1).max() > 0
    np.testing.assert_array_equal(logits[:, 0], other_past[:, 0])
    assert np.abs(np.asarray(logits - other_past))[:, 1:].max() > 0.01


def test_padding_changes_neither_loss_nor_gradient(copying, params, tokens):
    def loss_of(tokens, extra):
        pad = jnp.pad(tokens, ((0, 0), (0, extra), (0, extra)))  # sentences and positions
        batch = as_tokens({"inputs": pad[0], "targets": pad[1]})
        loss = lambda params: training_loss(fix_batch(copying), params, None, batch, KEY)[0]  # noqa: E731
        return jax.jit(jax.value_and_grad(loss))(params)

    loss, gradient = loss_of(tokens, 0)
    padded_loss, padded_gradient = loss_of(tokens, 4)

    np.testing.assert_allclose(padded_loss, loss, rtol=1e-5)
    jax.tree.map(
        lambda one, two: np.testing.assert_allclose(one, two, rtol=1e-3, atol=1e-6),
        gradient, padded_gradient,
    )  # fmt: skip


def test_the_loss_is_the_mean_over_the_tokens_that_are_no_padding(copying, forward, params, tokens):
    batch = as_tokens({"inputs": tokens[0], "targets": tokens[1]})
    logits, _ = forward(params, batch, None, EVAL, KEY, False)

    loss = copying.loss_fn(batch["targets"], logits, batch["weights"])

    log = np.asarray(jax.nn.log_softmax(logits))
    valid = [(n, t) for n in range(3) for t in range(7) if tokens[1][n, t] != PAD]
    expected = -np.mean([log[n, t, tokens[1][n, t]] for n, t in valid])
    assert loss["n_valid_examples"] == len(valid) == 19
    assert loss["summed"] / loss["n_valid_examples"] == pytest.approx(expected, rel=1e-5)


def test_label_smoothing_mixes_in_the_mean_over_the_vocabulary(copying, forward, params, tokens):
    batch = as_tokens({"inputs": tokens[0], "targets": tokens[1]})
    logits, _ = forward(params, batch, None, EVAL, KEY, False)
    plain, smooth = (
        copying.loss_fn(batch["targets"], logits, batch["weights"], label_smoothing=rate)
        for rate in (0.0, 0.1)
    )

    uniform = -np.asarray(jax.nn.log_softmax(logits)).mean(-1) * np.asarray(batch["weights"])

    expected = 0.9 * plain["per_example"] + 0.1 * uniform
    np.testing.assert_allclose(smooth["per_example"], expected, rtol=1e-5)


def test_dropout_is_the_workloads_unless_the_submission_says_and_off_in_evaluation(
    copying, forward, params, tokens
):
    batch = as_tokens({"inputs": tokens[0], "targets": tokens[1]})

    def logits(mode, key=0, *rate):
        return forward(params, batch, None, mode, jax.random.PRNGKey(key), False, *rate)[0]

    def same(one, two):
        return np.allclose(one, two, atol=1e-5)

    assert same(logits(EVAL, 0), logits(EVAL, 1))
    assert same(logits(EVAL, 0, 0.5), logits(EVAL))
    assert same(logits(TRAIN, 0, 0.0), logits(EVAL))
    assert not same(logits(TRAIN, 0), logits(TRAIN, 1))
    assert same(logits(TRAIN, 0), logits(TRAIN, 0, 0.1))
    assert fix_batch(copying).dropout_rate == 0.0  # one batch, one loss function


def test_dropout_keeps_the_expectation():
    class Dropped(Transformer):
        def __call__(self, values):
            return dropout(self, values, 0.25)

    values = Dropped(300).apply({}, jnp.ones((100, 1000)), rngs={"dropout": KEY})

    assert sorted(set(np.asarray(values).ravel().tolist())) == [0.0, pytest.approx(4 / 3)]
    assert values.mean() == pytest.approx(1.0, abs=0.01)


def test_positions_are_sines_and_cosines_of_frequencies_from_1_to_one_ten_thousandth():
    table = positions(50, 8)

    frequencies = [1.0, 10_000 ** (-1 / 3), 10_000 ** (-2 / 3), 1e-4]
    for position in (0, 1, 49):
        angles = np.multiply(position, frequencies)
        np.testing.assert_allclose(table[position], [*np.sin(angles), *np.cos(angles)], atol=1e-5)


def test_greedy_decoding_equals_the_argmax_of_full_forward_passes(params, tokens):
    inputs, steps = tokens[0], 6
    decoded = np.full((3, steps), PAD, np.int32)
    for position in range(steps):
        logits = apply({"params": params}, inputs, jnp.asarray(decoded))
        decoded[:, position] = np.asarray(logits[:, position].argmax(-1))

    found = greedy(TINY, params, inputs, steps)

    # No model that was not trained ends a sentence, so no row is cut.
    assert END not in decoded
    np.testing.assert_array_equal(found, decoded)


def test_greedy_decoding_stops_at_the_end_of_a_sentence(params, tokens):
    only_end = jax.tree.map(jnp.zeros_like, params)
    only_end["ln_decoder"]["bias"] = jnp.ones(16)
    only_end["embedding"]["embedding"] = jnp.zeros((300, 16)).at[END].set(1.0)

    assert greedy(TINY, only_end, tokens[0], 4).tolist() == [[END, PAD, PAD, PAD]] * 3


def test_bleu_is_100_for_a_copy_and_sacrebleus_score_otherwise():
    references = ["Ein Hund läuft über die Wiese.", "Zwei Männer sitzen auf einer Bank ."]
    translations = ["Ein Hund läuft durch die Wiese.", "Zwei Männer auf einer alten Bank ."]

    assert bleu(references, references) == pytest.approx(100.0)
    expected = sacrebleu.BLEU().corpus_score(translations, [references]).score
    assert bleu(translations, references) == expected
    assert 10 < expected < 90


def test_evaluation_reports_bleu_of_the_greedy_translations(copying, params):
    perfect = np.asarray(copying.arrays["test"]["targets"])

    metrics = copying.eval_model(0, params, None, KEY)

    corpus = copying.more_metrics.corpus
    inputs = copying.arrays["test"]["inputs"].astype(jnp.int32)
    rows = [greedy(TINY, params, inputs[start : start + 3], 10) for start in (0, 3, 5)]
    translations = corpus.subwords.decode(np.concatenate([*rows[:2], rows[2][1:]]))
    expected = sacrebleu.corpus_bleu(translations, [corpus.texts["test"][1]]).score
    assert metrics["test/bleu"] == pytest.approx(expected)
    assert 0 <= metrics["validation/bleu"] < 100
    assert {name for name in metrics if "/num_" not in name} == copying.metric_names
    assert bleu(corpus.subwords.decode(perfect), corpus.texts["test"][1]) == pytest.approx(100.0)
    assert fix_batch(copying).more_metrics is None


def test_training_pairs_that_are_empty_or_too_long_are_left_out_and_others_cut(
    tmp_path, monkeypatch
):
    monkeypatch.setenv("METAOPT_DATA_DIR", str(tmp_path))
    copying, path = make_copying(tmp_path), tmp_path / "copy"
    for stem in ("train", "val"):
        (path / f"{stem}.en").write_text("a b\n\na b c d e f g h a b c d\na\n")
        (path / f"{stem}.de").write_text("a b\na\na\n\n")

    arrays = copying.load()

    assert arrays.train["targets"].shape == (1, 10)
    assert arrays.validation["inputs"].shape == (4, 10)
    assert arrays.validation["inputs"][1].tolist() == [END] + [PAD] * 9


@pytest.mark.slow  # compiles a deep network
def test_the_small_workload_trains():
    workload = get_workload("ende_transformer_small")
    try:
        workload.check_data()
    except FileNotFoundError as error:
        pytest.skip(str(error))
    params, state = workload.init_model_fn(KEY)
    queue = workload._build_input_queue(np.array([0, 1], np.uint32), "train", global_batch_size=4)

    @jax.jit
    def step(params, batch, key):
        loss, grads = jax.value_and_grad(
            lambda params: training_loss(workload, params, state, batch, key)[0]
        )(params)
        norm = jnp.sqrt(sum(jnp.vdot(leaf, leaf) for leaf in jax.tree.leaves(grads)))
        return jax.tree.map(lambda p, g: p - 0.5 * g / norm, params, grads), loss

    losses = []
    for key in jax.random.split(KEY, 20):
        params, loss = step(params, next(queue), key)
        losses.append(float(loss))

    assert np.mean(losses[-5:]) < 0.93 * np.mean(losses[:5])
    assert state is None
