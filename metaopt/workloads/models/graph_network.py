"""A graph network: updates of edges, nodes and whole graphs, each from its neighbourhood.

Letters: g graphs, n nodes and m edges of all of them, d width.

Layers have AlgoPerf's names and order, so that parameters are typed alike.

References:
    Battaglia et al., `Relational inductive biases, deep learning, and graph networks
    <https://arxiv.org/abs/1806.01261>`_, 2018.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from metaopt.workloads.data.graphs import GraphsTuple
from metaopt.workloads.models.transformer import dropout


class GraphNetwork(nn.Module):
    """Steps of message passing; the prediction is the state of the whole graph."""

    outputs: int
    width: int
    steps: int

    @nn.compact
    def __call__(
        self, graphs: GraphsTuple, *, train: bool = False, dropout_rate: Any = 0.0
    ) -> jax.Array:
        """Map graphs to logits (g, outputs)."""
        rate = dropout_rate if train else 0.0
        nodes = nn.Dense(self.width, name="node_embedding")(graphs.nodes)
        edges = nn.Dense(self.width, name="edge_embedding")(graphs.edges)
        count, total = len(graphs.n_node), len(nodes)
        whole = jnp.zeros((count, self.outputs), nodes.dtype)
        numbers = jnp.arange(count)
        graph_of_node = jnp.repeat(numbers, graphs.n_node, total_repeat_length=total)
        graph_of_edge = jnp.repeat(numbers, graphs.n_edge, total_repeat_length=len(edges))

        def update(*parts: jax.Array) -> jax.Array:
            hidden = nn.LayerNorm()(nn.Dense(self.width)(jnp.concatenate(parts, -1)))
            return dropout(self, nn.relu(hidden), rate)

        for _ in range(self.steps):
            sent, received = nodes[graphs.senders], nodes[graphs.receivers]
            edges = update(edges, sent, received, whole[graph_of_edge])
            out = jax.ops.segment_sum(edges, graphs.senders, total)
            into = jax.ops.segment_sum(edges, graphs.receivers, total)
            nodes = update(nodes, out, into, whole[graph_of_node])
            of_nodes = jax.ops.segment_sum(nodes, graph_of_node, count, indices_are_sorted=True)
            of_edges = jax.ops.segment_sum(edges, graph_of_edge, count, indices_are_sorted=True)
            whole = update(of_nodes, of_edges, whole)
        return nn.Dense(self.outputs)(whole)
