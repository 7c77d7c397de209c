"""MNIST's files: what is read, and what is refused."""

import gzip
import struct

import numpy as np
import pytest

from metaopt.workloads.mnist import load_mnist, parse_idx


def idx(array: np.ndarray) -> bytes:
    header = struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape)
    return header + array.astype(np.uint8).tobytes()


@pytest.fixture
def write(tmp_path, monkeypatch):
    """Write small files of MNIST's format and point METAOPT_DATA_DIR at them."""
    generator = np.random.default_rng(0)
    (tmp_path / "mnist").mkdir()
    monkeypatch.setenv("METAOPT_DATA_DIR", str(tmp_path))

    def write(prefix="small-", zipped=True, **replace):
        arrays = {
            "train-images-idx3-ubyte": generator.integers(0, 256, (60, 28, 28)),
            "train-labels-idx1-ubyte": generator.integers(0, 10, 60),
            "t10k-images-idx3-ubyte": generator.integers(0, 256, (10, 28, 28)),
            "t10k-labels-idx1-ubyte": generator.integers(0, 10, 10),
        }
        for name, array in arrays.items():
            content = replace.get(name.split("-idx")[0].replace("-", "_"), array)
            content = content if isinstance(content, bytes) else idx(np.asarray(content))
            path = tmp_path / "mnist" / f"{prefix}{name}{'.gz' if zipped else ''}"
            path.write_bytes(gzip.compress(content) if zipped else content)
        return arrays

    return write


@pytest.mark.parametrize("zipped", [True, False], ids=["gzipped", "plain"])
def test_small_files_of_the_format_are_read_under_other_names(write, zipped):
    written = write(zipped=zipped)

    arrays = load_mnist()

    pixels = (written["train-images-idx3-ubyte"].reshape(60, 784) / 255 - 0.1307) / 0.3081
    np.testing.assert_allclose(arrays.train["inputs"], pixels[:50], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(arrays.validation["inputs"], pixels[50:], rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(arrays.test["targets"], written["t10k-labels-idx1-ubyte"])


def test_the_original_files_have_the_known_checksums(data_dir):
    arrays = load_mnist()

    assert [len(split["inputs"]) for split in vars(arrays).values()] == [50_000, 10_000, 10_000]
    assert arrays.train["targets"][:5].tolist() == [5, 0, 4, 1, 9]
    assert arrays.train["inputs"].mean() == pytest.approx(0.0, abs=5e-3)
    assert arrays.train["inputs"].std() == pytest.approx(1.0, abs=5e-3)


def test_a_canonical_name_with_other_content_is_refused(write):
    write(prefix="")

    with pytest.raises(ValueError, match="wrong checksum, refused: SHA-256 is"):
        load_mnist()


def test_the_error_for_missing_files_states_folder_and_command(tmp_path, monkeypatch):
    monkeypatch.setenv("METAOPT_DATA_DIR", str(tmp_path))
    with pytest.raises(FileNotFoundError, match=f"looked in {tmp_path}/mnist/.*tuning download"):
        load_mnist()

    monkeypatch.delenv("METAOPT_DATA_DIR")
    with pytest.raises(FileNotFoundError, match="METAOPT_DATA_DIR is not set"):
        load_mnist()


@pytest.mark.parametrize(
    "replace, message",
    [
        ({"train_images": idx(np.zeros((60, 28, 28)))[:-1]}, "cut short: 47055 bytes"),
        ({"train_images": idx(np.zeros((60, 28, 28))) + b"x"}, "too long"),
        ({"train_images": np.zeros((60, 27, 28))}, r"must be \(n, 28, 28\) of uint8"),
        ({"train_labels": np.zeros(59)}, r"labels must be \(60,\)"),
        ({"t10k_labels": np.full(10, 11)}, "labels must be 0 to 9, got 11"),
        ({"t10k_images": b"PNG image"}, "not an IDX file"),
        ({"train_labels": idx(np.zeros(60))[:6]}, "its header alone has 8"),
        ({"train_images": b"\0\0\x08\x03" + b"\xff" * 12}, r"cut short: 16 bytes, but shape"),
        ({"train_images": b"\0\0\x08\xff" + b"\0" * 9}, "its header alone has 1024"),
        ({"train_images": b""}, "not an IDX file"),
        ({"train_images": np.zeros((0, 28, 28)), "train_labels": np.zeros(0)}, "n > 0"),
        ({"t10k_images": np.zeros((0, 28, 28)), "t10k_labels": np.zeros(0)}, "t10k.*n > 0"),
    ],
)
def test_a_malformed_file_is_refused(write, replace, message):
    write(**replace)

    with pytest.raises(ValueError, match=message):
        load_mnist()


def test_a_truncated_gzip_file_is_refused(write, tmp_path):
    write()
    path = tmp_path / "mnist" / "small-train-images-idx3-ubyte.gz"
    path.write_bytes(path.read_bytes()[:-100])

    with pytest.raises(ValueError, match="not a whole gzip file"):
        load_mnist()


@pytest.mark.parametrize("code, dtype", [(0x0B, ">i2"), (0x0D, ">f4"), (0x0E, ">f8")])
def test_every_element_type_is_big_endian(code, dtype):
    values = np.array([[1, -2, 300]], dtype)
    content = struct.pack(">BBBBII", 0, 0, code, 2, 1, 3) + values.tobytes()

    np.testing.assert_array_equal(parse_idx(content), values)
