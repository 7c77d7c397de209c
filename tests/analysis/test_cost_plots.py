"""The plot of costs: medians in order, misses and open intervals beside the axis of costs."""

import json

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.patches import ConnectionPatch

from analysis.logs.reader import read_logs
from analysis.report.plots.cost_plots import missed_label, plot_costs, study_budgets
from analysis.report.report import extras_of, infer_all
from analysis.report.tables.campaign_tables import budgets_line
from analysis.report.tables.score_tables import NO_EXTRAS
from analysis.scoring.scores import score_logs


@pytest.fixture
def drawn(build, tmp_path, monkeypatch):
    """A campaign with a workload whose target was never reached; its figures stay open."""
    b = build(tmp_path / "runs", ["a+halton", "b+halton", "c+halton"], ["easy", "never"], 3)
    for study, (a, c) in enumerate([(100.0, 300.0), (200.0, None), (50.0, 400.0)], start=1):
        for contender, hit in (("a+halton", a), ("b+halton", None), ("c+halton", c)):
            b.whole_study(contender, "easy", study, [hit])
            b.whole_study(contender, "never", study, [None])
    logs = read_logs(tmp_path / "runs")
    scores = score_logs(logs)
    monkeypatch.setattr(plt, "close", lambda figure: None)
    with_intervals = extras_of(infer_all(scores), {})
    plt.close("all")
    before = set(plt.get_fignums())
    budgets = study_budgets(logs, scores.unit)
    plots = [
        list(plot_costs(scores, some, tmp_path, budgets)) for some in (with_intervals, NO_EXTRAS)
    ]
    figures = [plt.figure(n) for n in plt.get_fignums() if n not in before]
    monkeypatch.undo()
    yield plots, figures
    plt.close("all")


def test_each_workload_with_a_reached_target_has_a_plot_cheapest_first(drawn):
    (plots, _), (figure, _) = drawn

    assert [plot.workload for plot in plots] == ["easy"]
    assert plots[0].text == (
        "easy: a+halton 100, given tuned 100; c+halton 400, given tuned 400; b+halton missed"
    )
    labels = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert labels == ["a+halton", "c+halton", "b+halton"]


def test_no_miss_has_a_place_on_the_axis_of_costs(drawn):
    _, figures = drawn

    for figure in figures:
        axis, missed = figure.axes
        xs = np.concatenate([line.get_xdata() for line in axis.lines])
        assert set(xs) == {50.0, 100.0, 200.0, 300.0, 400.0}  # the costs of studies, and no other
        assert axis.get_xscale() == "log" and missed.get_xscale() == "linear"
        # Of b all three studies and both medians, of c one study.
        ticks = [len(line.get_xdata()) for line in missed.lines if line.get_marker() == "|"]
        assert sorted(ticks) == [0, 1, 3]
        medians = [line for line in missed.lines if line.get_marker() in "oD"]
        assert [round(line.get_ydata()[0]) for line in medians] == [2, 2]


def test_the_place_of_misses_has_a_name_and_no_ticks(drawn):
    _, (figure, _) = drawn

    _, missed = figure.axes
    (text,) = missed.texts
    assert text.get_text().split() == ["missed", "(budget", "1,000)"]
    for axis in (missed.xaxis, missed.yaxis):
        shown = [*axis.get_major_ticks(), *axis.get_minor_ticks()]
        assert not any(part.get_visible() for tick in shown
                       for part in (tick.tick1line, tick.label1, tick.gridline))  # fmt: skip


def test_intervals_are_bars_and_an_open_one_runs_up_to_the_misses(drawn):
    (plots, without), (figure, plain) = drawn

    axis, missed = figure.axes
    bars = sorted({tuple(c.get_segments()[0][:, 0]) for c in axis.collections})
    assert bars == [(50.0, 200.0)] and "Bars: 95%" in plots[0].caption
    joined = [patch for patch in axis.patches if isinstance(patch, ConnectionPatch)]
    assert [(p.xy1[0], p.xy2[0], p.coords2) for p in joined] == [
        (300.0, 0.5, missed.transData)
    ] * 2  # both views of c
    assert not plain.axes[0].collections and not plain.axes[0].patches
    assert "Bars" not in without[0].caption


def test_a_budget_is_named_only_where_all_studies_have_the_same_in_the_costs_unit(build, tmp_path):
    b = build(tmp_path, ["a"], ["same", "differs"], 2)
    for study in (1, 2):
        b.trial("a", "same", study, 10.0)
        b.budget = 1000.0 * study
        b.trial("a", "differs", study, 10.0)
        b.budget = 1000.0
    logs = read_logs(tmp_path)

    assert study_budgets(logs, "gradient_evaluations") == {"same": 1000.0}
    assert study_budgets(logs, "steps") == {}
    assert missed_label(None) == "missed" and missed_label(6400.0) == "missed (budget 6,400)"


def test_a_trial_that_does_not_say_its_budget_takes_the_budget_from_no_plot(official, tmp_path):
    logs = official(tmp_path / "logs")
    root = logs.good()
    before = study_budgets(read_logs(root), "seconds")
    path = next((root / "slow").rglob("meta_data_0.json"))
    meta = json.loads(path.read_text())
    del meta["workload.max_allowed_runtime_sec"]
    path.write_text(json.dumps(meta))

    assert before
    assert study_budgets(read_logs(root), "seconds") == before
    assert "inf" not in budgets_line(read_logs(root), "seconds")
