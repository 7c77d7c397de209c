"""What ``python -m tuning list`` says of installed packages: what they add, and what is broken."""

import inspect

from metaopt.bench.contract.loading import list_plugin_submissions
from metaopt.workloads.registry import list_plugin_workloads
from tuning.contenders import SUBMISSIONS
from tuning.tuners import list_plugin_tuners


def list_additions() -> dict[str, dict[str, str]]:
    """Return one line for each addition, by kind and name.

    The kind ``unavailable`` is there if an entry point is refused or broken, and gives the reason.
    """
    workloads, no_workloads = list_plugin_workloads()
    submissions, no_submissions = list_plugin_submissions(SUBMISSIONS)
    tuners, no_tuners = list_plugin_tuners()
    lines = {
        "workloads": {name: workload.summary for name, workload in workloads.items()},
        "submissions": {name: found.describe() for name, found in submissions.items()},
        "tuners": {name: _first_line(make) for name, make in tuners.items()},
        "unavailable": {
            **{f"workload {name}": why for name, why in no_workloads.items()},
            **{f"submission {name}": why for name, why in no_submissions.items()},
            **{f"tuner {name}": why for name, why in no_tuners.items()},
        },
    }
    return {kind: entries for kind, entries in lines.items() if entries}


def _first_line(documented: object) -> str:
    return (inspect.getdoc(documented) or "").partition("\n")[0]
