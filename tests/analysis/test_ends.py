"""Ends of training and of episodes, and the report of them, against hand-made logs."""

import csv
import json
import math

import pytest

from analysis.logs.reader import read_logs
from analysis.report.marks import Marks
from analysis.report.plots.episode_plots import plot_training
from analysis.report.report import write_report
from analysis.report.tables.training_tables import episode_tables, final_values_tables
from analysis.training.episodes import (
    over_episodes,
    read_runs,
)
from analysis.training.final_values import (
    EPISODE_LONG,
    final_episode_losses,
    final_values,
    mean_and_range,
)
from analysis.training.last_evaluations import LOSS, last_evaluations
from metaopt.bench import records
from metaopt.bench.records import EVAL_FILE
from tests.analysis.conftest import two_learners

NAN = math.nan


def read(out):
    logs = read_logs(out)
    return logs, read_runs(logs), last_evaluations(logs)


@pytest.mark.parametrize(
    ("phase", "rows"),
    [("plain", 3), ("two\nlines, and a comma", 3), ('a "quote"', 1), ("x" * 10_000, 2)],
    ids=["plain", "quoted", "quotes", "long"],
)
@pytest.mark.parametrize("newline", ["\n", "\r\n"], ids=["newline", "windows"])
def test_the_end_is_the_last_row_of_the_whole_file(build, tmp_path, phase, rows, newline):
    b = build(tmp_path, ["a+grid"], ["w"], 1)
    b.baseline("a+grid", "w", 1, {n: n / 7 for n in range(1, rows + 1)}, [("phase", phase)])
    (path,) = tmp_path.rglob(EVAL_FILE)
    with path.open(newline="") as file:
        table = list(csv.DictReader(file))
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, table[0], lineterminator=newline)
        writer.writeheader()
        writer.writerows(table)

    (end,) = last_evaluations(read_logs(tmp_path))

    assert (end.phase, end.steps, end.value(LOSS)) == (phase, rows, rows / 7)


@pytest.mark.parametrize(
    "content", [b"", b"\n", b"a,b\n", b"a,b\n1,2,3\n", b"a,b\n\xff,1\n", None],
    ids=["empty", "blank", "header", "too long", "bytes", "no file"],
)  # fmt: skip
def test_what_is_no_table_has_no_end(build, tmp_path, content):
    build(tmp_path, ["a+grid"], ["w"], 1).baseline("a+grid", "w", 1, {1: 0.5})
    (path,) = tmp_path.rglob(EVAL_FILE)
    path.unlink() if content is None else path.write_bytes(content)

    (end,) = last_evaluations(read_logs(tmp_path))

    assert end.phase == "" and math.isnan(end.value(LOSS)) and math.isnan(end.steps)


def test_a_summary_is_geometric_for_what_is_not_negative():
    assert mean_and_range([1.0, 4.0, NAN], geometric=True).mean == pytest.approx(2.0)
    assert mean_and_range([1.0, 4.0], geometric=False).mean == pytest.approx(2.5)
    assert mean_and_range([-1.0, 4.0], geometric=True).mean == pytest.approx(1.5)
    zero = mean_and_range([-0.0, 4.0], geometric=True)
    assert (zero.mean, str(zero.low), zero.high) == (0.0, "0.0", 4.0)
    nothing = mean_and_range([NAN, math.inf], geometric=True)
    assert (nothing.finite, nothing.of) == (0, 2)
    assert math.isnan(nothing.mean)


def test_ends_are_those_of_the_best_trials_by_the_targets_metric(build, tmp_path):
    b = build(tmp_path, ["m", "a+grid", "b+grid"], ["w"], 2)
    two_learners(b)
    b.baseline("a+grid", "w", 1, {1: 0.5, 4: 0.25})
    b.baseline("a+grid", "w", 2, {1: 0.5, 8: 0.01})
    b.baseline("a+grid", "w", 2, {1: 0.5, 6: 0.001}, status="diverged")
    b.baseline("b+grid", "w", 1, {1: NAN})

    logs, _, last = read(tmp_path)
    found = {end.contender: end for end in final_values(logs, last)}

    a, m = found["a+grid"], found["m"]
    assert (a.loss.mean, a.loss.low, a.loss.high) == pytest.approx((0.05, 0.01, 0.25))
    assert (a.test_metric, a.steps.mean, a.steps.high, a.phase) == ("test/loss", 6, 8, "training")
    assert (m.phase, m.steps.mean, m.loss.mean) == ("deployed", 6, pytest.approx(0.0625))
    (table,) = final_values_tables(list(found.values()), Marks())
    assert table.texts[0][0] == "a+grid"
    assert table.texts[0][1] == "0.05 (0.01 to 0.25)"
    assert table.texts[0][-3:] == ("6 (4 to 8)", "training", "2/2")
    assert table.texts[1] == ("b+grid", "", "", "", "", "", "0/2")


def test_losses_and_phases_that_no_contender_has_are_no_columns(build, tmp_path):
    b = build(tmp_path, ["a+grid"], ["w"], 1)
    rows = [{"global_step": 3, "validation/loss": 0.25, "test/loss": 0.5}]
    b.trial("a+grid", "w", 1, 3.0, rows=rows)

    logs, _, last = read(tmp_path)
    (table,) = final_values_tables(final_values(logs, last), Marks())

    assert table.header == ("contender", "validation/loss", "test/loss", "steps", "studies")
    assert table.texts == [("a+grid", "0.25", "0.5", "3", "1/1")]


def test_episodes_are_compared_in_columns_and_what_was_cut_is_left_out_or_marked(build, tmp_path):
    b = build(tmp_path, ["m", "m_0.4"], ["w"], 2)
    two_learners(b)
    pinned = {"hyperparameters": {"learning_rate": 0.4}}
    whole = ("learning", 10, {9: 1.0}), ("learning", 10, {9: 0.25})
    b.learner("m_0.4", "w", 1, *whole, ("learning", 4, {4: 7.0}), **pinned)
    b.learner("m_0.4", "w", 2, whole[0], ("learning", 4, {4: 9.0}), **pinned)

    logs, runs, _ = read(tmp_path)
    ends = final_episode_losses(logs, runs)
    (table,) = episode_tables(ends)

    assert table.header == ("episode", "m", "m_0.4")
    assert table.texts == [
        ("1", "2 (1 to 4)", "1"),
        ("2", "0.5 (0.25 to 1)", "0.25 1/2"),
        ("3", "0.25 1/2", "7 1/2 cut"),
        ("deployed, an episode long", "0.125", ""),
        ("deployed", "0.0625", ""),
    ]
    second = next(e for e in ends if (e.contender, e.episode) == ("m_0.4", 2))
    assert (second.studies, second.cut, second.loss.of) == (2, 1, 1)
    assert json.loads(second.hyperparameters) == {"learning_rate": 0.4}


@pytest.mark.parametrize(
    "steps, early", [(2, None), (3, 0.3), (4, 0.4), (9, 0.4)], ids=lambda value: str(value)
)
def test_a_deployed_run_is_read_where_it_is_as_long_as_the_first_episode(
    steps, early, build, tmp_path
):
    b = build(tmp_path, ["m"], ["w"], 1)
    losses = {step: 0.1 * step for step in range(1, steps + 1)}  # a restart takes a step
    b.learner("m", "w", 1, ("learning", 3, {3: 1.0}), ("deployed", steps, losses))

    logs, runs, _ = read(tmp_path)
    ends = {end.phase: end.loss.mean for end in final_episode_losses(logs, runs)}

    assert ends["deployed"] == pytest.approx(0.1 * steps)
    assert ends.get(EPISODE_LONG) == (None if early is None else pytest.approx(early))


def test_an_episode_that_ended_in_no_number_is_counted_and_said(build, tmp_path):
    b = build(tmp_path, ["m"], ["w"], 2)
    b.learner("m", "w", 1, ("learning", 3, {3: NAN}), ("learning", 3, {3: NAN}))
    b.learner("m", "w", 2, ("learning", 3, {3: 2.0}), ("learning", 3, {3: NAN}))

    logs, runs, _ = read(tmp_path)
    (table,) = episode_tables(final_episode_losses(logs, runs))

    assert table.texts == [("1", "2 1/2"), ("2", "not finite")]


# The report.


@pytest.fixture
def campaign(build, tmp_path):
    b = build(tmp_path, ["m", "u", "a+grid"], ["w"], 2)
    two_learners(b)
    for study in (1, 2):
        b.learner("u", "w", study, *[("learning", 3, {1: 1.0, 3: 0.5})] * 3)
        b.baseline("a+grid", "w", study, {1: 0.5, 3: 0.25})
    return tmp_path


def test_the_report_shows_the_figures_and_the_files_hold_their_numbers(campaign, tmp_path):
    page = write_report(read_logs(campaign), tmp_path / "report").read_text("utf-8")

    for name in ("learning-1-w-3.png", "changing-1-w-3.png", "deployed-1-w.png"):
        assert (tmp_path / "report" / name).stat().st_size > 10_000
    assert "m 2 at the end of its first episode, 0.25 of its last; tuned baselines" in page
    assert "Number of studies in each episode of m: 2, 2, 1." in page
    with (tmp_path / "report" / "episodes.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["contender"] == "m"]
    assert [row["phase"] for row in rows] == ["learning"] * 3 + [EPISODE_LONG, "deployed"]
    losses = [2, 0.5, 0.25, 0.125, 0.0625]
    assert [float(row["loss_mean"]) for row in rows] == pytest.approx(losses)
    for row in rows[:2]:
        low, high = float(row["loss_low"]), float(row["loss_high"])
        assert f'">{float(row["loss_mean"]):.3g} ({low:.3g} to {high:.3g})</td>' in page
    with (tmp_path / "report" / "ends.csv").open() as file:
        ends = {row["contender"]: row for row in csv.DictReader(file)}
    assert float(ends["m"]["steps_mean"]) == 6
    assert ends["a+grid"]["validation_metric"] == "validation/loss"
    assert float(ends["a+grid"]["test_mean"]) == 0.25


COLUMNS = [
    "episode",
    "phase",
    "episode_start_steps",
    "train/loss",
    "validation/loss",
    "global_step",
]


@pytest.mark.parametrize("gone", [*([name] for name in COLUMNS), COLUMNS], ids=str)
def test_columns_that_are_not_there_are_never_fatal(campaign, tmp_path, gone):
    for path in campaign.rglob(EVAL_FILE):
        rows = records.read_evaluations(path)
        kept = [{name: v for name, v in row.items() if name not in gone} for row in rows]
        records.write_evaluations(path, kept)

    logs, runs, ends = read(campaign)

    plot_training(logs, runs, ends, tmp_path)
    for end in final_values(logs, ends):
        assert end.found == (0 if "validation/loss" in gone else 2)
    assert bool(episode_tables(final_episode_losses(logs, runs))) == ("episode" not in gone)
    assert bool(over_episodes(logs, runs, ends, "w")) == (
        not {"episode", "train/loss", "global_step"} & set(gone)
    )
