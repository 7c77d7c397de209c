"""The report of a campaign: one HTML file, with Markdown, CSV and PNG files beside it."""

import itertools
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from analysis.best import read_ends
from analysis.ends import (
    ENDS_HEADER,
    EPISODES_HEADER,
    end_rows,
    end_tables,
    ends_of_episodes,
    ends_of_training,
    episode_rows,
    episode_tables,
)
from analysis.fairness import (
    differing_targets,
    early_ends,
    fixed_by_hand,
    missing_studies,
    partial_data,
    unequal_budgets,
)
from analysis.pages import csv_text, embed, publish, write_pages
from analysis.reading import Logs
from analysis.scoring import Scores, score_path
from analysis.tables import (
    budgets_line,
    ends_table,
    environment_table,
    errors_table,
    flags_of,
    plain,
    score_table,
    spent_table,
    target_table,
)
from analysis.training import read_runs
from metaopt.bench.budget import CURRENCIES

if TYPE_CHECKING:
    pass


def write_report(logs: Path, out: Path, *, command: str | None = None) -> Path:
    """Write ``report.html``, ``report.md``, the CSV files and the plots.

    ``scores.csv``, ``trials.csv`` and ``ends.csv`` are always written, ``episodes.csv`` if some
    contender learned over episodes.

    Args:
        logs: A campaign's output folder, or its logs.
        out: Folder of the report; files of these names in it are replaced.
        command: The command that made the campaign, to be shown.

    Returns:
        The path of ``report.html``.

    Raises:
        ValueError: There is nothing to report on.
    """
    # Here and below: a command that prints a table needs neither.
    from analysis.figures import plot_training
    from analysis.plots import plot_all

    read, scores = score_path(logs)
    last, runs = read_ends(read), read_runs(read)
    ends, episodes = ends_of_training(read, last), ends_of_episodes(read, runs)
    out.mkdir(parents=True, exist_ok=True)
    context = _context(read, scores, command)
    context["training"] = end_tables(ends)
    context["episodes"] = episode_tables(episodes)
    plots = [*plot_all(read, scores, out), *plot_training(read, runs, last, out)]
    context["headings"] = [
        (heading, [embed(plot) for plot in group])
        for heading, group in itertools.groupby(plots, key=lambda plot: plot.heading)
    ]
    write_pages("report", context, out)
    publish(out / "scores.csv", scores_csv(scores))
    publish(out / "trials.csv", trials_csv(read))
    publish(out / "ends.csv", csv_text(ENDS_HEADER, end_rows(ends)))
    if episodes:
        publish(out / "episodes.csv", csv_text(EPISODES_HEADER, episode_rows(episodes)))
    return out / "report.html"


def scores_csv(scores: Scores) -> str:
    """Return scores and medians, one line per contender and workload."""
    rows = [
        (
            name,
            workload,
            cell.median("given"),
            cell.median("including"),
            cell.reached,
            scores.studies,
            round(scores.scores[name]["given"], 6),
            round(scores.scores[name]["including"], 6),
        )
        for name in scores.contenders
        for workload in scores.workloads
        for cell in [scores.cells[name, workload]]
    ]
    unit = scores.currency
    header = (
        "contender", "workload", f"given_tuned_{unit}", f"including_tuning_{unit}", "reached",
        "studies", "score_given", "score_including",
    )  # fmt: skip
    return csv_text(header, rows)


def trials_csv(logs: Logs) -> str:
    """Return one line per trial."""
    parts = ("reached", "episode", "before", "including")
    costs = [f"{part}_{unit}" for part in parts for unit in CURRENCIES]
    header = (
        "contender", "workload", "study", "trial", "status", "best", *CURRENCIES,
        "compilation_seconds", "evaluation_seconds", "tuner_seconds", "logging_seconds", *costs,
        "segments", "hyperparameters", "error",
    )  # fmt: skip
    rows = []
    for trial in logs.trials:
        record, ledger, reached = trial.record, trial.record.ledger, trial.record.reached
        parts = (
            reached and reached.cost,
            reached and reached.episode_cost,
            record.spent_before,
            reached and record.spent_at(reached.cost),
        )
        hyperparameters = record.hyperparameters
        rows.append(
            (
                record.contender,
                record.workload,
                record.study,
                record.trial,
                record.status,
                record.best,
                *(ledger.cost.amount(unit) for unit in CURRENCIES),
                ledger.compilation_seconds,
                ledger.evaluation_seconds,
                ledger.tuner_seconds,
                ledger.logging_seconds,
                *(part.amount(unit) if part else None for part in parts for unit in CURRENCIES),
                max(1, len(record.segments)),
                json.dumps(hyperparameters, sort_keys=True) if hyperparameters else None,
                record.error.strip().split("\n")[-1] if record.error else None,
            )
        )
    return csv_text(header, rows)


def _context(logs: Logs, scores: Scores, command: str | None) -> dict[str, Any]:
    campaign = logs.campaign or {}
    dates = sorted(trial.record.started_at for trial in logs.trials)
    environment = environment_table(logs)
    errors = errors_table(logs)
    return {
        "title": plain(campaign.get("name", "runs")),
        "scores": score_table(scores, flags_of(logs)),
        "targets": target_table(logs),
        "spent": spent_table(logs),
        "ends": ends_table(logs),
        "errors": errors if errors.rows else None,
        "environment": environment,
        "flags": flags_of(logs),
        "missing": [plain(entry) for entry in missing_studies(logs)],
        "unequal": [plain(entry) for entry in unequal_budgets(logs)],
        "differing": [plain(entry) for entry in differing_targets(logs)],
        "variants": [plain(entry) for entry in fixed_by_hand(logs)],
        "partial": [plain(entry) for entry in partial_data(logs)],
        "early": [plain(entry) for entry in early_ends(logs)],
        "notes": [plain(note) for note in logs.notes],
        "budgets": plain(budgets_line(logs, scores)),
        "command": plain(command) if command else None,
        "dates": plain(" to ".join(sorted({dates[0][:10], dates[-1][:10]}))),
        "seed": plain(campaign.get("seed", "unknown")),
        "studies": scores.studies,
        "contenders": len(scores.contenders),
        "workloads": len(scores.workloads),
        "hardware": environment.rows[0][0],
        "devices": environment.rows[0][1],
        "commits": ", ".join(sorted({row[3] for row in environment.rows})),
    }
