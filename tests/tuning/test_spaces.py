"""Search spaces are checked."""

import math

import pytest

from metaopt.bench.contract.loading import SPACE_FILE, Submission
from metaopt.bench.contract.spaces import PointList, parse_space


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


def test_a_list_of_points_is_a_space_too():
    points = [{"lr": 0.1, "b": 1}, {"lr": 0.2, "b": 2}]

    space = parse_space(points, "test")

    assert isinstance(space, PointList)
    assert list(space.grid()) == points
