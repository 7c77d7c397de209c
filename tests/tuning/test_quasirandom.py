"""Halton points against AlgoPerf's and SciPy's, Sobol points against their property."""

import itertools

import numpy as np
import pytest
from scipy.stats import qmc

from metaopt.bench.contract.spaces import parse_space
from tuning.tuners import get_tuner
from tuning.tuners.quasirandom import halton_points, radical_inverse

SPACE = parse_space(
    {
        "rate": {"min": 1e-4, "max": 1e-1, "scaling": "log"},
        "decay": {"feasible_points": [0.1, 0.0, 0.01]},
        "kind": {"feasible_points": ["plain", "nesterov"]},
    },
    "test",
)


def draw(play_tuner, name, turns, seed=3):
    """Return the first points of a tuner."""
    _, points = play_tuner(get_tuner(name)(SPACE, seed, {}), turns, lambda *_: 1.0)
    return list(points.values())


def test_halton_points_are_those_that_algoperf_generates():
    # Printed by `generate_sequence(5, 2, shuffle_sequence=False)` of algoperf/halton.py, v0.6.
    expected = [
        (0.2739744372653363, 0.28612427728381884),
        (0.9911667058309517, 0.8300193327833143),
        (0.23023079535282354, 0.36079632571974196),
        (0.3757038370618775, 0.47482256184486826),
        (0.47539864886248795, 0.87441892915062),
    ]

    assert list(itertools.islice(halton_points(2), 5)) == expected


def test_radical_inverses_are_the_unscrambled_halton_sequence():
    reference = qmc.Halton(3, scramble=False).random(30)[1:]

    ours = [[radical_inverse(i, range(base)) for base in (2, 3, 5)] for i in range(1, 30)]

    np.testing.assert_allclose(ours, reference, rtol=1e-15)


def test_each_block_of_halton_points_is_algoperfs_set_in_an_order_of_the_seed(play_tuner):
    blocks = []
    for seed in (1, 2):
        listed = [tuple(p.values()) for p in draw(play_tuner, "halton", 10, seed)]
        blocks.append((listed[:5], listed[5:]))

    shares = list(itertools.islice(halton_points(3), 10))
    algoperf = [
        (1e-4 * (1e-1 / 1e-4) ** u, (0.1, 0.0, 0.01)[int(3 * v)], ("plain", "nesterov")[int(2 * w)])
        for u, v, w in shares
    ]
    for one, two in blocks:
        for ours, expected in ((one, algoperf[:5]), (two, algoperf[5:])):
            for point, reference in zip(sorted(ours), sorted(expected), strict=True):
                assert point[0] == pytest.approx(reference[0])
                assert point[1:] == reference[1:]
    assert blocks[0] != blocks[1]


def test_too_many_dimensions_for_halton_are_refused():
    with pytest.raises(ValueError, match="1 to 166 dimensions, got 167"):
        halton_points(167)


def test_sobol_points_fill_every_part_of_the_space_once(play_tuner):
    points = draw(play_tuner, "qmc", 16)

    # 2^4 scrambled Sobol points have exactly one in each of 16 equal intervals.
    exponents = [16 * (np.log10(point["rate"]) + 4) / 3 for point in points]
    assert sorted(int(exponent) for exponent in exponents) == list(range(16))
