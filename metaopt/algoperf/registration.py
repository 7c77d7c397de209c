"""Our workloads in AlgoPerf's registry, where its ``submission_runner`` finds them by name.

AlgoPerf imports a workload as ``algoperf.workloads.<path>_<framework>.workload`` and calls the
class that the registry names. Ours have such a module each, made here, whose class is a function
that returns the workload: AlgoPerf checks what a workload does, never what it is.
"""

import sys
from types import ModuleType
from typing import Any

from metaopt.workloads.registry import get_workload, list_workloads

_CLASS = "Workload"


def register(name: str | None = None) -> list[str]:
    """Put a workload, or all of ours, into AlgoPerf's registry; return the names.

    Submissions, samplers and loggers of AlgoPerf then use them under these names. A second call
    changes nothing. Data is read from ``METAOPT_DATA_DIR``, whatever AlgoPerf's ``--data_dir`` is.

    Raises:
        ImportError: AlgoPerf is not installed.
        ValueError: There is no such workload, or AlgoPerf has another of that name.
    """
    from algoperf.workloads.workloads import WORKLOADS  # pyright: ignore[reportMissingImports]

    names = sorted(list_workloads()) if name is None else [get_workload(name).name]
    for each in names:
        entry = {"workload_path": f"metaopt/{each}", "workload_class_name": _CLASS}
        module = f"algoperf.workloads.metaopt.{each}_jax.workload"
        if each in WORKLOADS and module not in sys.modules:
            raise ValueError(f"AlgoPerf has a workload {each!r} of its own; it stays.")
        if module not in sys.modules:
            sys.modules[module] = _module(module, each)
            WORKLOADS[each] = entry
    return names


def _module(module_name: str, workload_name: str) -> ModuleType:
    def make() -> Any:
        workload = get_workload(workload_name)
        workload.check_data()
        return workload

    module = ModuleType(module_name, f"The workload {workload_name}, for AlgoPerf.")
    setattr(module, _CLASS, make)
    return module
