"""Tests with AlgoPerf itself: run by ``make test-algoperf``, skipped with a reason elsewhere."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from metaopt.workloads.algoperf_workloads import why_unavailable


def pytest_collection_modifyitems(items):
    here = Path(__file__).parent
    reason = why_unavailable()
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.algoperf)
            if reason is not None:
                item.add_marker(pytest.mark.skip(reason=f"{reason}: `make test-algoperf`"))


@pytest.fixture(scope="session")
def mnist_dir(tmp_path_factory) -> Path:
    """MNIST as AlgoPerf's data set-up leaves it."""
    idx = Path(os.environ.get("METAOPT_DATA_DIR", "")) / "mnist"
    if not (idx / "train-images-idx3-ubyte.gz").exists():
        pytest.skip("METAOPT_DATA_DIR (a folder with mnist/ in it) is not set")
    out = os.environ.get("METAOPT_ALGOPERF_DATA_DIR") or tmp_path_factory.mktemp("algoperf")
    subprocess.run([sys.executable, Path(__file__).parent / "prepare_mnist.py", idx, out],
                   check=True, capture_output=True)  # fmt: skip
    return Path(out) / "mnist"


@pytest.fixture(scope="session")
def pins_python() -> str:
    """The Python of an environment with AlgoPerf, the versions that it pins and nothing of ours."""
    python = os.environ.get("METAOPT_ALGOPERF_PINS")
    if not python:
        pytest.skip("METAOPT_ALGOPERF_PINS (a Python with AlgoPerf's pins) is not set")
    code = "import importlib.util, jax, optax; print(jax.__version__, optax.__version__, "
    code += "importlib.util.find_spec('metaopt'))"
    done = subprocess.run([python, "-I", "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.split() == ["0.7.0", "0.2.2", "None"]
    return str(Path(python).absolute())


@pytest.fixture
def run_official(root, tmp_path):
    """A call of AlgoPerf's ``submission_runner``; returns the folder of its first trial."""

    def run(workload, submission, *flags, ruleset, data_dir="", module="submission_runner"):
        command = [
            sys.executable, "-m", module, "--framework=jax", f"--workload={workload}",
            f"--submission_path=submissions/{submission}/submission.py",
            "--experiment_name=run/study_1", f"--tuning_ruleset={ruleset}",
            f"--experiment_dir={tmp_path}", f"--data_dir={data_dir}", *flags,
        ]  # fmt: skip
        done = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=550)
        assert done.returncode == 0, done.stderr[-3000:]
        return tmp_path / "run" / "study_1" / f"{workload}_jax" / "trial_1"

    return run
