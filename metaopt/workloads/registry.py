"""The workloads by name."""

import functools
from typing import Any

from metaopt.algoperf import workloads as algoperf
from metaopt.workloads.cifar10 import CIFAR10_VGG16, CIFAR10_VGG16_SMALL
from metaopt.workloads.embedded import BREAST_CANCER_LOGISTIC, DIGITS_MLP
from metaopt.workloads.fixed_batch import fix_batch
from metaopt.workloads.mnist import MNIST_MLP
from metaopt.workloads.supervised import SupervisedWorkload
from metaopt.workloads.translation import ENDE_TRANSFORMER, ENDE_TRANSFORMER_SMALL

FIXED_SUFFIX = "_fixed"

_STOCHASTIC = (
    BREAST_CANCER_LOGISTIC,
    CIFAR10_VGG16,
    CIFAR10_VGG16_SMALL,
    DIGITS_MLP,
    ENDE_TRANSFORMER,
    ENDE_TRANSFORMER_SMALL,
    MNIST_MLP,
)


@functools.cache
def _registry() -> dict[str, SupervisedWorkload]:
    workloads = [form for base in _STOCHASTIC for form in (base, fix_batch(base))]
    return {workload.name: workload for workload in workloads}


def list_workloads() -> dict[str, SupervisedWorkload]:
    """Return every workload of ours by name; none has loaded its data."""
    return dict(_registry())


def get_workload(name: str) -> Any:
    """Return the workload ``name``, one object per process; ``_fixed`` gives its fixed-batch form.

    AlgoPerf's own, where it is installed, are ``algoperf_...``.

    Raises:
        ValueError: There is no such workload, and the message lists those that exist; or AlgoPerf
            cannot be imported, and it says why.
    """
    if name.startswith(algoperf.PREFIX):
        return algoperf.get_workload(name)
    try:
        return _registry()[name]
    except KeyError:
        raise ValueError(f"No workload {name!r}, only {sorted(_registry())}.") from None
