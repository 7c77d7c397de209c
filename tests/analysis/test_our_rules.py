"""Every rule on logs of ours, broken in one way each, and identities, ledgers and seeds."""

import json

import pytest

from analysis.checks.rules import RULES
from analysis.logs.competition import read_official_targets
from metaopt.bench import records
from metaopt.bench.measure.seeds import derive_seed
from metaopt.bench.measure.targets import targets_of
from metaopt.bench.records import identity as identities
from tests.analysis.test_validation import (
    BREAKS,
    broken,
    change_rows,
    edit,
    errors,
    findings,
    run,
)

WORKLOAD = "breast_cancer_logistic"
FROZEN = targets_of(WORKLOAD).validation
OURS = "logs/a+halton/study_1/breast_cancer_logistic_jax"


def seeds(workload, study, trial, campaign=1):
    return records.Seeds(
        campaign=campaign,
        trial=derive_seed(campaign, workload, study, "trial", trial),
        tuner=derive_seed(campaign, workload, study, "tuner"),
        fixed_batch=None,
    )


def rows(*points):
    return [
        {
            "global_step": round(at), "gradient_evaluations": at, "phase": "training",
            "accumulated_submission_time": at / 100, "score": at / 100, "train/loss": loss,
            "validation/loss": loss,
        }
        for at, loss in points
    ]  # fmt: skip


def add_trials(b, study, budget=250.0, **changes):
    for contender, late in (("a+halton", 0.01), ("b+halton", 0.02)):
        late += study / 10  # no two trials take equally long
        for trial, reached in [(1, None), (2, 200.0 + late)]:
            points = [(reached, 0.1)] if reached else [(100.0 + late, 0.9), (budget, 0.8)]
            given = {"seeds": seeds(WORKLOAD, study, trial), "target": FROZEN} | changes
            b.trial(contender, WORKLOAD, study, budget, reached, rows=rows(*points), **given)
        b.study(contender, WORKLOAD, study)


@pytest.fixture
def ours(build, tmp_path):
    """A campaign of two contenders, two studies of two trials each, as our runner leaves it."""
    b = build(tmp_path / "out", ["a+halton", "b+halton"], [WORKLOAD], 2, budget=500.0)
    add_trials(b, 1)
    add_trials(b, 2)
    finish(tmp_path / "out")
    return tmp_path / "out"


def finish(out):
    """Write AlgoPerf's files beside every record."""
    for path in out.rglob(records.RUN_FILE):
        record = records.read_trial(path)
        records.write_json(path.with_name("hparams.json"), record.hyperparameters)
        flags = {"tuning_ruleset": "external", "rng_seed": record.seeds.trial}
        records.write_json(path.with_name("flags_0.json"), flags)
        meta = {"cpu_model_name": "abacus", "python_version": "3", "os_platform": "Linux"}
        meta |= {"rng_seed": record.seeds.trial, "workload.max_allowed_runtime_sec": 0.001}
        records.write_json(path.with_name("meta_data_0.json"), meta)


def reseed(out, campaign, paths):
    for path in paths:
        record = records.read_trial(path)
        new = seeds(record.workload, record.study, record.trial, campaign)
        edit(path, seeds=new.model_dump())
    finish(out)


def wrong_seed(out):
    for contender in ("a+halton", "b+halton"):
        path = out / "logs" / contender / "study_1/breast_cancer_logistic_jax/trial_1/run.json"
        edit(path, seeds=json.loads(path.read_text())["seeds"] | {"trial": 5})
    finish(out)


def less_spent(out):
    """One study spends half of its budget; its ledger still adds up."""
    for trial in (1, 2):
        path = out / f"logs/b+halton/study_2/breast_cancer_logistic_jax/trial_{trial}/run.json"
        record = json.loads(path.read_text())
        half = {unit: amount / 2 for unit, amount in record["ledger"]["cost"].items()}
        (segment,) = record["segments"]
        before = {unit: amount / 2 for unit, amount in segment["spent_before"].items()}
        half["steps"], before["steps"] = round(half["steps"]), round(before["steps"])
        edit(path, ledger=record["ledger"] | {"cost": half}, segments=[
            segment | {"spent_before": before, "end": half}
        ])  # fmt: skip
    study = out / "logs/b+halton/study_2/breast_cancer_logistic_jax/study.json"
    spent = json.loads(study.read_text())["spent"]
    edit(study, spent={u: round(a / 2) if u == "steps" else a / 2 for u, a in spent.items()})


def retarget(path):
    edit(path, target={"metric": "validation/loss", "value": 0.11, "better": "lower"})


def edit_environment(out, **changes):
    path = out / OURS / "trial_1" / "run.json"
    edit(path, environment=json.loads(path.read_text())["environment"] | changes)


IDENTITY = {
    "submission": {"s/submission.py": "1", "s/tuning_search_space.json": "1"},
    "modules": {"metaopt/recipes.py": "1"},
    "tuner": {"tuning/tuners/samplers.py": "1"},
    "workload": {"metaopt/workloads/digits_mlp.py": "1"},
    "data": {"easy/train.csv": "1"},
    "targets": {"targets of easy": "1"},
    "settings": {"jax_enable_x64": "False"},
}


def identify(out, pattern="*/study_*", **changes):
    """Give studies an identity, the same for all but for ``part={name: digest}``."""
    identity = {part: {**names, **changes.get(part, {})} for part, names in IDENTITY.items()}
    for study in (out / "logs").glob(f"{pattern}/*/study.json"):
        records.write_json(study.with_name(identities.FILE), identity)
        for path in study.parent.rglob(records.RUN_FILE):
            edit(path, digest=identities.digest_of(identity))


def identify_differently(out, pattern, **changes):
    identify(out)
    identify(out, pattern, **changes)


def begin_after(path, spent):
    """Say that a trial began when its study had spent this much."""
    (segment,) = json.loads(path.read_text())["segments"]
    edit(path, segments=[segment | {"spent_before": spent}])


OUR_BREAKS = {
    "files-run": lambda out: edit(out / OURS / "trial_1" / "run.json", contender="c"),
    "files-study": lambda out: (out / OURS / "study.json").unlink(),
    "files-campaign": lambda out: (out / "campaign.json").unlink(),
    "seeds-derived": wrong_seed,
    "budgets-spent": less_spent,
    "budgets-ledger": lambda out: begin_after(out / OURS / "trial_2" / "run.json", {"steps": 1}),
    "targets-agree": lambda out: retarget(out / OURS / "trial_1" / "run.json"),
    "targets-reached": lambda out: edit(out / OURS / "trial_2" / "run.json", reached=None),
    "environment-commit": lambda out: edit_environment(
        out, git={"commit": "0" * 40, "dirty": True}),
    "environment-commits": lambda out: edit_environment(
        out, git={"commit": "1" * 40, "dirty": False}),
    "environment-machines": lambda out: edit_environment(out, hardware={"cpu": "slide rule"}),
    "environment-data": lambda out: [
        edit(path, data={"whole": False, "files": {"half": "0"}})
        for path in out.rglob("run.json")],
    "pairing-campaign": lambda out: edit(out / OURS / "trial_1" / "run.json", campaign="other"),
    "targets-frozen": lambda out: [retarget(path) for path in out.rglob("run.json")],
    "pairing-seeds": lambda out: reseed(
        out, 2, (out / "logs/b+halton/study_1").rglob("run.json")),
    "pairing-terms": lambda out: edit(out / OURS / "trial_1" / "run.json", step_hint=11),
    "pairing-code": lambda out: edit(out / OURS / "trial_1" / "run.json", digest="1"),
    "pairing-workload": lambda out: identify_differently(
        out, "b+halton/*", data={"easy/train.csv": "2"}),
    "pairing-kit": lambda out: identify_differently(
        out, "b+halton/*", modules={"metaopt/recipes.py": "2"}),
}  # fmt: skip
# One change breaks two rules.
WITH = {"files-run": {"files-study"}, "targets-agree": {"targets-frozen"}}
STRICTER = {
    "environment-commit", "environment-data", "environment-machines", "pairing-campaign",
    "targets-frozen",
}  # fmt: skip


def test_good_logs_of_ours_break_no_rule(ours, tmp_path, pack):
    assert broken(ours) == set()
    assert broken(pack(ours, tmp_path / "out.tar.xz")) == set()


@pytest.mark.parametrize("rule", OUR_BREAKS)
def test_logs_of_ours_that_are_broken_in_one_way_break_that_rule(ours, rule):
    OUR_BREAKS[rule](ours)

    found = {rule} | WITH.get(rule, set())
    assert broken(ours) == found
    assert errors(ours, strict=True) == errors(ours) | (found & STRICTER)
    assert not errors(ours) & STRICTER


@pytest.mark.parametrize("part", ["submission", "modules", "tuner"])
def test_a_contender_whose_studies_ran_with_two_versions_of_a_file_is_an_error(ours, part):
    name = next(iter(IDENTITY[part]))
    identify_differently(ours, "a+halton/study_2", **{part: {name: "2"}})

    first, *others = findings(ours)

    assert (first.rule, first.severity) == ("pairing-code", "error")
    assert (
        first.what
        == f"another {name} than logs/a+halton/study_1/breast_cancer_logistic_jax/trial_1"
    )
    assert first.where == "logs/a+halton/study_2/breast_cancer_logistic_jax/trial_1"
    assert {(f.rule, f.severity) for f in others} == {("pairing-kit", "note")}


@pytest.mark.parametrize("part", ["workload", "data", "targets", "settings"])
def test_contenders_on_two_versions_of_a_workload_are_an_error(ours, part):
    name = next(iter(IDENTITY[part]))
    identify_differently(ours, "b+halton/*", **{part: {name: "2"}})

    (found,) = findings(ours)

    assert (found.rule, found.severity) == ("pairing-workload", "error")
    assert (
        found.what
        == f"another {name} than logs/a+halton/study_1/breast_cancer_logistic_jax/trial_1"
    )


def test_one_identity_breaks_no_rule(ours, tmp_path, pack):
    identify(ours)

    assert broken(ours) == set()
    assert broken(pack(ours, tmp_path / "out.tar")) == set()


def test_records_of_another_identity_than_their_study_are_found(ours):
    identify(ours)
    records.write_json(ours / OURS / identities.FILE, IDENTITY | {"data": {}})

    assert "pairing-code" in broken(ours)
    (ours / OURS / identities.FILE).write_text('{"data": 1}')
    assert "files-study" in broken(ours)


def test_contenders_of_campaigns_with_different_seeds_are_not_paired(ours):
    (ours / "logs/b+halton/study_1").rename(ours / "logs/b+halton/study_3")
    for path in (ours / "logs/b+halton/study_3").rglob("run.json"):
        new = seeds(WORKLOAD, 3, int(path.parent.name[-1]), campaign=2)
        edit(path, study=3, seeds=new.model_dump())

    assert "pairing-seeds" in broken(ours)


def pause(out, gap=0):
    """Let the first trial of a study pause half-way, while the second has its turn."""
    first, second = (out / OURS / f"trial_{number}" / "run.json" for number in (1, 2))
    nothing, whole = ({u: x * c for u, c in cost_of(first).items()} for x in (0, 1))
    half = {unit: amount // 2 for unit, amount in whole.items()}
    later = {unit: half[unit] + amount for unit, amount in cost_of(second).items()}
    segment = {"rung": None, "evaluations": 1}
    edit(first, segments=[
        {**segment, "spent_before": nothing, "start": nothing, "end": half},
        {**segment, "spent_before": {u: a + gap for u, a in later.items()}, "start": half,
         "end": whole},
    ])  # fmt: skip
    begin_after(second, half)


def cost_of(path):
    return json.loads(path.read_text())["ledger"]["cost"]


def test_a_ledger_adds_up_in_the_order_in_which_segments_of_trials_ran(ours):
    pause(ours)

    assert "budgets-ledger" not in broken(ours)


def test_a_gap_between_the_segments_of_a_trial_is_found(ours):
    pause(ours, gap=1)

    assert "budgets-ledger" in broken(ours)


def test_a_trial_that_failed_before_its_first_evaluation_is_no_error(ours):
    edit(ours / OURS / "trial_1" / "run.json", status="crashed", error="boom", cause="boom")
    (ours / OURS / "trial_1" / records.EVAL_FILE).unlink()

    assert broken(ours) == set()


@pytest.mark.parametrize("text", ["{}", "{", '{"schema_version": 9}'])
def test_a_record_that_is_none_breaks_nothing_else(ours, text):
    (ours / OURS / "trial_2" / "run.json").write_text(text)

    assert broken(ours) == {"files-run", "files-study"}


def test_every_rule_is_tested_and_has_its_own_id():
    # Those without an entry above have a test of their own.
    alone = {"files-outside", "files-twice", "files-unreadable", "targets-known", "accept-unused"}
    ids = [rule.id for rule in RULES]

    assert len(set(ids)) == len(ids)
    assert {*BREAKS, *OUR_BREAKS, *alone} == set(ids)


@pytest.mark.parametrize("option", ["--ruleset", "--studies", "--trials", "--budget-factor"])
def test_options_of_algoperfs_rules_are_refused_for_logs_of_ours(ours, capsys, option):
    assert run(ours, option, "external" if option == "--ruleset" else 2) == 2

    assert option in capsys.readouterr().err


def test_a_targets_file_is_compared_with_logs_of_ours(ours, tmp_path, official):
    targets = official(ours).targets(tmp_path / "t.json")
    document = json.loads(targets.read_text())
    target = {"target_metric_name": "loss", "validation_target_value": 0.2}
    edit(targets, workloads=document["workloads"] | {WORKLOAD: target})

    found = findings(ours, targets=read_official_targets(targets))

    assert {finding.rule for finding in found} == {"targets-agree"}
    assert f"{FROZEN.value:g} of version 2 (8 trials), validation/loss 0.2 " in found[0].what
    target["validation_target_value"] = FROZEN.value
    edit(targets, workloads=document["workloads"] | {WORKLOAD: target})
    assert findings(ours, targets=read_official_targets(targets)) == []


def test_a_wall_clock_of_ours_may_exceed_the_sum_for_audits_are_not_timed(ours):
    def set_clocks(rows, total):
        for row in rows:
            clocks = {"accumulated_eval_time": 0.0, "accumulated_logging_time": 0.0}
            row |= clocks | {"preemption_count": 0, "total_duration": total}

    change_rows(ours / OURS / "trial_1", lambda rows: set_clocks(rows, 1000.0))
    assert broken(ours) == set()

    change_rows(ours / OURS / "trial_1", lambda rows: set_clocks(rows, 0.1))
    assert broken(ours) == {"clocks-sum"}
