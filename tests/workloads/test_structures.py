"""The batches, losses and metrics of the miniatures are those of the workloads that they stand for.

The tables are AlgoPerf's pipelines' at commit 2c90454f (of its branch ``dev``, 4c37f2aa, for the
language model), without the sizes. ``tests/algoperf`` compares with AlgoPerf itself.
"""

import jax
import numpy as np
import pytest

from metaopt.bench.contract.spec import ForwardPassMode, LossType
from metaopt.workloads.data.graphs import GraphsTuple
from metaopt.workloads.registry import get_workload
from tests.conftest import free_workloads

KEY = jax.random.PRNGKey(0)
F, I, BOOL = "float32", "int32", "bool"  # noqa: E741
B = 6  # rows of a batch


def clicks(b):
    return {"inputs": (F, (b, 39)), "targets": (F, (b,))}


def slices(b):
    images = dict.fromkeys(["inputs", "targets"], (F, (b, 32, 32)))
    return images | dict.fromkeys(["mean", "std", "volume_max"], (F, (b,)))


def images(b):
    return {"inputs": (F, (b, 8, 8, 1)), "targets": (I, (b,))}


def mixed_images(b):
    return {"inputs": (F, (b, 8, 8, 1)), "targets": (F, (b, 10))}


def speech(b):
    """Samples and tokens, floats, each with paddings."""
    return {"inputs": ((F, (b, 256)),) * 2, "targets": ((F, (b, 3)),) * 2}


def graphs(b, nodes=26, edges=56):
    """Graphs, one of which at least is padding; weights of each label."""
    ends, counts, labels = (I, (edges * b,)), (I, (b + 1,)), (F, (b + 1, 14))
    return {
        "inputs": GraphsTuple(
            nodes=(F, (nodes * b + 1, 9)), edges=(F, (edges * b, 3)), receivers=ends, senders=ends,
            globals={}, n_node=counts, n_edge=counts,
        ),
        "targets": labels, "weights": labels,
    }  # fmt: skip


def evaluated_graphs(b):
    return graphs(b, nodes=32, edges=96)


def sentences(b, weights=I):
    tokens = dict.fromkeys(["inputs", "targets"], (I, (b, 16)))
    return tokens | {"weights": (weights, (b, 16))}


def packed_sentences(b):
    names = (f"{side}_{what}" for side in ("inputs", "targets")
             for what in ("position", "segmentation"))  # fmt: skip
    return sentences(b) | dict.fromkeys(names, (I, (b, 16)))


def padded_sentences(b):
    return sentences(b, weights=BOOL)


def text(b):
    return {**dict.fromkeys(["inputs", "targets"], (I, (b, 24))), "weights": None}


def evaluated_text(b):
    return text(b) | {"weights": (F, (b, 24))}


def with_weights(table):
    return lambda b: table(b) | {"weights": (F, (b,))}


# Training batches, evaluation batches, and the last of them if it is not full.
BATCHES = {
    "mini_criteo": (clicks, clicks, with_weights(clicks)),
    "mini_fastmri": (slices, slices, with_weights(slices)),
    "mini_resnet": (images, images, with_weights(images)),
    "mini_vit": (mixed_images, images, with_weights(images)),
    "mini_conformer": (speech, speech, speech),  # shorter
    "mini_deepspeech": (speech, speech, speech),
    "mini_ogbg": (graphs, evaluated_graphs, evaluated_graphs),
    "mini_wmt": (packed_sentences, sentences, padded_sentences),
    "mini_lm": (text, evaluated_text, evaluated_text),
}
SHORTER = {"mini_conformer", "mini_deepspeech"}
# Whose model state has another structure, or other shapes, from the first step on.
CHANGING = {"mini_vit", "mini_conformer", "mini_deepspeech"}
# Loss type, metric of the target, its better direction, and the metrics. Ours always report a loss.
METRICS = {
    "mini_criteo": (LossType.SIGMOID_CROSS_ENTROPY, "loss", "lower", {"loss"}),
    "mini_fastmri": (LossType.MEAN_ABSOLUTE_ERROR, "ssim", "higher", {"ssim", "loss"}),
    **dict.fromkeys(
        ["mini_resnet", "mini_vit"],
        (LossType.SOFTMAX_CROSS_ENTROPY, "accuracy", "higher", {"accuracy", "loss"}),
    ),
    **dict.fromkeys(
        ["mini_conformer", "mini_deepspeech"],
        (LossType.CTC_LOSS, "wer", "lower", {"wer", "ctc_loss", "loss"}),
    ),
    "mini_ogbg": (
        LossType.SOFTMAX_CROSS_ENTROPY, "mean_average_precision", "higher",
        {"mean_average_precision", "accuracy", "loss"},
    ),
    "mini_wmt": (
        LossType.SOFTMAX_CROSS_ENTROPY, "bleu", "higher", {"bleu", "accuracy", "loss"},
    ),
    "mini_lm": (LossType.SOFTMAX_CROSS_ENTROPY, "ppl", "lower", {"ppl", "loss"}),
}  # fmt: skip


@pytest.fixture(params=BATCHES, scope="module")
def workload(request):
    yield get_workload(request.param)
    free_workloads()


def described(batch):
    return jax.tree.map(lambda array: (str(array.dtype), array.shape), batch)


def test_training_batches_have_the_arrays_of_the_table(workload):
    table, _, _ = BATCHES[workload.name]

    assert described(workload.batch_shapes(B)) == table(B)


def test_evaluation_batches_have_the_arrays_of_the_table(workload):
    _, table, _ = BATCHES[workload.name]

    for split in ("eval_train", "validation", "test"):
        batch = next(workload._build_input_queue(None, split, "", B))
        assert described(batch) == table(B), split


def test_the_last_batch_of_an_evaluation_has_the_arrays_of_the_table(workload):
    _, full, padded = BATCHES[workload.name]
    size = workload.num_validation_examples - 3

    first, last = workload._build_input_queue(None, "validation", "", size)

    assert described(first) == full(size)
    assert described(last) == padded(3 if workload.name in SHORTER else size)


def test_only_real_rows_weigh_something(workload):
    size = workload.num_validation_examples - 3
    first, last = workload._build_input_queue(None, "validation", "", size)
    weights = [batch.get("weights") for batch in (first, last)]
    rows = [None if w is None else np.asarray(w).reshape(len(w), -1).any(1) for w in weights]

    if workload.name in SHORTER:
        assert rows == [None, None]
    else:
        assert rows[0] is None or rows[0][:size].all()
        np.testing.assert_array_equal(rows[1], np.arange(len(rows[1])) < 3)


def test_a_step_is_compiled_once_again_where_algoperfs_model_state_changes(workload):
    params, start = jax.eval_shape(workload.init_model_fn, KEY)

    def after(state):
        batch = workload.batch_shapes(B)
        return jax.eval_shape(
            lambda *trees: workload.model_fn(*trees, ForwardPassMode.TRAIN, KEY, True)[1],
            params, batch, state,
        )  # fmt: skip

    first = after(start)

    # With dtypes and weak types: whatever is not equal is compiled again.
    assert (first != start) == (workload.name in CHANGING)
    assert after(first) == first


def test_losses_and_metrics_are_those_of_the_table(workload):
    loss_type, target, better, names = METRICS[workload.name]

    assert workload.loss_type is loss_type
    assert (workload.target_metric_name, workload.better) == (target, better)
    assert workload.metric_names == {
        f"{split}/{name}" for split in ("train", "validation", "test") for name in names
    }
