"""Each tuner against hand-made tables, other constructions and what its library takes."""

import inspect
import itertools
import json
from fractions import Fraction

import numpy as np
import optuna
import pytest
from scipy.stats import qmc

from metaopt.bench.contract.spaces import parse_space
from metaopt.bench.contract.tuner import Proposal
from metaopt.bench.measure.targets import Target
from metaopt.bench.records import BudgetRecord, Cost, Segment, TrialRecord, outcomes
from metaopt.bench.records.outcomes import WORST_LOSS, Outcome, Reading
from tuning.contenders import parse_contender
from tuning.tuners import TUNERS, get_tuner
from tuning.tuners.bandits import HyperbandTuner, hyperband_brackets, rung_share
from tuning.tuners.median import MedianTuner
from tuning.tuners.quasirandom import halton_points, radical_inverse
from tuning.turns import Turns

SPACE = parse_space(
    {
        "rate": {"min": 1e-4, "max": 1e-1, "scaling": "log"},
        "decay": {"feasible_points": [0.1, 0.0, 0.01]},
        "kind": {"feasible_points": ["plain", "nesterov"]},
    },
    "test",
)
POINTS = parse_space(
    {
        "rate": {"feasible_points": [0.1, 0.2, 0.3, 0.4, 0.5]},
        "decay": {"feasible_points": [0.0, 1.0, 2.0, 3.0]},
    },
    "test",
)
DEFAULTS = {"rate": 0.1, "decay": 0.0, "kind": "plain"}
R0, R1, R2, R3 = Fraction(1, 27), Fraction(1, 9), Fraction(1, 3), 1


def make(name, seed=3):
    space = POINTS if name in ("grid", "stagewise") else SPACE
    return get_tuner(name)(space, seed, DEFAULTS)


def loss_of(trial, point):
    del point
    return 1.0 + (7 * trial) % 11 / 11


def test_a_tuner_that_is_told_everything_again_asks_what_it_would_have_asked(any_tuner, play_tuner):
    turns = {"stagewise": 8, "gp": 13}.get(any_tuner, 20)
    unbroken, points = play_tuner(make(any_tuner), turns, loss_of)

    assert len(unbroken) == turns
    for stop in (1, 4, turns - 1):  # the last answer is that of the resumed tuner
        asked, proposed = play_tuner(make(any_tuner), stop + 1, loss_of)
        assert asked == unbroken[: stop + 1]
        assert proposed == {trial: points[trial] for trial in proposed}


def test_what_a_tuner_proposes_is_a_point_of_the_space(any_tuner, play_tuner):
    _, points = play_tuner(make(any_tuner), 12, loss_of)

    for point in points.values():
        if any_tuner in ("grid", "stagewise"):
            assert point in list(POINTS.grid())
        else:
            assert 1e-4 <= point["rate"] <= 1e-1
            assert point["decay"] in (0.0, 0.01, 0.1) and point["kind"] in ("plain", "nesterov")


def test_what_a_tuner_describes_is_json_with_its_name(any_tuner):
    description = make(any_tuner).describe()

    assert description["name"] == any_tuner
    assert json.loads(json.dumps(description)) == description


@pytest.mark.parametrize("name", ["random", "tpe", "gp", "cmaes"])
def test_every_argument_of_a_sampler_is_on_record_but_for_deprecated_ones(name):
    if missing := TUNERS[name].missing(name):
        pytest.skip(f"{name} {missing}")
    description = make(name).describe()

    sampler = getattr(optuna.samplers, description["sampler"])
    deprecated = {
        "tpe": {
            "consider_prior", "prior_weight", "consider_magic_clip", "consider_endpoints", "gamma",
            "weights", "warn_independent_sampling", "categorical_distance_func",
        },
        "cmaes": {"x0", "sigma0", "restart_strategy", "inc_popsize"},
    }.get(name, set())  # fmt: skip
    arguments = set(inspect.signature(sampler).parameters) - deprecated
    assert arguments == description.keys() - {"name", "library", "sampler", "ordered", "torch"}
    assert description["library"].startswith("optuna ")
    assert description["seed"] == 3


# Halton.


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
        _, points = play_tuner(make("halton", seed), 10, loss_of)
        listed = [tuple(point.values()) for point in points.values()]
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
    _, points = play_tuner(make("qmc"), 16, loss_of)

    # 2^4 scrambled Sobol points have exactly one in each of 16 equal intervals.
    exponents = [16 * (np.log10(point["rate"]) + 4) / 3 for point in points.values()]
    assert sorted(int(exponent) for exponent in exponents) == list(range(16))


@pytest.mark.parametrize(
    "contender, message",
    [
        ("points+halton", "`halton` needs a dictionary .* `grid` runs through a list"),
        ("points+qmc", "`qmc` needs a dictionary"),
        ("points+cmaes", r"`cmaes` needs at least two numeric parameters.*got \[\]"),
        ("narrow+cmaes", r"got \['rate'\]. `tpe` takes any space"),
    ],
)
def test_a_space_that_a_tuner_cannot_use_is_refused_by_name(contender, message, tmp_path):
    spaces = {
        "points": [{"rate": 0.1}, {"rate": 0.2}],
        "narrow": {
            "rate": {"min": 0.1, "max": 1.0, "scaling": "log"},
            "decay": {"feasible_points": [1.0]},
            "kind": {"feasible_points": ["a", "b"]},
        },
    }
    name, tuner = contender.split("+")
    if missing := TUNERS[tuner].missing(tuner):
        pytest.skip(f"{tuner} {missing}")

    with pytest.raises(ValueError, match=message):
        get_tuner(tuner)(parse_space(spaces[name], "test"), 1, {})


def test_a_missing_library_is_named_where_a_tuner_is_listed_and_where_it_is_used(monkeypatch):
    monkeypatch.setattr("tuning.tuners.registry.find_spec", lambda module: None)

    assert TUNERS["gp"].line("gp").endswith("(needs torch: pip install 'metaopt-bench[gp]')")
    with pytest.raises(ValueError, match=r"'adamw\+gp': tuner 'gp' needs torch: pip install"):
        parse_contender("adamw+gp")
    assert "torch" not in TUNERS["tpe"].line("tpe")


@pytest.mark.parametrize("name", ["gp", "cmaes"])
def test_numeric_feasible_points_are_an_ordered_index(name):
    if missing := TUNERS[name].missing(name):
        pytest.skip(f"{name} {missing}")
    tuner = make(name)

    point = tuner.ask()

    assert tuner.describe()["ordered"]
    (trial,) = tuner._study.trials
    assert trial.distributions["decay"] == optuna.distributions.IntDistribution(0, 2)
    assert point["decay"] == (0.0, 0.01, 0.1)[trial.params["decay"]]
    assert isinstance(trial.distributions["kind"], optuna.distributions.CategoricalDistribution)


@pytest.mark.parametrize("name, turns", [("gp", 15), ("cmaes", 40)])
def test_a_model_gets_nearer_to_the_optimum_than_random_draws(name, turns, play_tuner):
    if missing := TUNERS[name].missing(name):
        pytest.skip(f"{name} {missing}")

    def loss(trial, point):
        del trial
        return (np.log10(point["rate"]) + 2.2) ** 2 + 10 * point["decay"]

    def last_losses(tuner):
        _, points = play_tuner(tuner, turns, loss)
        return np.median([loss(trial, points[trial]) for trial in range(turns - 4, turns + 1)])

    assert last_losses(make(name)) < 0.5 * last_losses(make("random"))


def test_the_gaussian_process_leaves_torchs_threads_as_they_were(play_tuner):
    torch = pytest.importorskip("torch")
    before = torch.get_num_threads()

    play_tuner(make("gp"), 12, loss_of)

    assert torch.get_num_threads() == before


# Bandits.

# By hand: loss of each trial, the same at every rung, and who runs to which rung in which order.
# A third of 3 trials go on: the second. Of 6: the fourth as well. At 8 trials the eighth is among
# the best two; of the three at rung 1 it is the best, so it goes straight on. At 10 the tenth is.
LOSSES = dict(enumerate([0.9, 0.1, 0.5, 0.2, 0.8, 0.3, 0.7, 0.05, 0.6, 0.01], start=1))
ASHA = [
    (1, R0), (2, R0), (3, R0), (2, R1), (4, R0), (5, R0), (6, R0), (4, R1), (7, R0), (8, R0),
    (8, R1), (8, R2), (9, R0), (10, R0), (10, R1), (10, R2),
]  # fmt: skip


def test_asha_promotes_as_in_a_table_made_by_hand(play_tuner):
    turns, _ = play_tuner(make("asha"), len(ASHA), lambda trial, _: LOSSES[trial])

    assert turns == ASHA


def test_asha_never_promotes_a_failure_or_a_trial_that_ended():
    tuner = make("asha")

    asked = []
    for trial in range(1, 7):  # a trial that met its target, five that diverged
        asked.append(tuner.ask())
        status = "target" if trial == 1 else "diverged"
        tuner.observe(Outcome(trial, status, 3.0, (Reading(0.03, 0.1),)))

    assert all(proposal.resume is None for proposal in asked)
    assert tuner.ask().resume is None


def test_hyperbands_brackets_are_those_of_the_paper():
    # Li et al. 2018, Algorithm 1 with R = 81 and eta = 3: n_i, and r_i from the rung.
    paper = {
        4: [(81, 1), (27, 3), (9, 9), (3, 27), (1, 81)],
        3: [(34, 3), (11, 9), (3, 27), (1, 81)],
        2: [(15, 9), (5, 27), (1, 81)],
        1: [(8, 27), (2, 81)],
        0: [(5, 81)],
    }

    ours = hyperband_brackets(4)

    assert [[(n, 81 * rung_share(rung, 5)) for rung, n in bracket] for bracket in ours] == [
        paper[s] for s in (4, 3, 2, 1, 0)
    ]


def test_hyperband_runs_its_brackets_in_order_and_starts_over_with_new_points(play_tuner):
    # Trials of a rung and its share, by hand for 1/27: see the table in docs/tuners.md.
    table = [
        (27, R0), (9, R1), (3, R2), (1, R3),
        (12, R1), (4, R2), (1, R3),
        (6, R2), (2, R3),
        (4, R3),
    ]  # fmt: skip
    whole = sum(trials for trials, _ in table)
    loss = lambda trial, _: float(trial % 10) + trial / 1000  # noqa: E731

    turns, points = play_tuner(make("hyperband"), 2 * whole, loss)

    shares = [share for trials, share in table for _ in range(trials)]
    assert [share for _, share in turns] == 2 * shares
    assert len({json.dumps(point) for point in points.values()}) == 2 * (27 + 12 + 6 + 4)
    # Of trials 1 to 27 the best nine are 10, 20, 1, 11, 21, 2, 12, 22 and 3.
    assert [trial for trial, _ in turns[27:36]] == [10, 20, 1, 11, 21, 2, 12, 22, 3]
    assert [trial for trial, _ in turns[36:39]] == [10, 20, 1]
    assert [trial for trial, _ in turns[39:40]] == [10]


def test_hyperband_goes_on_when_a_whole_rung_fails():
    tuner = HyperbandTuner(SPACE, 1)
    for trial in range(1, 28):
        assert tuner.ask().budget == R0
        tuner.observe(Outcome(trial, "diverged", 3.0, ()))

    proposal = tuner.ask()

    assert (proposal.resume, proposal.budget) == (None, R1)  # the next bracket


@pytest.mark.parametrize("name", ["asha", "hyperband", "median"])
def test_points_of_bandits_are_those_of_random_search(name, play_tuner):
    _, random = play_tuner(make("random"), 6, loss_of)
    _, ours = play_tuner(make(name), 12, lambda *_: 1.0)

    assert list(ours.values())[:6] == list(random.values())


# The median rule.


def finished(*losses):
    share = 1 / len(losses)
    return Outcome(
        1, "trial_budget", 1.5,
        tuple(Reading(share * (i + 1), loss) for i, loss in enumerate(losses)),
    )  # fmt: skip


def test_the_median_rule_by_hand():
    tuner = MedianTuner(SPACE, 1)
    running = [Reading(0.25, 5.0), Reading(0.5, 3.5)]
    # Means up to the half: 1, 2, 3, 4, 5. Their median is 3, the running trial's best is 3.5.
    for mean in (1.0, 2.0, 3.0, 4.0):
        tuner.observe(finished(mean + 1, mean - 1, 0.0, 0.0))
    assert not tuner.should_stop(running)  # four trials are too few
    tuner.observe(finished(6.0, 4.0, 0.0, 0.0))

    assert tuner.should_stop(running)
    assert not tuner.should_stop([*running[:1], Reading(0.5, 3.0)])  # not above the median
    assert not tuner.should_stop([Reading(0.1, WORST_LOSS)])  # within the warm-up
    for _ in range(9):  # what was stopped or failed is not compared with
        tuner.observe(Outcome(1, "pruned", 1.9, (Reading(0.25, 1e9),)))
        tuner.observe(Outcome(1, "diverged", 3.0, (Reading(0.25, 1e9),)))
    assert tuner.should_stop(running)


# The protocol.


def test_losses_are_finite_whatever_a_metric_shows():
    rows = [
        {"m": value, "global_step": 5, "gradient_evaluations": 5.0,
         "accumulated_submission_time": 0.1}
        for value in (0.25, float("nan"), float("inf"), 1e300, -float("inf"))
    ]  # fmt: skip
    budget = BudgetRecord(currency="steps", study=100, trial=50, eval_period=5)

    for better, sign in (("lower", 1), ("higher", -1)):
        curve = [*outcomes.read_curve(rows, Target("m", 1.0, better), budget)]
        assert [reading.loss for reading in curve] == [
            sign * 0.25, WORST_LOSS, WORST_LOSS, sign * WORST_LOSS, WORST_LOSS
        ]  # fmt: skip
        assert {reading.share for reading in curve} == {0.1}
    assert Outcome(1, "crashed", 3.0, (Reading(0.1, 0.2),)).loss == WORST_LOSS
    assert Outcome(1, "paused", 1.5, ()).loss == WORST_LOSS


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({}, "either a `point` or the number of a trial to `resume`"),
        ({"point": {"a": 1}, "resume": 1}, "either a `point` or the number"),
        ({"point": {"a": 1}, "budget": 0}, r"must be a share in \(0, 1\], got 0"),
        ({"point": {"a": 1}, "budget": float("nan")}, "got nan"),
    ],
    ids=["neither", "both", "zero", "nan"],
)
def test_a_proposal_that_cannot_be_says_why(arguments, message):
    with pytest.raises(ValueError, match=message):
        Proposal(**arguments)


def test_rungs_are_exact_shares_of_a_budget():
    for budget in (27.0, 400.0, 0.3):
        for rung in range(4):
            turn = Turns(budget).next(Proposal(point={}, budget=rung_share(rung)))
            assert turn.pause_at == (budget / 3 ** (3 - rung) if rung < 3 else None)


def test_a_tuner_that_resumes_what_is_not_paused_is_refused():
    with pytest.raises(ValueError, match=r"resumes trial 3; only \[\] are paused"):
        Turns(27).next(Proposal(resume=3))


def test_a_tuner_that_resumes_a_trial_to_where_it_is_already_is_refused():
    turns = Turns(27)
    turn = turns.next(Proposal(point={}, budget=R1))
    cost = Cost(steps=3)
    segment = Segment(rung=3.0, spent_before=Cost(), start=Cost(), end=cost, evaluations=1)
    record = TrialRecord.model_construct(status="paused", segments=(segment,))
    assert turns.take(turn, record) == (Cost(), cost, Cost())

    with pytest.raises(ValueError, match="resumes trial 1 up to 3, but it has paused at 3 already"):
        turns.next(Proposal(resume=1, budget=R1))
