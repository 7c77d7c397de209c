"""The miniatures have the structures of AlgoPerf's workloads, without its sizes.

Of arrays, ranks and dtypes are compared. Blocks are compared by kind: their numbers are left out of
the names of parameters. Nothing of AlgoPerf's models is computed; only shapes are traced.
"""

import itertools
import re
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import pytest

from metaopt.bench.contract.spec import ForwardPassMode
from metaopt.workloads.data.graphs import GraphsTuple
from metaopt.workloads.registry import get_workload

# AlgoPerf asks for float64, and its speech workloads mix floats and integers.
pytestmark = [
    pytest.mark.filterwarnings(f"ignore:{start}")
    for start in ("Explicitly requested dtype float64", "jax.nn.one_hot input", "scatter inputs")
]

KEY = jax.random.PRNGKey(0)
MODES = {mode.name: mode for mode in (ForwardPassMode.TRAIN, ForwardPassMode.EVAL)}
B, G = 2, 3  # rows of a batch, and graphs with the padding graph of one device
MINIATURES = {
    "criteo1tb": "mini_criteo", "fastmri": "mini_fastmri", "imagenet_resnet": "mini_resnet",
    "imagenet_vit": "mini_vit", "librispeech_conformer": "mini_conformer",
    "librispeech_deepspeech": "mini_deepspeech", "ogbg": "mini_ogbg", "wmt": "mini_wmt",
}  # fmt: skip
NUMBERED = re.compile(r"\b(\w*(?:block|rnn|feedforwardmodule|conv2dsubsampling))_\d+", re.I)


def f32(*shape):
    return jax.ShapeDtypeStruct(shape, "float32")


def i32(*shape):
    return jax.ShapeDtypeStruct(shape, "int32")


# The training batches of AlgoPerf's pipelines, which differ from those of its own tests.
SPEECH = {
    "inputs": (f32(B, 320_000), f32(B, 320_000)), "targets": (f32(B, 256), f32(B, 256)),
}  # fmt: skip
BATCHES = {
    "criteo1tb": {"inputs": f32(B, 39), "targets": f32(B)},
    "fastmri": {
        **dict.fromkeys(["inputs", "targets"], f32(B, 320, 320)),
        **dict.fromkeys(["mean", "std", "volume_max"], f32(B)),
    },
    "imagenet_resnet": {"inputs": f32(B, 224, 224, 3), "targets": i32(B)},
    "imagenet_vit": {"inputs": f32(B, 224, 224, 3), "targets": f32(B, 1000)},
    "librispeech_conformer": SPEECH, "librispeech_deepspeech": SPEECH,
    "ogbg": {
        "inputs": GraphsTuple(
            nodes=f32(26 * B + 1, 9), edges=f32(56 * B, 3), receivers=i32(56 * B),
            senders=i32(56 * B), globals={}, n_node=i32(G), n_edge=i32(G),
        ),
        "targets": f32(G, 128), "weights": f32(G, 128),
    },
    "wmt": dict.fromkeys(
        [
            "inputs", "targets", "inputs_position", "targets_position", "inputs_segmentation",
            "targets_segmentation", "weights",
        ],
        i32(B, 256),
    ),
}  # fmt: skip
EVALUATED = {
    **BATCHES,
    "imagenet_vit": BATCHES["imagenet_resnet"],
    "wmt": {key: BATCHES["wmt"][key] for key in ("inputs", "targets", "weights")},
}

# What a miniature leaves out or adds.
# A block of the U-Net has one convolution of AlgoPerf's two: with both a step takes too long.
WITHOUT = {"fastmri": {"['ConvBlock']['Conv_1']['kernel']"}}
# Our records hold the loss of every workload.
MORE_METRICS = {"librispeech_conformer": {"loss"}, "librispeech_deepspeech": {"loss"}}


@pytest.fixture(params=MINIATURES, scope="module")
def pair(request):
    """AlgoPerf's name, its workload, and the miniature."""
    name = request.param
    theirs, miniature = get_workload(f"algoperf_{name}")._theirs, get_workload(MINIATURES[name])
    with pytest.MonkeyPatch.context() as patch:
        if name == "ogbg":  # its layers are numbered through all steps
            steps = miniature.model.steps
            patch.setattr(type(theirs), "num_message_passing_steps", steps)
        if name == "imagenet_resnet":  # its ResNet-18, since 8 channels leave no bottleneck
            from algoperf.workloads.imagenet_resnet.imagenet_jax import models

            patch.setattr(models, "ResNet50", models.ResNet18)
        yield name, theirs, miniature


@pytest.fixture(scope="module")
def trees(pair):
    """Parameters and model state, as shapes: AlgoPerf's and the miniature's."""
    return [jax.eval_shape(workload.init_model_fn, KEY) for workload in pair[1:]]


def leaves(tree):
    """Return the leaves by name, without the numbers of blocks."""
    found = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        found.setdefault(NUMBERED.sub(r"\1", jax.tree_util.keystr(path)), leaf)
    return found


def described(tree):
    """Return the kind of the tree, and rank and dtype of its leaves."""
    arrays = {name: (leaf.ndim, str(leaf.dtype)) for name, leaf in leaves(tree).items()}
    return type(tree), arrays


def test_parameters_and_model_state_have_algoperfs_names_and_ranks(pair, trees):
    (params, state), (our_params, our_state) = trees
    kind, theirs = described(params)
    left_out = WITHOUT.get(pair[0], set())

    assert left_out <= theirs.keys()
    expected = {name: array for name, array in theirs.items() if name not in left_out}
    assert described(our_params) == (kind, expected)
    assert described(our_state) == described(state)


@pytest.mark.usefixtures("trees")  # AlgoPerf's types are known from then on
def test_parameters_have_algoperfs_types(pair):
    name, theirs, miniature = pair
    expected, found = ({n: kind.name for n, kind in leaves(w.model_params_types).items()}
                       for w in (theirs, miniature))  # fmt: skip

    left_out = {left_out.lower() for left_out in WITHOUT.get(name, ())}
    assert found == {n: kind for n, kind in expected.items() if n not in left_out}


def test_the_same_parameters_belong_to_the_output(pair, trees):
    expected, found = ({key for key in params if workload.is_output_params(key)}
                       for workload, (params, _) in zip(pair[1:], trees, strict=True))  # fmt: skip

    assert found == expected
    assert bool(found) != (pair[0] == "ogbg")  # where AlgoPerf names a layer that does not exist


def test_batches_have_the_arrays_of_algoperfs_pipelines(pair):
    name, _, miniature = pair

    assert described(miniature.batch_shapes(B)) == described(BATCHES[name])
    evaluated = next(miniature._build_input_queue(None, "validation", "", B))
    assert described(evaluated) == described(EVALUATED[name])


@pytest.mark.parametrize("mode", MODES.values(), ids=MODES)
def test_logits_and_new_model_state_have_algoperfs_structure(pair, trees, mode):
    ends = forward(pair, trees, mode)

    for theirs, ours in zip(*ends, strict=True):
        assert described(ours) == described(theirs)


def forward(pair, trees, mode):
    """Return logits and model state, of AlgoPerf's model and of the miniature's."""
    name, *workloads = pair
    batches = BATCHES[name], workloads[1].batch_shapes(B)
    return [
        jax.eval_shape(
            lambda params, state, batch, workload=workload: workload.model_fn(
                params, batch, state, mode, KEY, mode is ForwardPassMode.TRAIN
            ),
            *tree,
            batch,
        )
        for workload, tree, batch in zip(workloads, trees, batches, strict=True)
    ]


MASKS = {"ogbg": [f32(G, 128)], "wmt": [None, i32(B, 256)]}


def test_the_loss_has_algoperfs_structure(pair, trees):
    name, theirs, miniature = pair
    logits, our_logits = (ends[0] for ends in forward(pair, trees, ForwardPassMode.EVAL))
    targets = miniature.batch_shapes(B)["targets"]

    assert miniature.loss_type is theirs.loss_type
    for mask in MASKS.get(name, [None] if "librispeech" in name else [None, f32(B)]):
        shape = mask if mask is None or mask.ndim == 1 else f32(*targets.shape)
        expected = jax.eval_shape(theirs.loss_fn, BATCHES[name]["targets"], logits, mask)
        found = jax.eval_shape(miniature.loss_fn, targets, our_logits, shape)
        # AlgoPerf counts in the dtype of the mask, and without one as an integer.
        counts = [loss.pop("n_valid_examples") for loss in (expected, found)]
        assert [count.ndim for count in counts] == [0, 0]
        assert described(found) == described(expected)


def test_metrics_have_algoperfs_names_and_target(pair, trees, monkeypatch):
    name, theirs, miniature = pair
    logits = forward(pair, trees, ForwardPassMode.EVAL)[0][0]

    def zeros(shapes):
        return jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)

    # AlgoPerf's own evaluation of one batch; zeros replace the model's output.
    batches = itertools.repeat(zeros(EVALUATED[name]))
    monkeypatch.setitem(theirs._eval_iters, "validation", batches)
    monkeypatch.setattr(theirs, "model_fn", lambda *_, **__: (zeros(logits), None))
    if name == "wmt":
        model = SimpleNamespace(apply=lambda *_: zeros(logits))
        monkeypatch.setattr(theirs, "_eval_model", model)
        monkeypatch.setattr(theirs, "translate_and_calculate_bleu", lambda **_: 0.0)

    # XLA takes minutes to fold what is constant in the loss of 32,000 tokens.
    with jax.disable_jit(name == "wmt"):
        metrics = theirs._eval_model_on_split("validation", B, B, {}, None, KEY, "")

    names = {*metrics} | MORE_METRICS.get(name, set())
    assert miniature.metric_names == {
        f"{split}/{metric}" for split in ("train", "validation", "test") for metric in names
    }
    assert miniature.target_metric_name == theirs.target_metric_name
    better = {f"validation/{theirs.target_metric_name}": theirs.validation_target_value + 1}
    is_higher = theirs.has_reached_validation_target(better)
    assert miniature.better == ("higher" if is_higher else "lower")
