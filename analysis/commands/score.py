"""``python -m analysis score``: which logs, which rules, which format."""

import dataclasses
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import typer

from analysis.logs.competition import OfficialTargets, Ruleset, read_official_targets
from analysis.logs.hardware import ANY_HARDWARE, HardwareChoice, check_log_seconds
from analysis.report.formats import Format, as_text
from analysis.report.tables import Table, plain, unit_name
from analysis.scoring.algoperf_rules import (
    official_scores,
    official_times,
    targets_of_logs,
    tied_studies,
)
from analysis.scoring.costs import View
from analysis.scoring.outcomes import Outcomes, read_outcomes
from analysis.scoring.scores import format_cost
from analysis.scoring.strict_rules import Demands, demands_of, score_outcomes
from metaopt.bench.budget import Currency

_RULES_NOTE = {
    "strict": "the cheapest trial within its budget; a missing study is a miss; exact integral",
    "algoperf": "as the official scorer: the trial with the earliest evaluation; missing studies "
    "are left out; a grid of 100 points",
}


@dataclasses.dataclass(frozen=True)
class Request:
    """What was asked for; see ``python -m analysis score --help``."""

    logs: Path
    within: str | None = None
    targets: Path | None = None
    rules: str = "strict"
    ruleset: Ruleset = "external"
    cost: Currency | None = None
    view: View | None = None
    studies: int | None = None
    trials: int | None = None
    budget_factor: float | None = None
    times: bool = False
    format: Format = Format.TABLE
    hardware: HardwareChoice = ANY_HARDWARE


class _Scored(NamedTuple):
    """What either set of rules gives."""

    scores: dict[str, float]
    times: dict[str, dict[str, float]]
    notes: Sequence[str]
    caption: str
    order: Sequence[str]  # of the workloads, as the targets have them


def print_score(request: Request) -> None:
    """Print scores of logs with targets from a file, or of ours.

    Raises:
        ValueError: There is nothing to score, or the request contradicts itself.
    """
    algoperf = request.rules == "algoperf"
    if algoperf and request.cost not in (None, "seconds"):
        raise ValueError(f"The rules algoperf count seconds, got --cost {request.cost}.")
    if algoperf and request.view not in (None, "given"):
        raise ValueError(f"The rules algoperf count given tuned, got --view {request.view}.")
    if request.targets is None and not algoperf:
        for name in ("studies", "trials", "budget_factor"):
            if getattr(request, name) is not None:
                option = f"--{name.replace('_', '-')}"
                raise ValueError(f"{option} goes with --targets; our records say it.")
        _print_ours(request)
        return
    if request.hardware.names:
        raise ValueError("--hardware goes with --rules strict and our records; try --within.")
    if request.hardware.mix and algoperf:
        raise ValueError("--mix-hardware goes with --rules strict; algoperf mixes whatever comes.")
    outcomes = read_outcomes(
        request.logs,
        _targets(request),
        within=request.within,
        currency=request.cost or "seconds",
        budgets=not algoperf,
    )
    if not outcomes.cells:
        raise ValueError(f"{request.logs}: no logs of a workload that has a target.")
    hardware = () if algoperf else _check_hardware(outcomes, request)
    scored = _algoperf(outcomes) if algoperf else _strict(outcomes, request)
    _print(request, scored._replace(notes=(*hardware, *scored.notes, *outcomes.notes)))


def print_diff(request: Request) -> None:
    """Print where the two sets of rules differ, and why."""
    from analysis.scoring.rule_diff import compare_rules

    targets = _targets(request)
    outcomes = read_outcomes(request.logs, targets, within=request.within, budgets=True)
    notes = _check_hardware(outcomes, request)
    comparison = compare_rules(outcomes, _demands(targets, request))
    if request.format is Format.JSON:
        document = {
            "cells": comparison.cells,
            "differences": [
                {**dataclasses.asdict(d), "algoperf": _finite(d.algoperf),
                 "strict": _finite(d.strict), "reasons": list(d.reasons)}
                for d in comparison.differences
            ],
            "scores": {
                name: {"algoperf": theirs, "algoperf_exact": comparison.exact[name], "strict": ours}
                for name, (theirs, ours) in comparison.scores.items()
            },
            "notes": list(notes),
        }  # fmt: skip
        typer.echo(json.dumps(document, allow_nan=False))
        return
    rows = [
        (plain(d.submission), plain(d.workload), _seconds(d.algoperf), _seconds(d.strict),
         plain("; ".join(d.reasons)))
        for d in comparison.differences
    ]  # fmt: skip
    cells = Table(
        f"Times to target in seconds, given tuned: {len(rows)} of {comparison.cells} cells differ.",
        ("submission", "workload", "algoperf", "strict", "why"),
        tuple(rows),
    )
    order = sorted(comparison.scores.items(), key=lambda entry: (-entry[1][0], entry[0]))
    scores = Table(
        "Scores. Exact: algoperf's times, but the integral instead of 100 points.",
        ("submission", "algoperf", "exact", "strict"),
        tuple(
            (plain(name), f"{theirs:.4f}", f"{comparison.exact[name]:.4f}", f"{ours:.4f}")
            for name, (theirs, ours) in order
        ),
    )
    if request.format is Format.TABLE:
        for difference, row in zip(comparison.differences, cells.rows, strict=True):
            typer.echo("{} on {}: algoperf {} s, strict {} s".format(*row))
            for reason in difference.reasons:
                typer.echo(f"    {plain(reason)}")
        typer.echo(cells.caption)
        _print_tables([scores], notes)
    else:
        typer.echo("\n".join(as_text(table, request.format) for table in (cells, scores)), nl=False)


def _targets(request: Request) -> OfficialTargets:
    if request.targets is not None:
        return read_official_targets(request.targets)
    from analysis.logs.reader import read_logs

    return targets_of_logs(read_logs(request.logs, request.within))


def _check_hardware(outcomes: Outcomes, request: Request) -> tuple[str, ...]:
    """Refuse seconds of different hardware, unless asked for; return what is to be said."""
    if outcomes.currency != "seconds":
        return ()
    meta_data = (trial.document("meta_data") for trial in outcomes.logs.trials)
    return check_log_seconds(meta_data, mix=request.hardware.mix)


def _demands(targets: OfficialTargets, request: Request) -> Demands:
    return demands_of(
        targets,
        request.ruleset,
        studies=request.studies,
        trials=request.trials,
        budget_factor=request.budget_factor,
    )


def _algoperf(outcomes: Outcomes) -> _Scored:
    times = official_times(outcomes.cells, outcomes.submissions)
    notes = [
        f"nobody has logs of the base workload {workload}, which gives nobody anything"
        for workload in outcomes.targets.base
        if not any(workload in row for row in times.values())
    ]
    if tied := tied_studies(outcomes.cells):
        notes.append(
            f"in {len(tied)} studies trials of different cost hit at the same evaluation, first "
            f"{tied[0]}: the cheapest counts; the official scorer takes the one that its file "
            "system lists first"
        )
    caption = f"AlgoPerf's benchmark score, {_RULES_NOTE['algoperf']}. Times to target in seconds."
    targets = outcomes.targets
    order = (*targets.base, *targets.held_out)
    return _Scored(official_scores(times, targets), times, notes, caption, order)


def _strict(outcomes: Outcomes, request: Request) -> _Scored:
    demands = _demands(outcomes.targets, request)
    strict = score_outcomes(outcomes, demands)
    view: View = request.view or "including"
    scores = {name: views[view] for name, views in strict.scores.items()}
    of = "including tuning" if view == "including" else "given tuned"
    caption = (
        f"Strict score, {of}: {_RULES_NOTE['strict']}. Costs to target in "
        f"{unit_name(outcomes.currency)}; studies: {demands.studies}, trials of a study: "
        f"{demands.trials}."
    )
    order = (*outcomes.targets.base, *outcomes.targets.held_out)
    return _Scored(scores, strict.times(view), strict.notes, caption, order)


def _print(request: Request, scored: _Scored) -> None:
    scores, times = scored.scores, scored.times
    order = sorted(scores, key=lambda name: (-scores[name], name))
    if request.format is Format.JSON:
        document = {"rules": request.rules, "scores": {name: scores[name] for name in order}}
        if request.times:
            document["times"] = {
                name: {workload: _finite(time) for workload, time in times[name].items()}
                for name in order
            }
        typer.echo(json.dumps(document, allow_nan=False))
        return
    found = {workload for row in times.values() for workload in row}
    workloads = [workload for workload in scored.order if workload in found]
    workloads += sorted(found - set(workloads))
    exact = request.format is Format.CSV
    rows = tuple(
        (
            plain(name),
            repr(scores[name]) if exact else f"{scores[name]:.4f}",
            *(
                repr(time) if exact else _seconds(time)
                for time in (times[name].get(workload, math.nan) for workload in workloads)
            ),
        )
        for name in order
    )
    table = Table(scored.caption, ("submission", "score", *map(plain, workloads)), rows)
    if request.format is Format.TABLE:
        _print_tables([table], scored.notes)
    else:
        typer.echo(as_text(table, request.format), nl=False)


def _print_tables(tables: list[Table], notes: Sequence[str]) -> None:
    from rich.console import Console

    from analysis.report.terminal import print_notes, print_table

    console = Console()
    for table in tables:
        print_table(table, console)
    print_notes(notes, console)


def _print_ours(request: Request) -> None:
    from analysis.report.report import scores_csv
    from analysis.report.tables import flags_of, score_table
    from analysis.report.terminal import print_scores
    from analysis.scoring.scores import score_path

    view: View = request.view or "including"
    if request.format is Format.TABLE:
        print_scores(
            request.logs, cost=request.cost, view=view, within=request.within,
            hardware=request.hardware,
        )  # fmt: skip
        return
    read, scores = score_path(request.logs, request.cost, request.hardware, request.within)
    scores = scores.sorted_by(view)
    if request.format is Format.JSON:
        values = {name: scores.scores[name][view] for name in scores.contenders}
        document: dict[str, object] = {"rules": "strict", "scores": values}
        if request.times:
            document["times"] = {
                name: {w: _finite(scores.cells[name, w].median(view)) for w in scores.workloads}
                for name in scores.contenders
            }
        typer.echo(json.dumps(document, allow_nan=False))
    elif request.format is Format.CSV:
        typer.echo(scores_csv(read, scores), nl=False)
    else:
        typer.echo(as_text(score_table(scores, flags_of(read)), request.format), nl=False)


def _seconds(time: float) -> str:
    """Write a time: inf was not reached, nan was not logged."""
    return str(time) if not math.isfinite(time) else format_cost(time)


def _finite(time: float) -> float | str | None:
    """Return a time as JSON has it: ``"inf"`` was not reached, ``null`` was not logged."""
    return None if math.isnan(time) else "inf" if math.isinf(time) else time
