"""The SVG files of plots: tags keep values and names, and no style is left."""

import xml.etree.ElementTree as ET

import numpy as np
import pytest

from analysis.report.plots.canvas import figure_at, tag

EVIL = "<b>\"'&;,|=x"


@pytest.fixture
def drawn(tmp_path):
    path = tmp_path / "a.png"
    with figure_at(path) as (_, axis):
        axis.set_xscale("log")
        axis.set(xlim=(1, 1000), ylim=(0, 2))
        x, y = np.array([1.0, 10.0, 100.0]), np.array([0.5, 1.0, 1.2345678])
        (line,) = axis.plot(x, y, marker="o")
        tag(line, EVIL, "line", spent=x, best_value=y, y_=y)
        (dot,) = axis.plot(10, 1, "s")
        tag(dot, "b", x_=10, y_=1, cost=np.inf, workload=[EVIL])
    return ET.parse(path.with_suffix(".svg")).getroot()


def test_values_and_names_survive(drawn):
    line, dot = (one for one in drawn.iter() if one.get("data-values"))

    assert line.get("data-contender") == EVIL
    assert line.get("data-names") == "spent|best value|"
    assert line.get("data-values") == "1,0.5,0.5;10,1,1;100,1.235,1.235"
    assert dot.get("data-names") == "||cost|workload"
    assert dot.get("data-values").split(",") == ["10", "1", "inf", EVIL.translate(
        str.maketrans(";,", "  "))]  # fmt: skip


def test_the_box_and_the_scales_give_the_drawn_place_of_a_value(drawn):
    axes = next(one for one in drawn.iter() if one.get("data-box"))
    left, top, width, height = map(float, axes.get("data-box").split())
    assert axes.get("data-x") == "log 1 1000"
    assert axes.get("data-y") == "linear 0 2"

    dot = next(one for one in axes.iter() if one.get("data-contender") == "b")
    mark = next(one for one in dot.iter() if one.tag.endswith("use"))

    # 10 is a third of the way from 1 to 1000 on a logarithmic axis, and 1 is half of 2.
    assert float(mark.get("x")) == pytest.approx(left + width / 3, abs=0.02)
    assert float(mark.get("y")) == pytest.approx(top + height / 2, abs=0.02)
    assert axes.get("data-zoom") is not None


def test_nothing_is_left_that_a_strict_policy_refuses_and_no_id_is_shared(drawn, tmp_path):
    with figure_at(tmp_path / "b.png") as (_, axis):
        axis.plot([1, 2], [1, 2], "o")
    other = ET.parse(tmp_path / "b.svg").getroot()

    found = []
    for root in (drawn, other):
        assert not [one for one in root.iter() if one.get("style") or one.tag.endswith("}style")]
        ids = [one.get("id") for one in root.iter() if one.get("id")]
        assert len(ids) == len(set(ids))
        found.append(set(ids))
    assert found[0] and found[1] and not found[0] & found[1]
