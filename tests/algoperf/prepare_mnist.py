"""Prepare MNIST as TensorFlow Datasets keeps it, from the four IDX files, without the network.

    python tests/algoperf/prepare_mnist.py IDX_FOLDER OUT

AlgoPerf then reads ``OUT/mnist`` as its ``--data_dir``. TensorFlow Datasets' own builder writes the
examples; only its download is replaced by the files that are there.
"""

import gzip
import shutil
import sys
import tempfile
from pathlib import Path
from unittest import mock


def prepare(idx_folder: Path, out: Path) -> Path:
    """Write ``OUT/mnist/mnist/3.0.1`` unless it is there; return ``OUT/mnist``."""
    import tensorflow_datasets as tfds

    data_dir = out / "mnist"
    if (data_dir / "mnist" / "3.0.1" / "dataset_info.json").exists():
        return data_dir
    with tempfile.TemporaryDirectory() as unpacked:

        def unpack(_manager, urls):
            paths = {}
            for key, url in urls.items():
                name = Path(url).name
                paths[key] = Path(unpacked) / name.removesuffix(".gz")
                with gzip.open(idx_folder / name) as packed, paths[key].open("wb") as file:
                    shutil.copyfileobj(packed, file)
            return paths

        manager = "tensorflow_datasets.core.download.DownloadManager.download_and_extract"
        with mock.patch(manager, unpack):
            builder = tfds.builder("mnist:3.0.1", data_dir=str(data_dir), try_gcs=False)
            builder.download_and_prepare()
    return data_dir


if __name__ == "__main__":
    print(prepare(Path(sys.argv[1]), Path(sys.argv[2])))
