"""CIFAR-10: what its three formats read and refuse, and VGG-16 with its running averages."""

import dataclasses
import functools
import hashlib
import itertools
import os
import pickle
import zipfile

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metaopt.bench.contract.kit import training_loss
from metaopt.bench.contract.spec import ForwardPassMode, ParameterType
from metaopt.workloads.cifar10 import (
    CIFAR10_VGG16,
    FILES,
    load_cifar10,
    load_cifar10_small,
    standardise,
)
from metaopt.workloads.data.cifar_files import read_npz
from metaopt.workloads.data.datasets import digests
from metaopt.workloads.fixed_batch import fix_batch
from metaopt.workloads.registry import get_workload

KEY = jax.random.PRNGKey(0)
TRAIN, EVAL = ForwardPassMode.TRAIN, ForwardPassMode.EVAL
NAMES = [*(f"data_batch_{number}" for number in range(1, 6)), "test_batch"]
GENERATOR = np.random.default_rng(0)
IMAGES = GENERATOR.integers(0, 256, (6, 8, 32, 32, 3)).astype(np.uint8)  # of six batches
LABELS = GENERATOR.integers(0, 10, (6, 8))


def planes(images):
    return images.transpose(0, 3, 1, 2).reshape(len(images), -1)


def python_batch(images, labels, protocol=2):
    batch = {b"data": planes(images), b"labels": labels.tolist(), b"batch_label": b"one of six"}
    return pickle.dumps(batch, protocol)


def batch_of(data=None, labels=None):
    """A python batch with one part replaced."""
    data = planes(IMAGES[0]) if data is None else data
    labels = LABELS[0].tolist() if labels is None else labels
    return pickle.dumps({"data": data, "labels": labels})


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


@pytest.mark.parametrize("protocol", range(6))
def test_batches_of_every_pickle_protocol_are_read(write, protocol):
    write("py", test_batch=python_batch(IMAGES[5], LABELS[5], protocol))

    np.testing.assert_array_equal(load_cifar10().test["inputs"], IMAGES[5])


class Malicious:
    def __reduce__(self):
        return os.system, ("touch was_here",)


@pytest.mark.parametrize(
    "content, message",
    [
        (pickle.dumps({"data": Malicious()}), "refused: the pickle wants (posix|nt).system"),
        (python_batch(IMAGES[0], LABELS[0])[:-5000], "not a whole pickle of plain data"),
        (b"", "not a whole pickle of plain data"),
        (pickle.dumps([1]), "must be a dictionary, got list"),
        (pickle.dumps({"data": [1]}), r"must have 'labels', got \['data'\]"),
        (pickle.dumps({"data": [1], "labels": [1]}), r"must be an array \(n, 3072\), got list"),
        (python_batch(IMAGES[0], LABELS[0][:7]), r"labels must be \(8,\)"),
        (python_batch(IMAGES[0], LABELS[0] + 10), "labels must be 0 to 9, got"),
        (python_batch(IMAGES[0], LABELS[0] - 10), "labels must be 0 to 9, got -"),
        (python_batch(IMAGES[0], LABELS[0] > 5), "`labels` must be a list of int, got bool"),
        (batch_of(labels=[1 << 70] * 8), "labels must be 0 to 9, got one above 2 .. 63"),
        (batch_of(labels=[1 << 200_000, [[]]]), "`labels` must be a list of int, got list"),
        (batch_of(labels="12345678"), "`labels` must be a list of int, got str"),
        (batch_of(labels=[]), r"labels must be \(8,\)"),
        (batch_of(data=planes(IMAGES[0])[:, :-1]), r"must be an array \(n, 3072\), got \(8, 3071"),
        (batch_of(data=planes(IMAGES[0])[:0], labels=[]), "with n > 0"),
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


def npy(shape, descr="|u1", content=b""):
    """A file of the NPY format that says to have a shape."""
    header = f"{{'descr': {descr!r}, 'fortran_order': False, 'shape': {shape}}}\n".encode()
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + content


@pytest.mark.parametrize(
    "member, message",
    [
        (npy((2**40, 32, 32, 3)), r"holds 0 bytes, but its shape .* needs 3377699720527872"),
        (npy((2, 32, 32, 3), content=b"x" * 6143), "holds 6143 bytes, but its shape .* needs 6144"),
        (npy((2, 32, 32, 3), content=b"x" * 6145), "holds 6145 bytes, but its shape .* needs 6144"),
        (npy("__import__('os').getcwd()"), "x_train.npy|malformed"),
        (npy((1,), "|O", b"cos\ngetcwd\n(tR."), "Object arrays cannot be loaded"),
        (b"no array", "magic"),
        (b"", "magic"),
    ],
)
def test_an_array_of_an_npz_file_that_is_not_what_it_says_is_refused(write, member, message):
    path = write("npz")
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, member if name == "x_train.npy" else content)

    with pytest.raises(ValueError, match=f"small.npz: .*{message}"):
        read_npz(path)


def test_an_encrypted_npz_file_is_refused(write):
    path = write("npz")
    content = bytearray(path.read_bytes())
    for header, flags in ((b"PK\x01\x02", 8), (b"PK\x03\x04", 6)):
        content[content.index(header) + flags] |= 1  # the bit that says it is encrypted
    path.write_bytes(content)

    with pytest.raises(ValueError, match=r"small.npz: not a whole NPZ file: .* is encrypted"):
        read_npz(path)


@pytest.mark.parametrize("form", ["py", "bin", "npz"])
def test_a_result_on_a_subset_says_so(write, form):
    path = write(form)
    workload = dataclasses.replace(CIFAR10_VGG16)  # whose data is not loaded yet

    described = workload.describe_data()

    assert described["examples"] == {"train": 36, "validation": 4, "test": 8}
    assert described["whole"] is False
    files = [path] if form == "npz" else sorted(path.iterdir())
    assert described["files"] == {
        f"cifar10/{file.relative_to(path.parent)}": hashlib.sha256(file.read_bytes()).hexdigest()
        for file in files
    }
    assert fix_batch(workload).describe_data() == described


def test_a_digest_is_of_the_file_that_is_there_now(write):
    path = write("npz")
    first = digests([FILES])
    status = path.stat()
    write("npz", x_test=IMAGES[4])
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns + 1))  # at any clock's resolution

    assert digests([FILES]) != first
    assert digests([FILES]).keys() == first.keys() == {"cifar10/small.npz"}


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


@functools.cache
def forward(workload):
    """``model_fn``, compiled once for each mode and each way with the statistics."""
    return jax.jit(workload.model_fn, static_argnums=(3, 5, 7))


@pytest.fixture
def start(small):
    """Parameters, model state with averages off their start, and 16 images."""
    params, state = small.init_model_fn(KEY)
    state = jax.tree.map(lambda average: average + 0.1, state)
    return params, state, standardise({key: a[:16] for key, a in small.arrays["train"].items()})


def test_running_averages_move_in_training_if_told_to_and_never_in_evaluation(small, start):
    params, state, batch = start

    logits, moved = forward(small)(params, batch, state, TRAIN, KEY, True)
    same_logits, kept = forward(small)(params, batch, state, TRAIN, KEY, False)
    _, evaluated = forward(small)(params, batch, state, EVAL, KEY, False)

    jax.tree.map(np.testing.assert_array_equal, kept, state)
    jax.tree.map(np.testing.assert_array_equal, evaluated, state)
    np.testing.assert_allclose(logits, same_logits, atol=1e-5)
    images = jax.lax.conv_general_dilated(
        batch["inputs"], params["conv_0"]["kernel"], (1, 1), "SAME",
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )  # fmt: skip
    for statistic, of in (("mean", np.mean), ("var", np.var)):
        before, after = (s["batch_stats"]["bn_0"][statistic] for s in (state, moved))
        expected = 0.9 * before + 0.1 * of(np.asarray(images), (0, 1, 2))
        np.testing.assert_allclose(after, expected, rtol=1e-4, atol=1e-6)
    with pytest.raises(ValueError, match="`update_batch_norm` must be False in evaluation mode"):
        small.model_fn(params, batch, state, EVAL, KEY, True)


def test_a_submission_may_choose_the_statistics_as_in_algoperf(small, start):
    params, state, batch = start

    def logits(mode, update, use_running_average_bn):
        arguments = params, batch, state, mode, KEY, update, None, use_running_average_bn
        return forward(small)(*arguments)

    of_averages, of_batch = logits(EVAL, False, None)[0], logits(TRAIN, False, None)[0]
    kept, state_after = logits(TRAIN, True, True)

    assert np.abs(of_averages - of_batch).max() > 0.01
    np.testing.assert_allclose(logits(TRAIN, False, True)[0], of_averages, atol=1e-5)
    np.testing.assert_allclose(logits(EVAL, False, False)[0], of_batch, atol=1e-5)
    np.testing.assert_allclose(kept, of_averages, atol=1e-5)
    jax.tree.map(np.testing.assert_array_equal, state_after, state)


def test_evaluation_uses_the_averages_so_an_example_does_not_depend_on_its_neighbours(small, start):
    params, state, batch = start
    others = {key: jnp.concatenate([array[:3], array[:2:-1]]) for key, array in batch.items()}
    others["inputs"] = others["inputs"].at[3:].multiply(2.0)

    def logits(batch, mode):
        return forward(small)(params, batch, state, mode, KEY, False)[0][:3]

    np.testing.assert_allclose(logits(others, EVAL), logits(batch, EVAL), atol=1e-4)
    assert np.abs(logits(others, TRAIN) - logits(batch, TRAIN)).max() > 0.01


def test_the_fixed_form_evaluates_the_function_that_is_trained(small):
    fixed = get_workload("cifar10_vgg16_small_fixed").with_batch_seed(1)
    params, state = fixed.init_model_fn(KEY)

    loss, _ = jax.jit(functools.partial(training_loss, fixed))(params, state, fixed.batch, KEY)

    metrics = fixed.eval_model(0, params, state)
    assert metrics["validation/loss"] == pytest.approx(float(loss), rel=1e-5)
    with pytest.raises(ValueError, match="`model_state` must have the structure"):
        fixed.eval_model(0, params, {})


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
