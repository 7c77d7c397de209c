"""The report of a campaign: one HTML file, and beside it Markdown, CSV, LaTeX, SVG and PNG."""

import dataclasses
import itertools
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from analysis.checks.fairness import (
    differing_targets,
    early_ends,
    equality_of_budgets,
    fixed_by_hand,
    missing_studies,
    never_evaluated,
    only_random,
    partial_data,
    unequal_budgets,
)
from analysis.checks.verification import verdicts_table, verified_contenders, verify
from analysis.logs.hardware import ANY_HARDWARE, HardwareChoice
from analysis.logs.logs import Logs
from analysis.logs.reader import read_logs
from analysis.report.certainty import additions_of, infer_both, statistics_csv
from analysis.report.latex import latex_document
from analysis.report.pages import csv_text, publish, table_csv, write_pages
from analysis.report.sections import Additions, Section
from analysis.report.standings import (
    cost_header,
    cost_rows,
    costs_table,
    facets_of,
    standings_table,
)
from analysis.report.tables import (
    Facets,
    budgets_line,
    ends_table,
    environment_table,
    errors_table,
    flags_of,
    plain,
    spent_table,
    target_table,
)
from analysis.scoring.scores import Scores, score_path
from analysis.training.best import Ended, read_ends
from analysis.training.curves import anytime_bands
from analysis.training.ends import (
    ENDS_HEADER,
    EPISODES_HEADER,
    End,
    EpisodeEnd,
    end_rows,
    end_tables,
    ends_of_episodes,
    ends_of_training,
    episode_rows,
    episode_tables,
)
from analysis.training.episodes import Runs, read_runs
from analysis.training.hyperparameters import METHOD, all_points, importance, importance_table
from metaopt.bench.budget import CURRENCIES
from metaopt.bench.redaction import redact

if TYPE_CHECKING:
    from analysis.report.plots.canvas import Plot
    from analysis.report.plots.curves import Bands, Profiles

_EPISODES = (
    "Of the first run of each study: geometric mean over studies (lowest to highest); k/n where "
    "only k of n studies have a finite loss there; cut where the run ended before the episode did. "
    "A deployed run has no set length. The same in episodes.csv."
)
_ENDS = (
    "Values at the last evaluation: mean over studies (lowest to highest), geometric for losses. "
    "Steps and phase are those since the last restart. Failed trials are never best; one that "
    "ended at its target has its values there. Each deployed episode of a self-tuning run counts "
    "as a trial. Studies: with a best trial, of all. The same in ends.csv."
)


def write_report(
    logs: Path,
    out: Path,
    *,
    command: str | None = None,
    hardware: HardwareChoice = ANY_HARDWARE,
    rerun: Path | None = None,
) -> Path:
    """Write ``report.html``, ``report.md``, ``report.tex``, the CSV files and the plots.

    Every table of the page is in the Markdown and the LaTeX file, every plot is there as PNG and
    SVG, and every number in some CSV file: ``scores.csv``, ``trials.csv``, ``ends.csv``,
    ``anytime.csv``, ``profiles.csv`` and those named like the other tables are always written,
    ``statistics.csv`` if there is more than one study, ``episodes.csv`` if some contender learned
    over episodes.

    Args:
        logs: A campaign's output folder, or its logs.
        out: Folder of the report; files of these names in it are replaced.
        command: The command that this report is made by, to be shown.
        hardware: Runs on which hardware, and whether their seconds may be mixed.
        rerun: The output folder of another run of the campaign, which says who is verified; by
            default nothing is said.

    Returns:
        The path of ``report.html``.

    Raises:
        ValueError: There is nothing to report on, seconds would be mixed, or the rerun is a copy.
    """
    # Here and below: a command that prints a table needs none of the plots.
    from analysis.report.plots.curves import profiles_of

    read, scores = score_path(logs, hardware=hardware)
    inferred = infer_both(scores)
    bands, profiles, last = anytime_bands(read), profiles_of(scores), read_ends(read)
    runs = read_runs(read)
    ends, episodes = ends_of_training(read, last), ends_of_episodes(read, runs)
    facets = facets_of(read)
    out.mkdir(parents=True, exist_ok=True)
    additions = additions_of(inferred, out)
    verification: list[Section] = []
    if rerun is not None:
        again = read_logs(rerun)
        verdicts = verify(read, again)
        additions = dataclasses.replace(additions, verified=verified_contenders(verdicts))
        table = verdicts_table(verdicts, read, again, facets)
        verification = [Section("Verification", tables=(table,))]
    sections = [
        *_standings(read, scores, facets, additions, out),
        *verification,
        *_by_heading(_curves(read, scores, bands, profiles, runs, last, out)),
        *_training(ends, episodes),
        *_details(read, scores, facets, out),
    ]
    context = _context(read, scores, command)
    context |= {"sections": sections, "filters": _filters(scores, facets)}
    write_pages("report", context, out)
    tables = [(section.heading, section.tables) for section in sections]
    publish(out / "report.tex", latex_document(context["title"], tables))
    for table in itertools.chain(*(section.tables for section in sections)):
        if table.name not in ("", "standings", "costs"):
            publish(out / f"{table.name}.csv", table_csv(table))
    header = cost_header(scores, additions)
    publish(out / "scores.csv", csv_text(header, cost_rows(scores, facets, additions)))
    if inferred:
        publish(out / "statistics.csv", statistics_csv(inferred))
    publish(out / "trials.csv", trials_csv(read))
    publish(out / "ends.csv", csv_text(ENDS_HEADER, end_rows(ends)))
    publish(out / "anytime.csv", anytime_csv(bands))
    publish(out / "profiles.csv", profiles_csv(profiles))
    if episodes:
        publish(out / "episodes.csv", csv_text(EPISODES_HEADER, episode_rows(episodes)))
    return out / "report.html"


def scores_csv(logs: Logs, scores: Scores) -> str:
    """Return scores and medians, one line per contender and workload."""
    nothing = Additions()
    return csv_text(cost_header(scores, nothing), cost_rows(scores, facets_of(logs), nothing))


def anytime_csv(bands: "Bands") -> str:
    """Return the curves of the best metric so far, one line per point."""
    rows = [
        (workload, contender, *map(float, point))
        for (contender, workload), band in bands.items()
        for point in zip(band.x, band.middle, band.low, band.high, strict=True)
    ]
    return csv_text(("workload", "contender", "spent", "median", "low", "high"), rows)


def profiles_csv(profiles: "Profiles") -> str:
    """Return the corners of the performance profiles, one line each."""
    rows = [
        (view, contender, float(tau), float(rho))
        for (contender, view), corners in profiles.items()
        for tau, rho in zip(*corners, strict=True)
    ]
    return csv_text(("view", "contender", "ratio", "share"), rows)


def trials_csv(logs: Logs) -> str:
    """Return one line per trial."""
    parts = ("reached", "episode", "before", "including")
    costs = [f"{part}_{unit}" for part in parts for unit in CURRENCIES]
    header = (
        "contender", "workload", "study", "trial", "status", "best", *CURRENCIES,
        "compilation_seconds", "evaluation_seconds", "tuner_seconds", "logging_seconds", "restarts",
        *costs,
        "segments", "hyperparameters", "error",
    )  # fmt: skip
    rows = []
    for trial in logs.trials:
        record, ledger, reached = trial.record, trial.record.ledger, trial.record.reached
        parts = (
            reached and reached.cost,
            reached and reached.episode_cost,
            record.spent_before,
            reached and record.spent_at(reached.cost),
        )
        hyperparameters = record.hyperparameters
        rows.append(
            (
                record.contender,
                record.workload,
                record.study,
                record.trial,
                record.status,
                record.best,
                *(ledger.cost.amount(unit) for unit in CURRENCIES),
                ledger.compilation_seconds,
                ledger.evaluation_seconds,
                ledger.tuner_seconds,
                ledger.logging_seconds,
                ledger.restarts,
                *(part.amount(unit) if part else None for part in parts for unit in CURRENCIES),
                max(1, len(record.segments)),
                json.dumps(hyperparameters, sort_keys=True) if hyperparameters else None,
                record.error.strip().split("\n")[-1] if record.error else None,
            )
        )
    return csv_text(header, rows)


def _standings(
    logs: Logs,
    scores: Scores,
    facets: Mapping[tuple[str, str], Facets],
    additions: Additions,
    out: Path,
) -> Iterable[Section]:
    from analysis.report.plots import sweeps
    from analysis.report.plots.costs import HEADING, plot_costs, study_budgets

    standings = standings_table(scores, flags_of(logs), facets, additions)
    yield Section("Scores", tables=(standings,))
    costs = costs_table(scores, facets, additions)
    budgets = study_budgets(logs, scores.unit)
    drawn = tuple(plot_costs(scores, additions, out, budgets))
    yield Section(HEADING, plots=drawn, tables=(costs,))
    if swept := tuple(sweeps.plot_sweeps(logs, scores, additions, out, budgets)):
        yield Section(sweeps.HEADING, plots=swept)
    yield from additions.sections


def _curves(
    logs: Logs, scores: Scores, bands: "Bands", profiles: "Profiles", runs: Runs,
    last: Sequence[Ended], out: Path,
) -> "Iterable[Plot]":  # fmt: skip
    from analysis.report.plots.curves import plot_anytime, plot_profiles
    from analysis.report.plots.episodes import plot_training

    yield from plot_profiles(scores, profiles, out)
    yield from plot_anytime(logs, scores, bands, out)
    yield from plot_training(logs, runs, last, out)


def _training(ends: Sequence[End], episodes: Sequence[EpisodeEnd]) -> Iterable[Section]:
    if episodes:
        tables = tuple(episode_tables(episodes))
        yield Section("Training loss after each episode", (_EPISODES,), tables=tables)
    yield Section("How training ended", (_ENDS,), tables=tuple(end_tables(ends)))


def _details(
    logs: Logs, scores: Scores, facets: Mapping[tuple[str, str], Facets], out: Path
) -> Iterable[Section]:
    from analysis.report.plots.breakdown import plot_breakdown
    from analysis.report.plots.trials import plot_importance, plot_trials

    spent = spent_table(logs, facets)
    yield Section("Cost breakdown", plots=(plot_breakdown(logs, out),), tables=(spent,))
    points = all_points(logs)
    if plots := plot_trials(points, scores.workloads, out):
        yield Section("Trials: hyperparameters and outcome", plots=tuple(plots))
    if found := [one for some in points if (one := importance(some)) is not None]:
        plots = plot_importance(found, scores.workloads, out)
        yield Section(
            "Importance of hyperparameters", (METHOD,), tuple(plots), (importance_table(found),)
        )
    failures = [ends_table(logs), errors_table(logs)]
    yield Section("Failures", tables=tuple(table for table in failures if table.rows))
    yield Section("Targets and environment", tables=(target_table(logs), environment_table(logs)))
    if missing := missing_studies(logs):
        yield Section("Missing studies", entries=tuple(map(plain, missing)))
    if logs.notes:
        yield Section("Notes on the logs", entries=tuple(map(plain, logs.notes)))


def _by_heading(plots: "Iterable[Plot]") -> Iterable[Section]:
    for heading, group in itertools.groupby(plots, key=lambda plot: plot.heading):
        yield Section(heading, plots=tuple(group))


def _filters(scores: Scores, facets: Mapping[tuple[str, str], Facets]) -> dict[str, Sequence[str]]:
    """Return the choices of each filter of the page."""
    found: dict[str, Sequence[str]] = {
        name: sorted({value for entry in facets.values() for value in entry.get(name, ())})
        for name in ("hardware", "ruleset")
    }
    found = {"workload": scores.workloads, **found}
    return {name: [plain(value) for value in values] for name, values in found.items()}


def _context(logs: Logs, scores: Scores, command: str | None) -> dict[str, Any]:
    campaign = logs.campaign or {}
    dates = sorted(trial.record.started_at for trial in logs.trials)
    environment = environment_table(logs)
    return {
        "title": plain(campaign.get("name", "runs")),
        "flags": flags_of(logs),
        "missing": [plain(entry) for entry in missing_studies(logs)],
        "equality": plain(equality_of_budgets(logs)),
        "unevaluated": [plain(entry) for entry in never_evaluated(logs)],
        "unequal": [plain(entry) for entry in unequal_budgets(logs)],
        "differing": [plain(entry) for entry in differing_targets(logs)],
        "random": [plain(entry) for entry in only_random(logs)],
        "variants": [plain(entry) for entry in fixed_by_hand(logs)],
        "partial": [plain(entry) for entry in partial_data(logs)],
        "early": [plain(entry) for entry in early_ends(logs)],
        "budgets": plain(budgets_line(logs, scores)),
        "remarks": [plain(note) for note in scores.notes],
        "command": plain(redact(command)) if command else None,
        "dates": plain(" to ".join(sorted({dates[0][:10], dates[-1][:10]}))),
        "seed": plain(campaign.get("seed", "unknown")),
        "studies": scores.studies,
        "contenders": len(scores.contenders),
        "workloads": len(scores.workloads),
        "hardware": environment.rows[0][0],
        "devices": environment.rows[0][1],
        "commits": ", ".join(sorted({row[3] for row in environment.rows})),
    }
