"""The report of a campaign or a competition: one HTML file, with Markdown, CSV and pictures."""

import itertools
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from analysis.checks.fairness import equality_of_budgets, fixed_hyperparameters, warnings_of
from analysis.checks.verification import verified_contenders, verify
from analysis.logs.audits import audit_summary
from analysis.logs.hardware import ANY_HARDWARE, MIXED, HardwareChoice
from analysis.logs.logs import Logs
from analysis.report.answer import answer, infer_all, problems
from analysis.report.formats import csv_text, table_csv
from analysis.report.marks import Marks
from analysis.report.pages import write_pages
from analysis.report.publish import publish
from analysis.report.sections import Section
from analysis.report.summary import contender_marks, shown_warnings
from analysis.report.tables import campaign_tables, statistics_tables, training_tables
from analysis.report.tables.difference_tables import difference_tables
from analysis.report.tables.overview_table import overview_table
from analysis.report.tables.score_tables import (
    Extras,
    cost_table,
    facets_of,
    filters_of,
    in_view,
    score_table,
)
from analysis.report.tables.verification_table import verdicts_table
from analysis.scoring.costs import Unit
from analysis.scoring.scores import Scores, score_logs
from analysis.statistics.inference import Inference
from analysis.statistics.speedups import REFERENCE
from analysis.training.curves import anytime_bands
from analysis.training.episodes import read_runs
from analysis.training.final_values import final_episode_losses, final_values
from analysis.training.hyperparameters import METHOD, all_points, importance
from analysis.training.last_evaluations import last_evaluations
from analysis.wording import join_entries
from metaopt.bench.records import FAILURES
from metaopt.bench.records.redaction import redact

if TYPE_CHECKING:
    from analysis.report.plots.canvas import Plot
    from analysis.report.plots.curve_plots import Bands, Profiles

_MACHINES = 3  # named in a sentence; a table has all
_ANSWER = "Who is ahead?"
_UNCERTAINTY = "How sure is that, and would it repeat?"
_EPISODES = (
    "Geometric mean over the first runs of all studies (lowest to highest). k/n: only k of n "
    "studies have a finite loss there. Cut: the run ended before the episode did. A deployed run "
    "has no set length. The numbers are in episodes.csv."
)
_ENDS = (
    "Mean over studies (lowest to highest) of the values at the last evaluation, geometric for "
    "losses. Failed trials are excluded. A trial that ended at its target has its values there. "
    "Studies: number with a best trial, of all. The numbers are in ends.csv."
)
_ENDS_OF_OURS = (
    " Steps and phase count from the last restart. Each deployed episode of a self-tuning run "
    "counts as a trial."
)
_NOT_PAIRED = (
    "Studies are paired by their order only, because AlgoPerf gives each study its own seed."
)


def write_report(
    logs: Logs,
    out: Path,
    *,
    command: str | None = None,
    unit: Unit | None = None,
    hardware: HardwareChoice = ANY_HARDWARE,
    rerun: Logs | None = None,
    reference: str = REFERENCE,
    title: str = "",
) -> Path:
    """Write ``report.html``, ``report.md``, the CSV files and the plots.

    The Markdown file has all tables of the page. Plots are written as PNG and SVG, and all numbers
    as CSV files: ``scores.csv``, ``costs.csv``, ``trials.csv``, ``ends.csv``,
    ``anytime.csv``, ``profiles.csv``, those named like the other tables, ``statistics.csv`` if
    there is more than one study, and ``episodes.csv`` if a contender learned over episodes.

    Args:
        logs: The logs, with all columns.
        out: The folder of the report; existing files with these names are replaced.
        command: The command to show as the origin of the report.
        unit: The unit of the costs; by default that of the budgets.
        hardware: Whether seconds of different hardware may be mixed.
        rerun: A second run of the campaign, to verify contenders with.
        reference: The contender that speed-ups are relative to.
        title: The title of the page; by default the campaign's name.

    Returns:
        The path of ``report.html``.

    Raises:
        ValueError: Seconds would be mixed, the unit does not apply, the rerun is a copy, or the
            reference is not a contender.
    """
    # Plots are imported here and below, because commands that print tables do not need them.
    from analysis.report.plots.curve_plots import profiles_of

    scores = score_logs(logs, unit=unit, hardware=hardware)
    marks, facets = contender_marks(logs), facets_of(logs)
    inferred = infer_all(scores, reference)
    extras = extras_of(inferred, facets)
    verification: list[Section] = []
    if rerun is not None:
        verdicts = verify(logs, rerun)
        verified = verified_contenders(verdicts)
        extras = Extras(**{**vars(extras), "verified": verified})
        table = verdicts_table(verdicts, logs, rerun, facets)
        verification = [Section("Does another run come to the same costs?", tables=(table,))]
    bands, profiles = anytime_bands(logs), profiles_of(scores)
    out.mkdir(parents=True, exist_ok=True)
    opening = _opening(scores, inferred, marks, extras, out)
    sections = [
        *_costs(logs, scores, marks, extras, out),
        *_official(logs, marks),
        _statistics_section(logs, scores, inferred, marks, out, opening.plots),
        *verification,
        *_by_heading(_curves(logs, scores, bands, profiles, out)),
        *_training(logs, marks, out),
        *_details(logs, scores, marks, extras, out),
    ]
    context = _context(logs, scores, command, title)
    context |= {
        "answer": answer(scores, inferred),
        "problems": problems(logs, scores),
        "unrepeatable": statistics_tables.repeatability_warnings(inferred),
        "opening": opening,
        "sections": sections,
        "filters": filters_of(scores, facets),
        "names": sorted(scores.contenders),
    }
    write_pages("report", context, out)
    parts = [opening, *sections]
    tables = [table for part in parts for table in (*part.tables, *part.data) if table.name]
    tables.append(campaign_tables.trials_table(logs))
    if inferred:
        tables.append(statistics_tables.numbers_table(inferred))
    for table in tables:
        publish(out / f"{table.name}.csv", table_csv(table))
    publish(out / "anytime.csv", anytime_csv(bands))
    publish(out / "profiles.csv", profiles_csv(profiles))
    return out / "report.html"


def anytime_csv(bands: "Bands") -> str:
    """Return the curves of the best metric so far as CSV, one line per point."""
    rows = [
        (workload, contender, *map(float, point))
        for (contender, workload), band in bands.items()
        for point in zip(band.x, band.middle, band.low, band.high, strict=True)
    ]
    return csv_text(("workload", "contender", "spent", "median", "low", "high"), rows)


def profiles_csv(profiles: "Profiles") -> str:
    """Return the corners of the performance profiles as CSV, one line each."""
    rows = [
        (view, contender, float(tau), float(rho))
        for (contender, view), corners in profiles.items()
        for tau, rho in zip(*corners, strict=True)
    ]
    return csv_text(("view", "contender", "ratio", "share"), rows)


def extras_of(found: list[Inference], facets: Any) -> Extras:
    """Return the intervals of scores and costs, and the facets of rows."""
    if not found:
        return Extras(facets=facets)
    areas, costs = {}, {}
    for one in found:
        for s, name in enumerate(one.samples.contenders):
            areas[name, one.view] = float(one.scores.low[s]), float(one.scores.high[s])
            for w, workload in enumerate(one.samples.workloads):
                ends = float(one.costs.low[s, w]), float(one.costs.high[s, w])
                costs[name, workload, one.view] = ends
    first = found[0]
    name = (
        f"{first.percent}, paired bootstrap over studies, {first.resamples:,} "
        f"resamples, seed {first.seed}"
    )
    return Extras(areas, costs, name, facets=facets)


def _opening(
    scores: Scores, found: list[Inference], marks: Marks, extras: Extras, out: Path
) -> Section:
    """Return the picture and the table of the answer."""
    from analysis.report.plots.answer_plot import plot_answer

    plots = (plot_answer(found[0], _ANSWER, out),) if found else ()
    speedups = found[0].speedups if found else None
    table = overview_table(scores, marks, extras, speedups)
    return Section(
        _ANSWER, plots=plots, tables=(table,), data=(score_table(scores, marks, extras),)
    )


def _costs(
    logs: Logs, scores: Scores, marks: Marks, extras: Extras, out: Path
) -> Iterable[Section]:
    from analysis.report.plots import sweep_plots
    from analysis.report.plots.cost_plots import COSTS_HEADING, plot_costs, study_budgets

    budgets = study_budgets(logs, scores.unit)
    drawn = tuple(plot_costs(scores, extras, out, budgets))
    yield Section(COSTS_HEADING, plots=drawn, tables=(cost_table(scores, marks, extras),))
    if swept := tuple(sweep_plots.plot_sweeps(logs, scores, extras, out, budgets)):
        yield Section(sweep_plots.SWEEPS_HEADING, plots=swept)


def _statistics_section(
    logs: Logs,
    scores: Scores,
    found: list[Inference],
    marks: Marks,
    out: Path,
    drawn: "Iterable[Plot]",
) -> Section:
    """Return plots, repeatability and speed-ups of both views, other tables of the first.

    Plots that are ``drawn`` above already are left out.
    """
    from analysis.report.plots.statistics_plots import plot_inference

    if not found:
        text = "Intervals and comparisons need at least two studies; these logs have one."
        return Section(_UNCERTAINTY, (text,))
    first = found[0]
    above = {plot.path for plot in drawn}
    plots = [plot for one in found for plot in plot_inference(one, _UNCERTAINTY, out)]
    plots = [plot for plot in plots if plot.path not in above]
    tables = [statistics_tables.repeatability_table(found)]
    tables += [
        statistics_tables.speedups_table(one, one.speedups, marks, scores.factors)
        for one in found
        if one.speedups is not None and one.comparisons
    ]
    if first.comparisons:
        tables.append(statistics_tables.comparisons_table(first, marks))
    tables.append(statistics_tables.ranks_table(first, marks))
    if first.left_out is not None:
        tables.append(statistics_tables.left_out_table(first, marks))
    text = [
        f"{in_view('Tables: costs', first.view)}. All numbers are in statistics.csv.",
        *statistics_tables.reference_notes(found),
        *dict.fromkeys(warning for one in found for warning in one.warnings),
    ]
    text += [] if logs.is_ours else [_NOT_PAIRED]
    return Section(_UNCERTAINTY, tuple(text), tuple(plots), tuple(tables))


def _official(logs: Logs, marks: Marks) -> Iterable[Section]:
    """Return the official score beside the strict one, for logs of AlgoPerf's runner."""
    from analysis.scoring.diff import compare_rules

    if logs.is_ours:
        return
    differences, scores = difference_tables(compare_rules(logs), marks)
    heading = "What does AlgoPerf's scorer say, and why does it differ?"
    if differences.rows:
        yield Section(heading, tables=(differences, scores))
    else:
        text = "Both sets of rules come to the same time to target in every cell."
        yield Section(heading, (text,), tables=(scores,), data=(differences,))


def _curves(
    logs: Logs, scores: Scores, bands: "Bands", profiles: "Profiles", out: Path
) -> "Iterable[Plot]":
    from analysis.report.plots.curve_plots import plot_anytime, plot_profiles

    yield from plot_profiles(scores, profiles, out)
    yield from plot_anytime(logs, scores, bands, out)


def _training(logs: Logs, marks: Marks, out: Path) -> Iterable[Section]:
    last = last_evaluations(logs)
    if logs.is_ours:
        from analysis.report.plots.episode_plots import plot_training

        runs = read_runs(logs)
        yield from _by_heading(plot_training(logs, runs, last, out))
        if episodes := final_episode_losses(logs, runs):
            tables, data = (
                training_tables.episode_tables(episodes),
                training_tables.episodes_table(episodes),
            )
            yield Section(
                "What is the training loss after each episode?",
                (_EPISODES,),
                tables=tuple(tables),
                data=(data,),
            )
    ends = final_values(logs, last)
    text = _ENDS + (_ENDS_OF_OURS if logs.is_ours else "")
    tables, data = (
        training_tables.final_values_tables(ends, marks),
        training_tables.final_values_table(ends),
    )
    if not tables:
        text = "No trial has an evaluation."
    yield Section("How did training end?", (text,), tables=tuple(tables), data=(data,))


def _details(
    logs: Logs, scores: Scores, marks: Marks, extras: Extras, out: Path
) -> Iterable[Section]:
    from analysis.report.plots.breakdown_plot import BREAKDOWN_HEADING, plot_breakdown
    from analysis.report.plots.trial_plots import (
        IMPORTANCE_HEADING,
        TRIALS_HEADING,
        plot_importance,
        plot_trials,
    )

    spent = campaign_tables.spent_table(logs, extras.facets, marks)
    drawn = (plot_breakdown(logs, out),) if logs.is_ours else ()
    yield Section(BREAKDOWN_HEADING, plots=drawn, tables=(spent,))
    points = all_points(logs)
    if plots := plot_trials(points, scores.workloads, out):
        yield Section(TRIALS_HEADING, plots=tuple(plots))
    if found := [one for some in points if (one := importance(some)) is not None]:
        plots = plot_importance(found, scores.workloads, out)
        table = training_tables.importance_table(found)
        yield Section(IMPORTANCE_HEADING, (METHOD,), tuple(plots), (table,))
    ends, errors = campaign_tables.status_table(logs), campaign_tables.errors_table(logs)
    if errors.rows or any(trial.record.status in FAILURES for trial in logs.trials):
        yield Section("What failed?", tables=(ends, errors) if errors.rows else (ends,))
    else:
        yield Section("What failed?", ("No trial failed. This is how they ended:",), tables=(ends,))
    tables = campaign_tables.target_table(logs), campaign_tables.environment_table(logs)
    yield Section("Which targets, budgets and machines?", tables=tables)
    for warning in warnings_of(logs):
        if len(warning.entries) > 5:
            yield Section(warning.title, entries=tuple(warning.entries))
    if logs.notes:
        yield Section("What is odd about the logs?", entries=tuple(logs.notes))


def _by_heading(plots: "Iterable[Plot]") -> Iterable[Section]:
    for heading, group in itertools.groupby(plots, key=lambda plot: plot.heading):
        yield Section(heading, plots=tuple(group))


def _context(logs: Logs, scores: Scores, command: str | None, title: str) -> dict[str, Any]:
    about = logs.campaign or {}
    dates = sorted(getattr(trial.record, "started_at", "") for trial in logs.trials)
    environment = campaign_tables.environment_table(logs).texts
    machines = list(dict.fromkeys(f"{row[0]} ({row[1]})" for row in environment))
    return {
        "title": title or about.get("name", logs.path.name),
        "ours": logs.is_ours,
        "tuned": scores.tuned,
        "warnings": shown_warnings(logs),
        "equality": equality_of_budgets(logs) if logs.is_ours else "",
        "audits": audit_summary(list(logs.audits)) if logs.is_ours else "",
        "variants": fixed_hyperparameters(logs),
        "budgets": campaign_tables.budgets_line(logs, scores.unit),
        "mixed": [note for note in scores.notes if note.startswith(MIXED)],
        "remarks": [note for note in scores.notes if not note.startswith(MIXED)],
        "command": redact(command) if command else None,
        "dates": " to ".join(sorted({dates[0][:10], dates[-1][:10]})),
        "seed": about.get("seed", "unknown"),
        "studies": scores.studies,
        "contenders": len(scores.contenders),
        "workloads": len(scores.workloads),
        "machines": join_entries(machines, _MACHINES).rstrip("."),
        "commits": ", ".join(sorted({row[3] for row in environment})),
    }
