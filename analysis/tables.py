"""The tables of a report, as plain rows that every format prints."""

import dataclasses
import json
import unicodedata
from collections import Counter
from typing import Any

from analysis.reading import Logs
from analysis.scoring import Scores, format_cost
from metaopt.bench.records import FAILURES, Cost, TrialRecord


@dataclasses.dataclass(frozen=True)
class Table:
    """A caption, a header and rows of text."""

    caption: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def plain(text: Any) -> str:
    """Return text without control characters: a stranger's name must not drive a terminal."""
    return "".join(c if unicodedata.category(c)[0] != "C" else "\N{REPLACEMENT CHARACTER}"
                   for c in str(text))  # fmt: skip


def spreadsheet_cell(text: Any) -> str:
    """Return text that a spreadsheet will not take for a formula."""
    text = plain(text)
    return f"'{text}" if text[:1] in ("=", "+", "-", "@") and text != "-" else text


def score_table(scores: Scores, flags: dict[str, str]) -> Table:
    """Return scores and costs to target: for each workload "given / including" and k/n."""
    unit = scores.currency.replace("_", " ")
    rows = []
    for name in scores.contenders:
        row = [plain(name + flags.get(name, "")), f"{scores.scores[name]['including']:.3f}"]
        row.append(f"{scores.scores[name]['given']:.3f}")
        for workload in scores.workloads:
            cell = scores.cells[name, workload]
            costs = [format_cost(cell.median(view)) for view in ("given", "including")]
            row.append(f"{costs[0]} / {costs[1]} ({cell.reached}/{scores.studies})")
        rows.append(tuple(row))
    caption = (
        f"Median cost to target in {unit}: given tuned / including tuning "
        "(studies that reached the target); - where the median study did not"
    )
    header = ("contender", "score", "given tuned", *map(plain, scores.workloads))
    return Table(caption, header, tuple(rows))


def spent_table(logs: Logs) -> Table:
    """Return what each contender spent on each workload, all studies together."""
    groups: dict[tuple[str, str], list[TrialRecord]] = {}
    for trial in logs.trials:
        key = trial.record.workload, trial.record.contender
        groups.setdefault(key, []).append(trial.record)
    rows = []
    for (workload, contender), trials in sorted(groups.items()):
        ledgers = [trial.ledger for trial in trials]
        cost = sum((ledger.cost for ledger in ledgers), Cost())
        compiling = sum(ledger.compilation_seconds for ledger in ledgers)
        seconds = [
            cost.seconds - compiling,
            compiling,
            *(
                sum(getattr(ledger, f"{part}_seconds") for ledger in ledgers)
                for part in ("evaluation", "tuner", "logging", "lost")
            ),
        ]
        failures = sum(trial.status in FAILURES for trial in trials)
        counts = [len(trials), failures, cost.steps, round(cost.gradient_evaluations)]
        rows.append(
            (
                plain(workload),
                plain(contender),
                *(f"{count:,}" for count in counts),
                *(f"{part:.2f}" for part in seconds),
            )
        )
    header = (
        "workload", "contender", "trials", "failures", "steps", "gradient evaluations",
        "training s", "compilation s", "evaluation s", "tuner s", "logging s", "lost s",
    )  # fmt: skip
    caption = "Spent, all studies together; only training and compilation are the submission's time"
    return Table(caption, header, tuple(rows))


def failure_table(logs: Logs) -> Table:
    """Return how many trials ended in which way."""
    ends = Counter((t.record.contender, t.record.status) for t in logs.trials)
    rows = tuple(
        (plain(contender), status.replace("_", " "), str(count))
        for (contender, status), count in sorted(ends.items())
    )
    return Table("How trials ended", ("contender", "end", "trials"), rows)


def target_table(logs: Logs) -> Table:
    """Return the targets and budgets in force."""
    found: dict[str, TrialRecord] = {}
    for trial in logs.trials:
        found.setdefault(trial.record.workload, trial.record)
    rows = tuple(
        (
            plain(name),
            plain(record.target.metric),
            f"{record.target.value:.6g}",
            f"{record.budget.study:,.6g}",
            f"{record.budget.trial:,.6g}" if record.tuner else "the study's",
            f"{record.budget.eval_period:g}",
            f"{record.reference_batch_size}",
        )
        for name, record in sorted(found.items())
    )
    unit = next(iter(found.values())).budget.currency.replace("_", " ")
    header = (
        "workload", "target", "value", f"study, {unit}", "trial", "evaluated every", "batch"
    )  # fmt: skip
    return Table("Targets and budgets", header, rows)


def environment_table(logs: Logs) -> Table:
    """Return hardware, software and commits; more than one row where runs differ."""
    seen: dict[str, dict[str, Any]] = {}
    for trial in logs.trials:
        environment = trial.record.environment
        seen.setdefault(json.dumps(environment, sort_keys=True, default=str), environment)
    rows = []
    for environment in seen.values():
        hardware, git = environment.get("hardware", {}), environment.get("git", {})
        software = environment.get("software", {})
        devices = ", ".join(map(str, hardware.get("devices", [])))
        versions = ", ".join(f"{k} {v}" for k, v in software.items() if v and k != "xla_flags")
        commit = f"{str(git.get('commit'))[:12]}{', dirty' if git.get('dirty') else ''}"
        cpu = f"{hardware.get('cpu')} x {hardware.get('cpu_count')}"
        rows.append(tuple(map(plain, (cpu, devices, versions, commit))))
    header = ("processor", "devices", "software", "commit")
    return Table("Environment of the runs", header, tuple(rows))


def flags_of(logs: Logs) -> dict[str, str]:
    """Return marks behind a contender's name: * for undeclared gradient evaluations."""
    undeclared = {
        t.record.contender
        for t in logs.trials
        if not t.record.ledger.declared and t.record.ledger.cost.steps
    }
    return dict.fromkeys(undeclared, " *")
