"""Evidence for a submission's performance, as Markdown for a pull request."""

from pathlib import Path

from analysis.logs.hardware import hardware_of
from analysis.logs.logs import Logs
from analysis.logs.reader import read_logs
from analysis.report.formats import markdown_table
from analysis.report.summary import about_lines, summary_table
from analysis.scoring.scores import score_logs
from analysis.wording import escape_markdown
from metaopt.bench.contract.digests import digest_folder, digest_imports
from metaopt.bench.contract.loading import Submission
from metaopt.bench.records.identity import Identity, differences, listed
from tuning.rehearsal.rehearsal_page import rehearsal_table, rules_sentence, verdict
from tuning.rehearsal.rehearsal_run import Rehearsal


def campaign_evidence(submission: Submission, runs: Path) -> str:
    """Return the scores of a campaign in which the submission ran as it is now.

    Args:
        submission: The submission.
        runs: The campaign's output folder.

    Raises:
        ValueError: ``runs`` holds no campaign, or the submission did not run there, or its files
            have changed since.
    """
    logs = read_logs(runs)
    if not logs.is_ours:
        raise ValueError(f"{runs} holds logs of AlgoPerf's runner; --evidence takes a campaign.")
    records = [trial.record for trial in logs.trials if trial.record is not None]
    own = [record for record in records if record.submission == submission.name]
    if not own:
        names = sorted({record.submission for record in records})
        raise ValueError(f"{runs} has no runs of {submission.name!r}, only of {names}.")
    identities = [logs.identity(record) for record in own]
    if changed := _changed_since(submission, [found for found in identities if found]):
        raise ValueError(
            f"{listed(changed)} changed since {submission.name} ran in {runs}. Run the campaign "
            "again, or restore the files."
        )
    scores = score_logs(logs)
    scores = scores.sorted_by(scores.views[0])
    table = summary_table(logs, scores).with_notes(*about_lines(logs, scores.unit))
    return f"### A campaign of metaopt-bench\n\n{_origin(logs)}\n\n{markdown_table(table)}"


def _changed_since(submission: Submission, identities: list[Identity]) -> list[str]:
    """Return the names of code and search spaces that differ from some identity's."""
    files = digest_folder(submission.folder)
    modules = digest_imports(submission.folder / name for name in files if name.endswith(".py"))
    now = {f"{submission.folder.name}/{name}": digest for name, digest in files.items()}
    changed = set()
    for identity in identities:
        before = identity.get("submission", {})
        changed |= {
            name
            for name, digest in before.items()
            if name.endswith((".py", ".json")) and now.get(name) != digest
        }
        changed |= set(differences(identity, {"modules": modules}, ("modules",)))
    return sorted(changed)


def _origin(logs: Logs) -> str:
    """Return one line on the campaign, its commits and its hardware."""
    campaign = logs.campaign or {}
    commits = sorted({str(_commit(trial.record))[:12] for trial in logs.trials if trial.record})
    hardware = sorted({found.name for found in hardware_of(logs).values()})
    return escape_markdown(
        f"Campaign {campaign.get('name', 'unknown')}: the budget of a study, tuning included, is "
        f"{campaign.get('budget')}; studies of each contender on each workload: "
        f"{campaign.get('studies')}; seed: {campaign.get('seed')}. Commit of metaopt-bench: "
        f"{', '.join(commits)}. Hardware: {', '.join(hardware)}."
    )


def _commit(record) -> object:
    return (record.environment.get("git") or {}).get("commit", "unknown")


def rehearsal_evidence(found: Rehearsal) -> str:
    """Return the result of a rehearsal."""
    return "\n\n".join(
        [
            "### A rehearsal on miniatures of AlgoPerf's workloads",
            f"{escape_markdown(verdict(found))} {escape_markdown(rules_sentence(found))}",
            "It shows that the submission trains on the batches, parameter types and metrics of "
            "AlgoPerf's workloads. It is no measure of its speed there.",
            markdown_table(rehearsal_table(found)),
        ]
    )
