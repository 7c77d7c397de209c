"""``python -m tuning targets``: set targets by the stated procedure and freeze them."""

from pathlib import Path

import typer

from metaopt.bench.measure import targets as package
from metaopt.bench.measure.targets import load_targets, to_document
from metaopt.bench.records import write_json
from metaopt.bench.trial.environment import CHECKOUT
from tuning.targets import NoTargetError, set_targets

PACKAGED = Path(package.__file__).with_name("targets.json")
PUBLISHED = CHECKOUT / "leaderboard" / "targets.json"


def freeze_targets(workloads: list[str], out: Path, *, points: int) -> int:
    """Set the targets of workloads and write them, one after another.

    Args:
        workloads: Names.
        out: Folder of the procedure's records.
        points: Search points for each baseline.

    Returns:
        The exit code: 1 if no target was found for some workload.

    Raises:
        FileNotFoundError: A workload's data is missing.
        ValueError: A name is unknown, or every trial of a search failed.
    """
    code = 0
    for name in workloads:
        try:
            found = set_targets(name, out, points=points, say=typer.echo)
        except NoTargetError as error:
            typer.echo(f"tuning: {error}", err=True)
            code = 1
            continue
        typer.echo(
            f"{name}: {found.validation.metric} {found.validation.value:.6g}, "
            f"{found.test.metric} {found.test.value:.6g}"
        )
        # Read again: another process may have frozen another workload's.
        document = to_document({**load_targets(PACKAGED), name: found})
        for copy in (PACKAGED, PUBLISHED):
            write_json(copy, document)
    return code
