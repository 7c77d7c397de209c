"""The default output folders, ``runs/NAME-N``: an unfinished one is continued, or N counts up."""

import functools
import json
import re
from pathlib import Path

from metaopt.bench import records
from tuning.campaign import Campaign
from tuning.campaign_folder import folder_content
from tuning.identities import check_folder, identify_campaign
from tuning.studies import list_studies

RUNS = Path("runs")


def numbered_folders(name: str, root: Path = RUNS) -> list[Path]:
    """Return the folders ``NAME-N`` in ``root``, the newest first."""
    found = {
        int(match[1]): path
        for path in root.glob(f"{name}-*")
        if (match := re.fullmatch(rf"{re.escape(name)}-(\d+)", path.name))
    }
    return [found[number] for number in sorted(found, reverse=True)]


def next_folder(name: str, root: Path = RUNS) -> Path:
    """Return the first folder ``NAME-N`` after those in ``root``."""
    newest = next(iter(numbered_folders(name, root)), None)
    number = 0 if newest is None else int(newest.name.rpartition("-")[2])
    return root / f"{name}-{number + 1}"


def choose_folder(campaign: Campaign, root: Path = RUNS) -> tuple[Path, str]:
    """Return the folder to run a campaign in, and one line that says why.

    This is the newest folder that holds the same campaign with the same options, has studies left,
    and can be continued with the files as they are now. Otherwise it is a new one.
    """
    keys = list_studies(campaign)
    identities = functools.cache(lambda: identify_campaign(campaign))
    reason = ""
    for folder in numbered_folders(campaign.name, root):
        if not _holds(folder, campaign):
            continue
        done = sum((key.folder(folder) / records.STUDY_FILE).exists() for key in keys)
        if done == len(keys):
            reason = reason or f": {folder} is finished"
            continue
        try:
            studies = [((key.contender, key.workload), key.folder(folder)) for key in keys]
            check_folder(folder, studies, identities())
        except ValueError as error:
            reason = reason or f": {error}"
            continue
        return folder, f"continues {folder}, with {done} of {len(keys)} studies finished."
    folder = next_folder(campaign.name, root)
    return folder, f"starts {folder}{reason.removesuffix('.')}."


def _holds(folder: Path, campaign: Campaign) -> bool:
    try:
        content = json.loads((folder / records.CAMPAIGN_FILE).read_text("utf-8"))
    except (OSError, ValueError):
        return False
    content.pop("source", None)
    return content == folder_content(campaign)
