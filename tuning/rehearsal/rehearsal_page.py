"""The page of a rehearsal, and its table."""

from pathlib import Path
from typing import Any

from analysis.report.pages import write_pages
from analysis.report.table import COUNT, YES, CellFormat, Column, Table, number_format
from metaopt.bench.records.redaction import redact
from metaopt.bench.rules.check import RULES
from metaopt.bench.trial.environment import describe_environment, utc_now
from tuning.rehearsal.miniature_result import MINIATURES, MiniatureResult
from tuning.rehearsal.rehearsal_run import Rehearsal

_LOSSES = CellFormat(
    lambda pair: f"{pair[0]:.3g} to {pair[1]:.3g}",
    lambda pair: {"before": pair[0], "after": pair[1]},
    lambda pair: pair[1] / pair[0],
)
_CAPTION = (
    "A trial of one step hint on each miniature. Trained: the trial ended without a failure. Train "
    "loss: before and after. Time factor: seconds per gradient evaluation over AdamW's, without "
    "compilation. Compiled: functions in the first six steps. State: its size in copies of the "
    "parameters. Saved: it comes back from a checkpoint as it was. Empty: not measured, because of "
    "an error."
)


def rehearsal_table(rehearsal: Rehearsal) -> Table:
    """Return a row for each miniature."""
    columns = (
        Column("miniature"),
        Column("stands for"),
        Column("batch size", COUNT),
        Column("trained", YES),
        Column("train loss", _LOSSES),
        Column("time factor", number_format(".2f")),
        Column("compiled", COUNT),
        Column("state", number_format(".2f")),
        Column("saved", YES),
        Column("target"),
    )
    rows = tuple(map(_row, rehearsal.miniatures))
    return Table(_CAPTION, columns, rows, "miniatures")


def _row(result: MiniatureResult) -> tuple[Any, ...]:
    losses = result.loss_before, result.loss_after
    return (
        result.workload,
        MINIATURES[result.workload],
        result.batch_size,
        result.is_trained,
        None if None in losses else losses,
        result.time_factor,
        result.compilations,
        result.state_copies,
        result.is_saved,
        result.target,
    )


def verdict(rehearsal: Rehearsal) -> str:
    """Return the outcome as one sentence."""
    trained = sum(result.is_trained for result in rehearsal.miniatures)
    count = f"{rehearsal.name} trained on {trained} of {len(rehearsal.miniatures)} miniatures"
    if not rehearsal.errors:
        return f"{count}. Nothing was found that would fail in a competition."
    problems = "1 problem" if rehearsal.errors == 1 else f"{rehearsal.errors} problems"
    return f"{count}. {problems} would fail in a competition."


def describe_findings(rehearsal: Rehearsal, severity: str) -> list[tuple[str, str]]:
    """Return the findings of a severity, each with its fix.

    Args:
        rehearsal: The rehearsal.
        severity: ``"error"`` or ``"note"``.
    """
    return [
        (
            redact(f"{f'{where}: ' if where else ''}{f.rule}: {f.where}: {f.what}"),
            redact(f.fix),
        )
        for where, f in rehearsal.findings
        if f.severity == severity
    ]


def rules_sentence(rehearsal: Rehearsal) -> str:
    """Return how many rules ``tuning check`` applied, the audits among them."""
    left_out = rehearsal.check.not_applied
    if not left_out:
        return f"tuning check applied all {len(RULES)} rules, audits included."
    return (
        f"tuning check applied {len(RULES) - len(left_out)} of {len(RULES)} rules. "
        f"Errors prevented {', '.join(left_out)}."
    )


def write_rehearsal_page(rehearsal: Rehearsal, out: Path, *, command: str) -> Path:
    """Write ``report.html`` and ``report.md``; return the path of the first.

    Args:
        rehearsal: The rehearsal.
        out: The output folder.
        command: The command to show as the origin of the page.
    """
    out.mkdir(parents=True, exist_ok=True)
    hardware = describe_environment()["hardware"]
    context = {
        "title": rehearsal.name,
        "verdict": verdict(rehearsal),
        "passed": not rehearsal.errors,
        "date": utc_now()[:10],
        "processor": str(hardware["cpu"]),
        "command": redact(command),
        "table": rehearsal_table(rehearsal),
        "errors": describe_findings(rehearsal, "error"),
        "notes": describe_findings(rehearsal, "note"),
        "rules": rules_sentence(rehearsal),
    }
    write_pages("rehearsal", context, out)
    return out / "report.html"
