"""Default output folders count up, and an unfinished one is continued."""

import shutil

import pytest

from metaopt.bench import records
from tuning.campaign import make_campaign, read_campaign
from tuning.campaign_folder import claim_folder
from tuning.commands.compare_command import begin
from tuning.contenders import SUBMISSIONS
from tuning.output_folders import choose_folder, next_folder
from tuning.single_trial import run_single
from tuning.studies import list_studies

GOOD = {
    "name": "test",
    "budget": "4x",
    "studies": 2,
    "workloads": ["digits_mlp"],
    "contenders": ["sgd+random"],
}


def campaign(**changes):
    return make_campaign({**GOOD, **changes}, "test")


def begin_study(plan, folder, number=0):
    trial = list_studies(plan)[number].folder(folder) / "trial_1"
    trial.mkdir(parents=True)
    return trial


def finish_study(plan, folder, number):
    path = list_studies(plan)[number].folder(folder) / records.STUDY_FILE
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("{}")


@pytest.mark.parametrize(
    ("there", "following"),
    [([], 1), (["test-1"], 2), (["test-9", "test-10"], 11), (["test-x", "test", "other-4"], 1)],
)
def test_folders_count_up_from_the_largest_number(tmp_path, there, following):
    for name in there:
        (tmp_path / name).mkdir()

    assert next_folder("test", tmp_path) == tmp_path / f"test-{following}"


def test_an_unfinished_folder_of_the_same_options_is_continued_and_a_finished_one_is_not(tmp_path):
    plan = campaign()
    first, _ = choose_folder(plan, tmp_path)
    claim_folder(plan, first)
    finish_study(plan, first, 0)

    assert first == tmp_path / "test-1"
    assert choose_folder(plan, tmp_path) == (
        first, f"continues {first}, with 1 of 2 studies finished.",
    )  # fmt: skip
    finish_study(plan, first, 1)
    second = tmp_path / "test-2"
    assert choose_folder(plan, tmp_path) == (second, f"starts {second}: {first} is finished.")


@pytest.mark.parametrize("changes", [{"seed": 2}, {"budget": "8x"}, {"studies": 3}])
def test_other_options_start_a_new_folder(tmp_path, changes):
    claim_folder(campaign(), tmp_path / "test-1")

    second = tmp_path / "test-2"
    assert choose_folder(campaign(**changes), tmp_path) == (second, f"starts {second}.")


def test_the_newest_folder_of_the_same_options_is_found_below_others(tmp_path):
    for number, changes in enumerate([{}, {}, {"seed": 2}], start=1):
        claim_folder(campaign(**changes), tmp_path / f"test-{number}")

    assert choose_folder(campaign(), tmp_path)[0] == tmp_path / "test-2"


def test_a_changed_submission_starts_a_new_folder_and_a_line_names_its_file(tmp_path):
    mine = tmp_path / "mine"
    shutil.copytree(SUBMISSIONS / "external_tuning" / "sgd", mine)
    plan = campaign(contenders=[f"{mine}+random"])
    identities = claim_folder(plan, tmp_path / "test-1")
    trial = begin_study(plan, tmp_path / "test-1")
    records.write_json(trial.parent / "identity.json", identities["mine+random", "digits_mlp"])
    assert choose_folder(plan, tmp_path)[0] == tmp_path / "test-1"

    file = mine / "submission.py"
    file.write_text(file.read_text() + "\nNEW = 1\n")
    folder, why = choose_folder(plan, tmp_path)

    assert folder == tmp_path / "test-2"
    assert why.startswith(f"starts {folder}: {tmp_path / 'test-1'} holds mine+random on digits_mlp")
    assert "mine/submission.py" in why


def test_a_dry_run_says_nothing_of_folders_and_makes_none(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)

    begin(campaign(), None, require_clean=True, dry_run=True)
    assert (capsys.readouterr().err, [*tmp_path.iterdir()]) == ("", [])

    begin(campaign(), None, require_clean=True, dry_run=False)
    assert capsys.readouterr().err == "note: starts runs/test-1.\n"


def run(out=None, *hparams):
    return run_single(
        "sgd", "breast_cancer_logistic", [*hparams], budget="10grads", eval_period=None, seed=1,
        out=out, stall_seconds=600.0,
    )  # fmt: skip


def test_a_run_has_a_folder_of_its_own_and_a_killed_one_is_continued(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("tuning.single_trial.write_audit", lambda *_: None)

    folders = [run()[1], run(None, "learning_rate=0.02")[1]]
    assert [folder.parts[:2] for folder in folders] == [("runs", "run-1"), ("runs", "run-2")]

    def killed(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("metaopt.bench.trial.runner.TrialLoop", killed)
        with pytest.raises(KeyboardInterrupt):
            run(None, "learning_rate=0.03")
    assert run(None, "learning_rate=0.04")[1].parts[1] == "run-4"  # another trial than the killed
    record, folder = run(None, "learning_rate=0.03")
    assert (folder.parts[1], record.preemptions) == ("run-3", 1)


OWN = """
name = "test"
budget = "4x"
workloads = ["digits_mlp", "digits_conv"]
contenders = ["sgd+random", "slow"]
[targets.digits_conv]
metric = "validation/loss"
value = 0.5
better = "lower"
[variants.slow]
of = "no_such_submission"
hyperparameters = {learning_rate = 0.1}
"""


def test_a_narrowed_campaign_ignores_targets_and_variants_of_the_rest(tmp_path):
    file = tmp_path / "own.toml"
    file.write_text(OWN)

    narrow = read_campaign(file, workloads=["digits_mlp"], contenders=["sgd+random"])
    assert (narrow.targets, narrow.variants) == ({}, {})
    claim_folder(narrow, tmp_path / "out")
    again = read_campaign(tmp_path / "out" / records.CAMPAIGN_FILE)
    assert again == narrow

    with pytest.raises(ValueError, match=r"variants: .*no_such_submission"):
        read_campaign(file, workloads=["digits_mlp"])
    kept = read_campaign(file, workloads=["digits_conv"], contenders=["sgd+random"])
    assert [*kept.targets] == ["digits_conv"]
