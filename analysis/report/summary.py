"""The beginning of every output: warnings, then the score table."""

from analysis.checks.fairness import equality_of_budgets, find_failures, warnings_of
from analysis.logs.audits import audit_summary
from analysis.logs.logs import Logs
from analysis.report.marks import Marks, marks_of
from analysis.report.table import Table
from analysis.report.tables.campaign_tables import budgets_line
from analysis.report.tables.score_tables import Extras, facets_of, score_table
from analysis.scoring.scores import Scores, ScoringRules
from analysis.wording import MAX_LISTED, join_entries


def contender_marks(*campaigns: Logs) -> Marks:
    """Return the marks of contenders: declared costs, failed audits, failures throughout."""
    broken: dict[str, list[str]] = {}
    for failures in (one for logs in campaigns for one in find_failures(logs)):
        if failures.is_broken:
            broken.setdefault(failures.contender, []).append(str(failures))
    return marks_of(campaigns, broken)


def warning_lines(
    logs: Logs, rules: ScoringRules = "strict", *, everything: bool = False, serious: bool = False
) -> list[str]:
    """Return one paragraph for each kind of warning, the serious ones first.

    Args:
        logs: The logs.
        rules: The rules of the scores.
        everything: Whether to list all entries instead of the first few.
        serious: Whether to return only serious warnings.
    """
    most = None if everything else MAX_LISTED
    return [
        f"{warning.title}: {join_entries(warning.entries, most)}"
        for warning in warnings_of(logs, rules)
        if warning.serious or not serious
    ]


def about_lines(logs: Logs, unit: str) -> list[str]:
    """Return sentences on budgets and audits."""
    lines = [budgets_line(logs, unit)]
    if logs.is_ours:
        lines.append(f"{equality_of_budgets(logs)}.")
    return [*lines, audit_summary(list(logs.audits))] if logs.audits else lines


def shown_warnings(logs: Logs) -> list[dict[str, object]]:
    """Return the warnings of a page: title, the first entries, and how many more there are."""
    return [
        {
            "title": warning.title,
            "entries": warning.entries[:5],
            "more": max(0, len(warning.entries) - 5),
            "serious": warning.serious,
        }
        for warning in warnings_of(logs)
    ]


def summary_table(logs: Logs, scores: Scores) -> Table:
    """Return the score table of logs, with marks."""
    return score_table(scores, contender_marks(logs), Extras(facets=facets_of(logs)))
