"""Best trials, episodes and means over studies, against hand-made logs and closed forms."""

import csv
import math

import numpy as np
import pytest

from analysis.logs.reader import read_logs
from analysis.training.curves import read_episodes
from analysis.training.episodes import (
    mean_over_studies,
    over_episodes,
    positive_floor,
    read_runs,
    since_deployment,
)
from analysis.training.final_values import (
    final_values,
)
from analysis.training.last_evaluations import LOSS, best_of_studies, last_evaluations
from metaopt.bench import records
from metaopt.bench.measure.targets import Direction, Target
from metaopt.bench.records import EVAL_FILE, Seeds
from tests.analysis.conftest import two_learners

NAN = math.nan
FIXED = Seeds(campaign=1, trial=1, tuner=1, fixed_batch=7)
ACCURACY = Target(metric="validation/accuracy", value=0.9, better="higher")


def read(out):
    logs = read_logs(out)
    return logs, read_runs(logs), last_evaluations(logs)


def figure(out, workload="w"):
    (only,) = over_episodes(*read(out), workload)
    return only


# Best trials.


def best(out, column=LOSS, better: Direction = "lower"):
    found = best_of_studies(last_evaluations(read_logs(out)), column, better)
    return {study: end.trial.record.trial for study, end in found.items()}


def test_the_best_trial_is_that_with_the_lowest_last_loss_not_the_lowest_loss(build, tmp_path):
    b = build(tmp_path, ["a+grid"], ["w"], 2)
    for losses in ({1: 1e-9, 2: 0.5}, {1: 2.0, 2: 0.2}, {1: 1e-3, 2: 0.3}):
        b.baseline("a+grid", "w", 1, losses)
    b.baseline("a+grid", "w", 2, {1: 5.0})

    assert best(tmp_path) == {1: 2, 2: 1}


@pytest.mark.parametrize(
    "losses, status",
    [
        ({1: 0.1, 2: NAN}, "trial_budget"),
        ({1: 0.1, 2: -math.inf}, "trial_budget"),
        ({1: 0.1, 2: 1e-9}, "diverged"),
        ({1: 0.1, 2: 1e-9}, "crashed"),
    ],
)
def test_a_failed_trial_is_never_best_nor_one_without_a_finite_last_loss(
    build, tmp_path, losses, status
):
    b = build(tmp_path, ["a+grid"], ["w"], 2)
    for study in (1, 2):
        b.baseline("a+grid", "w", study, losses, status=status)
    b.baseline("a+grid", "w", 1, {1: 9.0})

    assert best(tmp_path) == {1: 2}


def test_the_best_of_equal_trials_is_the_first(build, tmp_path):
    b = build(tmp_path, ["a+grid"], ["w"], 1)
    for loss in (0.5, 0.1, 0.1):
        b.baseline("a+grid", "w", 1, {1: loss})

    assert best(tmp_path) == {1: 2}
    assert best(tmp_path, "validation/loss", "higher") == {1: 1}
    assert best(tmp_path, "no such column") == {}


# Means over studies.


def test_means_are_geometric_above_a_floor_and_arithmetic_without():
    curves = [
        (np.array([1.0, 2.0]), np.array([1.0, 0.0])),
        (np.array([1.0, 2.0]), np.array([4.0, 9.0])),
    ]

    arithmetic = mean_over_studies(curves)
    geometric = mean_over_studies(curves, floor=1.0)

    assert arithmetic is not None and geometric is not None
    np.testing.assert_allclose(arithmetic.middle, [2.5, 4.5])
    np.testing.assert_allclose(geometric.middle, [2.0, 3.0])
    np.testing.assert_allclose([geometric.low, geometric.high], [[1, 1], [4, 9]])
    assert geometric.studies == 2


def test_the_running_mean_is_centred_and_shorter_at_the_ends():
    piece = mean_over_studies([(np.arange(4.0), np.array([0.0, 3.0, 6.0, 9.0]))], window=3)

    assert piece is not None
    np.testing.assert_allclose(piece.middle, [1.5, 3.0, 6.0, 7.5])


def test_sparse_evaluations_are_joined_where_all_studies_have_some():
    sparse = [
        (np.array([10.0, 30.0]), np.array([1.0, 100.0])),
        (np.array([20.0, 30.0, 40.0]), np.array([1.0, 1.0, 1.0])),
    ]

    piece = mean_over_studies(sparse, floor=1.0)

    assert piece is not None
    np.testing.assert_allclose(piece.x, [20, 30])
    np.testing.assert_allclose(piece.high, [10, 100])  # straight lines on a logarithmic axis
    np.testing.assert_allclose(piece.middle, [10**0.5, 10])


def test_a_curve_ends_before_its_first_value_that_is_not_finite():
    x = np.array([1.0, 2.0, 3.0])

    piece = mean_over_studies([(x, np.array([1.0, NAN, 1.0])), (x, x), (x, np.full(3, math.inf))])

    assert piece is not None
    assert piece.studies == 2
    np.testing.assert_array_equal(piece.x, [1])
    assert mean_over_studies([(x, np.full(3, NAN))]) is None
    assert mean_over_studies([(x, x), (x + 5, x)]) is None
    assert mean_over_studies([]) is None


def test_the_floor_is_the_smallest_positive_value_unless_one_is_negative():
    assert positive_floor([np.array([0.0, 3.0, NAN]), np.array([2.0])]) == 2.0
    assert positive_floor([np.array([-1.0, 3.0])]) is None
    assert positive_floor([np.array([0.0])]) is None
    assert positive_floor([]) is None


# Training loss over episodes.


def test_a_learner_is_a_mean_over_studies_episode_by_episode(build, tmp_path):
    b = build(tmp_path, ["m"], ["w"], 2)
    two_learners(b, seeds=FIXED)
    again = "learning", 3, {1: 99.0, 3: 99.0}
    b.learner("m", "w", 1, again, again, seeds=FIXED)  # a second run of a study is not shown

    data = figure(tmp_path)

    (line,) = data.learners
    assert data.starts == (0, 3, 6)
    assert (data.length, data.geometric, data.changing) == (3, True, False)
    assert data.window > 1  # every step is evaluated
    assert [piece.studies for piece in line.pieces] == [2, 2, 1]
    for piece, x, levels in zip(
        line.pieces,
        ([1, 2, 3], [4, 5, 6], [7, 8, 9]),
        ((2, 1, 4), (0.5, 0.25, 1), [0.25] * 3),
        strict=True,
    ):
        np.testing.assert_array_equal(piece.x, x)
        for values, level in zip((piece.middle, piece.low, piece.high), levels, strict=True):
            np.testing.assert_allclose(values, [level] * 3)


def test_a_fixed_batch_that_is_not_evaluated_at_every_step_is_not_smoothed(build, tmp_path):
    b = build(tmp_path, ["m"], ["w"], 1)
    episode = "learning", 30, {step: float(step) for step in range(1, 31, 2)}
    b.learner("m", "w", 1, episode, episode, seeds=FIXED)

    data = figure(tmp_path)

    assert data.window == 1
    np.testing.assert_allclose(data.learners[0].pieces[1].middle, range(1, 31, 2))


def test_baselines_are_the_first_steps_of_the_best_trials_in_every_episode(build, tmp_path):
    b = build(tmp_path, ["m", "a+grid", "b+grid"], ["w"], 2)
    two_learners(b)
    b.baseline("a+grid", "w", 1, {1: 9.0, 3: 9.0, 5: 9.0})
    b.baseline("a+grid", "w", 1, {1: 8.0, 3: 2.0, 5: 1.0})
    b.baseline("a+grid", "w", 2, {1: 2.0, 3: 2.0, 5: 3.0})
    b.baseline("b+grid", "w", 1, {1: NAN}, status="diverged")

    data = figure(tmp_path)

    (line,) = data.baselines  # b has no best trial
    assert (line.name, data.window) == ("a+grid", 1)
    assert len(line.pieces) == 3
    for piece, start in zip(line.pieces, (0, 3, 6), strict=True):
        np.testing.assert_array_equal(piece.x, [start + 1, start + 3])
        np.testing.assert_allclose(piece.middle, [4, 2])
        np.testing.assert_allclose(piece.high, [8, 2])


def test_learners_with_other_lengths_of_episodes_have_a_figure_of_their_own(build, tmp_path):
    b = build(tmp_path, ["m", "n", "o"], ["w"], 1)
    for name, steps in (("m", 3), ("n", 5), ("o", 5)):
        episode = "learning", steps, {1: 1.0, steps: 0.5}
        b.learner(name, "w", 1, episode, episode)

    found = over_episodes(*read(tmp_path), "w")

    assert [(data.length, [line.name for line in data.learners]) for data in found] == [
        (3, ["m"]),
        (5, ["n", "o"]),
    ]
    assert not any(data.baselines for data in found)  # a learner is no baseline


@pytest.mark.parametrize(
    "last, seeds, changing",
    [("deployed", None, False), ("learning", None, True), ("learning", FIXED, False)],
)
def test_learners_that_never_deploy_have_a_separate_figure(build, tmp_path, last, seeds, changing):
    b = build(tmp_path, ["m"], ["w"], 2)
    two_learners(b, last=last, **({"seeds": seeds} if seeds else {}))

    assert figure(tmp_path).changing is changing


def test_one_evaluation_an_episode_is_enough(build, tmp_path):
    b = build(tmp_path, ["m"], ["w"], 1)
    b.learner("m", "w", 1, *[("learning", 3, {3: 1.0})] * 2, seeds=FIXED)

    data = figure(tmp_path)

    assert data.window == 1
    assert [piece.x.tolist() for piece in data.learners[0].pieces] == [[3], [6]]


def test_a_single_learning_episode_gives_no_figure(build, tmp_path):
    b = build(tmp_path, ["m", "d"], ["w"], 1)
    b.learner("m", "w", 1, ("learning", 3, {3: 1.0}), ("deployed", 3, {3: 0.5}))
    b.learner("d", "w", 1, ("training", 3, {3: 1.0}))

    logs, runs, ends = read(tmp_path)

    assert over_episodes(logs, runs, ends, "w") == []
    assert list(runs) == [("m", "w")]


def test_an_episode_is_cut_if_it_was_last_seen_earlier_than_all_whole_ones(build, tmp_path):
    b = build(tmp_path, ["m"], ["w"], 2)
    whole = ("learning", 10, {4: 1.0, 8: 1.0}), ("learning", 10, {5: 1.0, 9: 1.0})
    b.learner("m", "w", 1, *whole, ("learning", 10, {4: 1.0, 8: 1.0}))
    b.learner("m", "w", 2, *whole, ("learning", 7, {4: 1.0, 7: 1.0}))

    runs = [read_episodes(trial, "steps") for trial in read_logs(tmp_path).trials]

    assert [[episode.cut for episode in run] for run in runs] == [[False] * 3, [False, False, True]]
    assert [piece.cut for piece in figure(tmp_path).learners[0].pieces] == [False, False, True]


# Since deployment.


def deployed(out):
    return since_deployment(*read(out), "w")


def test_deployed_runs_begin_at_deployment_and_baselines_at_their_start(build, tmp_path):
    b = build(tmp_path, ["m", "n", "a+grid", "d"], ["w"], 2)
    two_learners(b, target=ACCURACY)
    b.learner("n", "w", 1, *[("learning", 3, {3: 0.1})] * 2, target=ACCURACY)
    b.learner("d", "w", 1, ("training", 9, {2: 0.5, 9: 0.5}), target=ACCURACY)
    b.baseline("a+grid", "w", 1, {1: 0.5, 4: 0.25}, target=ACCURACY)
    b.baseline("a+grid", "w", 1, {1: 0.5, 4: 0.5}, target=ACCURACY)

    data = deployed(tmp_path)

    assert data is not None
    assert (data.learners, data.left_out) == (("m",), ("n",))
    assert (data.shown, data.longest) == (4, 9)  # tuned trials bound what is shown
    loss, accuracy = data.panels
    assert (loss.metric, loss.geometric) == ("train/loss", True)
    assert (accuracy.metric, accuracy.geometric) == ("validation/accuracy", False)
    lines = {line.name: line.pieces[0] for line in accuracy.lines}
    assert set(lines) == {"m", "a+grid", "d"}
    np.testing.assert_array_equal(lines["m"].x, [3, 6])
    np.testing.assert_allclose(lines["m"].middle, [0.875, 0.9375])
    np.testing.assert_allclose(lines["a+grid"].middle, [0.5, 0.75])  # the best trial
    assert (lines["m"].studies, lines["a+grid"].studies) == (2, 1)


def test_the_validation_metric_picks_and_neither_training_loss_nor_test_metric(build, tmp_path):
    b = build(tmp_path, ["m", "a+grid"], ["w"], 2)
    two_learners(b, target=ACCURACY)
    for accuracy, test, loss in ((0.5, 0.9, 0.1), (0.75, 0.25, 0.2), (0.25, 0.8, 0.3)):
        columns = {"validation/accuracy": accuracy, "test/accuracy": test}
        b.baseline("a+grid", "w", 1, {1: 1.0, 3: loss}, columns, target=ACCURACY)

    data = deployed(tmp_path)

    assert data is not None
    loss, _ = ({line.name: line.pieces[0].middle[-1] for line in p.lines} for p in data.panels)
    assert loss["a+grid"] == pytest.approx(0.2)
    logs, _, last = read(tmp_path)
    end = next(end for end in final_values(logs, last) if end.contender == "a+grid")
    assert (end.validation.mean, end.test.mean, end.loss.mean) == (0.75, 0.25, 0.2)


def test_nothing_is_deployed_on_a_fixed_batch_or_without_the_phase(build, tmp_path):
    b = build(tmp_path / "fixed", ["m"], ["w"], 2)
    two_learners(b, seeds=FIXED)
    assert deployed(tmp_path / "fixed") is None

    b = build(tmp_path / "never", ["m"], ["w"], 2)
    two_learners(b, last="learning")
    assert deployed(tmp_path / "never") is None


def test_every_deployed_episode_of_a_run_counts_as_a_trial(build, tmp_path):
    b = build(tmp_path, ["m", "a+grid"], ["w"], 2)
    loss = (1e-9, 0.5, 0.125, 0.25)  # at the end of each episode; that which learned is none
    phases = ("learning", "deployed", "deployed", "deployed")
    run = [(phase, 4, {2: 2 * end, 4: end}) for phase, end in zip(phases, loss, strict=True)]
    b.learner("m", "w", 1, *run)
    b.learner("m", "w", 2, *run[:3], ("deployed", 4, {2: 0.0625}))  # cut
    b.baseline("a+grid", "w", 1, {1: 0.5, 4: 0.25})

    logs, _, ends = read(tmp_path)
    best = best_of_studies([e for e in ends if e.trial.record.contender == "m"], LOSS, "lower")
    end = next(end for end in final_values(logs, ends) if end.contender == "m")
    data = deployed(tmp_path)

    assert [end.value(LOSS) for end in best.values()] == [0.125, 0.0625]
    assert [end.steps for end in best.values()] == [4, 2]
    assert (end.loss.low, end.loss.high, end.found) == (0.0625, 0.125, 2)
    line = next(line for line in data.panels[0].lines if line.name == "m")
    assert line.pieces[0].low[0] == 0.0625  # after 2 steps, the only ones in common
    assert line.pieces[0].high[0] == 0.25


@pytest.mark.parametrize("damage", [b"\xff,\x00\n", b"1,2\n"], ids=["bytes", "short"])
def test_a_file_that_is_damaged_before_its_last_row_is_not_fatal(build, tmp_path, damage):
    b = build(tmp_path, ["m"], ["w"], 1)
    b.learner("m", "w", 1, *[("deployed", 4, {4: loss}) for loss in (0.125, 0.25)])
    (path,) = tmp_path.rglob(EVAL_FILE)
    header, *rows = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(header + damage + b"".join(rows))

    assert [end.value(LOSS) for end in read(tmp_path)[2]] == [0.125, 0.25]


def test_rows_without_an_episode_are_no_episode(build, tmp_path):
    b = build(tmp_path, ["m"], ["w"], 1)
    b.learner("m", "w", 1, *[("deployed", 4, {2: 1.0, 4: loss}) for loss in (0.5, 0.125, 0.25)])
    (path,) = tmp_path.rglob(EVAL_FILE)
    with path.open(newline="") as file:
        table = list(csv.DictReader(file))
    for row in table[2:4]:
        row["episode"] = ""
    records.write_evaluations(path, table)

    assert [end.value(LOSS) for end in read(tmp_path)[2]] == [0.5, 0.25]


def test_where_targets_differ_the_first_contenders_counts(build, tmp_path):
    b = build(tmp_path, ["m", "z+grid"], ["w"], 2)
    two_learners(b)
    b.baseline("z+grid", "w", 1, {1: 0.5, 3: 0.25}, target=ACCURACY)

    data = deployed(tmp_path)

    assert data is not None
    assert [panel.metric for panel in data.panels] == ["train/loss", "validation/loss"]
    logs, _, ends = read(tmp_path)
    assert {end.validation_metric for end in final_values(logs, ends)} == {"validation/loss"}
