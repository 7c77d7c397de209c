"""``python -m tuning list``: workloads, submissions, tuners and campaigns, ours and packages'."""

import inspect
import json

import typer
from rich.console import Console
from rich.table import Table

from metaopt.bench.contract.loading import (
    find_submissions,
    list_plugin_submissions,
    load_submission,
)
from metaopt.workloads.algoperf_workloads import list_algoperf_workloads
from metaopt.workloads.registry import list_plugin_workloads, list_workloads
from tuning.campaign import list_campaigns
from tuning.contenders import SUBMISSIONS
from tuning.tuners import TUNERS, list_plugin_tuners


def list_entries() -> dict[str, dict[str, str]]:
    """Return one line for each entry, by kind and name.

    The kind ``unavailable`` is there if an entry point of an installed package is refused or
    broken. Its lines give the reason.
    """
    workloads, no_workloads = list_plugin_workloads()
    submissions, no_submissions = list_plugin_submissions(SUBMISSIONS)
    tuners, no_tuners = list_plugin_tuners()
    submissions |= {
        name: load_submission(name, SUBMISSIONS) for name in find_submissions(SUBMISSIONS)
    }
    kinds = {
        "workloads": {name: w.summary for name, w in (list_workloads() | workloads).items()},
        "workloads of AlgoPerf": list_algoperf_workloads(),
        "submissions": {name: found.describe() for name, found in submissions.items()},
        "tuners": {name: kind.line(name) for name, kind in TUNERS.items()}
        | {name: (inspect.getdoc(make) or "").partition("\n")[0] for name, make in tuners.items()},
        "campaigns": list_campaigns(),
        "unavailable": {
            **{f"workload {name}": why for name, why in no_workloads.items()},
            **{f"submission {name}": why for name, why in no_submissions.items()},
            **{f"tuner {name}": why for name, why in no_tuners.items()},
        },
    }
    return {kind: entries for kind, entries in kinds.items() if entries}


def print_entries(format: str) -> None:
    """Print all entries: a table for each kind, or the names as JSON."""
    kinds = list_entries()
    if format == "json":
        typer.echo(json.dumps({kind: sorted(entries) for kind, entries in kinds.items()}))
        return
    console = Console()
    for kind, entries in kinds.items():
        table = Table(title=kind, title_justify="left", title_style="bold", box=None)
        table.add_column(no_wrap=True, style="cyan")
        table.add_column()
        for name, summary in sorted(entries.items()):
            table.add_row(name, summary.replace("[", r"\["))
        console.print(table)
        console.print()
