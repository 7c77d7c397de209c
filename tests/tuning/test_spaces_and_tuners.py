"""Search spaces are checked; tuners propose the same points again from the same seed."""

import math

import pytest

from metaopt.bench.contract.loading import SPACE_FILE, Submission
from metaopt.bench.contract.spaces import PointList, Space, parse_space
from metaopt.bench.records.outcomes import FAILURE_VALUE
from tuning.contenders import parse_contender
from tuning.tuners import TUNERS

SPACE = {
    "lr": {"min": 1e-4, "max": 1e-1, "scaling": "log"},
    "beta": {"feasible_points": [0.9, 0.99]},
}
GRID = {"a": {"feasible_points": [1, 2, 3]}, "b": {"feasible_points": [0.5, 0.25]}}


def play(name, space, seed, values):
    tuner = TUNERS[name][1](space, seed, {"lr": 1.0})
    points = []
    for value in values:
        points.append(tuner.ask())
        tuner.tell(value)
    return points


def score(point):
    return (math.log10(point["lr"]) + 2) ** 2


@pytest.mark.parametrize("name", ["random", "tpe", "halton", "qmc"])
def test_another_seed_is_another_sequence(name):
    space = parse_space(SPACE, "test")

    assert play(name, space, 1, [0.0] * 3) != play(name, space, 2, [0.0] * 3)


def test_tpe_learns_from_what_it_is_told():
    tuner = TUNERS["tpe"][1](parse_space(SPACE, "test"), 0, {})
    points = []
    for _ in range(60):
        points.append(tuner.ask())
        tuner.tell(score(points[-1]))

    late, early = (sorted(map(score, part))[9] for part in (points[-20:], points[:20]))
    assert late < 0.3 * early  # medians, or nearly


def test_a_failure_is_a_finite_value_that_samplers_keep():
    tuner = TUNERS["tpe"][1](parse_space(SPACE, "test"), 0, {})

    for _ in range(15):
        tuner.ask()
        tuner.tell(FAILURE_VALUE)

    assert len(tuner._study.get_trials(states=None)) == 15
    assert all(trial.value == FAILURE_VALUE for trial in tuner._study.trials)


def test_a_grid_proposes_every_point_once_and_then_nothing():
    tuner = TUNERS["grid"][1](parse_space(GRID, "test"), 1, {})

    points = [tuner.ask() for _ in range(6)]

    assert {(p["a"], p["b"]) for p in points} == {(a, b) for a in (1, 2, 3) for b in (0.5, 0.25)}
    assert tuner.ask() is None


def test_a_grid_over_a_range_is_refused_by_name():
    with pytest.raises(ValueError, match=r"\['lr'\] are ranges"):
        TUNERS["grid"][1](parse_space(SPACE, "test"), 1, {})


def test_a_list_of_points_is_a_space_too():
    points = [{"lr": 0.1, "b": 1}, {"lr": 0.2, "b": 2}]
    space = parse_space(points, "test")

    assert isinstance(space, PointList)
    assert list(space.grid()) == points
    assert play("random", space, 0, [0.0])[0] in points


@pytest.mark.parametrize(
    "document, message",
    [
        ({}, "dictionary or a list"),
        ([], "at least one"),
        ([{"a": 1}, {"b": 1}], "point 1 has the keys"),
        ({"two words": {"feasible_points": [1]}}, "identifiers, got 'two words'"),
        ({"a": {"feasible_points": 0.9}}, "needs a list"),
        ({"a": {"feasible_points": []}}, "needs a list"),
        ({"a": {"min": 1, "max": 1, "scaling": "linear"}}, "`min` below `max`"),
        ({"a": {"min": 0, "max": 1, "scaling": "log"}}, "above 0, got 0"),
        ({"a": {"min": 0, "max": 1}}, "needs `min`, `max` and `scaling`"),
        ({"a": {"min": 0, "max": math.inf, "scaling": "linear"}}, "needs numbers"),
    ],
)
def test_a_bad_space_is_refused_with_its_entry(document, message):
    with pytest.raises(ValueError, match=message):
        parse_space(document, "somewhere")


def test_a_name_that_stands_twice_is_refused_and_not_overwritten(tmp_path):
    (tmp_path / SPACE_FILE).write_text(
        """{"rate": {"feasible_points": [1]}, "rate": {"feasible_points": [2]}}"""
    )

    with pytest.raises(ValueError, match=r"tuning_search_space.json: \['rate'\] appear twice"):
        Submission("mine", tmp_path, module=None).read_space()


def test_the_papers_grids_have_the_papers_sizes():
    sizes = {}
    for name in ("sgd", "momentum", "adamw", "mechanic"):
        contender = parse_contender(f"{name}@paper+grid")
        space = parse_space(contender.submission.read_space("paper"), name)
        assert isinstance(space, Space)
        sizes[name] = len(list(space.grid()))

    assert sizes == {"sgd": 24, "momentum": 72, "adamw": 72, "mechanic": 72}


def test_hypergradient_descent_is_tuned_on_top_of_tuned_sgd():
    grid = parse_space(load_space("sgd"), "sgd").grid()
    tuner = TUNERS["stagewise"][1](parse_space(load_space("hgd"), "hgd"), 3, {})
    value_of = {0.4: 0.5, 1.0: 2.0}  # of a learning rate; all others are worth 1

    asked = []
    while (point := tuner.ask()) is not None:
        asked.append(point)
        tuner.tell(value_of.get(point["learning_rate"], 1.0) + point["weight_decay"])

    first, last = asked[:24], asked[24:]
    key = lambda point: (point["learning_rate"], point["weight_decay"])  # noqa: E731
    assert sorted(map(key, first)) == sorted(map(key, grid))
    assert {point["hyper_rate"] for point in first} == {0.0}
    assert [point["hyper_rate"] for point in last] == [1e-5, 1e-4, 1e-3, 1e-2]
    assert {key(point) for point in last} == {(0.4, 0.0)}


def test_stagewise_needs_a_last_parameter_with_two_values():
    one = {"a": {"feasible_points": [1, 2]}, "b": {"feasible_points": [3]}}

    with pytest.raises(ValueError, match=r"the last with two at least; 'b' has \[3\]"):
        TUNERS["stagewise"][1](parse_space(one, "test"), 0, {})


def load_space(name):
    return parse_contender(f"{name}@paper+random").submission.read_space("paper")


@pytest.mark.parametrize(
    "text, message",
    [
        ("nobody+random", "No submission 'nobody'"),
        ("adamw", "needs a tuner"),
        ("adamw+magic", r"no tuner 'magic', only \['asha', 'cmaes', 'gp', 'grid', .* 'tpe'\]"),
        ("adamw@mine+random", r"no search space 'mine', only \['paper'\]"),
        ("metaopt+random", "tunes itself"),
        ("adamw+grid", "are ranges"),
        ("a+b+c", "submission"),
    ],
)
def test_a_contender_that_cannot_be_says_why(text, message):
    with pytest.raises(ValueError, match=message):
        parse_contender(text)
