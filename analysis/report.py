"""The report of a campaign: one HTML file, with Markdown, CSV and PNG files beside it."""

import base64
import csv
import io
import os
import tempfile
from pathlib import Path
from typing import Any

from analysis.reading import Logs
from analysis.scoring import Scores, check_budgets, missing_studies, score_path
from analysis.tables import (
    Table,
    environment_table,
    failure_table,
    flags_of,
    plain,
    score_table,
    spent_table,
    spreadsheet_cell,
    target_table,
)

_TEMPLATES = Path(__file__).parent / "templates"


def write_report(logs_path: Path, out: Path, *, command: str | None = None) -> Path:
    """Write ``report.html``, ``report.md``, ``scores.csv``, ``trials.csv`` and the plots.

    Args:
        logs_path: A campaign's output folder, or its logs.
        out: Folder of the report; files of these names in it are replaced.
        command: The command that made the campaign, to be shown.

    Returns:
        The path of ``report.html``.

    Raises:
        ValueError: There is nothing to report on.
    """
    import jinja2  # here and below: a command that prints a table needs neither

    from analysis.plots import plot_all

    logs, scores = score_path(logs_path)
    out.mkdir(parents=True, exist_ok=True)
    plots = plot_all(logs, scores, out)
    context = _context(logs, scores, command)
    context["plots"] = [
        {
            "name": path.name,
            "text": text,
            "data": base64.b64encode(path.read_bytes()).decode("ascii"),
        }
        for path, text in plots
    ]
    loader = jinja2.FileSystemLoader(_TEMPLATES)
    html = jinja2.Environment(loader=loader, autoescape=True, undefined=jinja2.StrictUndefined)
    _write(out / "report.html", html.get_template("report.html.j2").render(context))
    text = jinja2.Environment(loader=loader, undefined=jinja2.StrictUndefined, trim_blocks=True)
    text.filters["cell"] = _markdown_cell
    _write(out / "report.md", text.get_template("report.md.j2").render(context))
    _write(out / "scores.csv", scores_csv(scores))
    _write(out / "trials.csv", trials_csv(logs))
    return out / "report.html"


def scores_csv(scores: Scores) -> str:
    """Return scores and medians, one line per contender and workload."""
    rows = [
        (
            name,
            workload,
            repr(cell.median("given")),
            repr(cell.median("including")),
            cell.reached,
            scores.studies,
            f"{scores.scores[name]['given']:.6f}",
            f"{scores.scores[name]['including']:.6f}",
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
    return _csv(header, rows)


def trials_csv(logs: Logs) -> str:
    """Return one line per trial."""
    header = (
        "contender", "workload", "study", "trial", "status", "best", "steps",
        "gradient_evaluations", "seconds", "compilation_seconds", "evaluation_seconds",
        "reached_gradient_evaluations", "spent_before_gradient_evaluations", "hyperparameters",
    )  # fmt: skip
    rows = []
    for trial in logs.trials:
        record, ledger = trial.record, trial.record.ledger
        reached = record.reached.cost.gradient_evaluations if record.reached else ""
        rows.append(
            (
                record.contender,
                record.workload,
                record.study,
                record.trial,
                record.status,
                "" if record.best is None else repr(record.best),
                ledger.cost.steps,
                ledger.cost.gradient_evaluations,
                ledger.cost.seconds,
                ledger.compilation_seconds,
                ledger.evaluation_seconds,
                reached,
                record.spent_before.gradient_evaluations,
                record.hyperparameters or "",
            )
        )
    return _csv(header, rows)


def _context(logs: Logs, scores: Scores, command: str | None) -> dict[str, Any]:
    budgets_ok = not any("NOT EQUAL" in sentence for sentence in check_budgets(logs))
    campaign = logs.campaign or {}
    started = min(trial.record.started_at for trial in logs.trials)
    flags = flags_of(logs)
    tables: list[Table] = [
        target_table(logs),
        spent_table(logs),
        failure_table(logs),
        environment_table(logs),
    ]
    return {
        "title": plain(campaign.get("name", "runs")),
        "scores": score_table(scores, flags),
        "tables": tables,
        "flags": flags,
        "missing": [plain(entry) for entry in missing_studies(logs)],
        "budgets_ok": budgets_ok,
        "early": [plain(sentence) for sentence in check_budgets(logs)],
        "notes": [plain(note) for note in logs.notes],
        "command": plain(command) if command else None,
        "started": plain(started),
        "unit": scores.currency.replace("_", " "),
        "studies": scores.studies,
        "budget": plain(campaign.get("budget", "see below")),
        "contenders": [plain(name) for name in scores.contenders],
        "workloads": [plain(name) for name in scores.workloads],
        "hardware": environment_table(logs).rows[0][0],
    }


def _csv(header: tuple[str, ...], rows: list[tuple[Any, ...]]) -> str:
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(header)
    writer.writerows([spreadsheet_cell(cell) for cell in row] for row in rows)
    return buffer.getvalue()


def _markdown_cell(text: str) -> str:
    for character in "\\|<>*_`[]":
        text = text.replace(character, "\\" + character)
    return text


def _write(path: Path, text: str) -> None:
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        file.write(text)
    os.replace(temporary, path)
