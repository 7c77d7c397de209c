"""A campaign's output folder: who may write into it, and which of its studies are audited."""

import json
import secrets
from pathlib import Path
from typing import Any

from rich.console import Console

from metaopt.bench import records
from metaopt.bench.records.audit import AUDIT_FILE
from metaopt.workloads.registry import get_workload
from tuning.campaign import Campaign, describe_changes, only_adds
from tuning.identities import Identities, check_folder, identify_campaign
from tuning.studies import LOGS, StudyKey, campaign_currency, list_studies


def check_data(campaign: Campaign) -> None:
    """Check that all targets and data are there, before anything runs.

    Raises:
        FileNotFoundError: Data of a workload is missing.
        ValueError: A workload has no target.
    """
    for name in campaign.workloads:
        campaign.targets_on(get_workload(name))
        get_workload(name).check_data()


def folder_content(campaign: Campaign) -> dict[str, Any]:
    """Return what ``campaign.json`` holds of a campaign, without its source."""
    content = {"schema_version": records.SCHEMA_VERSION, "currency": campaign_currency(campaign)}
    return (
        content
        | campaign.model_dump(mode="json")
        | {"contenders": list(campaign.contenders_by_name)}
    )


def claim_folder(campaign: Campaign, out: Path, console: Console | None = None) -> Identities:
    """Write ``campaign.json`` into ``out``, or check that it holds the same campaign.

    Args:
        campaign: The campaign.
        out: Its output folder.
        console: Prints notes on finished contenders that have changed since.

    Returns:
        The identities of the studies.

    Raises:
        ValueError: The folder holds something else, or another campaign, or runs of another version
            that the remaining studies would mix with; shows the difference.
    """
    path = out / records.CAMPAIGN_FILE
    content = folder_content(campaign)
    if path.exists():
        before = json.loads(path.read_text("utf-8"))
        before.pop("source", None)  # its comments, for example, may differ
        changed = describe_changes(before, content)
        if changed and not only_adds(before, content):
            raise ValueError(
                f"{out} holds another campaign ({changed}). Use another output folder, or the "
                "campaign as it was, with more contenders, workloads or studies at most."
            )
    elif (out / LOGS).exists():
        raise ValueError(f"{out} holds runs of no campaign; use another output folder.")
    identities = identify_campaign(campaign)
    studies = [((key.contender, key.workload), key.folder(out)) for key in list_studies(campaign)]
    for note in check_folder(out, studies, identities):
        if console is not None:
            console.print(f"note: {note}", markup=False, highlight=False, soft_wrap=True)
    source = {"source": campaign.source.model_dump(mode="json")} if campaign.source else {}
    records.write_json(path, content | source)
    return identities


def choose_audited(studies: list[StudyKey], out: Path) -> set[StudyKey]:
    """Draw one unfinished study for every contender and workload that has no audit yet."""
    pairs: dict[tuple[str, str], list[StudyKey]] = {}
    for key in studies:
        pairs.setdefault((key.contender, key.workload), []).append(key)
    chosen = set()
    for keys in pairs.values():
        folders = [key.folder(out) for key in keys]
        left = [key for key in keys if not (key.folder(out) / records.STUDY_FILE).exists()]
        if left and not any(f for folder in folders for f in folder.glob(f"trial_*/{AUDIT_FILE}")):
            chosen.add(secrets.choice(left))  # the operating system's entropy
    return chosen
