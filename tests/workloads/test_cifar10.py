"""CIFAR-10: what its three formats read and refuse, and VGG-16 with its running averages."""

import itertools
import os
import pickle

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metaopt.bench.spec import ForwardPassMode, ParameterType
from metaopt.bench.submission_kit import training_loss
from metaopt.workloads.cifar10 import CIFAR10_VGG16, load_cifar10, load_cifar10_small, standardise
from metaopt.workloads.cifar_files import plain_pickle, read_npz
from metaopt.workloads.registry import get_workload

KEY = jax.random.PRNGKey(0)
NAMES = [*(f"data_batch_{number}" for number in range(1, 6)), "test_batch"]
GENERATOR = np.random.default_rng(0)
IMAGES = GENERATOR.integers(0, 256, (6, 8, 32, 32, 3)).astype(np.uint8)  # of six batches
LABELS = GENERATOR.integers(0, 10, (6, 8))


def planes(images):
    return images.transpose(0, 3, 1, 2).reshape(len(images), -1)


def python_batch(images, labels, protocol=2):
    batch = {b"data": planes(images), b"labels": labels.tolist(), b"batch_label": b"one of six"}
    return pickle.dumps(batch, protocol)


def binary_batch(images, labels):
    return np.concatenate([labels[:, None].astype(np.uint8), planes(images)], 1).tobytes()


@pytest.fixture
def write(tmp_path, monkeypatch):
    """Write small files of a format and point METAOPT_DATA_DIR at them."""
    monkeypatch.setenv("METAOPT_DATA_DIR", str(tmp_path))

    def write(form, **replace):
        folder = tmp_path / "cifar10"
        folder.mkdir(exist_ok=True)
        if form == "npz":
            arrays = {
                "x_train": np.concatenate(IMAGES[:5]), "y_train": np.concatenate(LABELS[:5]),
                "x_test": IMAGES[5], "y_test": LABELS[5],
            }  # fmt: skip
            np.savez(folder / "small.npz", **{**arrays, **replace})
            return folder / "small.npz"
        folder = folder / f"cifar-10-batches-{form}"
        folder.mkdir()
        for name, images, labels in zip(NAMES, IMAGES, LABELS, strict=True):
            make = python_batch if form == "py" else binary_batch
            content = replace.get(name, make(images, labels))
            (folder / (name if form == "py" else f"{name}.bin")).write_bytes(content)
        return folder

    return write


@pytest.fixture
def small(request):
    """The small workload; skips without its data."""
    folder = os.environ.get("METAOPT_DATA_DIR")
    if not folder or not os.path.isdir(os.path.join(folder, "cifar10")):
        pytest.skip("METAOPT_DATA_DIR with cifar10/ is not set")
    return get_workload("cifar10_vgg16_small")


@pytest.mark.parametrize("form", ["py", "bin", "npz"])
def test_every_format_reads_the_same_examples(write, form):
    write(form)

    arrays = load_cifar10()

    np.testing.assert_array_equal(arrays.train["inputs"], np.concatenate(IMAGES[:5])[:36])
    np.testing.assert_array_equal(arrays.validation["inputs"], np.concatenate(IMAGES[:5])[36:])
    np.testing.assert_array_equal(arrays.validation["targets"], np.concatenate(LABELS[:5])[36:])
    np.testing.assert_array_equal(arrays.test["inputs"], IMAGES[5])
    np.testing.assert_array_equal(arrays.test["targets"], LABELS[5])


@pytest.mark.parametrize("protocol", [2, 3, 4])
def test_batches_of_every_pickle_protocol_are_read(write, protocol):
    write("py", test_batch=python_batch(IMAGES[5], LABELS[5], protocol))

    np.testing.assert_array_equal(load_cifar10().test["inputs"], IMAGES[5])


def test_a_batch_as_python_2_wrote_it_is_read():
    # Written by hand after the original files: byte strings, `numpy.core`, a tuple for the shape.
    content = (
        b"\x80\x02}q\x01(U\x04dataq\x02cnumpy.core.multiarray\n_reconstruct\nq\x03cnumpy\nndarray\n"
        b"q\x04K\x00\x85U\x01b\x87Rq\x05(K\x01K\x02K\x01\x86cnumpy\ndtype\nq\x06U\x02u1K\x00K\x01"
        b"\x87Rq\x07(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89U\x02\x07\xfftb"
        b"U\x06labelsq\x08]q\x09(K\x06K\x09eu."
    )

    batch = plain_pickle(content, "data_batch_1")

    np.testing.assert_array_equal(batch[b"data"], np.array([[7], [255]], np.uint8))
    assert batch[b"labels"] == [6, 9]


class Malicious:
    def __reduce__(self):
        return os.system, ("touch was_here",)


@pytest.mark.parametrize(
    "content, message",
    [
        (pickle.dumps({"data": Malicious()}), "refused: the pickle wants (posix|nt).system"),
        (b"cbuiltins\neval\n(V1+1\ntR.", "refused: the pickle wants builtins.eval"),
        (b"cnumpy\nload\n(Vfile\ntR.", "refused: the pickle wants numpy.load"),
        (pickle.dumps({"data": np.array([print], object)}), "refused"),
        (pickle.dumps({"data": np.zeros(3)}, 2), "refused: arrays must be of u1, got 'f8'"),
        (pickle.dumps({"data": {1, 2}}), "set is not plain data"),
        (python_batch(IMAGES[0], LABELS[0])[:-5000], "not a whole pickle of plain data"),
        (b"", "not a whole pickle of plain data"),
        (pickle.dumps([1]), "must be a dictionary, got list"),
        (pickle.dumps({"data": [1]}), r"must have 'labels', got \['data'\]"),
        (pickle.dumps({"data": [1], "labels": [1]}), r"must be an array \(n, 3072\), got list"),
        (python_batch(IMAGES[0], LABELS[0][:7]), r"labels must be \(8,\)"),
        (python_batch(IMAGES[0], LABELS[0] + 10), "labels must be 0 to 9, got"),
    ],
)
def test_a_pickle_of_anything_but_images_and_labels_is_refused(
    write, content, message, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    write("py", data_batch_3=content)

    with pytest.raises(ValueError, match=f"data_batch_3: .*{message}"):
        load_cifar10()
    assert not (tmp_path / "was_here").exists()


@pytest.mark.parametrize(
    "content, message",
    [
        (binary_batch(IMAGES[0], LABELS[0])[:-1], "a multiple of 3073 bytes and not 0, got 24583"),
        (b"", "and not 0, got 0"),
        (binary_batch(IMAGES[0], LABELS[0] * 0 + 10), "labels must be 0 to 9, got 10"),
    ],
)
def test_a_binary_batch_that_is_not_what_it_should_be_is_refused(write, content, message):
    write("bin", data_batch_2=content)

    with pytest.raises(ValueError, match=f"data_batch_2.bin: .*{message}"):
        load_cifar10()


@pytest.mark.parametrize(
    "replace, message",
    [
        ({"x_train": np.zeros((40, 32, 32), np.uint8)}, r"must be \(n, 32, 32, 3\) of uint8"),
        ({"x_test": IMAGES[5] / 255}, "got .* float64"),
        ({"y_test": LABELS[5] * 1.0}, r"must be \(8,\) of integers like the images"),
        ({"y_test": LABELS[5] - 10}, "labels must be 0 to 9, got -"),
        ({"y_train": np.array([None])}, "Object arrays cannot be loaded"),
    ],
)
def test_an_npz_file_that_is_not_what_it_should_be_is_refused(write, replace, message):
    write("npz", **replace)

    with pytest.raises(ValueError, match=f"small.npz: .*{message}"):
        load_cifar10()


def test_an_npz_file_that_is_cut_short_or_lacks_an_array_is_refused(write, tmp_path):
    path = write("npz")
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ValueError, match="not a whole NPZ file"):
        read_npz(path)

    np.savez(path, x_train=IMAGES[0])
    with pytest.raises(ValueError, match=r"must have \['y_train', 'x_test', 'y_test'\]"):
        read_npz(path)


def test_missing_data_says_what_is_looked_for_and_how_to_get_it(tmp_path, monkeypatch, write):
    monkeypatch.setenv("METAOPT_DATA_DIR", str(tmp_path))
    with pytest.raises(FileNotFoundError, match=f"batches-py/.*{tmp_path}/cifar10/.*to get it"):
        CIFAR10_VGG16.check_data()

    (write("bin") / "data_batch_4.bin").unlink()
    with pytest.raises(FileNotFoundError, match=r"data_batch_4.bin.*unpack the whole archive"):
        load_cifar10()


def test_the_small_data_is_the_first_of_each_class(small):
    arrays = load_cifar10_small()

    assert [len(part["targets"]) for part in vars(arrays).values()] == [9_000, 1_000, 2_000]
    assert np.bincount(arrays.test["targets"]).tolist() == [200] * 10
    assert arrays.train["targets"][:5].tolist() == [6, 9, 9, 4, 1]


def test_vgg16_has_the_parameters_that_a_hand_count_gives():
    variables = jax.eval_shape(lambda: CIFAR10_VGG16.model.init(KEY, jnp.zeros((1, 32, 32, 3))))

    channels = [3, 64, 64, 128, 128, 256, 256, 256, *[512] * 6]
    convolutions = sum(9 * a * b + 2 * b for a, b in itertools.pairwise(channels))
    count = sum(leaf.size for leaf in jax.tree.leaves(variables["params"]))
    assert count == convolutions + 512 * 10 + 10 == 14_724_042
    assert f"({count:,} parameters)" in CIFAR10_VGG16.summary


def test_running_averages_move_in_training_if_told_to_and_never_in_evaluation(small):
    params, state = small.init_model_fn(KEY)
    batch = next(small._build_input_queue(np.array([0, 1], np.uint32), "train"))
    train, evaluate = ForwardPassMode.TRAIN, ForwardPassMode.EVAL

    logits, moved = small.model_fn(params, batch, state, train, KEY, True)
    same_logits, kept = small.model_fn(params, batch, state, train, KEY, False)
    _, evaluated = small.model_fn(params, batch, state, evaluate, KEY, False)

    assert kept is state and evaluated is state
    np.testing.assert_array_equal(logits, same_logits)
    images = small.model.apply(
        {"params": params, **state}, batch["inputs"], train=True,
        mutable=["batch_stats", "intermediates"],
        capture_intermediates=lambda module, _: module.name == "conv_0",
    )[1]["intermediates"]["conv_0"]["__call__"][0]  # fmt: skip
    expected = 0.9 * state["batch_stats"]["bn_0"]["mean"] + 0.1 * np.mean(images, (0, 1, 2))
    found = moved["batch_stats"]["bn_0"]["mean"]
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)
    with pytest.raises(ValueError, match="`update_batch_norm` must be False in evaluation mode"):
        small.model_fn(params, batch, state, evaluate, KEY, True)


def test_evaluation_uses_the_averages_so_an_example_does_not_depend_on_its_neighbours(small):
    params, state = small.init_model_fn(KEY)
    batch = next(small._build_input_queue(np.array([0, 1], np.uint32), "train"))
    few = {key: array[:3] for key, array in batch.items()}

    def logits(batch, mode):
        return small.model_fn(params, batch, state, mode, KEY, False)[0][:3]

    np.testing.assert_allclose(
        logits(few, ForwardPassMode.EVAL), logits(batch, ForwardPassMode.EVAL), atol=1e-4
    )
    train = ForwardPassMode.TRAIN
    assert np.abs(logits(few, train) - logits(batch, train)).max() > 0.01


def test_the_fixed_form_evaluates_the_function_that_is_trained(small):
    fixed = get_workload("cifar10_vgg16_small_fixed").with_batch_seed(1)
    params, state = fixed.init_model_fn(KEY)

    loss, _ = training_loss(fixed, params, state, fixed.batch, KEY)

    metrics = fixed.eval_model(0, params, state)
    assert metrics["validation/loss"] == pytest.approx(float(loss), rel=1e-5)


def test_arrays_of_parameters_are_what_their_layers_are(small):
    types = small.model_params_types

    assert types["conv_3"]["kernel"] is ParameterType.CONV_WEIGHT
    assert types["bn_3"]["scale"] is ParameterType.BATCH_NORM_SCALE
    assert types["bn_3"]["bias"] is ParameterType.BATCH_NORM_BIAS
    assert types["output"]["kernel"] is ParameterType.WEIGHT
    assert types["output"]["bias"] is ParameterType.BIAS


def test_pixels_are_standardised(small):
    images = standardise(small.arrays["train"])["inputs"]

    np.testing.assert_allclose(images.mean((0, 1, 2)), 0.0, atol=0.05)
    np.testing.assert_allclose(images.std((0, 1, 2)), 1.0, atol=0.05)


def test_the_loss_falls_over_twenty_steps(small):
    params, state = small.init_model_fn(KEY)
    queue = small._build_input_queue(np.array([0, 1], np.uint32), "train")

    @jax.jit
    def step(params, state, batch):
        grad = jax.value_and_grad(
            lambda params: training_loss(small, params, state, batch, KEY), has_aux=True
        )
        (loss, state), grads = grad(params)
        return jax.tree.map(lambda p, g: p - 0.05 * g, params, grads), state, loss

    losses = []
    for _ in range(20):
        params, state, loss = step(params, state, next(queue))
        losses.append(float(loss))

    assert np.mean(losses[-5:]) < 0.93 * np.mean(losses[:5])
