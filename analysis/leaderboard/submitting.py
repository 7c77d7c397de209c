"""From a campaign's logs to entries of the leaderboard, if its runs pass the strict rules."""

import hashlib
import re
import shlex
import tomllib
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from analysis.checks.validation import errors_by_rule, validate
from analysis.checks.verification import verify
from analysis.leaderboard.board_pages import BOARD, CHECKOUT, write_leaderboard
from analysis.leaderboard.entries import (
    CAMPAIGNS,
    LONGEST_TEXT,
    AuditEntry,
    Authorship,
    CampaignEntry,
    Entry,
    StudyEntry,
    Verification,
    entry_text,
    file_name,
    read_campaign,
    read_entries,
)
from analysis.leaderboard.links import code_folder
from analysis.leaderboard.standings import check_comparable
from analysis.logs.hardware import fingerprint_of, hardware_of
from analysis.logs.logs import Logs
from analysis.logs.reader import read_logs
from analysis.report.publish import publish
from analysis.scoring.costs import is_within_budget, pass_ratios, study_costs, time_factors
from analysis.scoring.machines import seconds_per_gradient
from analysis.scoring.orders import attempts_of
from analysis.wording import plain
from metaopt.bench.measure.budget import CURRENCIES, Currency
from metaopt.bench.records import FAILURES, Cost, StudyRecord, TrialRecord
from metaopt.bench.records.identity import WORKLOAD_PARTS, digest_of
from metaopt.bench.records.redaction import redact
from metaopt.bench.records.submission_info import LINK, read_info

_AUTHORSHIP = ("authors", "affiliations", "version", "description", LINK)


class RefusedRuns(Exception):
    """Runs that may not be submitted; ``problems`` has a line for each rule that they break."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("; ".join(problems))
        self.problems = problems


def submit(
    runs: Path, board: Path, command: str | None = None, rerun: Path | None = None
) -> list[Path]:
    """Add a campaign's records to a leaderboard and rebuild its pages; return the written files.

    Raises like :func:`files_to_submit`, before anything is written.
    """
    files = files_to_submit(runs, board, command, rerun)
    for path, text in files.items():
        publish(board / path, text)
    return [*(board / path for path in files), *write_leaderboard(board)]


def files_to_submit(
    runs: Path, board: Path, command: str | None = None, rerun: Path | None = None
) -> dict[Path, str]:
    """Return the texts of a campaign's files, by path below the board.

    These are its entries, each joined with what its file holds already, and the campaign's file,
    which names the workloads that are missing.

    Args:
        runs: The campaign's output folder.
        board: The leaderboard's folder; only read.
        command: The command that repeats the campaign; by default `python -m tuning compare` with
            its name, or with its file in ``campaigns/`` of the leaderboard where it is a user's.
        rerun: The output folder of another run of the campaign. Entries that it agrees with are
            marked as verified. Without a rerun of it, an entry stays verified while its costs are
            those that the leaderboard has.

    Raises:
        RefusedRuns: The runs break a rule at its strict severity, or the rerun one at its own.
        ValueError: There is nothing to read, the rerun is a copy, or the runs do not compare with
            those of the same campaign on the leaderboard.
    """
    logs = read_logs(runs)
    again = None if rerun is None else read_logs(rerun)
    if not logs.is_ours:
        raise ValueError(f"{runs}: logs of AlgoPerf's runner. The leaderboard is of campaigns.")
    problems = errors_by_rule(validate(logs, strict=True))
    if again is not None:
        problems += [f"rerun: {problem}" for problem in errors_by_rule(validate(again))]
    if problems:
        raise RefusedRuns(problems)
    known = {entry.path: entry for entry in read_entries(board)}
    new = entries_of(logs, command, board)
    if again is not None:
        new = _verified(new, logs, again)
    rerun_pairs = set() if again is None else {*again.by_pair}
    for entry in new:
        before = known.get(entry.path)
        if before is not None and (entry.contender, entry.workload) not in rerun_pairs:
            entry = _still_verified(entry, before)
        campaigns = (before.campaigns if before else {}) | entry.campaigns
        known[entry.path] = entry.model_copy(
            update={"campaigns": {name: campaigns[name] for name in sorted(campaigns)}}
        )
    check_comparable(list(known.values()))
    files = {entry.path: entry_text(known[entry.path]) for entry in new}
    if not _source(logs):
        return files
    path, text = _campaign_file(logs), str(_source(logs)["toml"])
    read_campaign(text.encode("utf-8", "surrogatepass"), path.as_posix())
    return {path: text, **files}


def _verified(entries: list[Entry], logs: Logs, again: Logs) -> list[Entry]:
    """Return the entries, those that a rerun agrees with marked."""
    agreed = {(v.contender, v.workload) for v in verify(logs, again) if v.verified}
    marked = []
    for entry in entries:
        if (entry.contender, entry.workload) in agreed:
            records = [trial.record for trial in again.of(entry.contender, entry.workload)]
            days = sorted(record.started_at[:10] for record in records)
            verification = Verification(
                hardware=", ".join(sorted(hardware_of(again))),
                commits=_commits(records),
                first_day=days[0],
                last_day=days[-1],
            )
            campaigns = {
                name: campaign.model_copy(update={"verified": verification})
                for name, campaign in entry.campaigns.items()
            }
            entry = entry.model_copy(update={"campaigns": campaigns})
        marked.append(entry)
    return marked


def _still_verified(entry: Entry, before: Entry) -> Entry:
    """Return the entry, as verified as before in each campaign whose costs are unchanged."""
    campaigns = dict(entry.campaigns)
    for name, here in entry.campaigns.items():
        earlier = before.campaigns.get(name)
        if earlier is not None and _counted_costs(here) == _counted_costs(earlier):
            campaigns[name] = here.model_copy(update={"verified": earlier.verified})
    return entry.model_copy(update={"campaigns": campaigns})


def _counted_costs(entry: CampaignEntry) -> list[tuple[float | None, ...]]:
    """Return every study's costs to target in the currencies that a second run comes to again."""
    counted: set[Currency] = {"steps", "gradient_evaluations", entry.budget.currency}
    currencies = sorted(counted)
    return [
        tuple(
            None if cost is None else cost.amount(currency)
            for cost in (study.given, study.including)
            for currency in currencies
        )
        for study in entry.studies
    ]


def _commits(records: Iterable[TrialRecord]) -> tuple[str, ...]:
    return tuple(sorted({str(_git(record).get("commit") or "unknown") for record in records}))


def _git(record: TrialRecord) -> dict[str, Any]:
    git = record.environment.get("git")
    return git if isinstance(git, dict) else {}


def entries_of(logs: Logs, command: str | None = None, board: Path = BOARD) -> list[Entry]:
    """Return one entry per contender and workload of a campaign's logs."""
    finished = {(s.contender, s.workload, s.study): s for s in logs.studies}
    records_by_pair = {
        pair: [trial.record for trial in trials] for pair, trials in logs.by_pair.items()
    }
    return [
        Entry(
            contender=contender,
            workload=workload,
            hardware=fingerprint_of(records[0].environment),
            campaigns={
                records[0].campaign: _campaign_entry(
                    logs, records, finished, command or _command(logs, records[0], board)
                )
            },
        )
        for (contender, workload), records in sorted(records_by_pair.items())
    ]


def _campaign_entry(
    logs: Logs,
    records: list[TrialRecord],
    finished: dict[tuple[str, str, int], StudyRecord],
    command: str,
) -> CampaignEntry:
    first = records[0]
    identity = logs.identity(first)
    by_study: dict[int, list[TrialRecord]] = defaultdict(list)
    for record in records:
        by_study[record.study].append(record)
    days = sorted(record.started_at[:10] for record in records)
    variant = (logs.campaign or {}).get("variants", {}).get(first.contender)
    software = first.environment.get("software")
    return CampaignEntry(
        seed=first.seeds.campaign,
        budget=first.budget,
        target=first.target,
        submission=first.submission,
        digest=first.digest,
        workload_digest=digest_of(identity, WORKLOAD_PARTS) if identity else None,
        space=first.space,
        tuner=first.tuner,
        ruleset=first.ruleset,
        fixed=variant["hyperparameters"] if variant else None,
        declared=any(r.ledger.declared for r in records),
        developed_here=any(record.developed_here for record in records),
        commits=_commits(records),
        software={
            name: str(version)
            for name, version in (software if isinstance(software, dict) else {}).items()
            if version
        },
        command=redact(command),
        first_day=days[0],
        last_day=days[-1],
        audit=_audit_entry(logs, first),
        seconds_per_gradient=seconds_per_gradient(logs).get((first.contender, first.workload)),
        about=_authorship(logs, first),
        studies=tuple(
            _study_entry(by_study[number], finished[first.contender, first.workload, number])
            for number in sorted(by_study)
        ),
    )


def _authorship(logs: Logs, record: TrialRecord) -> Authorship:
    """Return the description in the submission's folder; empty texts if there is none."""
    variant = (logs.campaign or {}).get("variants", {}).get(record.contender)
    given = variant["of"] if variant else _as_given(logs, record.contender)
    named = Path(re.split("[@+]", given)[0])
    shipped = CHECKOUT / code_folder(record.submission, record.ruleset)
    folder = named if len(named.parts) > 1 else shipped
    inside = folder.is_dir() and folder.resolve().is_relative_to(CHECKOUT / "submissions")
    texts = read_info(folder, ("submission_name", *_AUTHORSHIP))
    texts["name"] = texts.pop("submission_name", "")
    return Authorship(
        **{key: plain(text)[:LONGEST_TEXT] for key, text in texts.items()},
        folder=folder.resolve().relative_to(CHECKOUT).as_posix() if inside else "",
    )


def _audit_entry(logs: Logs, record: TrialRecord) -> AuditEntry | None:
    """Return the audits of a contender on a workload; ``None`` if it was not audited."""
    pair = record.contender, record.workload
    audits = [audit for audit in logs.audits if (audit.contender, audit.workload) == pair]
    if not audits:
        return None
    return AuditEntry(
        failed=any(audit.failed for audit in audits),
        findings=tuple(finding.what for audit in audits for finding in audit.findings),
        ratio=pass_ratios(logs).get(pair),
        time_factor=time_factors(logs).get(pair),
    )


def _study_entry(records: list[TrialRecord], study: StudyRecord) -> StudyEntry:
    records = sorted(records, key=lambda record: record.trial)
    first, target = records[0], records[0].target
    best: float | None = None
    for record in records:
        if record.best is not None and target.is_improvement(record.best, best):
            best = record.best
    costs = {currency: study_costs(records, currency) for currency in CURRENCIES}
    reached = costs["steps"][0] < float("inf")
    given, including = (
        Cost.model_validate({currency: pair[view] for currency, pair in costs.items()})
        if reached
        else None
        for view in (0, 1)
    )
    return StudyEntry(
        study=study.study,
        seed=first.seeds.trial,
        tuner_seed=first.seeds.tuner,
        fixed_batch=first.seeds.fixed_batch,
        given=given,
        including=including,
        spent=study.spent,
        ended=study.ended,
        trials=study.trials,
        failures=sum(record.status in FAILURES for record in records),
        best=best,
        attempts=attempts_of(records, map(is_within_budget, records)),
    )


def _command(logs: Logs, record: TrialRecord, board: Path) -> str:
    """Return the command that repeats one contender's runs on one workload."""
    campaign = logs.campaign or {}
    file = f"{board.name}/{_campaign_file(logs).as_posix()}" if _is_own(logs) else record.campaign
    words = ["python", "-m", "tuning", "compare", file]
    words += ["--contenders", _as_given(logs, record.contender), "--workloads", record.workload]
    for option in ("budget", "eval_period", "studies", "seed"):
        if campaign.get(option) is not None:
            words += [f"--{option.replace('_', '-')}", str(campaign[option])]
    return shlex.join(words)


def _source(logs: Logs) -> Mapping[str, Any]:
    """Return the campaign's file and what changed it; nothing in older logs."""
    return (logs.campaign or {}).get("source") or {}


def _is_own(logs: Logs) -> bool:
    """Return whether a campaign's file is a user's own; the others ship with the project."""
    return str(_source(logs).get("file", "")).endswith(".toml")


def _campaign_file(logs: Logs) -> Path:
    """Return where a leaderboard keeps a campaign's file; a user's own has its digest behind it."""
    name = file_name((logs.campaign or {})["name"])
    digest = hashlib.sha256(_source(logs)["toml"].encode()).hexdigest()
    return Path(CAMPAIGNS) / (f"{name}-{digest[:8]}.toml" if _is_own(logs) else f"{name}.toml")


def _as_given(logs: Logs, contender: str) -> str:
    """Return a contender as the campaign names it: with the path of its submission, if it has."""
    source = _source(logs)
    if not source:
        return contender
    given = (tomllib.loads(source["toml"]) | source["changes"])["contenders"]
    return dict(zip((logs.campaign or {})["contenders"], given, strict=True))[contender]
