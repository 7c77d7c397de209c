"""The statistics as tables, as a document and as rows of numbers."""

import itertools
import math
from collections.abc import Iterator
from typing import Any

from analysis.report.tables import Table, unit_name
from analysis.scoring.scores import format_cost
from analysis.statistics.comparisons import MOST_STUDIES, Comparison
from analysis.statistics.inference import Inference
from analysis.statistics.resampling import Estimate
from analysis.text import plain

VIEW_NAMES = {"including": "including tuning", "given": "given tuned"}
_Index = int | tuple[int, ...]
_ENDS = ("value", "low", "high")
ROWS_HEADER = ("statistic", "contender", "versus", "workload", *_ENDS)


def inference_tables(found: Inference) -> list[Table]:
    """Return every table, in the order of a page; what has nothing to say is left out."""
    tables = [scores_with_intervals(found), costs_with_intervals(found)]
    if found.comparisons:
        tables.append(comparisons_table(found))
    tables.append(ranks_table(found))
    if found.left_out is not None:
        tables.append(left_out_table(found))
    return tables


def scores_with_intervals(found: Inference) -> Table:
    """Return scores, what they rest on, and how they move."""
    lowest, highest = found.left_out.range if found.left_out else (None, None)
    reached = found.samples.reached
    studies = found.samples.studies * len(found.samples.workloads)
    rows = tuple(
        (
            _name(found, s),
            f"{found.scores.value[s]:.3f}",
            f"{found.scores.low[s]:.3f} to {found.scores.high[s]:.3f}",
            "" if lowest is None or highest is None else f"{lowest[s]:.3f} to {highest[s]:.3f}",
            f"{round(reached[s].mean() * studies)}/{studies}",
        )
        for s in found.order
    )
    header = ("contender", "score", "interval", "a workload left out", "reached")
    caption = (
        f"Scores {VIEW_NAMES[found.view]}, with bootstrap intervals of {_percent(found)} "
        f"({found.resamples:,} paired resamples of studies, seed {found.seed}) and the lowest and "
        "highest score with one workload left out; studies that reached the target."
    )
    return Table(caption, header, rows)


def costs_with_intervals(found: Inference) -> Table:
    """Return the median cost of each contender on each workload."""
    rows = tuple(
        (
            _name(found, s),
            *(_with_interval(found.costs, (s, w)) for w in range(len(found.samples.workloads))),
        )
        for s in found.order
    )
    caption = (
        f"Median cost to target {VIEW_NAMES[found.view]}, {unit_name(found.unit)}, with "
        f"intervals of {_percent(found)}; ∞ where the target was not reached."
    )
    return Table(caption, ("contender", *map(plain, found.samples.workloads)), rows)


def comparisons_table(found: Inference) -> Table:
    """Return every two contenders, the better score first."""
    indices = {name: s for s, name in enumerate(found.samples.contenders)}
    rows = []
    for pair in found.comparisons:
        a, b = indices[pair.first], indices[pair.second]
        rows.append(
            (
                plain(pair.first),
                plain(pair.second),
                f"{found.wins.value[a, b]:.2f} "
                f"({found.wins.low[a, b]:.2f} to {found.wins.high[a, b]:.2f})",
                f"{pair.wins}-{pair.ties}-{pair.losses}",
                _p_value(pair.adjusted),
                verdict(pair),
            )
        )
    header = (
        "contender",
        "versus",
        "beats it",
        "wins-ties-losses",
        "p (Holm)",
        "decided",
    )
    caption = (
        f"With intervals of {_percent(found)}: probability that the first beats the second in the "
        "same study, equal costs and two misses counting half; p of the sign test, adjusted for "
        f"all comparisons. Decided: that p is at most {1 - found.confidence:.2g}. Else the further "
        "studies on each workload that would decide it with probability 0.8 if they are like those "
        "seen."
    )
    return Table(caption, header, tuple(rows), keys=2)


def verdict(pair: Comparison) -> str:
    """Return who is better, or how many more studies that would take."""
    if pair.winner is not None:
        return f"yes: {plain(pair.winner)}"
    if pair.more is None:
        return f"no: more than {MOST_STUDIES:,} more" if pair.wins + pair.losses else "no: all tie"
    return f"no: {pair.more} more stud{'y' if pair.more == 1 else 'ies'}"


def ranks_table(found: Inference) -> Table:
    """Return ranks on every workload, and what Friedman's test says of them."""
    mean = found.ranking.mean
    order = sorted(range(len(mean)), key=lambda s: (mean[s], found.samples.contenders[s]))
    rows = tuple(
        (_name(found, s), f"{mean[s]:.2f}", *(f"{rank:g}" for rank in found.ranking.ranks[s]))
        for s in order
    )
    p = found.ranking.p
    test = (
        "Friedman's test does not apply."
        if math.isnan(p)
        else f"Friedman's test: Q = {found.ranking.statistic:.2f}, p = {p:.2g} by permutations."
    )
    difference = found.ranking.critical_difference
    nemenyi = (
        ""
        if math.isnan(difference)
        else f" Two mean ranks differ (Nemenyi, {_percent(found)}) from {difference:.2f} on."
    )
    warning = f" {found.ranking.warning}" if found.ranking.warning else ""
    caption = f"Ranks by median cost, 1 the least; ties share theirs. {test}{nemenyi}{warning}"
    return Table(caption, ("contender", "mean rank", *map(plain, found.samples.workloads)), rows)


def left_out_table(found: Inference) -> Table:
    """Return scores and order with each workload left out."""
    assert found.left_out is not None
    rows = []
    for workload, scores, places in zip(
        found.left_out.workloads, found.left_out.scores, found.left_out.places, strict=True
    ):
        best = ", ".join(_name(found, s) for s in found.order if places[s] == 1)
        cells = (f"{scores[s]:.3f} ({places[s]:.0f})" for s in found.order)
        rows.append((plain(workload), best, *cells))
    header = ("left out", "best", *(_name(found, s) for s in found.order))
    caption = "Scores, and places in parentheses, with one workload left out."
    return Table(caption, header, tuple(rows))


def inference_document(found: Inference) -> dict[str, Any]:
    """Return the statistics as JSON data: "inf" for a miss, null for what is not defined."""
    rows = [dict(zip(ROWS_HEADER, row, strict=True)) for row in inference_rows(found)]
    return {
        "schema_version": 1,
        "cost": found.unit,
        "view": found.view,
        "confidence": found.confidence,
        "resamples": found.resamples,
        "seed": found.seed,
        "studies": found.samples.studies,
        "contenders": [found.samples.contenders[s] for s in found.order],
        "workloads": list(found.samples.workloads),
        "warnings": list(found.warnings),
        "estimates": [
            {key: _finite(value) for key, value in row.items() if value is not None or key in _ENDS}
            for row in rows
        ],
        "comparisons": [
            {
                "contender": pair.first, "versus": pair.second, "wins": pair.wins,
                "ties": pair.ties, "losses": pair.losses, "p": pair.p,
                "p_holm": pair.adjusted, "decided": pair.decided, "more_studies": pair.more,
            }
            for pair in found.comparisons
        ],
        "friedman": {"statistic": _finite(found.ranking.statistic), "p": _finite(found.ranking.p)},
        "critical_difference": _finite(found.ranking.critical_difference),
    }  # fmt: skip


def inference_rows(found: Inference) -> list[tuple[Any, ...]]:
    """Return one row of :data:`ROWS_HEADER` per number, to the last digit."""
    return [
        (statistic, contender, versus, workload, *(_plain_number(number) for number in numbers))
        for statistic, contender, versus, workload, *numbers in _rows(found)
    ]


def _rows(found: Inference) -> Iterator[tuple[Any, ...]]:
    names, workloads = found.samples.contenders, found.samples.workloads
    for s in found.order:
        yield "score", names[s], None, None, *_numbers(found.scores, s)
    for s in found.order:
        for w, workload in enumerate(workloads):
            yield "median_cost", names[s], None, workload, *_numbers(found.costs, (s, w))
            yield "reached", names[s], None, workload, found.samples.reached[s, w], None, None
            yield "rank", names[s], None, workload, found.ranking.ranks[s, w], None, None
    for a, b in itertools.combinations(found.order, 2):
        yield "probability_of_beating", names[a], names[b], None, *_numbers(found.wins, (a, b))
    if found.left_out is not None:
        for w, workload in enumerate(found.left_out.workloads):
            for s in found.order:
                score = found.left_out.scores[w, s]
                yield "score_without", names[s], None, workload, score, None, None


def _numbers(estimate: Estimate, index: _Index) -> tuple[float, float, float]:
    value, low, high = (part[index] for part in (estimate.value, estimate.low, estimate.high))
    return float(value), float(low), float(high)


def _plain_number(value: Any) -> float | None:
    return None if value is None or math.isnan(value) else float(value)


def _finite(value: Any) -> Any:
    if not isinstance(value, float) or math.isfinite(value):
        return value
    return None if math.isnan(value) else "inf"


def _name(found: Inference, index: int) -> str:
    return plain(found.samples.contenders[index])


def _percent(found: Inference) -> str:
    return f"{100 * found.confidence:g}%"


def _cost(value: float) -> str:
    return "∞" if math.isinf(value) else format_cost(value)


def _p_value(value: float) -> str:
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def _interval(estimate: Estimate, index: _Index) -> str:
    _, low, high = _numbers(estimate, index)
    return f"{_cost(low)} to {_cost(high)}"


def _with_interval(estimate: Estimate, index: _Index) -> str:
    value, _, _ = _numbers(estimate, index)
    shown = "" if math.isnan(value) else f"{_cost(value)} "
    return f"{shown}({_interval(estimate, index)})"
