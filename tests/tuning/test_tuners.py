"""Every tuner: resumes, points of its space, records; Optuna's samplers learn."""

import inspect
import json

import numpy as np
import optuna
import pytest

from metaopt.bench.contract.spaces import parse_space
from metaopt.bench.records.outcomes import FAILURE_VALUE
from tuning.contenders import parse_contender
from tuning.tuners import TUNERS, get_tuner

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


def make(name, seed=3):
    space = POINTS if name in ("grid", "stagewise") else SPACE
    return get_tuner(name)(space, seed, DEFAULTS)


def loss_of(trial, point):
    del point
    return 1.0 + (7 * trial) % 11 / 11


def test_a_tuner_that_is_told_everything_again_asks_what_it_would_have_asked(any_tuner, play_tuner):
    turns = {"stagewise": 8, "gp": 13, "long": 1}.get(any_tuner, 20)
    unbroken, points = play_tuner(make(any_tuner), turns, loss_of)

    assert len(unbroken) == turns
    for stop in {1, 4, turns - 1} & {*range(turns)}:  # the last answer is that of the resumed tuner
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


@pytest.mark.parametrize(
    "contender, message",
    [
        ("points+halton", "`halton` needs a dictionary .* `grid` runs through a list"),
        ("points+qmc", "`qmc` needs a dictionary"),
        ("points+cmaes", r"`cmaes` needs at least two numeric parameters.*got \[\]"),
        ("narrow+cmaes", r"got \['rate'\]. `tpe` takes any space"),
    ],
)
def test_a_space_that_a_tuner_cannot_use_is_refused_by_name(contender, message):
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


@pytest.mark.parametrize("name", ["tpe", "gp"])
def test_a_model_proposes_from_the_fifth_trial_on(name, play_tuner):
    if missing := TUNERS[name].missing(name):
        pytest.skip(f"{name} {missing}")
    space = parse_space({"rate": {"min": 0.0, "max": 1.0, "scaling": "linear"}}, "test")

    (_, ours), (_, drawn) = (
        play_tuner(get_tuner(kind)(space, 3, {}), 5, loss_of) for kind in (name, "random")
    )

    assert [ours[trial] == drawn[trial] for trial in ours] == [True] * 4 + [False]


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


@pytest.mark.parametrize("name", ["random", "tpe", "halton", "qmc"])
def test_another_seed_is_another_sequence(name, play_tuner):
    (_, one), (_, two) = (play_tuner(make(name, seed), 3, loss_of) for seed in (1, 2))

    assert one != two


def test_random_search_draws_from_a_list_of_points():
    points = [{"lr": 0.1, "b": 1}, {"lr": 0.2, "b": 2}]

    assert get_tuner("random")(parse_space(points, "test"), 0, {}).ask() in points


def test_tpe_learns_from_the_values_that_it_is_told(play_tuner):
    def loss(trial, point):
        del trial
        return (np.log10(point["rate"]) + 2) ** 2

    _, points = play_tuner(make("tpe", seed=0), 60, loss)

    losses = [loss(trial, point) for trial, point in points.items()]
    assert sorted(losses[-20:])[9] < 0.3 * sorted(losses[:20])[9]  # medians, or nearly


def test_a_failure_is_a_finite_value_that_samplers_keep():
    tuner = make("tpe")

    for _ in range(15):
        tuner.ask()
        tuner.tell(FAILURE_VALUE)

    assert len(tuner._study.get_trials(states=None)) == 15
    assert all(trial.value == FAILURE_VALUE for trial in tuner._study.trials)
