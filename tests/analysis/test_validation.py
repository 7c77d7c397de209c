"""Every rule on AlgoPerf's logs, broken in one way each; good logs break no rule."""

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


@pytest.mark.parametrize("clock, is_copy", [(None, True), ("accumulated_eval_time", False)])
def test_trials_with_one_evaluation_are_one_if_all_clocks_agree(good, clock, is_copy):
    (evaluations(good, SECOND)).write_bytes(evaluations(good, FIRST).read_bytes())
    for place in (FIRST, SECOND):
        change_rows(good / place, lambda rows: rows.pop(0))
    if clock is not None:
        change_rows(good / SECOND, set_value(0, clock, 2.001))

    assert ("trials-repeated" in broken(good)) == is_copy


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
