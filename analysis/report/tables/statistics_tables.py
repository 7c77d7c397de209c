"""The statistics as tables and as rows of numbers."""

import math
from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from analysis.report.marks import Marks
from analysis.report.table import (
    BOUNDED,
    COST,
    COUNT,
    P_VALUE,
    SCORE,
    SHARE,
    TEXT,
    Bounded,
    CellFormat,
    Column,
    Estimate,
    Interval,
    Share,
    Table,
    estimate_format,
    interval_format,
    number_format,
)
from analysis.report.tables.score_tables import (
    TIME_FACTORS,
    VIEW_NAMES,
    in_view,
    time_factor_over_workloads,
    unit_name,
    unreached_notes,
)
from analysis.statistics import resampling
from analysis.statistics.comparisons import MOST_STUDIES, Comparison
from analysis.statistics.inference import Inference
from analysis.statistics.repeatability import DIVISIONS, GOAL
from analysis.statistics.speedups import REFERENCE, Bound, Speedups

_TWO_DIGITS = estimate_format(number_format(".2f"))
# wins, ties, losses: sorted by the difference
_RECORD = CellFormat(
    lambda found: "-".join(map(str, found)),
    lambda found: dict(zip(("wins", "ties", "losses"), found, strict=True)),
    lambda found: found[0] - found[2],
)
_PLACED = CellFormat(
    lambda found: f"{found[0]:.3f} ({found[1]:.0f})",
    lambda found: {"": found[0], "place": found[1]},
    lambda found: found[0],
)


def statistics_tables(found: Inference, marks: Marks) -> list[Table]:
    """Return all tables with content, in the order of a page."""
    tables = [scores_with_intervals(found, marks), repeatability_table([found])]
    tables.append(costs_with_intervals(found, marks))
    if found.speedups is not None and found.comparisons:
        tables.append(speedups_table(found, found.speedups, marks))
    if found.comparisons:
        tables.append(comparisons_table(found, marks))
    tables.append(ranks_table(found, marks))
    if found.left_out is not None:
        tables.append(left_out_table(found, marks))
    return tables


def scores_with_intervals(found: Inference, marks: Marks) -> Table:
    """Return scores, their intervals, and their range with one workload left out."""
    studies = found.samples.studies * len(found.samples.workloads)
    reached = found.samples.reached
    rows = []
    for s in found.order:
        without = None
        if found.left_out is not None:
            lowest, highest = found.left_out.range
            without = Interval(float(lowest[s]), float(highest[s]))
        share = Share(round(reached[s].mean() * studies), studies)
        rows.append((found.samples.contenders[s], _at(found.scores, s), without, share))
    columns = (
        Column("contender", marks.format), Column("score", estimate_format(SCORE)),
        Column("a workload left out", interval_format(SCORE)), Column("reached", SHARE),
    )  # fmt: skip
    caption = (
        f"{in_view('Scores', found.view)}, with bootstrap intervals of {found.percent} "
        f"({found.resamples:,} paired resamples of studies, seed {found.seed}); the lowest and "
        "highest score with one workload left out; studies that reached the target."
    )
    notes = *_unreached(found), *marks.notes
    return Table(caption, columns, tuple(rows), "intervals", notes=notes)


def _unreached(found: Inference) -> list[str]:
    return unreached_notes(found.samples.scored, {found.view: found.samples.medians})


def costs_with_intervals(found: Inference, marks: Marks) -> Table:
    """Return the median cost of each contender on each workload."""
    workloads = found.samples.workloads
    rows = tuple(
        (found.samples.contenders[s], *(_at(found.costs, (s, w)) for w in range(len(workloads))))
        for s in found.order
    )
    caption = (
        f"{in_view('Median cost to target', found.view)}, {unit_name(found.unit)}, with intervals "
        f"of {found.percent}."
    )
    columns = (
        Column("contender", marks.format),
        *(Column(w, estimate_format(COST), workload=w) for w in workloads),
    )
    return Table(caption, columns, rows, "median_costs")


def repeatability_warnings(found: Sequence[Inference]) -> list[str]:
    """Return a sentence for each view whose ranking would not repeat."""
    sentences = []
    for one in found:
        measured = one.repeatability
        if measured.repeats is False:
            needed = "no number of studies follows from this"
            if measured.needed is not None:
                needed = f"about {measured.needed} studies on each workload would give {GOAL}"
            sentences.append(
                f"{in_view('The ranking', one.view)} would not repeat: rankings by two halves of "
                f"its {measured.studies} studies agree with a Kendall's tau of {measured.tau:.2f}, "
                f"below {GOAL}; {needed}."
            )
    return sentences


def repeatability_table(found: Sequence[Inference]) -> Table:
    """Return a row per view: split-half tau, studies for 0.7, intraclass correlations.

    A last row has the share of all studies that reached the target of each workload.
    """
    samples = found[0].samples
    workloads, shares = samples.workloads, samples.reached.mean(axis=0)
    rows: list[tuple[Any, ...]] = [
        (
            VIEW_NAMES[one.view] or "cost",
            one.repeatability.tau,
            one.repeatability.studies,
            one.repeatability.needed,
            *map(float, one.repeatability.correlations),
        )
        for one in found
    ]
    rows.append(("studies that reached it", None, None, None, *map(float, shares)))
    columns = (
        Column("repeatability"), Column("split-half tau", number_format(".2f")),
        Column("studies", COUNT), Column(f"studies for {GOAL}", COUNT, "studies_to_repeat"),
        *(Column(w, number_format(".2f"), workload=w, turned=True) for w in workloads),
    )  # fmt: skip
    caption = (
        f"Split-half tau: mean Kendall's tau-b between rankings by two halves of the studies, over "
        f"{DIVISIONS} divisions; below {GOAL} the ranking would not repeat. Studies for {GOAL}: by "
        "Spearman and Brown, an approximation. Workloads: intraclass correlation, the share of the "
        "variance of log cost that lies between contenders; a miss counts as its budget. Last row: "
        "the share of all studies that reached the target."
    )
    notes = [
        f"{in_view('Split-half tau', one.view)} is not defined: {one.repeatability.reason}."
        for one in found
        if one.repeatability.reason
    ]
    if left_out := found[0].repeatability.left_out:
        notes.append(f"Left out, because no study reached a target: {', '.join(left_out)}.")
    return Table(caption, columns, tuple(rows), "repeatability", notes=tuple(notes))


def speedups_table(
    found: Inference,
    speedups: Speedups,
    marks: Marks,
    factors: Mapping[tuple[str, str], float] = MappingProxyType({}),
) -> Table:
    """Return one row per contender: its speed-up over the reference, and whether it is decided.

    Args:
        found: The statistics of one view.
        speedups: Its speed-ups.
        marks: The marks of contenders.
        factors: The time factors by contender and workload, for a column with their range.
    """
    reference = speedups.reference
    place = found.samples.contenders.index(reference)
    pairs = {frozenset((pair.first, pair.second)): pair for pair in found.comparisons}
    rows, both = [], []
    for s in found.order:
        name = found.samples.contenders[s]
        if name == reference:
            continue
        pair = pairs[frozenset((name, reference))]
        bounded = Bounded(*speedups.of(name))
        row = name, bounded, _at(found.wins, (s, place)), decision_text(pair)
        rows.append((*row, time_factor_over_workloads(factors, name)) if factors else row)
        if count := speedups.both_missed[s]:
            both.append(f"{name} on {count} workload{'s' if count > 1 else ''}")
    columns = (
        Column("contender", marks.format), Column("speed-up", BOUNDED),
        Column(f"beats {reference}", _TWO_DIGITS, "beats_reference"), Column("decided", TEXT),
        *([Column("time factor", _TWO_DIGITS)] if factors else []),
    )  # fmt: skip
    caption = (
        f"{in_view('Speed-up', found.view)} over {reference}: geometric mean over workloads of its "
        f"median cost over the contender's, with intervals of {found.percent}. A median that "
        f"missed counts as its budget: >= where {reference} missed on some workload, <= where the "
        "contender did, ~ where both did. An interval has no end where resamples miss. Beats "
        f"{reference}: share of paired studies, the median over orders of random search's trials. "
        "Decided: by the sign test over all pairs, on how often one wins and not by how much."
    )
    if factors:
        caption += (
            f" Time factor: {TIME_FACTORS[:-1]}; the geometric mean over workloads (the lowest to "
            "the highest workload), not in the speed-up. A workload is measured in one audit, so "
            "its error is not known from it."
        )
    notes = [f"Both missed, which counts as a ratio of 1: {'; '.join(both)}."] if both else []
    return Table(caption, columns, tuple(rows), f"speedups_{found.view}", notes=tuple(notes))


def reference_notes(found: Sequence[Inference]) -> list[str]:
    """Return a note if no speed-up was computed because the default reference did not run."""
    if all(one.speedups is not None for one in found):
        return []
    return [f"No speed-ups: {REFERENCE} did not run. Choose a contender with --reference."]


def comparisons_table(found: Inference, marks: Marks, first: str | None = None) -> Table:
    """Return one row per pair, the better score first; optionally only pairs with ``first``."""
    indices = {name: s for s, name in enumerate(found.samples.contenders)}
    rows = tuple(
        (
            pair.first,
            pair.second,
            _at(found.wins, (indices[pair.first], indices[pair.second])),
            (pair.wins, pair.ties, pair.losses),
            pair.adjusted,
            decision_text(pair),
        )
        for pair in found.comparisons
        if first in (None, pair.first)
    )
    columns = (
        Column("contender", marks.format), Column("versus", marks.format),
        Column("beats it", _TWO_DIGITS), Column("wins-ties-losses", _RECORD, "studies"),
        Column("p (Holm)", P_VALUE, "p_holm"), Column("decided", TEXT),
    )  # fmt: skip
    caption = (
        f"With intervals of {found.percent}: share of paired studies in which the first beats the "
        "second, equal costs and two misses counting half, for random search by the median over "
        "orders of its trials; p of the sign test, adjusted for "
        f"all comparisons. Decided: p is at most {1 - found.confidence:.2g}. Otherwise: the "
        "further studies on each workload that would decide it with probability 0.8 if they are "
        "like those seen."
    )
    return Table(caption, columns, rows, "comparisons", keys=2)


def decision_text(pair: Comparison) -> str:
    """Return the better contender, or the number of further studies that a decision needs."""
    if pair.winner is not None:
        return f"yes: {pair.winner}"
    if pair.more is None:
        return f"no: more than {MOST_STUDIES:,} more" if pair.wins + pair.losses else "no: all tie"
    return f"no: {pair.more} more stud{'y' if pair.more == 1 else 'ies'}"


def ranks_table(found: Inference, marks: Marks) -> Table:
    """Return ranks on every workload, and the result of Friedman's test."""
    mean, names = found.ranking.mean, found.samples.contenders
    order = sorted(range(len(mean)), key=lambda s: (mean[s], names[s]))
    rows = tuple((names[s], float(mean[s]), *map(float, found.ranking.ranks[s])) for s in order)
    p, difference = found.ranking.p, found.ranking.critical_difference
    parts = ["Ranks by median cost, 1 the least; equal ones share the mean of their ranks."]
    if math.isnan(p):
        parts.append("Friedman's test does not apply.")
    else:
        parts.append(
            f"Friedman's test: Q = {found.ranking.statistic:.2f}, p = {p:.2g} by permutations."
        )
    if not math.isnan(difference):
        parts.append(f"Two mean ranks differ (Nemenyi, {found.percent}) from {difference:.2f} on.")
    if found.ranking.warning:
        parts.append(found.ranking.warning)
    columns = (
        Column("contender", marks.format), Column("mean rank", number_format(".2f")),
        *(Column(w, number_format("g"), workload=w, turned=True) for w in found.samples.workloads),
    )  # fmt: skip
    return Table(" ".join(parts), columns, rows, "ranks")


def left_out_table(found: Inference, marks: Marks) -> Table:
    """Return one row per contender: its score and place without each workload."""
    assert found.left_out is not None
    left = found.left_out
    rows = [
        (
            found.samples.contenders[s],
            *zip(map(float, left.scores[:, s]), map(float, left.places[:, s]), strict=True),
        )
        for s in found.order
    ]
    columns = (
        Column("contender", marks.format),
        *(Column(w, _PLACED, f"without_{w}", workload=w, turned=True) for w in left.workloads),
    )  # fmt: skip
    caption = "Scores without the workload of a column, and places by them in parentheses."
    return Table(caption, columns, tuple(rows), "left_out")


def numbers_table(found: list[Inference]) -> Table:
    """Return all numbers of the statistics, one row each."""
    names = ("view", "statistic", "contender", "versus", "workload", "value", "low", "high")
    rows = tuple((one.view, *row) for one in found for row in _rows(one))
    notes = tuple(note for one in found for note in _unreached(one))
    return Table("Statistics", tuple(map(Column, names)), rows, "statistics", keys=5, notes=notes)


def _rows(found: Inference) -> Iterator[tuple[Any, ...]]:
    names, workloads = found.samples.contenders, found.samples.workloads
    for s in found.order:
        yield "score", names[s], None, None, *_at(found.scores, s)
    for s in found.order:
        for w, workload in enumerate(workloads):
            yield "median_cost", names[s], None, workload, *_at(found.costs, (s, w))
            yield "reached", names[s], None, workload, float(found.samples.reached[s, w]), *_NONE
            yield "rank", names[s], None, workload, float(found.ranking.ranks[s, w]), *_NONE
    for pair in found.comparisons:
        a, b = names.index(pair.first), names.index(pair.second)
        beaten = "probability_of_beating", pair.first, pair.second, None
        yield *beaten, *_at(found.wins, (a, b))
        yield "p_holm", pair.first, pair.second, None, pair.adjusted, *_NONE
    measured = found.repeatability
    yield "split_half_tau", None, None, None, measured.tau, *_NONE
    yield "studies_to_repeat", None, None, None, measured.needed, *_NONE
    for workload, share in zip(workloads, measured.correlations, strict=True):
        yield "intraclass_correlation", None, None, workload, float(share), *_NONE
    if found.speedups is not None:
        for s in found.order:
            statistic = _SPEEDUPS[found.speedups.bounds[s]]
            numbers = _at(found.speedups.values, s)
            yield statistic, names[s], found.speedups.reference, None, *numbers
    if found.left_out is not None:
        for workload, scores in zip(found.left_out.workloads, found.left_out.scores, strict=True):
            for s in found.order:
                yield "score_without", names[s], None, workload, float(scores[s]), *_NONE


_NONE = (None, None)
_SPEEDUPS: dict[Bound, str] = {
    "": "speed_up", ">=": "speed_up_at_least", "<=": "speed_up_at_most", "~": "speed_up_about",
}  # fmt: skip


def _at(values: resampling.Estimates, index: int | tuple[int, ...]) -> Estimate:
    return Estimate(*(float(part[index]) for part in (values.value, values.low, values.high)))
