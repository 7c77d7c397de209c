"""The grid, and the grid in two stages."""

import pytest

from metaopt.bench.contract.spaces import parse_space
from tuning.contenders import parse_contender
from tuning.tuners.grid import GridTuner, StagewiseTuner

GRID = {"a": {"feasible_points": [1, 2, 3]}, "b": {"feasible_points": [0.5, 0.25]}}


def load_space(name):
    return parse_contender(f"{name}@paper+random").submission.read_space("paper")


def test_a_grid_proposes_every_point_once_and_then_nothing():
    tuner = GridTuner(parse_space(GRID, "test"), 1)

    points = [tuner.ask() for _ in range(6)]

    assert {(p["a"], p["b"]) for p in points} == {(a, b) for a in (1, 2, 3) for b in (0.5, 0.25)}
    assert tuner.ask() is None


def test_a_grid_over_a_range_is_refused_by_name():
    space = {**GRID, "lr": {"min": 1e-4, "max": 1e-1, "scaling": "log"}}

    with pytest.raises(ValueError, match=r"\['lr'\] are ranges"):
        GridTuner(parse_space(space, "test"), 1)


def test_hypergradient_descent_is_tuned_on_top_of_tuned_sgd():
    grid = parse_space(load_space("sgd"), "sgd").grid()
    tuner = StagewiseTuner(parse_space(load_space("hgd"), "hgd"), 3)
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

    with pytest.raises(ValueError, match=r"at least two for the last parameter, but 'b' has \[3\]"):
        StagewiseTuner(parse_space(one, "test"), 0)
