"""CIFAR-10's three formats: every one reads the same examples, and malformed files are refused."""

import dataclasses
import hashlib
import os
import pickle
import zipfile

import numpy as np
import pytest

from metaopt.workloads.cifar10 import CIFAR10_VGG16, FILES, load_cifar10
from metaopt.workloads.data import cifar_files
from metaopt.workloads.data.cifar_files import parse_python_batch, read_npz
from metaopt.workloads.data.datasets import digests
from metaopt.workloads.fixed_batch import fix_batch

NAMES = [*(f"data_batch_{number}" for number in range(1, 6)), "test_batch"]
GENERATOR = np.random.default_rng(0)
IMAGES = GENERATOR.integers(0, 256, (6, 8, 32, 32, 3)).astype(np.uint8)  # of six batches
LABELS = GENERATOR.integers(0, 10, (6, 8))


def planes(images):
    return images.transpose(0, 3, 1, 2).reshape(len(images), -1)


def python_batch(images, labels):
    batch = {b"data": planes(images), b"labels": labels.tolist(), b"batch_label": b"one of six"}
    return pickle.dumps(batch, 3)


def batch_of(data=None, labels=None):
    """A python batch with one part replaced."""
    data = planes(IMAGES[0]) if data is None else data
    labels = LABELS[0].tolist() if labels is None else labels
    return pickle.dumps({b"data": data, b"labels": labels}, 3)


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
            monkeypatch.setitem(cifar_files.BATCH_MD5, name, hashlib.md5(content).hexdigest())
            (folder / (name if form == "py" else f"{name}.bin")).write_bytes(content)
        return folder

    return write


@pytest.mark.parametrize("form", ["py", "bin", "npz"])
def test_every_format_reads_the_same_examples(write, form):
    write(form)

    arrays = load_cifar10()

    np.testing.assert_array_equal(arrays.train["inputs"], np.concatenate(IMAGES[:5])[:36])
    np.testing.assert_array_equal(arrays.validation["inputs"], np.concatenate(IMAGES[:5])[36:])
    np.testing.assert_array_equal(arrays.validation["targets"], np.concatenate(LABELS[:5])[36:])
    np.testing.assert_array_equal(arrays.test["inputs"], IMAGES[5])
    np.testing.assert_array_equal(arrays.test["targets"], LABELS[5])


class Call:
    """What unpickling this would call."""

    def __init__(self, *call):
        self.call = call

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize(
    "place",
    [
        lambda call: call,
        lambda call: {"data": [{"deep": (call,)}]},
        lambda call: Call(np.dtype, ("u1",), (call,)),
    ],
    ids=["alone", "nested", "in a state"],
)
@pytest.mark.parametrize("protocol", [0, 2, 4])
@pytest.mark.parametrize("function", [os.system, eval, np.load], ids=lambda f: f.__name__)
def test_a_pickle_that_calls_something_is_refused_and_runs_nothing(
    tmp_path, monkeypatch, function, protocol, place
):
    monkeypatch.chdir(tmp_path)
    content = pickle.dumps(place(Call(function, ("touch was_here",))), protocol)

    with pytest.raises(ValueError, match=f"^file: .*asks for .*{function.__name__}"):
        parse_python_batch(content, "file")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "content, name",
    [
        (b"(S'touch was_here'\nios\nsystem\n.", "os.system"),
        (b"(cos\nsystem\nS'touch was_here'\no.", "os.system"),
        (b"\x80\x04\x8c\x02os\x8c\x06system\x93\x8c\x01x\x85R.", "os.system"),
        (b"\x80\x04\x8c\x05numpy\x8c\x0dtesting.print\x93.", "numpy.testing.print"),
        (b"\x80\x04\x8c\x0bnumpy.dtype\x8c\x04type\x93.", "numpy.dtype.type"),
        (pickle.dumps(np.float64(1)), "scalar"),
    ],
)
def test_no_opcode_and_no_dotted_name_leads_to_another_name(content, name):
    with pytest.raises(ValueError, match=f"^file: .*asks for .*{name}"):
        parse_python_batch(content, "file")


def test_a_batch_as_python_2_wrote_it_is_read():
    # By hand, like the published files: byte strings, `numpy.core`, a tuple for the shape.
    content = (
        b"\x80\x02}q\x01(U\x04dataq\x02cnumpy.core.multiarray\n_reconstruct\nq\x03cnumpy\nndarray\n"
        b"q\x04K\x00\x85U\x01b\x87Rq\x05(K\x01K\x01M\x00\x0c\x86cnumpy\ndtype\nq\x06U\x02u1K\x00K"
        b"\x01\x87Rq\x07(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89T\x00\x0c\x00\x00"
        + planes(IMAGES[0, :1]).tobytes()
        + b"tbU\x06labelsq\x08]q\x09K\x06au."
    )

    images, labels = parse_python_batch(content, "data_batch_1")

    np.testing.assert_array_equal(images, IMAGES[0, :1])
    assert labels.tolist() == [6]


@pytest.mark.parametrize(
    "content, message",
    [
        (python_batch(IMAGES[0], LABELS[0])[:-5000], "not a python batch"),
        (b"", "not a python batch"),
        (pickle.dumps([1]), "not a python batch"),
        (pickle.dumps({b"data": [1]}), "not a python batch"),
        (batch_of(data=[1]), "not a python batch"),
        (batch_of(labels=[1, [[]]]), "not a python batch"),
        (batch_of(data=planes(IMAGES[0])[:, :-1]), "not a python batch"),
        (batch_of(data=planes(IMAGES[0])[:0], labels=[]), "with n > 0"),
        (batch_of(data=planes(IMAGES[0]) / 255), "got .* float64"),
        (batch_of(labels="12345678"), r"labels must be \(8,\)"),
        (python_batch(IMAGES[0], LABELS[0][:7]), r"labels must be \(8,\)"),
        (python_batch(IMAGES[0], LABELS[0] > 5), "got .* bool"),
        (python_batch(IMAGES[0], LABELS[0] + 10), "labels must be 0 to 9, got"),
        (python_batch(IMAGES[0], LABELS[0] - 10), "labels must be 0 to 9, got -"),
    ],
)
def test_a_malformed_python_batch_is_refused(content, message):
    with pytest.raises(ValueError, match=f"^file: .*{message}"):
        parse_python_batch(content, "file")


def test_a_python_batch_with_another_checksum_is_refused_before_it_is_unpickled(
    write, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    path = write("py") / "data_batch_3"
    path.write_bytes(pickle.dumps(Call(os.system, ("touch was_here",))))

    with pytest.raises(ValueError, match=f"{path}: wrong checksum, refused: MD5"):
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
def test_a_malformed_binary_batch_is_refused(write, content, message):
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
def test_a_malformed_npz_file_is_refused(write, replace, message):
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
def test_an_npz_array_whose_size_differs_from_its_header_is_refused(write, member, message):
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
def test_data_description_marks_a_subset(write, form):
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


def test_the_error_for_missing_data_states_files_and_source(tmp_path, monkeypatch, write):
    monkeypatch.setenv("METAOPT_DATA_DIR", str(tmp_path))
    with pytest.raises(FileNotFoundError, match=f"batches-py/.*{tmp_path}/cifar10/.*to get it"):
        CIFAR10_VGG16.check_data()

    (write("bin") / "data_batch_4.bin").unlink()
    with pytest.raises(FileNotFoundError, match=r"data_batch_4.bin.*unpack the whole archive"):
        load_cifar10()
