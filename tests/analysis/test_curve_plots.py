"""The limits of plots of curves."""

import contextlib
from types import SimpleNamespace

import matplotlib.pyplot as plt
import numpy as np
import pytest

from analysis.report.plots import curve_plots
from analysis.report.plots.canvas import line_styles
from analysis.training.curves import Band
from metaopt.bench.measure.targets import Target


@pytest.mark.parametrize("metric", ["validation/loss", "validation/relative_error"])
def test_a_study_that_diverges_does_not_flatten_the_other_lines(metric, monkeypatch, tmp_path):
    figure, axis = plt.subplots()
    monkeypatch.setattr(curve_plots, "figure_at", lambda *_: contextlib.nullcontext((figure, axis)))
    x = np.array([25.0, 50.0, 100.0])
    bands = {
        "calm": Band(x, np.array([2.0, 1.0, 0.5]), np.full(3, 0.4), np.full(3, 3.0)),
        "wild": Band(x, np.array([np.inf, 1.5, 0.7]), np.full(3, 0.5), np.full(3, 1e14)),
    }
    record = SimpleNamespace(
        workload="w",
        target=Target(metric, 0.3, "lower"),
        budget=SimpleNamespace(currency="gradient_evaluations"),
    )

    curve_plots._draw_anytime(record, bands, line_styles([*bands]), tmp_path / "plot.png")

    assert axis.get_yscale() == "log"
    assert axis.get_ylim() == pytest.approx((0.5 * 0.4, 2 * 2.0))
    plt.close(figure)
