"""Campaigns on stability: softmax regression, whose transitions are known, and what is refused."""

import tomllib

import numpy as np
import pytest

from metaopt.bench.records import write_json
from metaopt.bench.records.stability import STABILITY_FILE, read_stability
from metaopt.theory.dynamics import fit_stability, product_norms, transition
from metaopt.workloads.data.scikit_learn import load_digits
from tuning.stability import (
    count_parameters,
    initial_parameters,
    make_stability_campaign,
    pool_images,
    run_stability,
)

# Four means of pixels, no hidden layer: softmax regression, 50 parameters.
SETTING = {
    "label": "decay", "workload": "digits", "pool": 4, "widths": [], "examples": 16,
    "eta": 0.5, "delta": 0.1, "beta": 0.25,
}  # fmt: skip
OLDER = {**SETTING, "label": "fresh gradient", "gradient_age": 0, "delta": 0.0}
GOOD = {
    "kind": "stability", "name": "tiny", "seed": 3, "trials": 2, "steps": 4,
    "settings": [SETTING, OLDER],
}  # fmt: skip


@pytest.fixture(scope="module")
def campaign():
    """Two settings, two trials."""
    return make_stability_campaign(GOOD, "file.toml")


@pytest.fixture(scope="module")
def folder(campaign, tmp_path_factory):
    """Where it ran without a break."""
    out = tmp_path_factory.mktemp("unbroken")
    run_stability(campaign, out)
    return out


def softmax_regression(points, inputs, targets):
    """Return gradient and Hessian of the mean cross-entropy; weights (4, 10), then biases."""
    design = np.concatenate([inputs, np.ones((len(inputs), 1))], axis=1)
    scores = design @ points.reshape(5, 10)
    odds = np.exp(scores - scores.max(axis=1, keepdims=True))
    odds /= odds.sum(axis=1, keepdims=True)
    gradient = np.einsum("ni,nc->ic", design, odds - np.eye(10)[targets]) / len(inputs)
    spread = np.einsum("nc,cd->ncd", odds, np.eye(10)) - np.einsum("nc,nd->ncd", odds, odds)
    hessian = np.einsum("ni,nj,ncd->icjd", design, design, spread) / len(inputs)
    return gradient.ravel(), hessian.reshape(50, 50)


@pytest.mark.parametrize("index", [0, 1], ids=["printed gradient", "fresh gradient"])
@pytest.mark.parametrize("trial", [0, 1])
def test_the_norms_of_softmax_regression_are_those_of_its_known_transitions(
    folder, campaign, index, trial
):
    import jax

    setting, train = campaign.settings[index], load_digits().train
    rng = np.random.default_rng((3, trial))
    chosen = rng.choice(len(train["targets"]), 16, replace=False)
    inputs = train["inputs"][chosen].reshape(16, 2, 4, 2, 4).mean((2, 4)).reshape(16, 4)
    targets = train["targets"][chosen]
    key = jax.random.PRNGKey(int(rng.integers(2**31)))
    first = np.float64(initial_parameters(setting, key))

    def slope_at(x):
        return softmax_regression(x, inputs, targets)[0] + 0.5 * (x - first)

    before = point = first
    slope, matrices = slope_at(first), []
    for _ in range(4):
        places = before + np.linspace(0, 1, 201)[:, None] * (point - before)
        hessians = np.array([softmax_regression(x, inputs, targets)[1] for x in places])
        mean = np.trapezoid(hessians, dx=1 / 200, axis=0) + 0.5 * np.eye(50)
        matrices.append(transition(mean, 0.5, setting.delta, setting.gradient_age))
        fresh = slope_at(point)
        used = fresh if setting.gradient_age == 0 else slope
        before, point, slope = point, (1 - setting.delta) * point - 0.5 * used, fresh
    expected = np.nanmax(product_norms(np.stack(matrices)), axis=0)

    measured = read_stability(folder).settings[index]
    np.testing.assert_allclose(measured.norms[trial], expected, rtol=1e-4)
    assert measured.gaps == (0, 1, 2, 3)
    assert measured.parameters == 50


def test_the_fit_bounds_every_trial_and_touches_one(folder):
    for result in read_stability(folder).settings:
        bound = result.kappa**2 * (1 - result.gamma) ** np.arange(1, 5)
        mean = fit_stability(np.mean(result.norms, axis=0)[None])
        assert result.mean_kappa == pytest.approx(mean.kappa)
        ratios = np.array(result.norms) / bound
        assert ratios.max() == pytest.approx(1)


def test_a_killed_campaign_goes_on_where_it_was_to_the_same_numbers(
    campaign, folder, tmp_path, killed
):
    def stop(done, total):
        assert total == 4
        if done == 3:
            raise killed

    with pytest.raises(killed):
        run_stability(campaign, tmp_path, stop)
    partial = read_stability(tmp_path)
    assert [len(result.norms) for result in partial.settings] == [2, 1]
    assert partial.settings[0].kappa is not None
    assert partial.settings[1].kappa is None

    modules = partial.identity["modules"]
    other = {**partial.identity, "modules": {**modules, "metaopt/theory/dynamics.py": "0"}}
    write_json(tmp_path / STABILITY_FILE, partial.model_copy(update={"identity": other}))
    with pytest.raises(ValueError, match=r"from before metaopt/theory/dynamics\.py changed"):
        run_stability(campaign, tmp_path)
    write_json(tmp_path / STABILITY_FILE, partial)

    calls = []
    record = run_stability(campaign, tmp_path, lambda *progress: calls.append(progress))

    assert calls == [(4, 4)]
    assert record.settings == read_stability(folder).settings == read_stability(tmp_path).settings
    assert record.started_at == partial.started_at
    assert run_stability(campaign, tmp_path, lambda *_: pytest.fail("nothing to do")) == record


def test_another_campaign_never_writes_into_its_folder(folder):
    before = (folder / STABILITY_FILE).read_bytes()
    changed = [{**SETTING, "eta": 0.25}, OLDER]

    for changes, message in (
        ({"seed": 4}, "seed: 3 there, 4 now"),
        ({"trials": 3}, "trials: 2 there, 3 now"),
        ({"settings": changed}, "eta=0.5.* there.*eta=0.25.* now"),
        ({"settings": [SETTING]}, r"settings\.1: .* there, None now"),
    ):
        with pytest.raises(ValueError, match=message):
            run_stability(make_stability_campaign({**GOOD, **changes}, "x"), folder)

    assert (folder / STABILITY_FILE).read_bytes() == before


def test_a_setting_that_diverges_has_no_constants(tmp_path):
    wild = {**SETTING, "label": "wild", "eta": 1e300}

    record = run_stability(
        make_stability_campaign({**GOOD, "settings": [wild], "trials": 1}, "x"), tmp_path
    )

    assert record.settings[0].norms == (None,)
    assert record.settings[0].kappa is None
    assert read_stability(tmp_path) == record


def test_too_many_examples_are_refused_before_anything_runs(tmp_path):
    greedy = make_stability_campaign({**GOOD, "settings": [{**SETTING, "examples": 1080}]}, "x")

    with pytest.raises(ValueError, match="'decay': examples must be at most the 1079 of digits"):
        run_stability(greedy, tmp_path)

    assert not (tmp_path / STABILITY_FILE).exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"trials": 0}, "trials: .*greater than or equal to 1, got 0"),
        ({"kind": "speed"}, "kind: .*'stability'.*got 'speed'"),
        ({"settings": [SETTING, SETTING]}, r"settings: labels must differ, got \['decay', 'decay'"),
        ({"settings": [{**SETTING, "pool": 3}]}, "pool must divide the 8 pixels.*got 3 in 'decay'"),
        ({"settings": [{**SETTING, "delta": 1.0}]}, r"settings\.0\.delta: .*less than 1, got 1\.0"),
        ({"settings": [{**SETTING, "rate": 1}]}, r"settings\.0\.rate: .*known are \['label'"),
        ({"speed": 3}, r"file\.toml: speed: .*known are \['kind', 'name'"),
        ({"name": "../up"}, "name: .*pattern"),
    ],
)  # fmt: skip
def test_an_error_names_the_key_the_rule_and_the_value(changes, message):
    with pytest.raises(ValueError, match=message):
        make_stability_campaign({**GOOD, **changes}, "file.toml")


@pytest.mark.parametrize(("name", "parameters"), [("mnist", 310), ("digits", 118)])
def test_the_shipped_campaigns_are_valid_and_of_the_stated_size(root, name, parameters):
    path = root / "tuning" / "campaigns" / f"figure3_{name}.toml"

    campaign = make_stability_campaign(tomllib.loads(path.read_text("utf-8")), str(path))

    assert campaign.name == path.stem
    assert {setting.workload for setting in campaign.settings} == {name}
    assert {count_parameters(setting) for setting in campaign.settings} == {parameters}
    assert campaign.trials == 10


def test_pooling_averages_squares_of_pixels():
    image = np.arange(16.0).reshape(1, 16)  # rows 0 1 2 3 / 4 5 6 7 / ...

    np.testing.assert_allclose(pool_images(image, side=4, pool=2), [[2.5, 4.5, 10.5, 12.5]])
