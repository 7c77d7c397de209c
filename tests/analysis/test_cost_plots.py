"""The plot of costs: who is where, and what an interval without an end does."""

import math

import matplotlib.pyplot as plt
import pytest

from analysis.report.certainty import additions_of, infer_both
from analysis.report.plots.costs import plot_costs
from analysis.report.sections import Additions
from analysis.scoring.scores import score_path


@pytest.fixture
def drawn(build, tmp_path, monkeypatch):
    """A campaign with a workload that nobody solved, and its figures, which stay open."""
    b = build(tmp_path / "runs", ["a+random", "b+random", "c+random"], ["easy", "never"], 3)
    for study, (a, c) in enumerate([(100.0, 300.0), (200.0, None), (50.0, 400.0)], start=1):
        for contender, hit in (("a+random", a), ("b+random", None), ("c+random", c)):
            b.whole_study(contender, "easy", study, [hit])
            b.whole_study(contender, "never", study, [None])
    logs, scores = score_path(tmp_path / "runs")
    monkeypatch.setattr(plt, "close", lambda figure: None)
    with_intervals = additions_of(infer_both(scores), tmp_path)
    plt.close("all")
    before = set(plt.get_fignums())
    plots = [list(plot_costs(scores, some, tmp_path)) for some in (with_intervals, Additions())]
    figures = [plt.figure(n) for n in plt.get_fignums() if n not in before]
    monkeypatch.undo()
    yield plots, figures
    plt.close("all")


def test_each_workload_that_somebody_solved_has_a_plot_cheapest_first(drawn):
    (plots, _), (figure, _) = drawn

    assert [plot.workload for plot in plots] == ["easy"]
    assert plots[0].text == (
        "easy: a+random 100, given tuned 100; c+random 400, given tuned 400; b+random not reached"
    )
    (axis,) = figure.axes
    assert [label.get_text() for label in axis.get_yticklabels()] == [
        "a+random", "c+random", "b+random",
    ]  # fmt: skip
    medians = {round(line.get_xdata()[0], 6) for line in axis.lines if line.get_marker() == "o"}
    edge = axis.get_xlim()[1]
    assert {100.0, 400.0} < medians and max(medians) > 2 * 400.0  # the miss stands apart
    assert max(medians) < edge


def test_intervals_are_bars_and_what_has_no_end_runs_up_to_the_misses(drawn):
    (plots, bare), figures = drawn

    bars = [[c.get_segments()[0] for c in figure.axes[0].collections] for figure in figures]
    assert bars[1] == [] and "Bars" not in bare[0].caption
    assert "Bars: 95 %" in plots[0].caption
    ends = sorted({(float(bar[0][0]), float(bar[1][0])) for bar in bars[0]})
    assert ends[0] == (50.0, 200.0)
    assert ends[1][0] == 300.0 and 800 < ends[1][1] < math.inf
