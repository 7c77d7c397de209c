"""Contenders are parsed; the paper's spaces have the paper's sizes."""

import pytest

from metaopt.bench.contract.spaces import Space, parse_space
from tuning.contenders import parse_contender


def test_the_papers_grids_have_the_papers_sizes():
    sizes = {}
    for name in ("sgd", "momentum", "adamw", "mechanic"):
        contender = parse_contender(f"{name}@paper+grid")
        space = parse_space(contender.submission.read_space("paper"), name)
        assert isinstance(space, Space)
        sizes[name] = len(list(space.grid()))

    assert sizes == {"sgd": 24, "momentum": 72, "adamw": 72, "mechanic": 72}


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
