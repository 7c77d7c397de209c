"""Every rule on logs, broken in one way each; over 400 lines: a way for each of sixty rules."""

# Good logs break no rule, and logs that are broken in one way break exactly that rule.

import json
import os
import tarfile

import pytest

from analysis.checks.rules import RULES
from analysis.checks.validation import read_for_checks, rule_of, validate
from analysis.cli import app
from analysis.command_line import run_app
from analysis.logs.competition import Competition, read_official_targets
from metaopt.bench import records
from metaopt.bench.measure.seeds import derive_seed
from metaopt.bench.measure.targets import Target, targets_of
from metaopt.bench.records import identity as identities
from metaopt.bench.records.findings import Finding

FIRST = "fast/study_1/easy_jax/trial_1"
SECOND = "fast/study_1/easy_jax/trial_2"


def findings(path, strict=False, **rules):
    return validate(read_for_checks(path, competition=Competition(**rules)), strict=strict)


def broken(path, **rules):
    return {finding.rule for finding in findings(path, **rules)}


def errors(path, **options):
    return {finding.rule for finding in findings(path, **options) if finding.severity == "error"}


GONE = object()


def edit(path, **changes):
    """Change entries of a JSON file, or take them away."""
    document = json.loads(path.read_text()) | changes
    records.write_json(path, {k: v for k, v in document.items() if v is not GONE})


def change_rows(trial, change):
    """Apply ``change`` to the rows of a trial's evaluations."""
    path = trial / records.EVAL_FILE
    rows = records.read_evaluations(path)
    change(rows)
    records.write_evaluations(path, rows)


def append(path, text):
    with path.open("a") as file:
        file.write(text)


def set_value(row, column, value):
    return lambda rows: rows[row].__setitem__(column, value)


def drop_column(name):
    return lambda rows: [row.pop(name) for row in rows]


def late_hit(root):
    change_rows(root / FIRST, lambda rows: [row.update(
        accumulated_submission_time=101.0, score=101.0, total_duration=103.1
    ) for row in rows[1:]])  # fmt: skip


def late_evaluation(root):
    change_rows(root / FIRST, lambda rows: rows.append(
        rows[-1] | {"global_step": 99, "accumulated_submission_time": 101.0, "score": 101.0,
                    "total_duration": 103.1}
    ))  # fmt: skip


def slower(trial, seconds=0.5):
    clocks = "accumulated_submission_time", "score", "total_duration"
    change_rows(trial, lambda rows: [
        row.update({clock: row[clock] + seconds for clock in clocks}) for row in rows
    ])  # fmt: skip


def break_off(root):
    change_rows(root / FIRST, drop_rows(1))


def drop_rows(kept):
    def drop(rows):
        del rows[kept:]

    return drop


def evaluations(root, trial=FIRST):
    return root / trial / records.EVAL_FILE


def rewrite(path, old, new):
    path.write_text(path.read_text().replace(old, new))


def unlink_all(root, study):
    for path in sorted((root / study).rglob("*"), reverse=True):
        path.unlink() if path.is_file() else path.rmdir()
    (root / study).rmdir()


def other_framework(root):
    jax = root / "fast" / "study_1" / "easy_jax"
    for study in ("study_1", "study_2"):
        jax = root / "fast" / study / "easy_jax"
        torch = jax.with_name("easy_pytorch")
        torch.mkdir()
        for trial in ("trial_1", "trial_2"):
            (torch / trial).mkdir()
            for file in (jax / trial).iterdir():
                (torch / trial / file.name).write_bytes(file.read_bytes())
            seed = int(study[-1]) * 1000 + int(trial[-1])
            for name in ("flags_0.json", "meta_data_0.json"):
                edit(torch / trial / name, rng_seed=seed)
            slower(torch / trial)


BREAKS = {
    "files-stray": lambda root: (root / "fast" / "study_1" / "trial_1").mkdir(),
    "files-links": lambda root: (root / FIRST / "hparams.json.old").symlink_to("/etc/passwd"),
    "files-size": lambda root: os.truncate(evaluations(root), 2**27),
    "files-evaluations": lambda root: evaluations(root).unlink(),
    "files-hparams": lambda root: (root / FIRST / "hparams.json").unlink(),
    "files-flags": lambda root: (root / FIRST / "flags_0.json").unlink(),
    "files-meta": lambda root: (root / FIRST / "meta_data_0.json").unlink(),
    "columns-needed": lambda root: change_rows(root / FIRST, drop_column("score")),
    "columns-metric": lambda root: change_rows(root / FIRST, drop_column("validation/loss")),
    "columns-repeated": lambda root: rewrite(
        evaluations(root), "validation/num_examples", "test/loss"
    ),
    "types-csv": lambda root: evaluations(root).write_text('"' + "1" * 200_000 + "\n"),
    "types-rows": lambda root: append(evaluations(root), "9.0,0.3,20.0,21,0,20.0,1,90,1,1,7,7\n"),
    "types-numbers": lambda root: change_rows(root / FIRST, set_value(1, "train/loss", "=1+1")),
    "types-json": lambda root: (root / FIRST / "flags_0.json").write_text("{"),
    "types-finite": lambda root: change_rows(
        root / FIRST, set_value(1, "test/loss", float("nan"))
    ),
    "types-hparams": lambda root: edit(root / FIRST / "hparams.json", **{"learning rate": 1}),
    "clocks-numbers": lambda root: change_rows(root / FIRST, set_value(0, "total_duration", -1.0)),
    "clocks-back": lambda root: change_rows(
        root / FIRST, set_value(0, "accumulated_logging_time", 0.2)
    ),
    "clocks-steps": lambda root: change_rows(root / FIRST, set_value(1, "global_step", 1)),
    "clocks-score": lambda root: change_rows(root / FIRST, set_value(1, "score", 9.0)),
    "clocks-sum": lambda root: change_rows(root / FIRST, set_value(1, "total_duration", 50.0)),
    "trials-repeated": lambda root: (evaluations(root, SECOND)).write_bytes(
        evaluations(root).read_bytes()),
    "trials-broke-off": break_off,
    "clocks-preempted": lambda root: change_rows(root / FIRST, lambda rows: rows[1].update(
        preemption_count=1, total_duration=0.1)),
    "seeds-known": lambda root: [edit(root / FIRST / f"{name}_0.json", rng_seed=GONE)
                                 for name in ("flags", "meta_data")],
    "seeds-agree": lambda root: edit(root / FIRST / "flags_0.json", rng_seed=77),
    "seeds-reused": lambda root: [edit(root / SECOND / f"{name}_0.json", rng_seed=1)
                                  for name in ("flags", "meta_data")],
    "budgets-hit": None,  # below: it breaks another rule as well, which is a note
    "budgets-time": late_evaluation,
    "budgets-equal": lambda root: edit(root / FIRST / "meta_data_0.json",
                                       **{"workload.max_allowed_runtime_sec": 101}),
    "budgets-studies": lambda root: unlink_all(root, "slow/study_2/hard_jax"),
    "budgets-trials": lambda root: unlink_all(root, "slow/study_2/hard_jax/trial_1"),
    "targets-agree": lambda root: edit(root / FIRST / "meta_data_0.json",
                                       **{"workload.validation_target_value": 0.6}),
    "environment-known": lambda root: edit(root / FIRST / "meta_data_0.json", os_platform=GONE),
    "environment-hardware": lambda root: edit(root / FIRST / "meta_data_0.json",
                                              gpu_model_name="more beads"),
    "environment-software": lambda root: edit(root / FIRST / "meta_data_0.json", gpu_driver="2"),
    "pairing-frameworks": other_framework,
}  # fmt: skip


def test_good_official_logs_break_no_rule(good):
    assert broken(good) == set()


def test_self_tuning_logs_break_no_rule(tmp_path, official):
    logs = official(tmp_path / "logs")
    for study in (1, 2, 3):
        logs.trial("s", study, "easy", 1, [(0.9, study), (0.4, 140.0)], ruleset="self")

    assert broken(logs.root) == set()


@pytest.mark.parametrize("rule", [rule for rule, break_it in BREAKS.items() if break_it])
def test_logs_that_are_broken_in_one_way_break_that_rule(good, rule):
    BREAKS[rule](good)

    assert broken(good) == {rule}
    assert errors(good, strict=True) == errors(good)


def test_a_hit_beyond_the_budget_is_an_error_and_its_evaluation_a_note(good):
    late_hit(good)

    found = findings(good)

    assert [(f.rule, f.severity) for f in found] == [
        ("budgets-hit", "error"), ("budgets-time", "note")
    ]  # fmt: skip
    assert found[0].what == "meets its target after 101 s, its budget is 100"


def test_a_workload_that_the_targets_do_not_have(good, tmp_path, official):
    targets = official(good).targets(tmp_path / "t.json", base_workloads=["easy"])
    edit(targets, workloads={"easy": json.loads(targets.read_text())["workloads"]["easy"]})

    found = broken(good, targets=read_official_targets(targets), studies=2, trials=2)

    assert found == {"targets-known"}


def test_members_of_a_tar_that_lead_out_or_come_twice(good, tmp_path, pack):
    outside = pack(good, tmp_path / "outside.tar", "w")
    twice = pack(good, tmp_path / "twice.tar", "w")
    with tarfile.open(outside, "a") as tar:
        tar.add(good / FIRST / "hparams.json", "logs/../../hparams.json")
    with tarfile.open(twice, "a") as tar:
        tar.add(good / FIRST / "hparams.json", f"logs/{FIRST}/hparams.json")

    assert broken(outside) == {"files-outside"}
    assert broken(twice) == {"files-twice"}


def test_a_folder_that_cannot_be_listed(good, monkeypatch):
    scandir = os.scandir

    def refuse(path):
        if str(path).endswith("hard_jax"):
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)

    assert broken(good) == {"files-unreadable"}


# Logs of ours.
WORKLOAD = "breast_cancer_logistic"
FROZEN = targets_of(WORKLOAD).validation
OURS = "logs/a+random/study_1/breast_cancer_logistic_jax"


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
    target = Target(metric=FROZEN.metric, value=FROZEN.value, better=FROZEN.better)
    for contender, late in (("a+random", 0.01), ("b+random", 0.02)):
        late += study / 10  # no two trials take equally long
        for trial, reached in [(1, None), (2, 200.0 + late)]:
            points = [(reached, 0.1)] if reached else [(100.0 + late, 0.9), (budget, 0.8)]
            given = {"seeds": seeds(WORKLOAD, study, trial), "target": target} | changes
            b.trial(contender, WORKLOAD, study, budget, reached, rows=rows(*points), **given)
        b.study(contender, WORKLOAD, study)


@pytest.fixture
def ours(build, tmp_path):
    """A campaign of two contenders, two studies of two trials each, as our runner leaves it."""
    b = build(tmp_path / "out", ["a+random", "b+random"], [WORKLOAD], 2, budget=500.0)
    add_trials(b, 1)
    add_trials(b, 2)
    finish(tmp_path / "out")
    return tmp_path / "out"


def finish(out):
    """Write AlgoPerf's files beside every record."""
    for run in out.rglob(records.RUN_FILE):
        record = records.read_trial(run)
        records.write_json(run.with_name("hparams.json"), record.hyperparameters)
        flags = {"tuning_ruleset": "external", "rng_seed": record.seeds.trial}
        records.write_json(run.with_name("flags_0.json"), flags)
        meta = {"cpu_model_name": "abacus", "python_version": "3", "os_platform": "Linux"}
        meta |= {"rng_seed": record.seeds.trial, "workload.max_allowed_runtime_sec": 0.001}
        records.write_json(run.with_name("meta_data_0.json"), meta)


def reseed(out, campaign, paths):
    for path in paths:
        record = records.read_trial(path)
        new = seeds(record.workload, record.study, record.trial, campaign)
        edit(path, seeds=new.model_dump())
    finish(out)


def wrong_seed(out):
    for contender in ("a+random", "b+random"):
        path = out / "logs" / contender / "study_1/breast_cancer_logistic_jax/trial_1/run.json"
        edit(path, seeds=json.loads(path.read_text())["seeds"] | {"trial": 5})
    finish(out)


def less_spent(out):
    """One study spends half of its budget; its ledger still adds up."""
    for trial in (1, 2):
        path = out / f"logs/b+random/study_2/breast_cancer_logistic_jax/trial_{trial}/run.json"
        record = json.loads(path.read_text())
        half = {unit: amount / 2 for unit, amount in record["ledger"]["cost"].items()}
        (segment,) = record["segments"]
        before = {unit: amount / 2 for unit, amount in segment["spent_before"].items()}
        half["steps"], before["steps"] = round(half["steps"]), round(before["steps"])
        edit(path, ledger=record["ledger"] | {"cost": half}, segments=[
            segment | {"spent_before": before, "end": half}
        ])  # fmt: skip
    study = out / "logs/b+random/study_2/breast_cancer_logistic_jax/study.json"
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
        for run in study.parent.rglob(records.RUN_FILE):
            edit(run, digest=identities.digest_of(identity))


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
        out, 2, (out / "logs/b+random/study_1").rglob("run.json")),
    "pairing-terms": lambda out: edit(out / OURS / "trial_1" / "run.json", step_hint=11),
    "pairing-code": lambda out: edit(out / OURS / "trial_1" / "run.json", digest="1"),
    "pairing-workload": lambda out: identify_differently(
        out, "b+random/*", data={"easy/train.csv": "2"}),
    "pairing-kit": lambda out: identify_differently(
        out, "b+random/*", modules={"metaopt/recipes.py": "2"}),
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
    identify_differently(ours, "a+random/study_2", **{part: {name: "2"}})

    first, *others = findings(ours)

    assert (first.rule, first.severity) == ("pairing-code", "error")
    assert (
        first.what
        == f"another {name} than logs/a+random/study_1/breast_cancer_logistic_jax/trial_1"
    )
    assert first.where == "logs/a+random/study_2/breast_cancer_logistic_jax/trial_1"
    assert {(f.rule, f.severity) for f in others} == {("pairing-kit", "note")}


@pytest.mark.parametrize("part", ["workload", "data", "targets", "settings"])
def test_contenders_on_two_versions_of_a_workload_are_an_error(ours, part):
    name = next(iter(IDENTITY[part]))
    identify_differently(ours, "b+random/*", **{part: {name: "2"}})

    (found,) = findings(ours)

    assert (found.rule, found.severity) == ("pairing-workload", "error")
    assert (
        found.what
        == f"another {name} than logs/a+random/study_1/breast_cancer_logistic_jax/trial_1"
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
    (ours / "logs/b+random/study_1").rename(ours / "logs/b+random/study_3")
    for path in (ours / "logs/b+random/study_3").rglob("run.json"):
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
    edit(ours / OURS / "trial_1" / "run.json", status="crashed", error="boom")
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


def test_the_rules_print_as_a_markdown_table(capsys):
    assert run("--rules", "--format", "markdown") == 0

    table = capsys.readouterr().out
    assert table.count("\n") == len(RULES) + 2
    assert all(f"| {rule.id} |" in table for rule in RULES)


def test_names_are_text_and_findings_plain_data(good):
    (good / "fast" / "study_1" / "\x1b[31m=cmd").mkdir()

    (finding,) = findings(good)

    assert finding == Finding(
        "files-stray", "error", "not <workload>_<framework>", "fast/study_1/\x1b[31m=cmd",
        rule_of("files-stray").fix,
    )  # fmt: skip


def test_an_unknown_rule_is_refused_with_those_there_are():
    with pytest.raises(ValueError, match=r"No rule 'x', only \['files-stray',"):
        rule_of("x")


def run(*arguments):
    return run_app(app, "analysis", ["validate", *map(str, arguments)])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--rules", "LOGS"), "--rules"),
        (("--explain", "types-rows", "--all"), "--explain"),
        (("--explain", "types-rows", "--rules"), "Choose one"),
        (("--rules", "--format", "csv"), "--format"),
        (("LOGS", "--all", "--format", "json"), "--all"),
        ((), "logs"),
    ],
)
def test_options_that_do_nothing_are_refused(good, capsys, arguments, message):
    assert run(*(str(good) if part == "LOGS" else part for part in arguments)) == 2

    assert message in capsys.readouterr().err


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
    assert "0.115276 (8 trials), validation/loss 0.2 (file)" in found[0].what


def test_rows_that_were_cut_break_no_rule_on_clocks_or_metrics(good):
    lines = evaluations(good).read_text().splitlines()
    lines[1] = lines[1][:9]
    evaluations(good).write_text("\n".join(lines) + "\n")

    assert broken(good) == {"types-rows"}


@pytest.mark.parametrize(
    ("total", "is_wrong"), [(12.1, False), (11.2, False), (10.9, True), (23.0, False), (24.0, True)]
)
def test_the_wall_clock_is_between_the_sum_and_a_tenth_more(good, total, is_wrong):
    # The others sum to 12.1: 1 s less is allowed, and a tenth and 10 s more.
    change_rows(good / FIRST, set_value(1, "total_duration", total))

    assert broken(good) == ({"clocks-sum"} if is_wrong else set())


def test_a_wall_clock_of_ours_may_exceed_the_sum_for_audits_are_not_timed(ours):
    def set_clocks(rows, total):
        for row in rows:
            clocks = {"accumulated_eval_time": 0.0, "accumulated_logging_time": 0.0}
            row |= clocks | {"preemption_count": 0, "total_duration": total}

    change_rows(ours / OURS / "trial_1", lambda rows: set_clocks(rows, 1000.0))
    assert broken(ours) == set()

    change_rows(ours / OURS / "trial_1", lambda rows: set_clocks(rows, 0.1))
    assert broken(ours) == {"clocks-sum"}


def test_two_folders_of_one_trial_are_found(good):
    copied = good / "fast-2024-01-01-00-00-00" / "study_1" / "easy_jax"
    copied.mkdir(parents=True)
    (good / FIRST).rename(copied / "trial_1")
    (good / SECOND).rename(copied / "trial_2")
    (good / SECOND).mkdir()
    for file in (copied / "trial_2").iterdir():
        (good / SECOND / file.name).write_bytes(file.read_bytes())

    found = {f.where: f.what for f in findings(good) if f.rule == "trials-repeated"}

    assert found.keys() == {SECOND}
    assert "study and trial as fast-2024-01-01-00-00-00/study_1/easy_jax/trial_2" in found[SECOND]
