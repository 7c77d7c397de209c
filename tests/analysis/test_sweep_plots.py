"""Sweeps are found among variants, and drawn with misses above the axis of costs."""

import matplotlib.pyplot as plt
import numpy as np
import pytest

from analysis.logs.reader import read_logs
from analysis.report.plots.sweep_plots import find_sweeps, plot_sweeps
from analysis.report.tables.score_tables import NO_EXTRAS
from analysis.scoring.scores import score_logs
from metaopt.bench import records

COSTS = {"low": 200.0, "middle": 100.0, "high": None, "other": 50.0, "kind": 70.0}
VARIANTS = {
    "low": {"of": "s", "hyperparameters": {"rate": 0.01, "kind": "x", "on": True}},
    "high": {"of": "s", "hyperparameters": {"rate": 1, "kind": "x", "on": True}},
    "middle": {"of": "s", "hyperparameters": {"rate": 0.1, "kind": "x", "on": True}},
    "other": {"of": "t", "hyperparameters": {"rate": 0.5, "kind": "x", "on": True}},
    "kind": {"of": "s", "hyperparameters": {"rate": 0.5, "kind": "y", "on": True}},
    "never_ran": {"of": "s", "hyperparameters": {"rate": 9.0, "kind": "x", "on": True}},
}


@pytest.fixture
def swept(build, tmp_path):
    """A campaign with a sweep of three, and two variants that are not of it."""
    b = build(tmp_path, list(COSTS), ["easy", "never"], 1)
    for name, cost in COSTS.items():
        b.whole_study(name, "easy", 1, [cost])
        b.whole_study(name, "never", 1, [None])
    content = {"name": "made", "seed": 1, "studies": 1, "budget": "1000grads",
               "workloads": ["easy", "never"], "contenders": list(COSTS),
               "variants": VARIANTS}  # fmt: skip
    records.write_json(tmp_path / records.CAMPAIGN_FILE, content)
    logs = read_logs(tmp_path)
    return logs, score_logs(logs)


def test_variants_that_differ_in_one_number_are_a_sweep(swept):
    (sweep,) = find_sweeps(swept[0])

    assert (sweep.of, sweep.parameter) == ("s", "rate")
    assert list(sweep.contenders.items()) == [(0.01, "low"), (0.1, "middle"), (1.0, "high")]


def test_a_sweep_is_told_and_drawn_in_the_order_of_its_values(swept, tmp_path):
    (plot,) = plot_sweeps(*swept, NO_EXTRAS, tmp_path, {})

    assert plot.text == (
        "s over rate: easy 200 at 0.01, 100 at 0.1, missed at 1; "
        "never missed at 0.01, missed at 0.1, missed at 1"
    )
    assert plot.path.exists() and plot.svg.exists()


def test_a_miss_of_a_sweep_is_above_the_axis_of_costs(swept, tmp_path, monkeypatch):
    monkeypatch.setattr(plt, "close", lambda figure: None)

    list(plot_sweeps(*swept, NO_EXTRAS, tmp_path, {"easy": 1000.0, "never": 1000.0}))

    missed, axis = plt.gcf().axes
    monkeypatch.undo()
    plt.close("all")
    ys = np.concatenate([line.get_ydata() for line in axis.lines])
    assert set(ys[np.isfinite(ys)]) == {200.0, 100.0}
    marks = sorted((line.get_xdata()[0], line.get_ydata()[0]) for line in missed.lines)
    assert marks == [(0.01, 1), (0.1, 1), (1.0, 0), (1.0, 1)]  # by workload
    assert missed.get_ylabel().split() == ["missed", "(budget", "1,000)"]


def test_two_variants_are_not_a_sweep(swept):
    logs, _ = swept
    del logs.campaign["variants"]["high"]

    assert find_sweeps(logs) == []
