"""AlgoPerf's ``ogbg`` in miniature: digits as graphs of their bright pixels, a graph network.

As there, batches hold graphs one after another and end with padding, a part of the labels is
missing, and the workload declares softmax cross-entropy and computes a masked sigmoid
cross-entropy.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax

from metaopt.bench.contract.spec import LossType
from metaopt.workloads.data.arrays import Arrays
from metaopt.workloads.data.graphs import graph_of_image, join, stack
from metaopt.workloads.models.graph_network import GraphNetwork
from metaopt.workloads.models.parameter_types import algoperf_types
from metaopt.workloads.supervised import SupervisedWorkload

NODES, EDGES = 26, 56  # for each graph of a batch, AlgoPerf's
LARGEST = {"nodes": 32, "edges": 96}  # of any digit
THRESHOLD = 6 / 16  # of levels from 0 to 1; 22 nodes and 54 edges on average
MISSING = 0.2  # the share of labels
NOISE = 0.1  # added to the levels, standard deviation
# The tasks: a digit is one of these.
TASKS = (*((digit,) for digit in range(10)), (1, 3, 5, 7, 9), (5, 6, 7, 8, 9), (0, 6, 8, 9),
         (2, 3, 5, 7))  # fmt: skip
_COUNTS = {"train": 1_397, "validation": 200, "test": 200}


def load_graphs() -> Arrays:
    """Load the graphs and the labels of each split: 1,397 / 200 / 200, always the same."""
    from sklearn import datasets

    inputs, digits = datasets.load_digits(return_X_y=True)
    images = np.asarray(inputs).reshape(-1, 8, 8) / 16.0
    generator = np.random.default_rng(0)
    graphs = [graph_of_image(image, THRESHOLD) for image in images]
    rows = stack(graphs, **LARGEST)
    rows.nodes[..., 0] += generator.normal(scale=NOISE, size=rows.nodes.shape[:2])
    labels = np.stack([np.isin(digits, task) for task in TASKS], 1).astype(np.float32)
    labels[generator.random(labels.shape) < MISSING] = np.nan
    order = generator.permutation(len(graphs))
    parts = np.split(order, np.cumsum(list(_COUNTS.values()))[:-1])
    return Arrays(
        *(
            {"inputs": jax.tree.map(lambda leaf, i=part: leaf[i], rows), "targets": labels[part]}
            for part in parts
        )
    )


def masked_loss(
    label_batch: jax.Array,
    logits_batch: jax.Array,
    mask_batch: jax.Array | None = None,
    label_smoothing: float = 0.0,
) -> dict[str, jax.Array]:
    """Return the sigmoid cross-entropy of the labels whose weight is not 0.

    Label smoothing treats the tasks as classes, as AlgoPerf's does.

    Args:
        label_batch: Labels, (graphs, tasks).
        logits_batch: Logits of that shape.
        mask_batch: Weights of that shape; required.
        label_smoothing: The share of the uniform distribution over the tasks.

    Raises:
        ValueError: The three shapes differ, or there is no mask.
    """
    shapes = [jnp.shape(array) for array in (label_batch, logits_batch) if array is not None]
    if mask_batch is None or len({*shapes, jnp.shape(mask_batch)}) > 1:
        got = None if mask_batch is None else jnp.shape(mask_batch)
        raise ValueError(
            "`mask_batch` must have the shape of the labels and of the logits, "
            f"{shapes[0]} and {shapes[1]}, got {got}."
        )
    smooth = optax.smooth_labels(label_batch, label_smoothing)
    losses = optax.sigmoid_binary_cross_entropy(logits_batch, smooth)
    per_example = jnp.where(mask_batch != 0, losses, 0.0)
    return {
        "summed": per_example.sum(),
        "n_valid_examples": mask_batch.sum(),
        "per_example": per_example,
    }


def accuracy(labels: jax.Array, logits: jax.Array, mask: jax.Array) -> jax.Array:
    """Return the share of the labels with weight that the sign of the logit predicts."""
    right = (logits > 0) == (labels > 0)
    return jnp.average(right.astype(mask.dtype), weights=mask)


def mean_average_precision(labels: jax.Array, logits: jax.Array, mask: jax.Array) -> jax.Array:
    r"""Return the mean over tasks of the average precision, scikit-learn's.

    For a task with positive labels :math:`P` and logits :math:`z` it is

    .. math:: \frac1{|P|} \sum_{i \in P} \frac{|\{j \in P: z_j \ge z_i\}|}{|\{j: z_j \ge z_i\}|}

    Tasks without positive or without negative labels are left out. NaN if that leaves none.
    """
    positive = jnp.where(labels > 0, mask, 0.0)
    above = (logits[None] >= logits[:, None]).astype(mask.dtype)  # (graphs, graphs, tasks)
    right = jnp.einsum("ijt,jt->it", above, positive)
    found = jnp.einsum("ijt,jt->it", above, mask)
    precision = jnp.where(positive > 0, right / jnp.maximum(found, 1.0), 0.0)
    count = positive.sum(0)
    average = precision.sum(0) / jnp.maximum(count, 1.0)
    is_defined = (count > 0) & (count < mask.sum(0))
    return jnp.mean(average, where=is_defined)


MINI_OGBG = SupervisedWorkload(
    name="mini_ogbg",
    summary="digits as graphs of their bright pixels, graph network (17,374 parameters)",
    load=load_graphs,
    whole=_COUNTS,
    model=GraphNetwork(outputs=len(TASKS), width=28, steps=2),
    loss_type=LossType.SOFTMAX_CROSS_ENTROPY,
    loss_fn=masked_loss,
    metrics={"accuracy": accuracy, "mean_average_precision": mean_average_precision},
    target_metric="mean_average_precision",
    complete=functools.partial(join, nodes=NODES, edges=EDGES),
    complete_eval=functools.partial(join, **LARGEST),
    has_modes=True,
    dropout_rate=0.1,
    parameter_types=algoperf_types,
    output_layer="Dense_17",  # AlgoPerf's answer; its model has no such layer, nor has this one
    reference_batch_size=16,
    step_hint=400,
    eval_period=50,
    eval_train_size=60,
    max_allowed_runtime_sec=60.0,
    eval_period_time_sec=3.0,
)
