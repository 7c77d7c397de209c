"""``python -m tuning targets``: set targets by the stated procedure and freeze them."""

from pathlib import Path

import typer

from metaopt.bench.measure import targets as package
from metaopt.bench.measure.targets import load_targets, to_document
from metaopt.bench.records import write_json
from metaopt.bench.trial.environment import CHECKOUT
from tuning.targets import set_targets

PACKAGED = Path(package.__file__).with_name("targets.json")
PUBLISHED = CHECKOUT / "leaderboard" / "targets.json"


def freeze_targets(workloads: list[str], *, trials: int) -> None:
    """Set the targets of workloads and write them, one after another.

    Args:
        workloads: Names.
        trials: Search trials for each baseline.

    Raises:
        FileNotFoundError: A workload's data is missing.
        ValueError: A name is unknown, or every trial of a search failed.
    """
    known = dict(load_targets())
    for name in workloads:
        found = known[name] = set_targets(name, trials=trials, say=lambda line: typer.echo(line))
        typer.echo(
            f"{name}: {found.validation.metric} {found.validation.value:.6g}, "
            f"{found.test.metric} {found.test.value:.6g}"
        )
        for copy in (PACKAGED, PUBLISHED):
            write_json(copy, to_document(known))
