"""Graphs of images' bright pixels, and batches of graphs of one fixed shape.

Letters: g graphs in a batch, of which b at most are real; n nodes and m edges of all of them.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from metaopt.workloads.data.queues import Batch


class GraphsTuple(NamedTuple):
    """Several graphs in a row, with the fields of ``jraph.GraphsTuple``."""

    nodes: Any  # features, (n, 9)
    edges: Any  # features, (m, 3)
    receivers: Any  # (m,), numbers of nodes
    senders: Any  # (m,)
    globals: Any
    n_node: Any  # (g,), the number of nodes of each graph
    n_edge: Any  # (g,)


def graph_of_image(image: np.ndarray, threshold: float) -> GraphsTuple:
    """Return the graph of the pixels above a threshold; neighbours are joined in both directions.

    Args:
        image: Levels of grey, (h, w).
        threshold: Pixels above it are nodes.

    Returns:
        One graph. The features of a node are its level, and sine and cosine of its row and column
        at two frequencies; those of an edge are the steps in rows and columns to the sender, and
        the difference of the levels.
    """
    bright = image > threshold
    places = np.argwhere(bright)  # (n, 2)
    numbers = np.full(np.add(image.shape, 2), -1)
    numbers[1:-1, 1:-1][bright] = np.arange(len(places))
    angles = np.pi * places / (np.array(image.shape) - 1)
    waves = [f(k * angles) for k in (1, 2) for f in (np.sin, np.cos)]
    level = image[bright][:, None]
    nodes = np.concatenate([level, *waves], axis=1)
    ends, starts, edges = [], [], []
    for step in ((0, 1), (1, 0), (0, -1), (-1, 0)):
        neighbours = numbers[tuple((places + 1 + step).T)]
        end = np.flatnonzero(neighbours >= 0)
        start = neighbours[end]
        ends.append(end)
        starts.append(start)
        steps = np.broadcast_to(step, (len(end), 2))
        edges.append(np.concatenate([steps, level[start] - level[end]], axis=1))
    receivers, senders = np.concatenate(ends), np.concatenate(starts)
    return GraphsTuple(
        nodes=nodes.astype(np.float32),
        edges=np.concatenate(edges).astype(np.float32),
        receivers=receivers.astype(np.int32),
        senders=senders.astype(np.int32),
        globals={},
        n_node=np.array(len(places), np.int32),
        n_edge=np.array(len(receivers), np.int32),
    )


def stack(graphs: list[GraphsTuple], nodes: int, edges: int) -> GraphsTuple:
    """Return graphs as rows of one size: (count, nodes, 9), (count, edges, 3) and so on.

    Args:
        graphs: Single graphs.
        nodes: The number of nodes of a row; zeros fill it up.
        edges: The number of edges of a row.
    """

    def filled(field: str, size: int) -> np.ndarray:
        parts = [getattr(graph, field) for graph in graphs]
        rows = np.zeros((len(parts), size, *parts[0].shape[1:]), parts[0].dtype)
        for row, part in zip(rows, parts, strict=True):
            row[: len(part)] = part
        return rows

    return GraphsTuple(
        nodes=filled("nodes", nodes),
        edges=filled("edges", edges),
        receivers=filled("receivers", edges),
        senders=filled("senders", edges),
        globals={},
        n_node=np.array([graph.n_node for graph in graphs]),
        n_edge=np.array([graph.n_edge for graph in graphs]),
    )


def join(batch: Batch, nodes: int, edges: int) -> Batch:
    """Join b rows of :func:`stack` to a batch of AlgoPerf's ``ogbg``, whose shape depends on b.

    The batch has g = b + 1 graphs, ``nodes * b + 1`` nodes and ``edges * b`` edges. It takes rows
    in order until the nodes, the edges or the rows are used up, and leaves out the others. The
    first graph after them is padding, with all nodes and edges that are left, one node at least;
    graphs after that are empty.

    Args:
        batch: ``inputs`` as rows; ``targets`` (b, tasks), NaN where a label is missing; perhaps
            ``weights`` (b,), 0 where the row is padding.
        nodes: The number of nodes for each row.
        edges: The number of edges for each row.

    Returns:
        ``inputs``, a :class:`GraphsTuple`; ``targets`` (g, tasks) with 0 for missing labels; and
        ``weights`` (g, tasks), 0 for missing labels and for padding, else 1.
    """
    rows: GraphsTuple = batch["inputs"]
    count = len(rows.n_node)
    fits = (jnp.cumsum(rows.n_node) <= nodes * count) & (jnp.cumsum(rows.n_edge) <= edges * count)
    n_node, n_edge = (jnp.where(fits, counts, 0) for counts in (rows.n_node, rows.n_edge))
    first_node, node_row, node_place, is_node = _spread(n_node, nodes * count + 1)
    _, edge_row, edge_place, is_edge = _spread(n_edge, edges * count)

    def ends(of_rows: jax.Array) -> jax.Array:
        # Padding joins the first node of the padding with itself.
        numbers = of_rows[edge_row, edge_place] + first_node[edge_row]
        return jnp.where(is_edge, numbers, n_node.sum())

    labels = batch["targets"]
    there = ~jnp.isnan(labels) & fits[:, None]
    if "weights" in batch:
        there &= batch["weights"][:, None] > 0
    padding = (jnp.arange(count + 1) == fits.sum()).astype(n_node.dtype)
    graphs = GraphsTuple(
        nodes=jnp.where(is_node[:, None], rows.nodes[node_row, node_place], 0.0),
        edges=jnp.where(is_edge[:, None], rows.edges[edge_row, edge_place], 0.0),
        receivers=ends(rows.receivers),
        senders=ends(rows.senders),
        globals={},
        n_node=jnp.append(n_node, 0) + padding * (nodes * count + 1 - n_node.sum()),
        n_edge=jnp.append(n_edge, 0) + padding * (edges * count - n_edge.sum()),
    )
    return {
        "inputs": graphs,
        "targets": jnp.pad(jnp.where(there, labels, 0.0), ((0, 1), (0, 0))),
        "weights": jnp.pad(there.astype(jnp.float32), ((0, 1), (0, 0))),
    }


def _spread(counts: jax.Array, places: int) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
    """Lay out the entries of rows one after another.

    Returns:
        The first place of each row; and for each place the row, the number of the entry in it, and
        whether an entry lies there.
    """
    ends = jnp.cumsum(counts)
    place = jnp.arange(places, dtype=counts.dtype)
    row = jnp.minimum(jnp.searchsorted(ends, place, side="right"), len(counts) - 1)
    first = ends - counts
    return first, row, place - first[row], place < ends[-1]
