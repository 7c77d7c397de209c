"""What would keep a campaign's records off the leaderboard, known before anything runs.

``python -m analysis submit`` refuses such records afterwards: the rules `environment-commit` and
`targets-frozen`.
"""

import json
from collections.abc import Iterator
from pathlib import Path

from metaopt.bench import records
from metaopt.bench.measure.targets import load_targets
from metaopt.bench.records.identity import listed
from metaopt.bench.trial.environment import CHECKOUT, changed_files
from metaopt.workloads.registry import get_workload
from tuning.campaign import Campaign
from tuning.studies import LOGS


def find_obstacles(campaign: Campaign, out: Path) -> list[str]:
    """Return a sentence for each obstacle.

    Args:
        campaign: The campaign.
        out: Its output folder; what it holds already counts, too.
    """
    return [*_of_checkout(changed_files(CHECKOUT)), *_of_targets(campaign), *_of_records(out)]


def _of_checkout(changed: list[str] | None) -> Iterator[str]:
    if changed is None:
        yield f"{CHECKOUT} is no checkout of git, so the commit is not known."
    elif changed:
        yield f"The checkout has changes: {listed(changed)}. Commit them first."


def _of_targets(campaign: Campaign) -> Iterator[str]:
    frozen = load_targets()
    own = [
        name
        for name in campaign.workloads
        if name in campaign.targets
        and not (
            name in frozen and campaign.targets_on(get_workload(name))[0] == frozen[name].validation
        )
    ]
    if own:
        yield f"The campaign sets targets of its own: {listed(own)}."


def _of_records(out: Path) -> Iterator[str]:
    changed = [
        path.parent.relative_to(out).as_posix()
        for path in sorted((out / LOGS).rglob(records.RUN_FILE))
        if not _ran_clean(path)
    ]
    if changed:
        yield f"{out} holds trials that ran from a changed checkout: {listed(changed)}."


def _ran_clean(path: Path) -> bool:
    environment = json.loads(path.read_text("utf-8")).get("environment") or {}
    return (environment.get("git") or {}).get("dirty") is False
