"""AlgoPerf's workloads under our runner: AlgoPerf's objects with our additional attributes.

AlgoPerf's workload ``wmt`` is ``algoperf_wmt`` here. Submissions and log folders use AlgoPerf's
name. The data is in ``METAOPT_ALGOPERF_DATA_DIR``, in the folders of AlgoPerf's set-up: ``mnist/``,
``ogbg/``, ``wmt/``, ...
"""

import functools
import importlib
import importlib.util
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax

from metaopt.bench.measure.targets import BETTER, Target, WorkloadTargets
from metaopt.bench.records import ALGOPERF_PREFIX as PREFIX

DATA_VARIABLE = "METAOPT_ALGOPERF_DATA_DIR"

# Listed if AlgoPerf is not installed; otherwise its registry is used.
BASE_WORKLOADS = (
    "cifar", "criteo1tb", "fastmri", "imagenet_resnet", "imagenet_vit", "librispeech_conformer",
    "librispeech_deepspeech", "mnist", "ogbg", "wmt",
)  # fmt: skip
# The folders of the data sets that several workloads share.
_DATA_FOLDERS = {"imagenet": "imagenet", "librispeech": "librispeech", "criteo1tb": "criteo1tb"}


class UnavailableError(ValueError):
    """A workload of AlgoPerf cannot be used because an import fails."""


@functools.cache
def why_unavailable() -> str | None:
    """Return one line on why AlgoPerf's workloads cannot be used; ``None`` if they can."""
    if importlib.util.find_spec("algoperf") is None:
        return "AlgoPerf is not installed"
    try:
        importlib.import_module("algoperf.workloads.workloads")
    except Exception as error:  # a missing framework, say, or one of another version
        return f"AlgoPerf cannot be imported: {_one_line(error)}"
    return None


def list_algoperf_workloads() -> dict[str, str]:
    """Return one line about each of AlgoPerf's workloads, by name; imports AlgoPerf if it can."""
    reason = why_unavailable()
    if reason is not None:
        return {f"{PREFIX}{name}": f"unavailable: {reason}" for name in BASE_WORKLOADS}
    return {f"{PREFIX}{name}": f"AlgoPerf's {name}, in JAX" for name in sorted(_registry())}


@functools.cache
def get_algoperf_workload(name: str) -> "AlgoPerfWorkload":
    """Return AlgoPerf's workload ``algoperf_...``, one object per process.

    Raises:
        UnavailableError: AlgoPerf cannot be imported, or a package that the workload needs.
        ValueError: AlgoPerf has no such workload.
    """
    reason = why_unavailable()
    if reason is not None:
        raise UnavailableError(f"Workload {name!r} is unavailable: {reason}.")
    theirs = name.removeprefix(PREFIX)
    registry = _registry()
    if theirs not in registry:
        known = [PREFIX + known for known in sorted(registry)]
        raise ValueError(f"No workload {name!r} in AlgoPerf, only {known}.")
    path, class_name = registry[theirs]
    _choose_jax()
    try:
        module = importlib.import_module(
            f"algoperf.workloads.{path.replace('/', '.')}_jax.workload"
        )
    except ImportError as error:
        raise UnavailableError(f"Workload {name!r} is unavailable: {_one_line(error)}.") from None
    return AlgoPerfWorkload(theirs, getattr(module, class_name)())


class AlgoPerfWorkload:
    """One of AlgoPerf's workloads; attributes not defined here are those of AlgoPerf's object.

    Attributes:
        name: Our name, ``algoperf_...``.
        algoperf_name: AlgoPerf's name.
        reference_batch_size: The batch size of AlgoPerf's baseline: the number of examples that
            costs one gradient evaluation.
    """

    is_fixed_batch = False

    def __init__(self, algoperf_name: str, workload: Any) -> None:
        from metaopt.bench.contract.kit import BATCH_SIZES

        self.algoperf_name = algoperf_name
        self.name = PREFIX + algoperf_name
        base = _base_name(algoperf_name, BATCH_SIZES)
        self.base_name = base
        self.reference_batch_size = BATCH_SIZES[base]
        self.summary = f"AlgoPerf's {algoperf_name}, in JAX"
        self._theirs = workload

    def __getattr__(self, name: str) -> Any:
        """Return the attribute of AlgoPerf's workload."""
        if name == "_theirs":  # not yet set, during creation or copying
            raise AttributeError(name)
        return getattr(self._theirs, name)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, AlgoPerfWorkload) and self.name == other.name

    def __hash__(self) -> int:
        return hash(self.name)

    # Data.

    @property
    def data_dir(self) -> Path:
        """The folder of the data, as in AlgoPerf's ``--data_dir``.

        Raises:
            FileNotFoundError: ``METAOPT_ALGOPERF_DATA_DIR`` is not set, or has no such folder.
        """
        folder = next(
            (folder for start, folder in _DATA_FOLDERS.items() if self.base_name.startswith(start)),
            self.base_name,
        )
        root = os.environ.get(DATA_VARIABLE, "")
        if not root or not (Path(root) / folder).is_dir():
            found = f"{root!r} has none" if root else "it is not set"
            raise FileNotFoundError(
                f"{self.name} reads AlgoPerf's data from the folder {folder!r} in {DATA_VARIABLE}, "
                f"but {found}."
            )
        return Path(root) / folder

    def check_data(self) -> None:
        """Raise ``FileNotFoundError``, with the remedy, if the folder is missing."""
        _ = self.data_dir

    def describe_data(self) -> dict[str, Any]:
        """Return the description of the data for records; AlgoPerf has no digests."""
        theirs = self._theirs
        examples = {
            "train": theirs.num_train_examples,
            "validation": theirs.num_validation_examples,
            "test": theirs.num_test_examples,
        }
        return {"files": {}, "examples": examples, "whole": None}

    def _build_input_queue(
        self, data_rng: Any, split: str, data_dir: str = "", **arguments: Any
    ) -> "ReplayedQueue":
        """Return AlgoPerf's iterator over a split; restoring it takes all batches again."""
        del data_dir
        folder = str(self.data_dir)
        return ReplayedQueue(
            lambda: self._theirs._build_input_queue(data_rng, split, data_dir=folder, **arguments)
        )

    @functools.cache  # noqa: B019 (there is one workload of a name in a process)
    def batch_shapes(self, batch_size: int | None = None) -> Any:
        """Return the shapes and dtypes of a training batch, by taking one."""
        size = batch_size or self.reference_batch_size
        key = jax.random.PRNGKey(0)
        batch = next(self._build_input_queue(key, "train", global_batch_size=size))
        return jax.eval_shape(lambda batch: batch, batch)

    def eval_model(
        self,
        global_batch_size: int,
        params: Any,
        model_state: Any,
        rng: Any,
        data_dir: str = "",
        imagenet_v2_data_dir: str = "",
        global_step: int = 0,
    ) -> dict[str, float]:
        """Return AlgoPerf's metrics on its training part, validation and test examples."""
        del data_dir, imagenet_v2_data_dir
        folder = str(self.data_dir)
        metrics = self._theirs.eval_model(
            global_batch_size, params, model_state, rng, folder, folder, global_step
        )
        return {metric: float(value) for metric, value in metrics.items()}

    # Targets.

    @functools.cached_property
    def targets(self) -> WorkloadTargets:
        """AlgoPerf's targets."""
        theirs = self._theirs
        metric = theirs.target_metric_name
        if metric not in BETTER:
            raise ValueError(f"{self.name}: the better direction of {metric!r} is unknown.")
        validation, test = (
            Target(f"{split}/{metric}", float(value), BETTER[metric])
            for split, value in (
                ("validation", theirs.validation_target_value),
                ("test", theirs.test_target_value),
            )
        )
        return WorkloadTargets(
            validation, test, theirs.step_hint, provenance={"source": "AlgoPerf's workload"}
        )


class ReplayedQueue(Iterator[Any]):
    """An iterator that can be restored at a position by creating it again and advancing it.

    Restoring takes as long as taking the batches, and gives the same batches only if they depend
    only on the iterator's key. The trial's record notes such a restoration.

    Args:
        make: A function that returns the iterator at its beginning.
    """

    restores = "replayed"

    def __init__(self, make: Callable[[], Iterator[Any]]) -> None:
        self._make = make
        self._iterator = make()
        self.position = 0

    def seek(self, position: int) -> None:
        """Go to the position after the first ``position`` batches."""
        if position < self.position:
            self._iterator, self.position = self._make(), 0
        while self.position < position:
            next(self)

    def __next__(self) -> Any:
        """Return the next batch."""
        batch = next(self._iterator)
        self.position += 1
        return batch


def _choose_jax() -> None:
    """Set the flag that AlgoPerf's random numbers read; its own runner defines it too."""
    from absl import flags  # pyright: ignore[reportMissingImports]

    if "framework" not in flags.FLAGS:
        flags.DEFINE_enum("framework", "jax", ["jax", "pytorch"], "of AlgoPerf's workloads")
    if not flags.FLAGS.is_parsed():
        flags.FLAGS.mark_as_parsed()


def _registry() -> dict[str, tuple[str, str]]:
    """Return path and class of AlgoPerf's own workloads, by name."""
    from algoperf.workloads.workloads import WORKLOADS  # pyright: ignore[reportMissingImports]

    return {
        name: (entry["workload_path"], entry["workload_class_name"])
        for name, entry in WORKLOADS.items()
        if not entry["workload_path"].startswith("metaopt/")  # ours, registered there
    }


def _base_name(name: str, known: Any) -> str:
    """Return the workload of which ``name`` is a variant: the longest known prefix of ``name``."""
    bases = [base for base in known if name == base or name.startswith(f"{base}_")]
    if not bases:
        raise ValueError(f"No reference batch size is known for AlgoPerf's workload {name!r}.")
    return max(bases, key=len)


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__
