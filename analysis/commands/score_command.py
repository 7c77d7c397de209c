"""``python -m analysis score``: the score table, in every format."""

from pathlib import Path

import typer

from analysis.checks.fairness import find_failures
from analysis.commands.log_options import LogOptions
from analysis.logs.logs import Logs
from analysis.report.answer import answer, infer_all, problems
from analysis.report.formats import Format, json_value, print_tables
from analysis.report.summary import (
    about_lines,
    contender_marks,
    summary_table,
    warning_lines,
)
from analysis.report.tables.difference_tables import difference_tables
from analysis.report.terminal import print_answer
from analysis.scoring.costs import Unit, View
from analysis.scoring.scores import Scores, ScoringRules, score_logs
from analysis.wording import MAX_LISTED, join_entries


def print_score(
    source: LogOptions,
    rules: ScoringRules = "strict",
    unit: Unit | None = None,
    view: View | None = None,
    format: Format = Format.TABLE,
) -> Logs:
    """Print scores, with everything that decides them, and return the logs.

    Raises:
        ValueError: There is nothing to score, or the options contradict each other.
    """
    if rules == "algoperf" and view not in (None, "given"):
        raise ValueError(f"The rules algoperf count given tuned, got --view {view}.")
    logs = source.read(costs_only=True)
    scores = score_logs(logs, rules, unit, source.hardware)
    print_scores(logs, scores, view, format)
    return logs


def print_scores(
    logs: Logs,
    scores: Scores,
    view: View | None = None,
    format: Format = Format.TABLE,
    report: Path | None = None,
) -> None:
    """Print warnings, the score table, the budgets and, in a terminal, the answer.

    Args:
        logs: The logs.
        scores: Its scores.
        view: The score that the rows are sorted by; by default the first one of the rules.
        format: The output format.
        report: The path of the report, to be named before the answer.
    """
    view = view if view in scores.views else scores.views[0]  # one view if nothing was tuned
    scores = scores.sorted_by(view)
    table = summary_table(logs, scores)
    everything = format is not Format.TABLE
    notes = warning_lines(logs, scores.rules, everything=everything)
    notes += _notes_on_logs(logs, everything)
    table = table.with_notes(*about_lines(logs, scores.unit))
    said = answer(scores, infer_all(scores))
    print_tables(
        [table], notes, format, rules=scores.rules, cost=scores.unit, view=view, answer=said,
        scores={n: json_value(scores.scores[n].get(view)) for n in scores.contenders},
    )  # fmt: skip
    if format is Format.TABLE:
        if report is not None:
            typer.echo(f"report: {report}")
        print_answer(problems(logs, scores), said)


def _notes_on_logs(logs: Logs, everything: bool) -> list[str]:
    if not logs.notes:
        return []
    return [f"Notes on the logs: {join_entries(logs.notes, None if everything else MAX_LISTED)}"]


def print_diff(
    source: LogOptions,
    unit: Unit | None = None,
    view: View | None = None,
    format: Format = Format.TABLE,
) -> Logs:
    """Print where the two sets of rules differ, and return the logs.

    Raises:
        ValueError: Costs other than seconds given tuned are asked for, which algoperf has not.
    """
    from analysis.scoring.diff import compare_rules

    if unit not in (None, "seconds"):
        raise ValueError(f"--diff compares times in seconds, got --cost {unit}.")
    if view not in (None, "given"):
        raise ValueError(f"--diff compares times given tuned, got --view {view}.")
    logs = source.read(costs_only=True)
    notes = [
        *source.hardware.check(logs, "seconds"),
        *warning_lines(logs, "algoperf", everything=format is not Format.TABLE),
    ]
    found, marks = compare_rules(logs), contender_marks(logs)
    print_tables(difference_tables(found, marks), notes, format, cells=found.cells)
    return logs


def exit_code(*campaigns: Logs) -> int:
    """Return 1 if a contender failed throughout, 0 otherwise."""
    return int(any(one.is_broken for logs in campaigns for one in find_failures(logs)))
