"""The official scoring of AlgoPerf, step by step, so that published numbers come out.

Per study the trial with the smallest *evaluation index* of its first hit counts (ties: the smaller
time), seconds are the cost, missing studies are dropped, and the profile is integrated on a grid of
100 points. The rules ``strict`` mend these, see :mod:`analysis.scoring.strict_rules`.

Where the official scorer stops, or gives what the file system's order gives, these rules go on:

    two frameworks of one workload       the one with the larger median counts
    a base workload that nobody logged   nobody gets anything for it
    an empty file, a missing column      a miss; the official scorer stops, or takes the column of
                                         the trial that it happened to read before
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from analysis.logs.official_targets import OfficialTargets
from analysis.logs.reading import Logs
from analysis.scoring.outcomes import Cells, Outcome, Studies
from analysis.scoring.profiles import LIMIT

Times = Mapping[str, Mapping[str, float]]  # submission -> workload -> time to target


def targets_of_logs(logs: Logs) -> OfficialTargets:
    """Return the targets that our own records carry."""
    from metaopt.bench.records import algoperf_name

    metrics = {
        algoperf_name(trial.record.workload): (
            trial.record.target.metric.removeprefix("validation/"),
            trial.record.target.value,
        )
        for trial in logs.trials
    }
    return OfficialTargets(tuple(sorted(metrics)), (), metrics)


def chosen_officially(trials: Sequence[Outcome]) -> Outcome | None:
    """Return the trial of a study that counts; ``None`` if none met the target."""
    hits = [trial for trial in trials if trial.evaluation is not None]
    return min(hits, key=lambda hit: (hit.evaluation, hit.cost), default=None)


def tied_studies(cells: Cells) -> list[str]:
    """Name the studies that a tie in the evaluation index decides."""
    tied = []
    for (submission, workload), studies in sorted(cells.items()):
        for (_, study), trials in studies.items():
            chosen = chosen_officially(trials)
            if chosen is not None and any(
                t.evaluation == chosen.evaluation and t.cost != chosen.cost for t in trials
            ):
                tied.append(f"{submission} on {workload}, study {study}")
    return tied


def official_time(studies: Studies) -> float:
    """Return the time to target of one submission on one workload (steps 1-3).

    NaN where no trial has a file of evaluations, inf where the median study did not reach it.
    """
    by_framework: dict[str, list[float]] = {}
    for (framework, _), trials in studies.items():
        logged = [trial for trial in trials if trial.logged]
        if logged:
            chosen = chosen_officially(logged)
            time = math.inf if chosen is None else chosen.cost
            by_framework.setdefault(framework, []).append(time)
    medians = [float(np.median(times)) for times in by_framework.values()]
    return max(medians, default=math.nan)


def official_times(cells: Cells, submissions: Sequence[str]) -> dict[str, dict[str, float]]:
    """Return the time to target of each submission on each workload that it has logs of."""
    times: dict[str, dict[str, float]] = {name: {} for name in submissions}
    for (submission, workload), studies in cells.items():
        times[submission][workload] = official_time(studies)
    return times


def apply_benchmark_rules(
    times: Times, targets: OfficialTargets
) -> tuple[list[str], NDArray[np.float64]]:
    """Return the submissions and their costs on the base workloads, variants applied (steps 4-6).

    4. A held-out variant counts only where its base workload was reached.
    5. A cost above four times the best one is inf.
    6. A base workload counts only where its variant still does.

    Without held-out workloads, variants that were logged all the same act as if they were.

    Returns:
        Names, and costs (submissions, base workloads), inf or NaN where the target was not reached.
    """
    names = sorted(times)
    variants = list(targets.held_out)
    if not variants:
        found = {workload for row in times.values() for workload in row}
        variants = sorted(w for w in found - set(targets.base) if targets.base_of(w) != w)
    columns = [*targets.base, *variants]
    table = np.array([[times[n].get(w, np.nan) for w in columns] for n in names], np.float64)
    place = {workload: index for index, workload in enumerate(columns)}
    base_of = {place[variant]: place[targets.base_of(variant)] for variant in variants}
    for variant, base in base_of.items():
        table[~np.isfinite(table[:, base]), variant] = np.inf
    best = np.min(np.where(np.isnan(table), np.inf, table), axis=0)
    table[table > LIMIT * best[None]] = np.inf
    for variant, base in base_of.items():
        table[~np.isfinite(table[:, variant]), base] = np.inf
    return names, table[:, : len(targets.base)]


def official_scores(times: Times, targets: OfficialTargets) -> dict[str, float]:
    """Return the benchmark score of each submission (steps 4-8)."""
    names, table = apply_benchmark_rules(times, targets)
    table = np.where(np.isnan(table), np.inf, table)
    best = table.min(axis=0)
    ratio = np.full_like(table, np.inf)
    np.divide(table, best[None], out=ratio, where=np.isfinite(table) & (best > 0))
    tau = np.linspace(1.0, LIMIT, 100)
    rho = (ratio[:, :, None] <= tau).mean(axis=1)
    areas = np.trapezoid(rho, tau, axis=1) / (LIMIT - 1.0)
    return dict(zip(names, areas.tolist(), strict=True))
