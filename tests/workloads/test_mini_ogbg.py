"""The graphs of mini_ogbg: their batches, the network's invariances, the loss and the metrics."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from sklearn.metrics import average_precision_score

from metaopt.bench.contract import kit
from metaopt.bench.contract.spec import ForwardPassMode
from metaopt.workloads.data.graphs import GraphsTuple, graph_of_image, join, stack
from metaopt.workloads.mini_ogbg import (
    MINI_OGBG,
    TASKS,
    accuracy,
    masked_loss,
    mean_average_precision,
)

KEY = jax.random.PRNGKey(0)
IMAGE = np.array([[0.9, 0.8, 0.0], [0.1, 0.7, 0.0], [0.6, 0.0, 0.0]])
B, T = 16, len(TASKS)


@pytest.fixture(scope="module")
def batches(draw):
    return [draw(MINI_OGBG, B, seed) for seed in range(40)]


@pytest.fixture(scope="module")
def params():
    return MINI_OGBG.init_model_fn(KEY)[0]


@functools.partial(jax.jit, static_argnames="mode")
def apply(params, batch, mode=ForwardPassMode.EVAL, dropout_rate=None):
    return MINI_OGBG.model_fn(params, batch, None, mode, KEY, False, dropout_rate)[0]


def test_neighbouring_bright_pixels_are_joined_in_both_directions():
    graph = graph_of_image(IMAGE, 0.5)

    # Nodes 0 to 3: (0, 0), (0, 1), (1, 1) and (2, 0), which has no neighbour.
    pairs = {(int(s), int(r)) for s, r in zip(graph.senders, graph.receivers, strict=True)}
    assert pairs == {(0, 1), (1, 0), (1, 2), (2, 1)}
    np.testing.assert_allclose(graph.nodes[:, 0], [0.9, 0.8, 0.7, 0.6])
    edge = list(zip(graph.senders, graph.receivers, strict=True)).index((2, 1))
    np.testing.assert_allclose(graph.edges[edge], [1, 0, 0.7 - 0.8], rtol=1e-5)  # sender below


def test_graphs_have_the_fields_of_jraphs():
    assert GraphsTuple._fields == (
        "nodes", "edges", "receivers", "senders", "globals", "n_node", "n_edge",
    )  # fmt: skip


def test_a_batch_of_the_reference_size_costs_one_gradient_evaluation(batches):
    assert kit.gradient_evaluations(MINI_OGBG, batches[0]) == 1.0


def test_the_number_of_real_graphs_varies_and_padding_takes_the_rest(batches):
    real = set()
    for batch in batches:
        graphs, weights = batch["inputs"], np.asarray(batch["weights"])
        assert graphs.n_node.sum() == len(graphs.nodes)
        assert graphs.n_edge.sum() == len(graphs.edges)
        count = int((np.asarray(weights).sum(1) > 0).sum())
        real.add(count)
        assert graphs.n_node[count] >= 1  # the padding graph
        assert (np.asarray(graphs.n_node[count + 1 :]) == 0).all()
        assert (weights[count:] == 0).all()
        used = int(graphs.n_node[:count].sum())
        assert not np.asarray(graphs.nodes[used:]).any()
        padding = slice(int(graphs.n_edge[:count].sum()), None)
        for ends in (graphs.senders, graphs.receivers):
            assert (np.asarray(ends[padding]) == used).all()
    assert max(real) == B and min(real) < B


def test_edges_stay_inside_their_graphs(batches):
    graphs = batches[0]["inputs"]
    of_node = np.repeat(np.arange(B + 1), graphs.n_node)
    of_edge = np.repeat(np.arange(B + 1), graphs.n_edge)

    for ends in (graphs.senders, graphs.receivers):
        np.testing.assert_array_equal(of_node[np.asarray(ends)], of_edge)


def test_a_fifth_of_the_labels_is_missing_and_zero(batches):
    weights = np.stack([batch["weights"] for batch in batches])
    targets = np.stack([batch["targets"] for batch in batches])

    there = weights[weights.sum(-1) > 0]
    assert there.mean() == pytest.approx(0.8, abs=0.02)
    assert set(np.unique(targets)) == set(np.unique(weights)) == {0.0, 1.0}
    assert not targets[weights == 0].any()


def test_rows_that_do_not_fit_are_left_out_and_so_are_those_after_them():
    graph = graph_of_image(IMAGE, 0.5)
    rows = stack([graph] * 4, nodes=4, edges=4)
    batch = {"inputs": jax.tree.map(jnp.asarray, rows), "targets": jnp.ones((4, 2))}

    joined = join(batch, nodes=4, edges=2)  # 8 edges for graphs of 4

    assert joined["inputs"].n_node.tolist() == [4, 4, 9, 0, 0]
    assert joined["inputs"].n_edge.tolist() == [4, 4, 0, 0, 0]
    assert joined["weights"].sum(1).tolist() == [2, 2, 0, 0, 0]
    assert joined["inputs"].senders.tolist() == [*graph.senders, *(graph.senders + 4)]


def test_evaluation_leaves_no_graph_out_in_batches_of_any_size():
    compiled = dataclasses.replace(MINI_OGBG, complete_eval=jax.jit(MINI_OGBG.complete_eval))
    vars(compiled)["arrays"] = MINI_OGBG.arrays
    for split, count in (("validation", 200), ("test", 200), ("eval_train", 60)):
        for size in (7, 64):
            found = [
                int((np.asarray(batch["weights"]).sum(1) > 0).sum())
                for batch in compiled._build_input_queue(None, split, "", size)
            ]
            assert sum(found) == count, (split, size)


def test_the_order_of_nodes_and_edges_changes_nothing(batches, params):
    batch = batches[0]
    graphs = jax.tree.map(np.asarray, batch["inputs"])
    generator = np.random.default_rng(0)

    def shuffled(counts):
        """A permutation that keeps each graph's entries together."""
        ends = np.cumsum(counts)
        return np.concatenate(
            [
                generator.permutation(np.arange(end - n, end))
                for end, n in zip(ends, counts, strict=True)
            ]
        )

    nodes, edges = shuffled(graphs.n_node), shuffled(graphs.n_edge)
    place = np.argsort(nodes).astype(np.int32)  # from a node's old number to its new one
    other = graphs._replace(
        nodes=graphs.nodes[nodes], edges=graphs.edges[edges],
        senders=place[graphs.senders[edges]], receivers=place[graphs.receivers[edges]],
    )  # fmt: skip

    logits = [apply(params, {"inputs": each}) for each in (graphs, other)]

    np.testing.assert_allclose(*logits, rtol=1e-3, atol=1e-4)


def test_a_graph_does_not_depend_on_the_others_in_its_batch(batches, params):
    graphs = batches[0]["inputs"]
    of_node = jnp.asarray(np.repeat(np.arange(B + 1), graphs.n_node))
    changed = jnp.where((of_node == 3)[:, None], graphs.nodes, 2.0 * graphs.nodes + 1.0)

    one, other = (
        apply(params, {"inputs": graphs._replace(nodes=nodes)}) for nodes in (graphs.nodes, changed)
    )

    np.testing.assert_allclose(one[3], other[3], rtol=1e-3, atol=1e-4)
    assert not np.allclose(one[2], other[2], atol=1e-2)


def test_the_loss_is_the_sigmoid_cross_entropy_of_the_labels_with_weight(batches):
    batch = batches[0]
    logits = jax.random.normal(KEY, batch["targets"].shape, jnp.float32)

    loss = masked_loss(batch["targets"], logits, batch["weights"])

    there = np.asarray(batch["weights"]) > 0
    p = 1 / (1 + np.exp(-np.asarray(logits, np.float64)))
    expected = -np.log(np.where(np.asarray(batch["targets"]) == 1, p, 1 - p))[there]
    assert loss["per_example"].shape == (B + 1, T)
    assert float(loss["n_valid_examples"]) == there.sum()
    assert float(loss["summed"]) == pytest.approx(expected.sum(), rel=1e-5)
    other = masked_loss(jnp.where(there, batch["targets"], 1.0), logits, batch["weights"])
    assert other["summed"] == loss["summed"]


def test_smoothing_treats_the_tasks_as_classes(batches):
    batch = batches[0]
    logits = jax.random.normal(KEY, batch["targets"].shape, jnp.float32)

    found = masked_loss(batch["targets"], logits, batch["weights"], label_smoothing=0.3)

    smooth = 0.7 * batch["targets"] + 0.3 / T
    each = optax.sigmoid_binary_cross_entropy(logits, smooth) * batch["weights"]
    assert found["summed"] == pytest.approx(float(each.sum()), rel=1e-5)


def test_a_loss_without_the_right_mask_is_refused():
    labels = jnp.zeros((3, 2))

    with pytest.raises(ValueError, match=r"`mask_batch` must .* \(3, 2\), got None"):
        masked_loss(labels, labels)
    with pytest.raises(ValueError, match=r"`mask_batch` must .* got \(3,\)"):
        masked_loss(labels, labels, jnp.ones(3))


@pytest.mark.parametrize("levels", [3, 1000], ids=["many ties", "few ties"])
def test_mean_average_precision_is_scikit_learns(levels):
    generator = np.random.default_rng(levels)
    labels = (generator.random((50, 6)) < 0.3).astype(np.float32)
    mask = (generator.random((50, 6)) < 0.8).astype(np.float32)
    logits = generator.integers(0, levels, (50, 6)).astype(np.float32)
    labels[:, 4], labels[:, 5] = 0, 1  # tasks that are left out

    found = mean_average_precision(*map(jnp.asarray, (labels, logits, mask)))

    expected = np.mean([
        average_precision_score(labels[m > 0, t], logits[m > 0, t])
        for t in range(4) for m in [mask[:, t]]
    ])  # fmt: skip
    assert float(found) == pytest.approx(expected, rel=1e-5)


def test_metrics_ignore_labels_without_weight(batches):
    batch = batches[0]
    logits = jax.random.normal(KEY, batch["targets"].shape, jnp.float32)
    masked = batch["weights"] == 0
    changed = (
        jnp.where(masked, 1 - batch["targets"], batch["targets"]),
        jnp.where(masked, 99.0, logits),
    )

    for metric in (accuracy, mean_average_precision):
        one = metric(batch["targets"], logits, batch["weights"])
        assert metric(*changed, batch["weights"]) == pytest.approx(float(one), rel=1e-6)


def test_types_are_algoperfs_and_no_layer_is_the_output_layer():
    types = MINI_OGBG.model_params_types

    assert types["node_embedding"]["kernel"].name == "EMBEDDING"
    assert types["edge_embedding"]["bias"].name == "BIAS"
    assert types["layernorm_0"]["scale"].name == "LAYER_NORM_SCALE"
    assert {name.lower() for name in MINI_OGBG.param_shapes} == set(types)
    assert not any(map(MINI_OGBG.is_output_params, MINI_OGBG.param_shapes))


def test_dropout_acts_in_training_alone(batches, params):
    train, batch = ForwardPassMode.TRAIN, batches[0]

    outputs = [
        apply(params, {"inputs": batch["inputs"]}), apply(params, batch, train, 0.0),
        apply(params, batch, train, 0.1),
    ]  # fmt: skip

    np.testing.assert_allclose(outputs[0], outputs[1], rtol=1e-4, atol=1e-5)
    assert not np.allclose(outputs[1], outputs[2], atol=1e-2)
