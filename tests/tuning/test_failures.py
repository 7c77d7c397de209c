"""Failures never look like results: they are found before the campaign, or said first after it."""

import errno
import math
import os

import pytest

from analysis.checks.fairness import equality_of_budgets, find_failures
from analysis.command_line import run_app
from analysis.commands.score_command import exit_code, print_scores
from analysis.logs.reader import read_logs
from analysis.scoring.scores import score_logs
from metaopt.bench.measure.targets import Target
from tuning import executor
from tuning.campaign import make_campaign
from tuning.campaign_folder import claim_folder
from tuning.cli import app
from tuning.estimate import probe_all
from tuning.executor import UnfinishedError, run_campaign
from tuning.identities import claim_study
from tuning.slot import Outcome, failed
from tuning.studies import StudyKey
from tuning.study import run_study

SUBMISSION = '''
"""Gradient descent, with a mistake in it."""
import optax
from metaopt.bench.contract import kit

DEFAULTS = {"learning_rate": 0.1}

def optimizer(step_hint, *, learning_rate):
    return optax.sgd(LEARNING_RATE)

_baseline = kit.Baseline(optimizer, DEFAULTS)
get_batch_size, data_selection = kit.get_batch_size, kit.data_selection
init_optimizer_state, report = _baseline.init_optimizer_state, _baseline.report
update_params = _baseline.update_params
'''


SPACE = '{"learning_rate": {"min": 0.001, "max": 1.0, "scaling": "log"}}'


TYPO = SUBMISSION.replace("LEARNING_RATE", "learning_rat")


CAUSE = "NameError: name 'learning_rat' is not defined (submission.py:9)"


PICKY = (
    SUBMISSION.replace("LEARNING_RATE", "learning_rate")
    + """
def get_batch_size(workload_name):
    return {"breast_cancer_logistic": 32}[workload_name]
"""
)


@pytest.fixture
def write(tmp_path):
    """Write a submission into a folder, and return it."""

    def write(name, text):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "submission.py").write_text(text)
        (folder / "tuning_search_space.json").write_text(SPACE)
        return folder

    return write


def document(*contenders, **changes):
    base = {
        "name": "failing", "studies": 1, "budget": "20steps", "trial_budget": "10steps",
        "eval_period": "5steps", "workloads": ["breast_cancer_logistic"],
        "contenders": list(map(str, contenders)),
    }  # fmt: skip
    return {**base, **changes}


def write_campaign(path, *contenders, workloads=("breast_cancer_logistic",)):
    said = document(*contenders, workloads=list(workloads))
    path.write_text("".join(f"{key} = {value!r}\n" for key, value in said.items()))
    return path


@pytest.fixture(autouse=True)
def no_fsync(monkeypatch):
    """What is not on the disk yet matters to a power cut only, and waiting for it takes long."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


# Before anything is spent.


def test_a_dry_run_shows_the_error_and_its_line_of_every_contender_that_cannot_run(write):
    workloads = ["breast_cancer_logistic", "breast_cancer_logistic_fixed"]
    contenders = f"{write('typo', TYPO)}+random", f"{write('picky', PICKY)}+random"
    campaign = make_campaign(document(*contenders, workloads=workloads), "test")
    keys = [
        StudyKey("typo+random", workloads[0], 1),
        StudyKey("picky+random", workloads[0], 1),
        StudyKey("picky+random", workloads[1], 1),
    ]

    with pytest.raises(ValueError, match="every trial fails") as refused:
        probe_all(campaign, keys)

    assert str(refused.value).split("; ") == [
        f"typo+random on breast_cancer_logistic, study 1: every trial fails: crashed: {CAUSE}",
        "picky+random on breast_cancer_logistic_fixed, study 1: every trial fails: crashed: "
        "KeyError: 'breast_cancer_logistic_fixed' (submission.py:17)",
    ]


def test_a_dry_run_says_which_trials_failed_where_others_did_not(write, monkeypatch):
    text = SUBMISSION.replace("optax.sgd(LEARNING_RATE)", "optax.sgd(learning_rate)")
    text += """
def update_params(*, hyperparameters, **arguments):
    if hyperparameters.learning_rate == 0.5:
        raise ValueError("too large")
    return _baseline.update_params(hyperparameters=hyperparameters, **arguments)
"""
    folder = write("half", text)
    points = '{"learning_rate": {"feasible_points": [0.5, 0.25]}}'
    (folder / "tuning_search_space.json").write_text(points)
    campaign = make_campaign(document(f"{folder}+grid"), "test")

    (estimate,) = probe_all(campaign, [StudyKey("half+grid", "breast_cancer_logistic", 1)])

    assert estimate.failures == (
        "1 of 2 trials failed: crashed: ValueError: too large (submission.py:18)"
    )


def test_a_dry_run_ends_with_exit_code_2(write, tmp_path, capsys):
    file = write_campaign(tmp_path / "c.toml", f"{write('typo', TYPO)}+random")

    assert run_app(app, "tuning", ["compare", str(file), "--dry-run"]) == 2

    said = capsys.readouterr().err
    assert CAUSE in said
    assert said.count("\n") == 1


def target(**changes):
    return {"breast_cancer_logistic": {"metric": "validation/loss", "value": 0.2,
                                       "better": "lower"} | changes}  # fmt: skip


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"metric": "validation/f1"},
         r"reports no metric 'validation/f1', only \['validation/accuracy', 'validation/loss'\]"),
        ({"value": math.nan}, "targets.breast_cancer_logistic.value: .*finite"),
        ({"value": math.inf}, "finite"),
        ({"value": "nan"}, "valid number"),
        ({"value": "0.2"}, "valid number"),
        ({"value": True}, "valid number"),
    ],
    ids=["metric", "nan", "infinite", "text", "number as text", "boolean"],
)  # fmt: skip
def test_a_target_that_no_trial_can_meet_is_refused_before_anything_runs(changes, message):
    with pytest.raises(ValueError, match=message):
        make_campaign(document("sgd+random", targets=target(**changes)), "test")


def test_a_submission_that_cannot_be_imported_is_one_line(write, tmp_path, capsys):
    folder = write("gone", "import optx\n")
    file = write_campaign(tmp_path / "c.toml", f"{folder}+random")

    assert run_app(app, "tuning", ["compare", str(file), "--out", str(tmp_path / "out")]) == 2

    said = capsys.readouterr().err
    assert "ModuleNotFoundError: No module named 'optx' (submission.py:1)" in said
    assert said.count("\n") == 1
    assert not (tmp_path / "out").exists()


# After a campaign.


@pytest.fixture
def shown(capsys, monkeypatch):
    """What is printed of a campaign."""

    def show(folder):
        monkeypatch.setenv("COLUMNS", "500")
        capsys.readouterr()
        logs = read_logs(folder)
        print_scores(logs, score_logs(logs))
        return capsys.readouterr().out

    return show


def test_a_campaign_says_first_who_never_took_a_step_and_last_which_studies_could_not_go_on(
    write, tmp_path, capsys, shown
):
    contenders = f"{write('typo', TYPO)}+random", "sgd+random", "momentum+random"
    out = tmp_path / "out"
    identities = claim_folder(make_campaign(document(*contenders), "test"), out)
    key = StudyKey("sgd+random", "breast_cancer_logistic", 1)
    claim_study(key.folder(out), identities[key.contender, key.workload])
    (key.folder(out) / "trial_1").mkdir()
    (key.folder(out) / "trial_1" / "run.json").write_text("{}")
    file = write_campaign(tmp_path / "c.toml", *contenders)

    code = run_app(app, "tuning", ["compare", str(file), "--out", str(out), "--in-process"])

    said = capsys.readouterr()
    assert code == 1
    assert said.out.startswith("Never took a step: typo+random on breast_cancer_logistic:")
    assert "report.html\n" in said.out and said.out.endswith("target of any workload.\n")
    note, *progress, last = said.err.splitlines()
    assert "trial_1" in note  # its record does not say that it ran from a clean checkout
    assert [line[:7] for line in progress] == ["1 of 3:", "2 of 3:", "3 of 3:"]
    assert last.startswith("tuning: 1 of 3 studies could not go on: sgd+random on breast_")
    assert "run.json: campaign: Field required" in said.err
    assert not (key.folder(out) / "study.json").exists()
    lines = shown(out).splitlines()
    assert lines[0].endswith(f": 10 of 10 trials crashed, without a step: {CAUSE}.")
    (early,) = [line for line in lines if line.startswith("Ended before the budget was spent")]
    assert "typo+random: its trials cost nothing in 1 of 1 stud" in early
    assert any(line.startswith("Spent budgets are equal") for line in lines)


def test_a_single_run_that_fails_says_so_first_and_ends_with_exit_code_1(write, tmp_path, capsys):
    command = ["run", str(write("typo", TYPO)), "breast_cancer_logistic"]

    assert run_app(app, "tuning", [*command, "--out", str(tmp_path / "out")]) == 1

    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"crashed: {CAUSE}"
    assert "0 steps" in lines[1]
    assert (tmp_path / "out").as_posix() in lines[2]


def test_trials_that_all_fail_after_some_steps_are_said_first(
    tmp_path, clock, make_fake_study, shown
):
    plan = make_fake_study("random", clock, target=Target("validation/f1", 0.2, "lower"))

    study = run_study(plan, tmp_path / "logs", clock=clock)

    assert (study.ended, study.spent.steps) == ("budget", 81)
    (failures,) = find_failures(read_logs(tmp_path))
    assert failures.is_broken
    assert failures.statuses == {"invalid": failures.trials}
    line, *others = shown(tmp_path).splitlines()
    assert line.startswith("Every trial failed: fake+random on quadratic: 17 of")
    assert any(other.startswith("✗ fake+random on quadratic: 17 of") for other in others)
    assert "no 'validation/f1', only ['test/loss', 'train/loss', 'validation/loss']." in line
    assert exit_code(read_logs(tmp_path)) == 1


def test_a_contender_of_which_some_trials_fail_is_no_broken_one(
    tmp_path, clock, make_fake_study, shown
):
    calls = iter(range(1000))

    def before_step(step):
        if next(calls) == 30:
            raise ValueError("bad luck")

    plan = make_fake_study("random", clock, before_step=before_step)

    run_study(plan, tmp_path / "logs", clock=clock)

    (failures,) = find_failures(read_logs(tmp_path))
    assert not failures.is_broken
    assert exit_code(read_logs(tmp_path)) == 0
    assert str(failures).startswith("fake+random on quadratic: 1 of 4 trials crashed: ValueError: ")
    assert not shown(tmp_path).startswith("Every")
    assert "Failed trials, counted as missed: fake+random on quadratic" in shown(tmp_path)


def test_divergence_alone_breaks_no_contender(tmp_path, clock, make_fake_study):
    space = {"rate": {"feasible_points": [1e30]}, "decay": {"feasible_points": [0.0]}}
    plan = make_fake_study("random", clock, space=space)

    run_study(plan, tmp_path / "logs", clock=clock)

    (failures,) = find_failures(read_logs(tmp_path))
    assert failures.statuses == {"diverged": failures.trials}
    assert not failures.is_broken
    assert failures.cause.startswith("After step 5: test/loss is nan")


def test_equal_budgets_are_not_claimed_of_studies_that_all_ended_early(
    tmp_path, clock, make_fake_study, shown
):
    def before_step(step):
        raise ValueError("no step")

    run_study(make_fake_study("random", clock, before_step=before_step), tmp_path / "logs",
              clock=clock)  # fmt: skip

    assert equality_of_budgets(read_logs(tmp_path)) == "No study spent its budget"
    assert "are equal" not in shown(tmp_path)


# A study that cannot continue.


def test_a_study_that_cannot_continue_ends_alone_and_is_listed_at_the_end(monkeypatch, tmp_path):
    campaign = make_campaign(document("sgd+random", studies=3), "test")
    run_study = executor.run_one

    def run_one(campaign, identities, key, *arguments):
        if key.study == 2:
            raise ValueError("its tuner is lost")
        return run_study(campaign, identities, key, *arguments)

    monkeypatch.setattr(executor, "run_one", run_one)

    with pytest.raises(UnfinishedError) as unfinished:
        run_campaign(campaign, tmp_path / "out")

    assert unfinished.value.finished == 2
    assert str(unfinished.value) == (
        "1 of 3 studies could not go on: sgd+random on breast_cancer_logistic, study 2: its tuner "
        "is lost"
    )


def test_a_defect_is_shown_with_its_place_and_a_full_disk_is_the_machines():
    assert failed(ValueError("no tuner")) == Outcome(error="no tuner")
    defect = failed(KeyError("lost"))
    assert "KeyError: 'lost'" in defect.error
    assert "KeyError" in defect.trace
    full = failed(OSError(errno.ENOSPC, "No space left on device", "/full/run.json"))
    assert full == Outcome(refusal="No space left on device: /full/run.json")
