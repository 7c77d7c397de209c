"""``python -m analysis statistics``: how sure the scores are, in every format."""

from analysis.commands.log_options import LogOptions
from analysis.logs.logs import Logs
from analysis.report.formats import Format, print_tables
from analysis.report.summary import contender_marks, warning_lines
from analysis.report.tables.statistics_tables import (
    numbers_table,
    reference_notes,
    repeatability_warnings,
    statistics_tables,
)
from analysis.scoring.costs import Unit, View
from analysis.scoring.scores import score_logs
from analysis.statistics.inference import infer
from analysis.statistics.samples import samples_of
from analysis.statistics.speedups import REFERENCE


def print_statistics(
    source: LogOptions,
    unit: Unit | None = None,
    view: View = "including",
    *,
    confidence: float,
    resamples: int,
    seed: int,
    reference: str = REFERENCE,
    format: Format = Format.TABLE,
) -> Logs:
    """Print statistics and return the logs.

    The formats ``csv`` and ``json`` have every number, the others tables.

    Raises:
        ValueError: An option is out of range, or the logs cannot be counted in that unit.
    """
    if seed < 0:
        raise ValueError(f"`seed` must be at least 0, got {seed}.")
    logs = source.read(costs_only=True)
    scores = score_logs(logs, "strict", unit, source.hardware)
    view = view if view in scores.views else scores.views[0]  # one view if nothing was tuned
    found = infer(
        samples_of(scores, view), scores.unit, confidence=confidence, resamples=resamples,
        seed=seed, reference=reference,
    )  # fmt: skip
    notes = [*repeatability_warnings([found]), *scores.notes, *warning_lines(logs), *found.warnings]
    notes += reference_notes([found])
    if format in (Format.CSV, Format.JSON):
        tables = [numbers_table([found])]
    else:
        tables = statistics_tables(found, contender_marks(logs))
    print_tables(
        tables, notes, format, cost=scores.unit, view=view, confidence=confidence,
        resamples=resamples, seed=seed, studies=scores.studies,
    )  # fmt: skip
    return logs
