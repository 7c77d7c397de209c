"""The statistics of a campaign as they are printed: tables, documents, rows, plots, command."""

import csv
import dataclasses
import io
import json
import math

import numpy as np
import pytest

from analysis.cli import app
from analysis.command_line import run_app
from analysis.report.formats import json_document, markdown_table
from analysis.report.latex import latex_table
from analysis.report.marks import Marks
from analysis.report.plots.statistics_plots import plot_critical_differences, plot_inference
from analysis.report.table import Column, Table
from analysis.report.tables.statistics_tables import (
    comparisons_table,
    left_out_table,
    numbers_table,
    repeatability_table,
    scores_with_intervals,
    speedups_table,
    statistics_tables,
)
from analysis.statistics.inference import infer
from analysis.statistics.samples import Samples

INF = math.inf
EVIL = "=cmd()|<b>$x_{1}$\\%&\x1b[31m"


def make_inference(contenders=4, workloads=3, studies=5, names=None, **options):
    rng = np.random.default_rng(0)
    costs = rng.lognormal(3, 0.4, (contenders, workloads, studies))
    costs *= 1 + np.arange(contenders)[:, None, None] / 2
    costs[rng.random(costs.shape) < 0.2] = INF
    names = names or tuple(f"c{i:02}" for i in range(contenders))
    workloads = tuple(f"w{i}" for i in range(workloads))
    samples = Samples(tuple(names), workloads, costs, view="including")
    return infer(samples, "steps", **{"resamples": 400} | options)


def test_every_number_of_a_table_is_one_of_the_rows():
    found = make_inference()
    rows = {row[1:5]: row[5:] for row in numbers_table([found]).rows}

    for name, shown, *_ in scores_with_intervals(found, Marks()).texts:
        value, low, high = rows["score", name, None, None]
        assert shown == f"{value:.3f} ({low:.3f} to {high:.3f})"
    for first, second, shown, *_ in comparisons_table(found, Marks()).texts:
        value, low, high = rows["probability_of_beating", first, second, None]
        assert shown == f"{value:.2f} ({low:.2f} to {high:.2f})"


def test_scores_without_a_workload_are_those_of_the_rows_with_the_places_that_they_make():
    found = make_inference()
    rows = {row[2:5]: row[5] for row in numbers_table([found]).rows if row[1] == "score_without"}

    table = left_out_table(found, Marks())

    assert len(rows) == len(table.rows) * (len(table.columns) - 1) == 12
    for column, place in ((c, i) for i, c in enumerate(table.columns) if c.workload):
        scores = [rows[row[0], None, column.workload] for row in table.rows]
        assert [row[place][0] for row in table.rows] == scores
        assert [row[place][1] for row in table.rows] == [
            1 + sum(other > score for other in scores) for score in scores
        ]


def test_contenders_are_in_the_order_of_their_scores_and_every_pair_is_compared_once():
    found = make_inference(contenders=5)

    scores = [found.scores.value[s] for s in found.order]
    assert scores == sorted(scores, reverse=True)
    pairs = {frozenset((pair.first, pair.second)) for pair in found.comparisons}
    assert len(pairs) == len(found.comparisons) == 10


def test_the_same_seed_gives_the_same_document_and_another_one_other_intervals():
    one, two, three = (
        json_document([numbers_table([make_inference(seed=seed)])], ()) for seed in (1, 1, 2)
    )

    assert one == two != three
    json.dumps(one, allow_nan=False)


def test_limits_of_the_statistics_are_warnings():
    warnings = " ".join(make_inference(studies=3, workloads=1).warnings)

    assert "3 studies are too few for 95% intervals" in warnings and "75% is the most" in warnings
    assert "1 workload is too few for a critical-difference diagram, which needs 10" in warnings
    assert "how scores depend on the workloads is unknown" in warnings
    assert make_inference(studies=6, workloads=10).warnings == ()


def test_the_share_of_all_studies_that_reached_a_target_stands_beside_repeatability():
    # Of eight studies on each workload, one and three missed.
    costs = np.array([[[1.0, 2.0, np.inf, 4.0], [5.0, 6.0, 7.0, 8.0]],
                      [[2.0, 2.0, 3.0, 4.0], [np.inf, np.inf, np.inf, 8.0]]])  # fmt: skip
    found = infer(Samples(("a", "b"), ("v", "w"), costs), "steps")

    row = repeatability_table([found]).rows[-1]

    assert row == ("studies that reached it", None, None, None, 7 / 8, 5 / 8)


def test_workloads_without_a_reached_target_are_named():
    found = make_inference()
    costs = found.samples.costs.copy()
    costs[:, 1] = INF
    samples = dataclasses.replace(found.samples, costs=costs)

    found = infer(samples, "steps", resamples=100)

    for table in (scores_with_intervals(found, Marks()), numbers_table([found])):
        assert (
            "No median study reached the target including tuning on w1: every contender scores"
            " 0 there." in table.notes
        )


def test_the_diagram_is_drawn_with_enough_workloads_and_refused_with_the_number_else(tmp_path):
    enough = plot_inference(
        make_inference(12, 10, names=[f"{EVIL}{i}" for i in range(12)]), "Sure?", tmp_path
    )

    assert [plot.path.name for plot in enough] == ["intervals-including.png", "ranks-including.png"]
    assert all(plot.path.stat().st_size > 10_000 for plot in enough)
    few = make_inference(12, 9)
    assert len(plot_inference(few, "Sure?", tmp_path)) == 1
    with pytest.raises(ValueError, match=r"9 workloads are too few .* which needs 10"):
        plot_critical_differences(few, tmp_path / "x.png")


def test_untrusted_names_are_escaped_in_every_format():
    found = make_inference(2, names=[EVIL, "b"])

    for table in statistics_tables(found, Marks()):
        assert "\x1b" not in str((table.header, table.texts)) + markdown_table(table)
    table = Table(EVIL, (Column("name"),), ((EVIL,),))
    written = markdown_table(table)
    assert "\\|" in written and "\\<b>" not in written
    assert "\\<b\\>" in written and "\x1b" not in written
    written = latex_table(table)
    assert r"\textbar{}\textless{}b\textgreater{}\$x\_\{1\}\$\textbackslash{}\%\&" in written


@pytest.mark.parametrize("format", ["table", "json", "csv", "markdown", "latex"])
def test_the_command_prints_every_format(hand_made, capsys, format):
    out = hand_made()

    assert run_app(app, "analysis", ["statistics", str(out), "--format", format]) == 0

    text = capsys.readouterr().out
    if format == "json":
        document = json.loads(text)
        assert document["cost"] == "gradient_evaluations" and document["seed"] == 0
        assert any("a+halton on hard, study 3" in note for note in document["notes"])
        (table,) = document["tables"]
        scores = {e["contender"]: e for e in table["rows"] if e["statistic"] == "score"}
        assert scores["b+halton"]["value"] == pytest.approx(0.5)
    elif format == "csv":
        rows = list(csv.DictReader(io.StringIO(text)))
        (row,) = (r for r in rows if r["statistic"] == "median_cost" and r["contender"]
                  == "b+halton" and r["workload"] == "hard")  # fmt: skip
        assert row["value"] == "missed" and row["low"] == "240.0"
    else:
        assert "a+halton" in text and "0.500" in text
    if format == "latex":
        assert text.count(r"\begin{longtable}") == text.count(r"\end{longtable}") == 6


def test_a_ranking_that_would_not_repeat_is_said_first(build, tmp_path, capsys):
    # Halves of the studies disagree if one has both of the studies with a cost of 100.
    b = build(tmp_path, ["a", "b"], ["w"], 4)
    for study in (1, 2, 3, 4):
        b.trial("a", "w", study, 500.0, 100.0 if study % 2 else 400.0)
        b.trial("b", "w", study, 500.0, 200.0)

    assert run_app(app, "analysis", ["statistics", str(tmp_path), "--view", "given"]) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert text.startswith("The ranking given tuned would not repeat: rankings by two halves of")
    assert "0.33, below 0.7; about 20 studies on each workload would give 0.7." in text

    arguments = ["statistics", str(tmp_path), "--view", "given", "--format", "json"]
    assert run_app(app, "analysis", [*arguments, "--reference", "b"]) == 0
    (table,) = json.loads(capsys.readouterr().out)["tables"]
    rows = {(row["statistic"], row["contender"]): row for row in table["rows"]}
    assert rows["split_half_tau", None]["value"] == pytest.approx((2 - 1) / 3, abs=0.15)
    assert rows["studies_to_repeat", None]["value"] == 20
    # The median of 100, 100, 400 and 400 is 250.
    assert rows["speed_up", "a"]["value"] == pytest.approx(200 / 250)
    assert rows["speed_up", "a"]["versus"] == "b"


def test_speedups_are_shown_with_their_bounds_beside_the_win_probability():
    costs = np.array([[[100.0] * 4, [INF] * 4], [[50.0] * 4, [10.0] * 4]])
    samples = Samples(
        ("a", "adamw+random"), ("u", "v"), costs, budgets=np.full((2, 2), 40.0), view="given"
    )
    found = infer(samples, "steps", resamples=100)

    (row,) = speedups_table(found, found.speedups, Marks()).texts

    # Ratios 50 / 100 and 10 / 40.
    ratio = f"{math.sqrt(0.5 * 0.25):.2f}"
    assert row == ("a", f"<= {ratio} ({ratio} or less)", "0.00 (0.00 to 0.00)",
                   "yes: adamw+random")  # fmt: skip


@pytest.mark.parametrize(
    "options, message",
    [
        (["--reference", "z"], "`reference` must be a contender, got 'z'. Choose one of a+halton"),
        (["--confidence", "1"], "`confidence` must be between 0 and 1, got 1.0"),
        (["--resamples", "10"], "10 resamples are too few for a confidence of 0.95"),
        (["--hardware", "x"], "No runs on hardware 'x'"),
    ],
)
def test_the_commands_mistakes_are_one_line(hand_made, capsys, options, message):
    assert run_app(app, "analysis", ["statistics", str(hand_made()), *options]) == 2

    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


def test_one_study_is_refused_because_it_would_look_certain(build, tmp_path, capsys):
    build(tmp_path, ["a"], ["w"], 1).trial("a", "w", 1, 10.0, reached=10.0)

    assert run_app(app, "analysis", ["statistics", str(tmp_path)]) == 2
    assert "at least 2 studies, got 1" in capsys.readouterr().err


def test_hardware_is_listed_and_compared_through_a_reference(hand_made, capsys):
    arguments = ["hardware", str(hand_made()), "--reference", "b+halton", "--format", "csv"]

    assert run_app(app, "analysis", arguments) == 0
    tables = capsys.readouterr().out

    assert "abacus x 1" in tables
    (row,) = (line for line in tables.splitlines() if line.startswith("easy,a+halton"))
    assert [float(cell) for cell in row.split(",")[3:]] == [1.0, 350.0, 350.0]
    assert run_app(app, "analysis", [*arguments[:3], "z"]) == 2
    assert "No runs of the reference 'z'" in capsys.readouterr().err
