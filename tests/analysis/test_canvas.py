"""What every plot shares."""

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
