"""Campaign files: what they mean, and what is wrong with them."""

from pathlib import Path

import pytest

from metaopt.bench.measure.targets import Target
from metaopt.bench.records import BudgetRecord
from metaopt.workloads.registry import get_workload
from tuning.campaign import (
    Campaign,
    list_campaigns,
    make_campaign,
    read_campaign,
    read_source,
)
from tuning.campaign_folder import claim_folder
from tuning.contenders import parse_contender
from tuning.stability import make_stability_campaign

GOOD = {
    "name": "test",
    "budget": "4x",
    "workloads": ["digits_mlp"],
    "contenders": ["adamw+random"],
}


@pytest.mark.parametrize(
    "changes, limits",
    [
        ({}, BudgetRecord(currency="gradient_evaluations", study=1600, trial=400, eval_period=25)),
        (
            {"trial_budget": "0.5x"},
            BudgetRecord(currency="gradient_evaluations", study=1600, trial=200, eval_period=25),
        ),
        (
            {"budget": "800steps"},
            BudgetRecord(currency="steps", study=800, trial=400, eval_period=25),
        ),
        ({"budget": "60s"}, BudgetRecord(currency="seconds", study=60, trial=10, eval_period=0.5)),
        (
            {"budget": "100grads"},
            BudgetRecord(currency="gradient_evaluations", study=100, trial=100, eval_period=25),
        ),
        (
            {"budget": "9grads"},
            BudgetRecord(currency="gradient_evaluations", study=9, trial=9, eval_period=9),
        ),
        (
            {"workloads": ["digits_mlp_fixed"]},
            BudgetRecord(currency="gradient_evaluations", study=1600, trial=400, eval_period=5),
        ),
        (
            {"workloads": ["digits_mlp_fixed"], "eval_period": "1grads"},
            BudgetRecord(currency="gradient_evaluations", study=1600, trial=400, eval_period=1),
        ),
    ],
    ids=[
        "relative",
        "smaller trials",
        "steps",
        "seconds",
        "below a trial",
        "below a period",
        "fixed",
        "fixed, stated",
    ],
)
def test_budgets_relative_to_the_step_hint(changes, limits):
    campaign = make_campaign({**GOOD, **changes}, "test")

    assert campaign.limits(get_workload(campaign.workloads[0])) == limits


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"budget": "-5grads"}, r"budget: .*positive and finite, got -5"),
        ({"budget": "lots"}, r"budget: A budget looks like .* got 'lots'"),
        ({"studies": 0}, r"studies: .*greater than or equal to 1, got 0"),
        ({"seed": "x"}, r"seed: .*integer.*got 'x'"),
        ({"contenders": ["adamw+magic"]}, r"contenders: .*no tuner 'magic', only"),
        ({"workloads": ["imagenet"]}, r"workloads: No workload 'imagenet', only \["),
        ({"workloads": []}, r"workloads: .*at least 1 item"),
        ({"workloads": ["digits_mlp"] * 2}, r"workloads: names must differ"),
        ({"speed": 3}, r"speed: Extra inputs are not permitted; known are \['name'"),
        ({"eval_period": "500grads"}, r"eval_period = '500grads' does not fit into a trial of 400"),
        ({"eval_period": "5s"}, r"eval_period = '5s' must be in the currency of budget"),
        (
            {"budget": "500steps", "trial_budget": "100grads"},
            r"trial_budget = '100grads' must be in the currency of budget",
        ),
        ({"name": "../up"}, r"name: .*pattern"),
        (
            {"variants": {"v": {"from": "dog", "of": "dog", "hyperparameters": {}}}},
            r"variants.v.from: Extra inputs.*known are \['of', 'hyperparameters'\]",
        ),
        (
            {"targets": {"digits": {"metric": "validation/loss", "value": 1, "better": "lower"}}},
            r"targets: \['digits'\] are not among the workloads",
        ),
        (
            {"targets": {"digits_mlp": {"metric": "loss", "value": 1, "better": "lower"}}},
            r"targets.digits_mlp.metric: must be a metric of the validation split",
        ),
        ({"variants": {"v": {"of": "dog", "hyperparameters": {"x": 1}}}}, r"dog, which are \[\]"),
        (
            {"variants": {"v": {"of": "metaopt", "hyperparameters": {"eta": 1}}}},
            r"variants: Variant 'v' must fix .*'learning_rate'.*got \['eta'\]",
        ),
        (
            {"variants": {"a/b": {"of": "metaopt", "hyperparameters": {"history": 1}}}},
            r"variants: A variant's name has only letters",
        ),
        ({"variants": {"v": {"of": "adamw", "hyperparameters": {}}}}, r"variants: .*needs a tuner"),
    ],
)
def test_an_error_names_the_key_the_rule_and_the_value(changes, message):
    with pytest.raises(ValueError, match=message):
        make_campaign({**GOOD, **changes}, "file.toml")


def test_a_missing_key_is_named():
    with pytest.raises(ValueError, match="budget: Field required"):
        make_campaign({key: GOOD[key] for key in GOOD if key != "budget"}, "file.toml")


def test_a_file_that_is_not_there_lists_those_that_are(tmp_path):
    with pytest.raises(ValueError, match=r"there are \['ablation_digits'.*'demo'"):
        read_campaign(tmp_path / "nothing.toml")


def test_a_file_that_is_not_toml_says_where(tmp_path):
    (tmp_path / "c.toml").write_text("name = ")

    with pytest.raises(ValueError, match=r"c.toml: not TOML: Invalid value"):
        read_campaign(tmp_path / "c.toml")


@pytest.mark.parametrize("name", sorted(list_campaigns()))
def test_every_shipped_campaign_is_valid_and_named_after_its_file(name):
    document = read_source(Path(name)).document
    if any(contender.endswith("+gp") for contender in document.get("contenders", ())):
        pytest.importorskip("torch", reason="the Gaussian process needs it")
    if document.get("kind") == "stability":
        assert make_stability_campaign(document, name).name == name
    else:
        assert read_campaign(Path(name)).name == name


def test_a_folder_belongs_to_one_campaign(tmp_path):
    campaign = Campaign(**GOOD)
    claim_folder(campaign, tmp_path)
    claim_folder(campaign, tmp_path)

    with pytest.raises(ValueError, match="seed: 1 there, 2 now"):
        claim_folder(Campaign(**GOOD, seed=2), tmp_path)


def test_a_campaign_that_only_gains_goes_on_in_its_folder(tmp_path):
    contenders, workloads = GOOD["contenders"], GOOD["workloads"]
    more = {
        "contenders": [*contenders, "slow"], "workloads": [*workloads, "digits_conv"], "studies": 9,
        "variants": {"slow": {"of": "sgd+none", "hyperparameters": {"learning_rate": 0.01}}},
        "targets": {"digits_conv": {"metric": "validation/loss", "value": 1.0, "better": "lower"}},
    }  # fmt: skip
    claim_folder(Campaign(**GOOD), tmp_path)

    claim_folder(Campaign(**GOOD | more), tmp_path)

    with pytest.raises(ValueError, match="holds another campaign"):  # it has grown
        claim_folder(Campaign(**GOOD), tmp_path)


@pytest.mark.parametrize(
    "change",
    [
        {"budget": "7x"},
        {"contenders": ["momentum+random"]},
        {"targets": {"digits_mlp": {"metric": "validation/loss", "value": 1.0, "better": "lower"}}},
    ],
    ids=str,
)
def test_what_would_change_a_study_that_has_run_is_another_campaign(tmp_path, change):
    claim_folder(Campaign(**GOOD), tmp_path)

    with pytest.raises(ValueError, match=f"{next(iter(change))}: .* there, .* now"):
        claim_folder(Campaign(**GOOD | change), tmp_path)


def test_a_contender_given_by_its_path_has_a_name_without_one(root):
    path = root / "submissions" / "external_tuning" / "sgd"

    campaign = make_campaign({**GOOD, "contenders": [f"{path}+random"]}, "test")

    assert list(campaign.contenders_by_name) == ["sgd+random"]
    with pytest.raises(ValueError, match="names must differ"):
        make_campaign({**GOOD, "contenders": [f"{path}+random", "sgd+random"]}, "test")


def test_a_contender_is_parsed_once(monkeypatch):
    calls = []

    def parse(name):
        calls.append(name)
        return parse_contender(name)

    monkeypatch.setattr("tuning.campaign.parse_contender", parse)
    campaign = make_campaign(GOOD, "test")

    first, second = campaign.contenders_by_name, campaign.contenders_by_name

    assert calls == GOOD["contenders"] == list(first)
    assert first["adamw+random"] is second["adamw+random"]


def test_a_folder_with_runs_of_no_campaign_is_left_alone(tmp_path):
    (tmp_path / "logs").mkdir()

    with pytest.raises(ValueError, match="holds runs of no campaign"):
        claim_folder(Campaign(**GOOD), tmp_path)


def test_a_campaign_may_set_a_target_of_its_own():
    target = {"metric": "validation/loss", "value": 0.5, "better": "lower"}
    own = make_campaign({**GOOD, "targets": {"digits_mlp": target}}, "test")
    workload = get_workload("digits_mlp")

    assert own.targets_on(workload) == (Target("validation/loss", 0.5, "lower"), None)
    frozen = make_campaign(GOOD, "test").targets_on(workload)
    assert frozen == (workload.targets.validation, workload.targets.test)
