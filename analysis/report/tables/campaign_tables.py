"""Tables of a campaign: spending, statuses, errors, targets, environment, and all trials."""

import json
from collections import Counter
from collections.abc import Mapping
from typing import Any

from analysis.logs.logs import Logs
from analysis.logs.official_records import OfficialRecord
from analysis.report.marks import Marks
from analysis.report.table import COUNT, TEXT, CellFormat, Column, Facets, Table, number_format
from analysis.report.tables.score_tables import unit_name
from analysis.training.breakdown import TIME_PARTS, time_breakdown
from metaopt.bench.measure.budget import CURRENCIES
from metaopt.bench.records import FAILURES, Cost, TrialRecord

# A target's sign and value.
TARGET = CellFormat(
    lambda target: f"{target[0]} {target[1]:.6g}",
    lambda target: {"": target[1], "sign": target[0]},
    lambda target: target[1],
)
_SECONDS = number_format(",.2f")
_AMOUNT = number_format(",.6g")
# Our runner reuses processes, so the first contender compiles for the others.
COMPILATION = (
    "Processes are reused, so the first contender in a process pays the compilation for the "
    "others. Seconds with compilation therefore rank contenders only if budgets are in seconds."
)


def budgets_line(logs: Logs, unit: str) -> str:
    """Return a sentence with the unit of the costs and the budget on each workload."""
    first: dict[str, Any] = {}
    trials = list(logs.trials)
    if not logs.is_ours:  # whose trials may name another budget, or none: the most frequent one
        counts = Counter((t.record.workload, t.record.budget.trial) for t in trials)
        trials.sort(key=lambda t: -counts[t.record.workload, t.record.budget.trial])
    for trial in trials:
        first.setdefault(trial.record.workload, trial.record.budget)
    if not logs.is_ours:
        listed = ", ".join(f"{w} {first[w].trial:,.6g}" for w in logs.workloads if w in first)
        return f"Costs in {unit_name(unit)}. Budget of a trial in seconds: {listed}."
    budgets = {w: f"{first[w].study:,.6g}" for w in logs.workloads if w in first}
    spent_in = " or ".join(sorted({unit_name(budget.currency) for budget in first.values()}))
    asked = (logs.campaign or {}).get("budget")
    of = f" ({asked})" if asked else ""
    amounts = sorted(set(budgets.values()))
    listed = amounts[0]
    if len(amounts) > 1:
        listed = ", ".join(f"{workload} {amount}" for workload, amount in budgets.items())
    return (
        f"Costs in {unit_name(unit)}. Budget of a study{of}, tuning included, in {spent_in}: "
        f"{listed}."
    )


def spent_table(logs: Logs, facets: Mapping[tuple[str, str], Facets], marks: Marks) -> Table:
    """Return the cost of each contender on each workload, summed over studies."""
    rows, kept = [], []
    for (contender, workload), trials in sorted(logs.by_pair.items(), key=lambda e: e[0][::-1]):
        records = [trial.record for trial in trials]
        failures = sum(record.status in FAILURES for record in records)
        row: list[Any] = [workload, contender, len(records), failures]
        if logs.is_ours:
            cost = sum((record.ledger.cost for record in records), Cost())
            ended = [s for s in logs.studies if (s.workload, s.contender) == (workload, contender)]
            row += [cost.steps, round(cost.gradient_evaluations), *time_breakdown(records, ended)]
        else:
            ran = [r.ledger.cost for r in records if r.ledger.cost.steps > 0]
            row.append(sum(r.status == "broke_off" for r in records))
            row += [round(sum(c.steps for c in ran)), sum(c.seconds for c in ran)]
        rows.append(tuple(row))
        kept.append(facets[contender, workload])
    columns = [Column("workload"), Column("contender", marks.format), Column("trials", COUNT)]
    columns.append(Column("failures", COUNT))
    if logs.is_ours:
        columns += [Column("steps", COUNT), Column("gradient evaluations", COUNT)]
        columns += [Column(f"{part} s", _SECONDS) for part in TIME_PARTS]
        caption = (
            "Sums over all studies. Budgets in seconds are charged for training, compilation and "
            f"the tuner. {COMPILATION}"
        )
    else:
        columns += [Column("broke off", COUNT), Column("steps", COUNT), Column("seconds", _SECONDS)]
        caption = "Sums over all studies, up to the last evaluation of each trial"
    return Table(
        caption, tuple(columns), tuple(rows), "spent", facets=tuple(kept), keys=2, notes=marks.notes
    )


def status_table(logs: Logs) -> Table:
    """Return the number of trials of each contender with each status, failures last."""
    counts = Counter((t.record.contender, t.record.status) for t in logs.trials)
    ends = sorted({end for _, end in counts}, key=lambda end: (end in FAILURES, end))
    rows = tuple((name, *(counts[name, end] for end in ends)) for name in logs.contenders)
    columns = (Column("contender"), *(Column(end.replace("_", " "), COUNT) for end in ends))
    failures = ", ".join(sorted(end.replace("_", " ") for end in FAILURES if end in ends))
    caption = "Number of trials by status" + (f"; failures are: {failures}" if failures else "")
    if not logs.is_ours:
        caption += (
            ". Broke off: neither the target nor 90 % of the budget or of the step hint was "
            "reached; crashed: no evaluations"
        )
    return Table(caption, columns, rows, "failures")


def errors_table(logs: Logs) -> Table:
    """Return the causes of failed trials, the most frequent first."""
    counts = Counter(
        (trial.record.contender, trial.record.workload, trial.record.cause)
        for trial in logs.trials
        if trial.record.cause is not None
    )
    rows = tuple((*key[:2], count, key[2][:300]) for key, count in counts.most_common(20))
    columns = Column("contender"), Column("workload"), Column("trials", COUNT), Column("cause")
    where = "; full tracebacks are in each trial's run.json" if logs.is_ours else ""
    return Table(f"Causes of failures{where}", columns, rows, "errors", keys=2)


def _trial_budget(record: Any) -> tuple[float, bool]:
    """Return a key that sorts short trials first, and among equals those with a tuner."""
    return record.budget.trial, record.tuner is None


def target_table(logs: Logs) -> Table:
    """Return the targets and budgets in force."""
    found: dict[str, Any] = {}
    for trial in logs.trials:
        record, known = trial.record, found.get(trial.record.workload)
        # The tuner `long` gives a trial the study's budget, as self-tuning runs have it.
        if known is None or (logs.is_ours and _trial_budget(record) < _trial_budget(known)):
            found[record.workload] = record
    rows: list[tuple[Any, ...]] = []
    for name, record in sorted(found.items()):
        sign, budget = "<=" if record.target.better == "lower" else ">=", record.budget
        row = name, record.target.metric, (sign, record.target.value)
        if isinstance(record, OfficialRecord):
            rows.append((*row, budget.trial, budget.eval_period, record.step_hint))
        else:
            trial = budget.trial if record.tuner else None
            size = record.reference_batch_size
            rows.append((*row, budget.study, trial, budget.eval_period, size))
    columns = (
        Column("workload"), Column("target"), Column("value", TARGET),
        *([Column("study's budget", _AMOUNT)] if logs.is_ours else []),
        Column("trial's budget", _AMOUNT), Column("evaluated every", number_format("g")),
        Column("reference batch" if logs.is_ours else "step hint", COUNT),
    )  # fmt: skip
    caption = f"Targets, and budgets in {unit_name(next(iter(found.values())).budget.currency)}"
    if any(record.tuner is None for record in found.values() if logs.is_ours):
        caption += ". Without a trial's budget, the study's budget applies"
    return Table(caption, columns, tuple(rows), "targets")


def environment_table(logs: Logs) -> Table:
    """Return hardware, software and commits, one row per combination."""
    found = Counter(_environment(trial.record.environment) for trial in logs.trials)
    rows = tuple((*row, count) for row, count in found.most_common())
    names = ("processor", "devices", "software", "commit")
    columns = (*(Column(name) for name in names), Column("trials", COUNT))
    return Table("Environment of the runs", columns, rows, "environment")


def _environment(environment: Mapping[str, Any]) -> tuple[str, ...]:
    parts = (environment.get(part) for part in ("hardware", "software", "git"))
    hardware, software, git = (part if isinstance(part, dict) else {} for part in parts)
    devices = hardware.get("devices")
    if isinstance(devices, list):
        kinds = Counter(map(str, devices))
        devices = ", ".join(kind if n == 1 else f"{n} x {kind}" for kind, n in kinds.items())
    versions = ", ".join(f"{name} {value}" for name, value in software.items() if value)
    commit = str(git.get("commit") or "unknown")[:12] + (" (dirty)" if git.get("dirty") else "")
    cpu = f"{hardware.get('cpu') or 'unknown'} x {hardware.get('cpu_count') or '?'}"
    return cpu, str(devices or "none"), versions, commit


def trials_table(logs: Logs) -> Table:
    """Return one row for each trial, ours or AlgoPerf's."""
    units = CURRENCIES if logs.is_ours else ("steps", "seconds")
    names = ["contender", "workload", "study", "trial", "status"]
    columns = [Column(name) for name in names]
    parts = ("reached", "episode", "before", "including") if logs.is_ours else ("reached", "before")
    ledger = ["compilation_seconds", "evaluation_seconds", "tuner_seconds", "logging_seconds",
              "restarts"]  # fmt: skip
    columns += [Column(name) for name in ("best", *units, *(ledger if logs.is_ours else ()))]
    columns += [Column(f"{part}_{unit}") for part in parts for unit in units]
    columns += [Column("segments")] if logs.is_ours else []
    columns += [Column("hyperparameters", TEXT), Column("error", TEXT)]
    rows = []
    for trial in logs.trials:
        record, reached = trial.record, trial.record.reached
        costs = {
            "reached": reached and reached.cost,
            "episode": reached and reached.episode_cost,
            "before": record.spent_before,
            "including": reached and record.spent_at(reached.cost),
        }
        row = [record.contender, record.workload, record.study, record.trial, record.status]
        row += [record.best, *(record.ledger.cost.amount(unit) for unit in units)]
        if isinstance(record, TrialRecord):
            row += [getattr(record.ledger, name) for name in ledger]
        for part in parts:
            row += [None if costs[part] is None else costs[part].amount(unit) for unit in units]
        row += [max(1, len(record.segments))] if logs.is_ours else []
        hyperparameters = record.hyperparameters
        row.append(json.dumps(dict(hyperparameters), sort_keys=True) if hyperparameters else None)
        rows.append((*row, record.cause))
    return Table("Trials", tuple(columns), tuple(rows), "trials", keys=4)
