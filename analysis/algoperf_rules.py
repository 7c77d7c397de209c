"""The official scoring of AlgoPerf, step by step, so that published numbers come out.

Per study the trial with the smallest *evaluation index* of its first hit counts (ties: the smaller
time), seconds are the cost, missing studies are dropped, and the profile is integrated on a grid of
100 points. The rules ``strict`` mend these; this module reproduces them.
"""

import csv
import dataclasses
import json
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from analysis.reading import Logs

_TIMESTAMP = re.compile(r"-\d{4}(-\d{2}){5}$")
_MINIMISED = ("ce_loss", "error_rate", "ctc_loss", "wer", "l1_loss", "loss", "ppl")
_MAXIMISED = ("mean_average_precision", "ssim", "accuracy", "bleu")
_LIMIT = 4.0


@dataclasses.dataclass(frozen=True)
class OfficialTargets:
    """A ``workload_targets.json`` of the official scorer."""

    base: tuple[str, ...]
    held_out: tuple[str, ...]
    metrics: dict[str, tuple[str, float]]  # workload -> metric name, target value


def read_official_targets(path: Path) -> OfficialTargets:
    """Read the official scorer's configuration.

    Raises:
        ValueError: It is another format.
    """
    try:
        document = json.loads(path.read_text("utf-8"))
        metrics = {
            name: (entry["target_metric_name"], float(entry["validation_target_value"]))
            for name, entry in document["workloads"].items()
        }
        base, held_out = document["base_workloads"], document["held_out_workloads"]
        for variant in held_out:
            if not any(name in variant for name in base):
                raise ValueError(f"held-out workload {variant!r} has no base workload")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path}: not a workload_targets.json: {error!r}") from None
    return OfficialTargets(tuple(base), tuple(held_out), metrics)


def targets_of_logs(logs: Logs) -> OfficialTargets:
    """Return the targets that our own records carry."""
    metrics = {
        trial.record.workload: (
            trial.record.target.metric.removeprefix("validation/"),
            trial.record.target.value,
        )
        for trial in logs.trials
    }
    return OfficialTargets(tuple(sorted(metrics)), (), metrics)


def official_times(root: Path, targets: OfficialTargets) -> dict[str, dict[str, float]]:
    """Return the time to target of each submission under ``root`` on each workload (steps 1-3).

    NaN where nothing was logged, inf where the target was not reached.
    """
    hits: dict[str, dict[str, dict[str, list[tuple[int, float]]]]] = {}
    for submission, study, workload, file in _trial_files(root):
        studies = hits.setdefault(submission, {}).setdefault(workload, {})
        hit = _first_hit(file, *targets.metrics[workload]) if workload in targets.metrics else None
        if hit is not None:
            studies.setdefault(study, []).append(hit)
    return {
        submission: {
            workload: float(np.median([min(trials)[1] for trials in studies.values()]))
            for workload, studies in workloads.items()
            if studies
        }
        for submission, workloads in hits.items()
    }


def _trial_files(root: Path) -> Iterator[tuple[str, str, str, Path]]:
    for file in sorted(root.glob("*/study_*/*/trial_*/eval_measurements.csv")):
        submission, study, workload = file.relative_to(root).parts[:3]
        name = re.sub(r"_(jax|pytorch)$", "", workload)
        yield _TIMESTAMP.sub("", submission), study, name, file


def _first_hit(file: Path, metric: str, target: float) -> tuple[int, float] | None:
    """Return ``(evaluation index, time)`` of a trial's first hit; (inf, inf) if there is none.

    ``None`` if nothing was logged.
    """
    with file.open(newline="", encoding="utf-8", errors="replace") as stream:
        rows = csv.reader(stream)
        header = next(rows, [])
        column = f"validation/{metric}"
        if column not in header or "score" not in header:
            return None
        value_at, time_at = header.index(column), header.index("score")
        higher = any(name in metric for name in _MAXIMISED)
        if not higher and not any(name in metric for name in _MINIMISED):
            raise ValueError(f"The official scorer knows no metric {metric!r}.")
        logged = False
        for index, row in enumerate(rows):
            try:
                value, time = float(row[value_at]), float(row[time_at])
            except (ValueError, IndexError):
                continue
            logged = True
            if value >= target if higher else value <= target:
                return index, time
    return (10**9, float("inf")) if logged else None


def official_scores(
    times: dict[str, dict[str, float]], targets: OfficialTargets
) -> dict[str, float]:
    """Return the benchmark score of each submission (steps 4-8)."""
    names = sorted(times)
    columns = [*targets.base, *targets.held_out] if targets.held_out else list(targets.base)
    table = np.array([[times[n].get(w, np.nan) for w in columns] for n in names], np.float64)
    place = {workload: index for index, workload in enumerate(columns)}
    base_of = {
        place[variant]: place[next(base for base in targets.base if base in variant)]
        for variant in targets.held_out
    }
    for variant, base in base_of.items():
        table[~np.isfinite(table[:, base]), variant] = np.inf
    best = np.min(np.where(np.isnan(table), np.inf, table), axis=0)
    table[table > _LIMIT * best[None]] = np.inf
    for variant, base in base_of.items():
        table[~np.isfinite(table[:, variant]), base] = np.inf
    table = table[:, : len(targets.base)]
    table = np.where(np.isnan(table), np.inf, table)
    best = table.min(axis=0)
    ratio = np.divide(table, best[None], out=np.full_like(table, np.inf), where=np.isfinite(table))
    tau = np.linspace(1.0, _LIMIT, 100)
    rho = (ratio[:, :, None] <= tau).mean(axis=1)
    areas = np.trapezoid(rho, tau, axis=1) / (_LIMIT - 1.0)
    return dict(zip(names, areas.tolist(), strict=True))
