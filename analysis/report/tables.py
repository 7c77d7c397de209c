"""The tables of a report, as plain rows that every format prints."""

import dataclasses
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from analysis.logs.logs import Logs
from analysis.scoring.scores import DEVELOPED_NOTE, Scores, format_cost, mark_developed
from analysis.text import plain
from analysis.text import spreadsheet_cell as spreadsheet_cell  # others look for it here
from analysis.training.breakdown import PARTS, seconds_of
from metaopt.bench.budget import Currency
from metaopt.bench.records import FAILURES, Cost, TrialRecord


class Shown(str):
    """The text of a cell with what it is sorted by: a number, or ``None`` to come last."""

    sort: float | None

    def __new__(cls, text: str, sort: float | None) -> "Shown":
        """Return the text; a number that is not finite sorts last."""
        shown = super().__new__(cls, text)
        shown.sort = sort if sort is not None and math.isfinite(sort) else None
        return shown


Facets = Mapping[str, Sequence[str]]  # what a reader can filter by: workload, hardware, ruleset


@dataclasses.dataclass(frozen=True)
class Table:
    """A caption, a header and rows of text.

    Attributes:
        name: Of its CSV file and its place in a page; empty: it has none of its own.
        workload: That it is about; empty for all of them.
        facets: Of each row; or empty.
        columns: The workload that a column is about, by index.
        keys: How many of the first columns say what a row is about.
    """

    caption: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    name: str = ""
    workload: str = ""
    facets: tuple[Facets, ...] = ()
    columns: Mapping[int, str] = dataclasses.field(default_factory=dict)
    keys: int = 1


def score_table(scores: Scores, flags: dict[str, str]) -> Table:
    """Return scores and costs to target: for each workload "given / including" and k/n."""
    rows = []
    for name in scores.contenders:
        row = [plain(name + flags.get(name, ""))]
        row += [f"{scores.scores[name][view]:.3f}" for view in ("including", "given")]
        for workload in scores.workloads:
            cell = scores.cells[name, workload]
            costs = [format_cost(cell.median(view)) for view in ("given", "including")]
            text = f"{costs[0]} / {costs[1]} ({cell.reached}/{scores.studies})"
            row.append(mark_developed(text, (name, workload) in scores.developed))
        rows.append(tuple(row))
    caption = (
        f"Score: including tuning, and given tuned. Workloads: median cost to target in "
        f"{unit_name(scores.unit)}, given tuned / including tuning (studies that reached it); "
        "- where the median study did not."
    )
    if scores.developed:
        caption += f" {DEVELOPED_NOTE}"
    caption = " ".join((caption, *scores.notes))
    header = ("contender", "score", "given tuned", *map(plain, scores.workloads))
    return Table(caption, header, tuple(rows))


def unit_name(currency: Currency) -> str:
    """Return how people say it."""
    return currency.replace("_", " ")


def budgets_line(logs: Logs, scores: Scores) -> str:
    """Return one line: the currency of the costs, and the budget of a study on each workload."""
    found = {t.record.workload: t.record.budget for t in reversed(logs.trials)}
    budgets = {w: f"{found[w].study:,.6g}" for w in scores.workloads if w in found}
    amounts = sorted(set(budgets.values()))
    spent_in = " or ".join(sorted({unit_name(budget.currency) for budget in found.values()}))
    asked = (logs.campaign or {}).get("budget")
    of = f" ({asked})" if asked else ""
    if len(amounts) == 1:
        listed = amounts[0]
    else:
        listed = ", ".join(f"{workload} {amount}" for workload, amount in budgets.items())
    unit = unit_name(scores.unit)
    return f"Costs in {unit}. Budget of a study{of}, tuning included, in {spent_in}: {listed}."


def spent_table(logs: Logs, facets: Mapping[tuple[str, str], Facets]) -> Table:
    """Return what each contender spent on each workload, all studies together.

    Args:
        logs: What was read.
        facets: By contender and workload.
    """
    groups: dict[tuple[str, str], list[TrialRecord]] = {}
    for trial in logs.trials:
        key = trial.record.workload, trial.record.contender
        groups.setdefault(key, []).append(trial.record)
    rows = []
    for (workload, contender), trials in sorted(groups.items()):
        cost = sum((trial.ledger.cost for trial in trials), Cost())
        failures = sum(trial.status in FAILURES for trial in trials)
        counts = [len(trials), failures, cost.steps, round(cost.gradient_evaluations)]
        ended = [s for s in logs.studies if (s.workload, s.contender) == (workload, contender)]
        parts = seconds_of(trials, ended)
        rows.append(
            (
                plain(workload),
                plain(contender),
                *(Shown(f"{count:,}", count) for count in counts),
                *(Shown(f"{seconds:,.2f}", seconds) for seconds in parts),
            )
        )
    header = (
        "workload", "contender", "trials", "failures", "steps", "gradient evaluations",
        *(f"{part} s" for part in PARTS),
    )  # fmt: skip
    caption = (
        "Spent, all studies together; training, compilation and the tuner's time are charged where "
        "budgets are in seconds. Processes are reused: the contender that comes first in a process "
        "pays compilation for the others"
    )
    kept = tuple(facets[contender, workload] for workload, contender in sorted(groups))
    return Table(caption, header, tuple(rows), name="spent", facets=kept)


def ends_table(logs: Logs) -> Table:
    """Return how many trials of each contender ended in which way, failures last."""
    counts = Counter((t.record.contender, t.record.status) for t in logs.trials)
    ends = sorted({end for _, end in counts}, key=lambda end: (end in FAILURES, end))
    rows = tuple(
        (plain(name), *(Shown(f"{counts[name, end]:,}", counts[name, end]) for end in ends))
        for name in logs.contenders
    )
    header = ("contender", *(end.replace("_", " ") for end in ends))
    failures = ", ".join(sorted(end.replace("_", " ") for end in FAILURES))
    return Table(f"Trials by how they ended; failures are: {failures}", header, rows, "failures")


def errors_table(logs: Logs) -> Table:
    """Return the errors of failed trials, the most frequent first."""
    counts = Counter(
        (
            t.record.contender,
            t.record.workload,
            plain((t.record.error.strip() or "?").split("\n")[-1]),
        )
        for t in logs.trials
        if t.record.error is not None
    )
    rows = tuple(
        (plain(contender), plain(workload), Shown(f"{count:,}", count), error[:300])
        for (contender, workload, error), count in counts.most_common(20)
    )
    header = ("contender", "workload", "trials", "last line of the error")
    return Table("Errors; the whole ones are in each trial's run.json", header, rows, "errors")


def target_table(logs: Logs) -> Table:
    """Return the targets and budgets in force."""
    found: dict[str, TrialRecord] = {}
    for trial in logs.trials:
        known = found.get(trial.record.workload)
        if known is None or (known.tuner is None and trial.record.tuner is not None):
            found[trial.record.workload] = trial.record
    rows = tuple(
        (
            plain(name),
            plain(record.target.metric),
            f"{'<=' if record.target.better == 'lower' else '>='} {record.target.value:.6g}",
            f"{record.budget.study:,.6g}",
            f"{record.budget.trial:,.6g}" if record.tuner else "the study's",
            f"{record.budget.eval_period:g}",
            f"{record.reference_batch_size}",
        )
        for name, record in sorted(found.items())
    )
    unit = unit_name(next(iter(found.values())).budget.currency)
    header = (
        "workload", "target", "value", "study's budget", "trial's budget", "evaluated every",
        "reference batch",
    )  # fmt: skip
    return Table(f"Targets, and budgets in {unit}", header, rows, "targets")


def environment_table(logs: Logs) -> Table:
    """Return hardware, software and commits; more than one row where runs differ."""
    rows = Counter(_environment(trial.record.environment) for trial in logs.trials)
    header = ("processor", "devices", "software", "commit", "trials")
    table = tuple((*row, Shown(f"{count:,}", count)) for row, count in rows.most_common())
    return Table("Environment of the runs", header, table, "environment")


def _environment(environment: Mapping[str, Any]) -> tuple[str, ...]:
    parts = (environment.get(part) for part in ("hardware", "software", "git"))
    hardware, software, git = (part if isinstance(part, dict) else {} for part in parts)
    devices = hardware.get("devices")
    devices = ", ".join(map(str, devices)) if isinstance(devices, list) else str(devices)
    versions = ", ".join(f"{name} {value}" for name, value in software.items() if value)
    commit = str(git.get("commit") or "unknown")[:12] + (" (dirty)" if git.get("dirty") else "")
    cpu = f"{hardware.get('cpu', 'unknown')} x {hardware.get('cpu_count', '?')}"
    return tuple(map(plain, (cpu, devices, versions, commit)))


def flags_of(logs: Logs) -> dict[str, str]:
    """Return marks behind a contender's name: * if it declares its gradient evaluations."""
    declared = {t.record.contender for t in logs.trials if t.record.ledger.declared}
    return dict.fromkeys(declared, " *")
