"""What every plot shares."""

import itertools
import xml.etree.ElementTree

import pytest

from analysis.report.plots.canvas import figure_at


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (1.4, 2.8, ["1.5", "2", "2.5"]),
        (0.03, 0.2, ["0.03", "0.05", "0.07", "0.1", "0.15", "0.2"]),
        (150, 6000, ["200", "500", "1000", "2000", "5000"]),
        (1e-5, 1e-1, [r"$\mathdefault{10^{-5}}$", r"$\mathdefault{10^{-3}}$"]),
    ],
)
def test_a_logarithmic_axis_has_plain_numbers_where_it_has_few_powers_of_ten(
    low, high, expected, tmp_path
):
    with figure_at(tmp_path / "a.png") as (_, axis):
        axis.plot([1, 2], [low, high])
        axis.set_yscale("log")
        axis.set_ylim(low, high)

    major = [tick.get_text() for tick in axis.get_yticklabels() if tick.get_text()]
    minor = [tick.get_text() for tick in axis.get_yticklabels(minor=True) if tick.get_text()]
    assert set(expected) <= set(major)
    assert not minor
    assert xml.etree.ElementTree.parse(tmp_path / "a.svg").getroot().tag.endswith("svg")


@pytest.mark.parametrize(("low", "high"), [(7e3, 3e5), (3e4, 4e5), (5e3, 3.6e4)])
def test_labels_of_a_logarithmic_axis_do_not_overlap(low, high, tmp_path):
    with figure_at(tmp_path / "a.png", panels=2) as (_, (axis, _)):
        axis.plot([low, high], [1, 2])
        axis.set_xscale("log")
        axis.set_xlim(low, high)

    boxes = [
        label.get_window_extent()
        for label in axis.get_xticklabels()
        if label.get_visible() and low <= label.get_position()[0] <= high
    ]
    assert len(boxes) >= 2
    assert all(left.x1 < right.x0 for left, right in itertools.pairwise(boxes))
