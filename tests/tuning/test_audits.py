"""One trial of each contender on each workload is audited, and the terminal says what was found."""

import dataclasses

import pytest

from analysis.commands.score_command import print_scores
from analysis.logs.audits import audit_summary, read_audits
from analysis.logs.reader import read_logs
from analysis.scoring.scores import score_logs
from metaopt.bench import records
from metaopt.bench.records.audit import AUDIT_FILE, AuditFinding, AuditRecord
from tuning.campaign import make_campaign
from tuning.campaign_folder import choose_audited
from tuning.executor import run_campaign
from tuning.studies import StudyKey, list_studies
from tuning.study import run_study


@pytest.mark.parametrize("tuner", ["none", "asha", "grid"])
def test_the_trial_that_covers_the_position_is_audited_and_no_other(
    tmp_path, make_fake_study, clock, tuner, read_trials
):
    run_study(make_fake_study(tuner, clock), tmp_path / "plain", clock=clock)
    plan = dataclasses.replace(make_fake_study(tuner, clock), audited=True)

    study = run_study(plan, tmp_path / "audited", clock=clock)

    (audit,) = read_audits(tmp_path / "audited")
    position = audit.position * study.budget.study
    covered = [
        trial.trial
        for trial in read_trials(tmp_path / "audited")
        for ran in trial.segments
        if ran.spent_before.steps <= position <= ran.spent_before.steps + ran.cost.steps
    ]
    ended_before = position > study.spent.steps
    assert audit.trial in covered or ended_before
    costs = [[t.ledger.cost for t in read_trials(tmp_path / f)] for f in ("plain", "audited")]
    assert costs[0] == costs[1]


def test_a_study_that_is_not_picked_has_no_audit(tmp_path, make_fake_study, clock):
    run_study(make_fake_study("none", clock), tmp_path, clock=clock)

    assert read_audits(tmp_path) == []


def test_one_unfinished_study_is_picked_of_each_pair_that_has_no_audit(tmp_path):
    studies = [
        StudyKey(contender, workload, study)
        for contender in "ab" for workload in ("x", "y") for study in (1, 2, 3)
    ]  # fmt: skip
    audited, finished = StudyKey("a", "x", 2), StudyKey("b", "y", 1)
    records.write_text(audited.folder(tmp_path) / "trial_4" / AUDIT_FILE, "{}")
    records.write_text(finished.folder(tmp_path) / records.STUDY_FILE, "{}")

    seen = set()
    for _ in range(60):
        picked = choose_audited(studies, tmp_path)
        assert sorted((key.contender, key.workload) for key in picked) == [
            ("a", "y"), ("b", "x"), ("b", "y"),
        ]  # fmt: skip
        seen |= picked

    assert seen == {k for k in studies if (k.contender, k.workload) != ("a", "x")} - {finished}


CHEAT = '''
"""Declares a new episode every 25 steps and never starts afresh."""

import optax

from metaopt.bench.contract import kit

_baseline = kit.Baseline(lambda step_hint: optax.adam(1e-2), {})
get_batch_size, data_selection = kit.get_batch_size, kit.data_selection
init_optimizer_state, update_params = _baseline.init_optimizer_state, _baseline.update_params


def report(optimizer_state):
    spent = optimizer_state[0].gradient_evaluations
    return {"gradient_evaluations": spent, "episode": int(spent // 25), "phase": "training"}
'''


def test_a_campaign_says_first_who_failed_an_audit(tmp_path, capsys, monkeypatch):
    (tmp_path / "cheat").mkdir()
    (tmp_path / "cheat" / "submission.py").write_text(CHEAT)
    document = {
        "name": "audited", "studies": 1, "budget": "80grads", "trial_budget": "40grads",
        "workloads": ["breast_cancer_logistic"],
        "contenders": [str(tmp_path / "cheat"), "sgd+random"],
    }  # fmt: skip
    campaign = make_campaign(document, "test")

    run_campaign(campaign, tmp_path / "out")

    monkeypatch.setenv("COLUMNS", "200")
    capsys.readouterr()
    logs = read_logs(tmp_path / "out")
    print_scores(logs, score_logs(logs))
    out = capsys.readouterr().out
    first, *_ = out.splitlines()
    assert first.startswith("Audit failed: cheat on breast_cancer_logistic: The episode at step")
    assert "2 pairs of contender and workload, 1 failed" in out
    assert "cheat * §" in out and "sgd+random *" not in out and "sgd+random §" not in out
    assert choose_audited(list_studies(campaign), tmp_path / "out") == set()


def test_the_summary_counts_pairs_and_gives_the_range_of_time_factors():
    def record(workload, seconds, *findings):
        return AuditRecord(
            campaign="c", contender="a", workload=workload, study=1, trial=1, position=0.5,
            seconds=seconds, reference_seconds=1.0, findings=findings,
        )  # fmt: skip

    failed = AuditFinding(audit="passes", failed=True, what="cheats")

    assert audit_summary([record("x", 1.0)]) == (
        "Audited: 1 pair of contender and workload, none failed. Seconds per gradient evaluation: "
        "1 times AdamW's."
    )
    assert audit_summary([record("x", 1.25), record("y", 2.5, failed)]) == (
        "Audited: 2 pairs of contender and workload, 1 failed. Seconds per gradient evaluation: "
        "1.2 to 2.5 times AdamW's."
    )
