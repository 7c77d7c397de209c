"""What mattered, against variances that are known; trials as points; the pictures of them."""

import dataclasses
import math

import numpy as np
import pytest

from analysis.logs.reader import read_logs
from analysis.report.plots.trial_plots import MOST_LINES, plot_importance, plot_trials
from analysis.report.tables.training_tables import importance_table
from analysis.training.hyperparameters import (
    Parameter,
    Points,
    all_points,
    importance,
    points_of,
    tick_labels,
)


def uniform_points(outcome, trials=240, texts=()):
    """Points with three hyperparameters, uniform on [0, 1]; those in ``texts`` are names."""
    generator = np.random.default_rng(1)
    columns = generator.uniform(size=(trials, 3))
    for index in texts:
        columns[:, index] = np.round(3 * columns[:, index]) / 3
    parameters = tuple(
        Parameter(name, tuple(column), column, logarithmic=False, texts=index in texts)
        for index, (name, column) in enumerate(zip("abc", columns.T, strict=True))
    )
    return Points("x+halton", "w", parameters, outcome(*columns.T), ())


def test_importance_is_the_share_of_the_variance_of_ranks_that_a_hyperparameter_accounts_for():
    # Ranks of 4 a + b: computed on a grid, for the sum is not uniform but its ranks are.
    grid = (np.arange(200) + 0.5) / 200
    a, b = np.meshgrid(grid, grid)
    ranks = np.argsort(np.argsort((4 * a + b).ravel())).reshape(a.shape) / a.size
    variance = ranks.var()
    total = [ranks.var(axis=axis).mean() / variance for axis in (1, 0)]  # Sobol's total effects

    found = importance(uniform_points(lambda a, b, c: 4 * a + b))

    assert found is not None
    means = dict(zip(found.names, found.means, strict=True))
    assert means["a"] == pytest.approx(total[0], abs=0.08)
    assert means["b"] == pytest.approx(total[1], abs=0.03)
    assert abs(means["c"]) < 0.01
    assert found.names == ("a", "b", "c") or found.names[0] == "a"
    assert found.explained > 0.95


def test_importance_depends_on_ranks_only():
    plain = importance(uniform_points(lambda a, b, c: 4 * a + b))
    bent = importance(uniform_points(lambda a, b, c: np.exp(3 * (4 * a + b))))

    assert plain == bent


def test_importance_finds_a_hyperparameter_whose_values_are_names():
    found = importance(uniform_points(lambda a, b, c: np.abs(a - 1 / 3), texts=(0,)))

    assert found is not None
    assert found.names[0] == "a"
    assert found.means[0] > 0.5


def test_interacting_hyperparameters_both_have_importance():
    found = importance(uniform_points(lambda a, b, c: (a > 0.5) ^ (b > 0.5)))

    assert found is not None
    means = dict(zip(found.names, found.means, strict=True))
    assert min(means["a"], means["b"]) > 0.5 > means["c"]


@pytest.mark.parametrize(
    "points",
    [
        uniform_points(lambda a, b, c: a, trials=19),
        uniform_points(lambda a, b, c: 0 * a),
        uniform_points(lambda a, b, c: np.random.default_rng(2).uniform(size=len(a))),
    ],
    ids=["too few trials", "every outcome the same", "outcomes of chance"],
)
def test_no_importance_without_enough_predictable_trials(points):
    assert importance(points) is None


@pytest.fixture
def searched(build, tmp_path):
    """A contender whose outcome is decided by its learning rate, one tuner that fixed it."""
    b = build(tmp_path, ["a+halton", "b+halton"], ["w"], 2)
    rates = [10 ** -(1 + index / 8) for index in range(24)]
    for study in (1, 2):
        for index, rate in enumerate(rates):
            own = {"learning_rate": rate, "act": ["relu", "tanh"][index % 2], "fixed": 1}
            far = {"best": 0.5 + rate, "hyperparameters": own}
            b.trial("a+halton", "w", study, 10.0, **far)
        b.trial("a+halton", "w", study, 10.0, 5.0, hyperparameters={**own, "learning_rate": 0.2})
        b.trial("a+halton", "w", study, 2.0, status="study_budget", hyperparameters=own)
        b.trial(
            "a+halton", "w", study, 2.0, status="crashed", error="x", cause="x", hyperparameters=own
        )
        b.trial("b+halton", "w", study, 10.0)
    return tmp_path


def test_points_leave_out_trials_cut_by_the_study_budget(searched):
    points = points_of(read_logs(searched), "a+halton", "w")

    assert points is not None
    assert [parameter.name for parameter in points.parameters] == ["act", "learning_rate"]
    assert len(points.outcomes) == 2 * 26
    act, rate = points.parameters
    assert act.texts and not rate.texts and rate.logarithmic
    assert set(act.places) == {0.0, 1.0}
    by_value = dict(zip(rate.values, rate.places, strict=True))
    low, high = math.log(min(rate.values)), math.log(max(rate.values))
    for value, place in by_value.items():
        assert place == pytest.approx((math.log(value) - low) / (high - low))
    best = np.flatnonzero(points.ranks == points.ranks.min())
    assert {points.records[i].reached is not None for i in best} == {True}
    assert points.outcomes.max() == 3.0  # the failures
    assert {points.records[i].status for i in np.flatnonzero(points.ranks > 0.97)} == {"crashed"}


def test_a_contender_whose_hyperparameters_never_varied_has_no_points(searched):
    assert [points.contender for points in all_points(read_logs(searched))] == ["a+halton"]


def test_what_decides_the_outcome_leads_the_table_and_both_pictures_are_drawn(searched, tmp_path):
    points = all_points(read_logs(searched))
    found = [one for some in points if (one := importance(some))]

    table = importance_table(found)
    trials = plot_trials(points, ["w"], tmp_path)
    mattered = plot_importance(found, ["w"], tmp_path)

    assert table.rows[0][:3] == ("w", "a+halton", "learning_rate")
    assert table.texts[0][-1] == "52"
    assert "learning_rate 0.2" in trials[0].text
    assert "a+halton 52 trials" in mattered[0].caption
    for plot in (*trials, *mattered):
        assert plot.path.stat().st_size > 5000
        assert plot.svg.read_text("utf-8").startswith("<svg ")


def test_caption_states_that_many_trials_are_thinned(searched, tmp_path):
    (points,) = all_points(read_logs(searched))
    times = -(-(MOST_LINES + 1) // len(points.outcomes))
    many = Points(
        points.contender,
        points.workload,
        tuple(
            Parameter(p.name, p.values * times, np.tile(p.places, times), p.logarithmic, p.texts)
            for p in points.parameters
        ),
        np.tile(points.outcomes, times),
        points.records * times,
    )

    (plot,) = plot_trials([many], ["w"], tmp_path)

    assert f"{MOST_LINES} trials per panel are drawn" in plot.caption


def test_caption_mentions_trials_cut_by_the_study_budget_only_if_there_are_any(searched, tmp_path):
    (points,) = all_points(read_logs(searched))

    captions = [
        plot_trials([some], ["w"], tmp_path)[0].caption
        for some in (points, dataclasses.replace(points, cut=0))
    ]

    assert points.cut == 2
    assert ["cut short" in caption for caption in captions] == [True, False]


def test_a_contender_that_always_failed_has_no_best_trial(searched, tmp_path):
    (points,) = all_points(read_logs(searched))
    failed = [k for k, record in enumerate(points.records) if record.status == "crashed"]
    only = dataclasses.replace(
        points,
        outcomes=points.outcomes[failed],
        records=tuple(points.records[k] for k in failed),
        parameters=tuple(
            dataclasses.replace(
                p, values=tuple(p.values[k] for k in failed), places=p.places[failed]
            )
            for p in points.parameters
        ),
    )

    (plot,) = plot_trials([only], ["w"], tmp_path)

    assert "a+halton: every trial failed" in plot.text
    assert "best" not in plot.text


def test_ticks_are_values_of_the_axis():
    places = np.array([0.0, 0.25, 0.5, 0.75, 0.9, 1.0])
    rates = Parameter("r", (1e-4, 1e-3, 1e-2, 0.1, 0.5, 1.0), places, logarithmic=True, texts=False)
    names = Parameter("n", ("b", "a"), np.array([1.0, 0.0]), logarithmic=False, texts=True)

    assert tick_labels(rates) == [(0.0, "0.0001"), (0.5, "0.01"), (1.0, "1")]
    assert tick_labels(names) == [(0.0, "a"), (1.0, "b")]
