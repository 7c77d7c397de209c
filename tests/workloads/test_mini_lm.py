"""The text of mini_lm and its known entropy, the batches, and the rotary positions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metaopt.bench.contract.spec import ForwardPassMode
from metaopt.workloads.data.markov_chain import MarkovChain
from metaopt.workloads.losses import Loss
from metaopt.workloads.mini_lm import CHAIN, LENGTH, MINI_LM
from metaopt.workloads.models.decoder import rotate

KEY = jax.random.PRNGKey(0)
EVAL = ForwardPassMode.EVAL


@pytest.fixture(scope="module")
def text():
    """20,000 texts of 11 tokens."""
    return CHAIN.sample(20_000, 11, np.random.default_rng(0))


def test_the_stationary_pairs_are_those_of_a_long_text(text):
    counts = np.zeros((CHAIN.tokens, CHAIN.tokens))
    np.add.at(counts, (text[:, -2], text[:, -1]), 1)  # the last pair, if the first is stationary

    assert CHAIN.stationary.sum() == pytest.approx(1)
    error = 4 * np.sqrt(CHAIN.stationary / len(text)) + 1e-9
    assert (np.abs(counts / len(text) - CHAIN.stationary) < error).all()


def test_the_true_probabilities_have_the_smallest_loss(text):
    inputs, targets = text[:, :-1], text[:, 1:]
    one = np.einsum("ab,abc->bc", CHAIN.stationary, CHAIN.transitions)
    one /= one.sum(-1, keepdims=True)
    after_two = CHAIN.transitions[inputs[:, :-1], inputs[:, 1:]]
    probabilities = np.concatenate([one[inputs[:, :1]], after_two], axis=1)
    logits = np.log(np.maximum(probabilities, 1e-30)).astype(np.float32)

    loss = Loss(MINI_LM.loss_type)(jnp.asarray(targets), jnp.asarray(logits))

    found = loss["summed"] / loss["n_valid_examples"]
    spread = loss["per_example"].mean(1).std() / np.sqrt(len(text))
    assert float(found) == pytest.approx(CHAIN.smallest_loss(10), abs=4 * float(spread))


def test_the_entropy_of_a_fair_choice_among_k_tokens_is_log_k():
    chain = MarkovChain(tokens=5, successors=3, seed=0)
    vars(chain)["transitions"] = np.where(chain.transitions > 0, 1 / 3, 0.0)

    assert chain.entropy == pytest.approx(np.log(3))


def test_a_token_that_depends_on_the_last_one_alone_has_one_entropy():
    chain = MarkovChain(tokens=4, successors=2, seed=0)
    vars(chain)["transitions"] = np.broadcast_to(chain.transitions[0], (4, 4, 4))

    assert chain.entropy_after_one == pytest.approx(chain.entropy)
    assert chain.smallest_loss(7) == pytest.approx(chain.entropy)


def test_a_target_is_the_token_after_its_input():
    batch = next(MINI_LM._build_input_queue(np.asarray(KEY), "train"))

    np.testing.assert_array_equal(batch["inputs"][:, 1:], batch["targets"][:, :-1])


def test_padded_rows_change_no_metric():
    params, _ = MINI_LM.init_model_fn(KEY)
    batches = MINI_LM._build_input_queue(np.asarray(KEY), "validation", "", 150)
    forward = jax.jit(lambda batch: MINI_LM.model_fn(params, batch, None, EVAL, KEY, False)[0])

    losses = [MINI_LM.loss_fn(b["targets"], forward(b), b["weights"]) for b in batches]

    assert sum(loss["n_valid_examples"] for loss in losses) == 200 * LENGTH
    mean = sum(float(loss["summed"]) for loss in losses) / (200 * LENGTH)
    metrics = MINI_LM.eval_model(200, params, None)
    assert mean == pytest.approx(metrics["validation/loss"], rel=1e-5)


def test_perplexity_is_the_exponential_of_the_loss_and_that_of_a_uniform_guess_is_v():
    params, _ = MINI_LM.init_model_fn(KEY)
    zeros = jax.tree.map(jnp.zeros_like, params)

    metrics = MINI_LM.eval_model(200, zeros, None)

    for split in ("train", "validation", "test"):
        assert metrics[f"{split}/loss"] == pytest.approx(np.log(CHAIN.tokens), rel=1e-5)
        assert metrics[f"{split}/ppl"] == pytest.approx(CHAIN.tokens, rel=1e-4)


def test_no_token_sees_those_after_it():
    tokens = jax.random.randint(KEY, (2, LENGTH), 0, CHAIN.tokens)
    params = MINI_LM.model.init(KEY, tokens)
    changed = tokens.at[:, 10].add(1) % CHAIN.tokens

    one, other = (MINI_LM.model.apply(params, x) for x in (tokens, changed))

    np.testing.assert_allclose(one[:, :10], other[:, :10], rtol=1e-5)
    assert not np.allclose(one[:, 10], other[:, 10])


def test_products_of_rotated_vectors_depend_on_the_distance_alone():
    queries, keys = (jnp.broadcast_to(jax.random.normal(key, (1, 1, 1, 8)), (1, 6, 1, 8))
                     for key in jax.random.split(KEY))  # fmt: skip

    products = jnp.einsum("nthk,nshk->ts", rotate(queries), rotate(keys))

    for distance in range(-5, 6):
        diagonal = jnp.diagonal(products, distance)
        np.testing.assert_allclose(diagonal, diagonal[0], rtol=1e-4)
    assert len(np.unique(np.round(products[0], 4))) == 6
    np.testing.assert_allclose(products[0, 0], queries[0, 0, 0] @ keys[0, 0, 0], rtol=1e-5)
