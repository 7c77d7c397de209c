"""Warnings say what decides a table: every kind of them on hand-made logs, ours and AlgoPerf's."""

import json
import os
import shutil
from pathlib import Path

import pytest

from analysis.checks.fairness import find_failures, warnings_of
from analysis.logs.competition import Competition, read_official_targets
from analysis.logs.reader import read_logs
from metaopt.bench import records
from metaopt.bench.records.audit import AuditFinding, AuditRecord


def entries(logs, title, rules="strict"):
    """Return the entries of the warning whose title has these words; nothing without one."""
    found = [warning for warning in warnings_of(logs, rules) if title in warning.title]
    return found[0].entries if found else ()


def broken(logs):
    return {(one.contender, one.workload) for one in find_failures(logs) if one.is_broken}


# Ours.


def audited(out, contender, *findings):
    record = AuditRecord(
        campaign="made", contender=contender, workload="w", study=1, trial=1, position=0.5,
        seconds=1.0, findings=findings,
    )  # fmt: skip
    folder = records.trial_directory(out / "logs", contender, 1, "w", 1)
    records.write_json(folder / "audit.json", record)


@pytest.fixture
def troubled(build, tmp_path):
    """A campaign in which each contender has a trouble of its own."""
    b = build(tmp_path, ["bad", "cheat", "fine", "late", "still"], ["w"], 1)
    why = "the workload reports no 'validation/perplexity'"
    for _ in range(2):
        b.trial("bad", "w", 1, 500.0, status="invalid", cause=why)
    b.trial("cheat", "w", 1, 1000.0, reached=10.0)
    b.trial("fine", "w", 1, 500.0, reached=500.0)
    b.trial("fine", "w", 1, 500.0, status="diverged", cause="the loss is NaN")
    b.trial("still", "w", 1, 0.0, status="crashed", cause="NameError: x")
    for contender in ("bad", "cheat", "fine", "still"):
        b.study(contender, "w", 1, ended="failures" if contender == "still" else "budget")
    cheated = AuditFinding(audit="passes", failed=True, what="100 declared, 900 counted.")
    noted = AuditFinding(audit="passes", failed=False, what="100 declared, 130 counted.")
    audited(tmp_path, "cheat", cheated)
    audited(tmp_path, "fine", noted)
    return tmp_path


def test_failures_and_gaps_come_first_with_their_cause(troubled):
    logs = read_logs(troubled)

    found = warnings_of(logs)

    assert [(warning.title.split(",")[0], *warning.entries) for warning in found[:4]] == [
        ("Never took a step", "still on w: 1 of 1 trial crashed, without a step: NameError: x"),
        ("Every trial failed", "bad on w: 2 of 2 trials invalid: the workload reports no "
         "'validation/perplexity'"),
        ("Audit failed", "cheat on w: 100 declared, 900 counted"),
        ("Missing studies", "late on w, study 1"),
    ]  # fmt: skip
    serious = [warning.serious for warning in found]
    assert serious == sorted(serious, reverse=True)
    assert broken(logs) == {("bad", "w"), ("still", "w")}


def test_the_other_troubles_of_ours_are_warnings_too(troubled):
    logs = read_logs(troubled)

    assert entries(logs, "Failed trials") == ("fine on w: 1 of 2 trials diverged: the loss is NaN",)
    assert entries(logs, "Noted by audits") == ("fine on w: 100 declared, 130 counted",)
    assert entries(logs, "Not audited") == ("bad on w", "still on w")
    assert entries(logs, "Ended before")[0].startswith("still: its trials cost nothing in 1 of 1")
    assert entries(logs, "Ties", "algoperf") == ()


def test_a_sound_campaign_has_no_warning(build, tmp_path):
    b = build(tmp_path, ["a"], ["w"], 1)
    b.whole_study("a", "w", 1, [None, 10.0, None, None])

    assert warnings_of(read_logs(tmp_path)) == []


# AlgoPerf's.


def read(root, **rules):
    rules = {"studies": 2, "trials": 2} | rules
    return read_logs(root, competition=Competition(**rules))


def edit_meta(folder, **changes):
    path = folder / "meta_data_0.json"
    document = json.loads(path.read_text()) | changes
    records.write_json(path, {k: v for k, v in document.items() if v is not None})


def crash(root, pattern):
    for path in root.glob(f"{pattern}/{records.EVAL_FILE}"):
        path.unlink()


def test_sound_logs_of_algoperf_have_no_warning(good):
    assert warnings_of(read(good)) == []


def test_missing_trials_studies_and_workloads_are_named(good, tmp_path, official):
    shutil.rmtree(good / "fast/study_1/easy_jax/trial_2")
    shutil.rmtree(good / "fast/study_2/hard_jax")
    for study in (1, 2):
        shutil.rmtree(good / f"slow/study_{study}/hard_jax")
    path = official(good).targets(tmp_path / "t.json")
    document = json.loads(path.read_text())
    document["base_workloads"].append("third")
    document["workloads"]["third"] = document["workloads"]["easy"]
    records.write_json(path, document)

    logs = read(good, targets=read_official_targets(path))

    assert entries(logs, "Missing studies") == (
        "slow on hard: none of 2 studies", "fast on hard: 1 of 2 studies"
    )  # fmt: skip
    (trials,) = entries(logs, "Missing trials")
    assert trials.startswith("fast on easy, study 1: ")
    assert entries(logs, "without logs") == ("third, which gives no score",)


def test_a_submission_is_broken_if_none_of_its_trials_has_an_evaluation(good):
    crash(good, "slow/*/hard_jax/*")
    assert broken(read(good)) == set()
    assert entries(read(good), "Failed trials") == (
        "slow on hard: 4 of 4 trials crashed, without a step: no evaluations",
    )

    crash(good, "slow/*/*/*")
    assert broken(read(good)) == {("slow", "easy"), ("slow", "hard")}
    assert len(entries(read(good), "Never took a step")) == 2


def test_trials_that_broke_off_are_counted_by_submission_and_workload(official, tmp_path):
    b = official(tmp_path)
    for study in (1, 2):
        b.trial("s", study, "easy", 1, [(0.9, 89.0)])  # of 100: broke off
        b.trial("s", study, "easy", 2, [(0.9, 90.0 + study)])

    assert entries(read(tmp_path), "broke off") == ("s on easy: 2 of 4 trials broke off",)


def test_of_two_step_hints_a_trial_needs_the_smaller(official, tmp_path):
    b = official(tmp_path)
    for trial, steps in ((1, 10), (2, 100)):  # the last step is 11
        folder = b.trial("s", 1, "easy", trial, [(0.9, 10.0), (0.9, 20.0)])
        for name, hints in (
            ("flags_0.json", {"max_global_steps": steps}),
            ("meta_data_0.json", {"workload.step_hint": 110 - steps}),
        ):
            document = json.loads((folder / name).read_text())
            records.write_json(folder / name, document | hints)

    b.trial("s", 1, "easy", 3, [(0.9, 10.0), (0.9, 20.0)])  # no hint, and 20 s of 100
    assert entries(read(tmp_path), "broke off") == ("s on easy: 1 of 3 trials broke off",)


def test_extra_trials_and_studies_do_not_count(good):
    logs = read(good, studies=1, trials=1)

    found = entries(logs, "do not count")

    assert "fast on easy: the last 1 of 2 studies" in found
    assert "slow on hard: 2 of 4 trials are beyond the ruleset's" in found
    assert len(found) == 8


def test_fewer_trials_than_the_ruleset_has_are_said_without_a_targets_file(good):
    logs = read_logs(good)  # external tuning has 5

    assert entries(logs, "Fewer trials") == ("fast: 2 of 5", "slow: 2 of 5")


def test_ties_are_said_under_the_rules_that_they_decide(good):
    logs = read(good)  # all hits are in the second row

    assert len(entries(logs, "Ties", "algoperf")) == 8
    assert entries(logs, "Ties") == ()


def test_unknown_budgets_and_differing_targets_are_said(good):
    edit_meta(good / "fast/study_1/easy_jax/trial_1", **{"workload.max_allowed_runtime_sec": None})
    edit_meta(good / "fast/study_1/easy_jax/trial_2", **{"workload.validation_target_value": 0.6})

    logs = read(good)

    assert entries(logs, "Unknown budgets") == ("fast on easy: 1 of 4 trials have no budget",)
    (target,) = entries(logs, "Not comparable")
    assert target.startswith("easy: ")
    assert "0.6 (1 trial)" in target


@pytest.mark.parametrize("ruleset, factor, is_told", [
    ("self", None, True), ("self", 3.0, False), ("external", None, False),
])  # fmt: skip
def test_an_assumed_version_is_told_where_it_decides(tmp_path, official, ruleset, factor, is_told):
    logs = official(tmp_path)
    logs.trial("s", 1, "easy", 1, [(0.9, 1.0), (0.4, 2.0)], ruleset=ruleset)

    (*told,) = entries(read_logs(tmp_path, None, Competition(budget_factor=factor)), "version")

    assert bool(told) == is_told
    assert all("1.5 times the external time, as in v0.6" in sentence for sentence in told)


def test_the_competitions_warnings():
    folder = os.environ.get("METAOPT_ALGOPERF_LOGS")
    if not folder:
        pytest.skip("METAOPT_ALGOPERF_LOGS is not set")
    targets = read_official_targets(Path(folder) / "workload_targets_v05.json")

    logs = read_logs(
        Path(folder) / "v05_logs.tar.xz", "algoperf_v05/logs/self_tuning", Competition(targets)
    )

    assert broken(logs) == set()
    assert entries(logs, "Missing studies") == (
        "adamg on librispeech_conformer_layernorm: 4 of 5 studies",
    )
    assert entries(logs, "broke off") == tuple(
        f"adamg on {workload}: 5 of 5 trials broke off"
        for workload in ("criteo1tb", "criteo1tb_embed_init", "librispeech_conformer")
    )
    assert len(entries(logs, "Failed trials")) == 4
