"""The studies of a campaign: their names, their folders, and the plan of each."""

from pathlib import Path
from typing import NamedTuple

from metaopt.bench import records
from metaopt.bench.records.identity import Identity
from metaopt.workloads.registry import get_workload
from tuning.campaign import Campaign
from tuning.identities import identify
from tuning.study import StudyPlan

LOGS = "logs"
LOCKS = ".locks"


class StudyKey(NamedTuple):
    """Names one study of a campaign."""

    contender: str
    workload: str
    study: int

    def __str__(self) -> str:
        return f"{self.contender} on {self.workload}, study {self.study}"

    def folder(self, out: Path) -> Path:
        """Return the folder of its trials."""
        return records.study_directory(out / LOGS, self.contender, self.study, self.workload)


def list_studies(campaign: Campaign) -> list[StudyKey]:
    """Return the studies; those that share compiled functions are neighbours."""
    return [
        StudyKey(contender, workload, study)
        for workload in campaign.workloads
        for contender in sorted(campaign.contenders_by_name)
        for study in range(1, campaign.studies + 1)
    ]


def campaign_currency(campaign: Campaign) -> str:
    """Return the currency of a campaign's budgets."""
    return campaign.limits(get_workload(campaign.workloads[0])).currency


def plan_study(campaign: Campaign, key: StudyKey, identity: Identity | None = None) -> StudyPlan:
    """Return the plan of one study of a campaign, with its files' current identity by default."""
    workload, contender = get_workload(key.workload), campaign.contenders_by_name[key.contender]
    target, test_target = targets = campaign.targets_on(workload)
    return StudyPlan(
        campaign=campaign.name,
        campaign_seed=campaign.seed,
        contender=contender,
        workload=workload,
        study=key.study,
        limits=campaign.limits(workload),
        target=target,
        test_target=test_target,
        stop_at_target=campaign.stop_at_target,
        identity=identify(contender, workload, targets) if identity is None else identity,
    )
