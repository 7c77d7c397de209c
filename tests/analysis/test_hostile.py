"""Logs that are wrong on purpose: huge numbers of studies, costs of nothing, texts in full."""

import json

import numpy as np
import pytest

from analysis.checks.fairness import equality_of_budgets
from analysis.commands.log_options import LogOptions
from analysis.commands.statistics_command import print_statistics
from analysis.logs.audits import audit_summary
from analysis.logs.competition import Competition
from analysis.logs.reader import read_logs
from analysis.scoring.benchmark import Benchmark
from analysis.scoring.scores import score_logs
from analysis.wording import join_entries
from metaopt.bench import records
from metaopt.bench.records.audit import AuditFinding, AuditRecord


@pytest.mark.parametrize("studies", [10**9, 0, -3, True])
def test_a_campaign_with_an_impossible_number_of_studies_is_none(build, tmp_path, studies):
    build(tmp_path, ["a"], ["w"], 1).whole_study("a", "w", 1, [100.0])
    file = tmp_path / records.CAMPAIGN_FILE
    file.write_text(json.dumps(json.loads(file.read_text()) | {"studies": studies}))
    logs = read_logs(tmp_path)
    assert logs.campaign is None
    assert any("studies" in note for note in logs.notes)
    assert score_logs(logs).scores["a"]["given"] == 1


def test_a_study_with_a_huge_number_takes_no_memory(build, tmp_path):
    b = build(tmp_path, ["a"], ["w"], 1)
    b.whole_study("a", "w", 999_999_999, [100.0])
    with pytest.raises(ValueError, match="999,999,999 studies"):
        score_logs(read_logs(tmp_path))


def test_one_failed_audit_of_several_is_a_failure():
    finding = AuditFinding.model_construct(what="more passes than declared", failed=True)
    audits = [
        AuditRecord.model_construct(
            contender="a", workload="w", study=study, findings=findings, seconds=None
        )
        for study, findings in ((1, (finding,)), (2, ()))
    ]
    for order in (audits, audits[::-1]):
        assert "1 pair of" in audit_summary(order)
        assert "1 failed" in audit_summary(order)


def test_a_cost_of_nothing_is_the_best_under_both_sets_of_rules():
    costs = np.array([[0.0, 2.0], [5.0, 1.0]])
    benchmark = Benchmark(("v", "w"))
    exact, grid = benchmark.score(costs, "given"), benchmark.score_on_grid(costs)
    assert exact == pytest.approx([(1 + 2 / 3) / 2, 1 / 2])
    assert grid == pytest.approx(exact, abs=0.01)


def test_a_full_list_reads_as_a_short_one_does():
    entries = ["a.", *"bcdefg"]
    assert join_entries(entries, None) == "a; b; c; d; e; f; g."
    assert join_entries(entries[:3], None) == join_entries(entries[:3])


def test_budgets_that_are_not_equal_are_not_called_equal(build, tmp_path):
    build(tmp_path, ["a"], ["w"], 1).whole_study("a", "w", 1, [100.0])  # 250 of 1000
    assert "not equal" in equality_of_budgets(read_logs(tmp_path))


def test_the_official_rules_say_that_they_mix_hardware(build, tmp_path):
    b = build(tmp_path, ["a", "b"], ["w"], 1, currency="seconds")
    for name, cpu in (("a", "abacus"), ("b", "sliderule")):
        environment = {"hardware": {"cpu": cpu, "cpu_count": 1}, "software": {}, "git": {}}
        b.trial(name, "w", 1, 250.0, 100.0, environment=environment)
        b.study(name, "w", 1)
    logs = read_logs(tmp_path)
    with pytest.raises(ValueError, match="different hardware"):
        score_logs(logs)
    (note,) = score_logs(logs, "algoperf").notes
    assert "abacus" in note
    assert "sliderule" in note


def test_a_negative_seed_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"`seed`.*-1"):
        print_statistics(LogOptions((tmp_path,)), confidence=0.95, resamples=100, seed=-1)


@pytest.mark.parametrize("name", ["studies", "trials"])
def test_a_billion_studies_or_trials_are_not_asked_for(name):
    with pytest.raises(ValueError, match=f"`{name}`.*10,000"):
        Competition(**{name: 10**9})
