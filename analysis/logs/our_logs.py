"""Our own logs: choose the trials that count, and compare them with studies and campaign."""

import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from analysis.logs.competition import Competition
from analysis.logs.layout import StudyKey, TrialKey
from analysis.logs.logs import MAX_STUDIES, Logs, Trial
from analysis.logs.oddities import Oddities
from metaopt.bench import records
from metaopt.bench.records import StudyRecord, TrialRecord, algoperf_name
from metaopt.bench.records.audit import AuditRecord
from metaopt.bench.records.identity import Identity, digest_of


@dataclasses.dataclass
class CampaignFiles:
    """The files beside the trials of a campaign."""

    campaign: Mapping[str, Any] | None = None
    studies: dict[StudyKey, StudyRecord | None] = dataclasses.field(
        default_factory=dict
    )  # None: wrong
    identities: dict[StudyKey, Identity] = dataclasses.field(default_factory=dict)
    audits: list[AuditRecord] = dataclasses.field(default_factory=list)


def our_logs(
    path: Path,
    found: Sequence[tuple[Trial, str]],
    beside: CampaignFiles,
    competition: Competition,
    oddities: Oddities,
) -> Logs:
    """Return a campaign's logs.

    Args:
        path: The folder or tar of the logs.
        found: The trials, each with the problem of its record.
        beside: The files beside the trials.
        competition: The rules to read the logs by.
        oddities: The collection that oddities are added to.
    """
    trials, unrecorded = [], []
    for trial, problem in found:
        if trial.record is not None:
            problem = _misplaced(trial.record, trial.key)
        if problem:
            oddities.add("files-run", trial.where, problem)
            unrecorded.append(dataclasses.replace(trial, record=None))
            continue
        trials.append(trial)
        _note_oddities(trial, oddities)
    trials.sort(key=lambda trial: _order(trial.record))
    _compare_with_studies(trials, found, beside, oddities)
    _compare_with_campaign(trials, beside.campaign, oddities)
    studies = [study for study in beside.studies.values() if study is not None]
    return Logs(
        path,
        True,
        tuple(trials),
        tuple(unrecorded),
        tuple(sorted(studies, key=lambda s: (s.contender, s.workload, s.study))),
        beside.campaign,
        {digest_of(one): one for one in beside.identities.values()},
        beside.identities,
        tuple(sorted(beside.audits, key=_order)),
        oddities.all(),
        competition,
    )


def _note_oddities(trial: Trial, oddities: Oddities) -> None:
    record = trial.record
    note_preemptions(trial.where, record.preemptions, oddities)
    failed = record.status in records.FAILURES
    unread = trial.evaluations is None and records.EVAL_FILE in trial.files
    if record.ledger.cost.steps and not (failed or unread or trial.rows.rows or trial.rows.faults):
        what = f"{records.EVAL_FILE} is missing or has no rows"
        oddities.add("files-evaluations", trial.where, what)


def note_preemptions(where: str, count: float, oddities: Oddities) -> None:
    """Note that a trial was preempted, if it was."""
    if count > 0:
        times = f"{count:g} time{'s' if count > 1 else ''}"
        oddities.add("clocks-preempted", where, f"preempted {times}")


def _compare_with_studies(
    trials: Sequence[Trial],
    found: Sequence[tuple[Trial, str]],
    beside: CampaignFiles,
    oddities: Oddities,
) -> None:
    counts = Counter(trial.key[:4] for trial in trials)
    folders = {trial.key[:4]: trial.where.rpartition("/")[0] for trial, _ in found}
    for cell, folder in folders.items():
        if cell not in beside.studies:
            what = f"no {records.STUDY_FILE}: an unfinished study"
            oddities.add("files-study", folder, what)
        elif (study := beside.studies[cell]) is not None and study.trials != counts[cell]:
            ran = f"{study.trials} trial{'s were' if study.trials != 1 else ' was'} run"
            oddities.add("files-study", folder, f"{ran}, {counts[cell]} can be read")


def _compare_with_campaign(
    trials: Sequence[Trial], campaign: Mapping[str, Any] | None, oddities: Oddities
) -> None:
    if campaign is None:
        if not any(oddity.rule == "files-campaign" for oddity in oddities.seen):
            what = f"no {records.CAMPAIGN_FILE}: the planned runs are not known"
            oddities.add("files-campaign", ".", what)
        return
    for names, of in (("contenders", "contender"), ("workloads", "workload")):
        planned, ran = set(campaign[names]), {getattr(t.record, of) for t in trials}
        if missing := sorted(planned - ran):
            what = f"{names} of the campaign that have no trial: {missing}"
            oddities.add("files-campaign", ".", what)
        if extra := sorted(ran - planned):
            what = f"{names} that the campaign does not have: {extra}"
            oddities.add("files-campaign", ".", what)


def _misplaced(record: TrialRecord, key: TrialKey) -> str:
    """Return the contradiction between a record and its folder; empty if they agree."""
    # Our folders carry AlgoPerf's names of its workloads.
    told = record.contender, algoperf_name(record.workload), record.study, record.trial
    if told == (key.submission, key.workload, key.study, key.trial):
        return ""
    return (
        f"its record is of trial {record.trial} of study {record.study} of {record.contender} on "
        f"{record.workload}, ignored"
    )


def campaign_problem(campaign: Mapping[str, Any]) -> str:
    """Return the fault of a ``campaign.json``; empty if it is valid."""
    try:
        for key in ("contenders", "workloads"):
            if not isinstance(campaign[key], list) or not all(
                isinstance(name, str) for name in campaign[key]
            ):
                raise TypeError(f"{key} is no list of names")
        if not isinstance(campaign["name"], str):
            raise TypeError("name is no text")
        studies = campaign["studies"]
        if isinstance(studies, bool) or not isinstance(studies, int):
            raise TypeError("studies is no number")
        if not 1 <= studies <= MAX_STUDIES:
            raise TypeError(f"studies must be 1 to {MAX_STUDIES:,}, and is {studies:,}")
        for variant in campaign.get("variants", {}).values():
            if not isinstance(variant["of"], str) or not isinstance(
                variant["hyperparameters"], dict
            ):
                raise TypeError("variants are not contenders with hyperparameters")
        for key, kind in (("file", str), ("toml", str), ("changes", dict)):
            if "source" in campaign and not isinstance(campaign["source"][key], kind):
                raise TypeError(f"{key} of the source is no {kind.__name__}")
    except (KeyError, TypeError, AttributeError) as error:
        return f"cannot be read: {error!r}"
    return ""


def _order(record: Any) -> tuple[str, str, int, int]:
    return record.contender, record.workload, record.study, record.trial
