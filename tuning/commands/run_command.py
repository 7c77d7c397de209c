"""``python -m tuning run``: one trial outside any campaign."""

from pathlib import Path

import typer

from analysis.logs.audits import audit_findings, audit_summary, read_audits
from metaopt.bench.records import TrialRecord
from tuning.single_trial import run_single


def run_and_print(
    submission: str,
    workload: str,
    hparams: list[str],
    *,
    budget: str,
    eval_period: str | None,
    seed: int,
    out: Path | None,
    stall_seconds: float,
) -> int:
    """Run one trial and print its result, its audits and its folder.

    Returns:
        The exit code: 1 if the trial failed or took no step.

    Raises:
        FileNotFoundError: As :func:`~tuning.single_trial.run_single`.
        ValueError: As :func:`~tuning.single_trial.run_single`.
    """
    record, folder = run_single(
        submission, workload, hparams, budget=budget, eval_period=eval_period, seed=seed, out=out,
        stall_seconds=stall_seconds,
    )  # fmt: skip
    typer.echo(_describe(record))
    audits = read_audits(folder)
    if audits:
        typer.echo(audit_summary(audits))
    for failed, word in ((True, "AUDIT FAILED"), (False, "audit noted")):
        for finding in audit_findings(audits, failed=failed):
            typer.echo(f"{word}: {finding}", err=failed)
    typer.echo(folder)
    if record.error is not None:
        typer.echo(record.error, err=True)
    return int(record.cause is not None or not record.ledger.cost.steps)


def _describe(record: TrialRecord) -> str:
    cost = record.ledger.cost
    head = f"{record.status}: " if record.cause is None else f"{record.status}: {record.cause}\n"
    best = "none" if record.best is None else f"{record.best:.6g}"
    return (
        f"{head}best {record.target.metric} {best} (target {record.target.value:.6g}), "
        f"{cost.steps} steps, {cost.gradient_evaluations:g} gradient evaluations, "
        f"{cost.seconds:.2f} s of which {record.ledger.compilation_seconds:.2f} s compilation"
    )
