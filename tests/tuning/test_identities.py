"""What decides a result is known by its files: runs of two versions are never mixed."""

import json
import shutil
from pathlib import Path

import jax
import pytest
from rich.console import Console

from metaopt.bench import records
from metaopt.bench.records import identity as identities
from metaopt.bench.records.identity import differences
from metaopt.workloads.registry import get_workload, list_workloads, modules_of
from tuning.campaign import make_campaign, read_campaign, read_source
from tuning.campaign_folder import claim_folder
from tuning.contenders import parse_contender
from tuning.identities import claim_study, identify, identify_campaign
from tuning.single_trial import run_single
from tuning.slot import Job, Slot
from tuning.studies import LOGS, StudyKey, list_studies, plan_study
from tuning.study import run_study

WORKLOAD = "breast_cancer_logistic"


@pytest.fixture
def folder(tmp_path, root):
    """A submission of one's own, with data beside the code and a second search space."""
    folder = shutil.copytree(root / "submissions" / "external_tuning" / "sgd", tmp_path / "mine")
    (folder / "table.csv").write_text("1,2,3")
    return folder


@pytest.fixture
def campaign(folder):
    """A factory of campaigns of that submission."""

    def make(**changes):
        document = {
            "name": "mine", "budget": "4steps", "trial_budget": "2steps", "eval_period": "2steps",
            "studies": 1, "workloads": [WORKLOAD], "contenders": [f"{folder}+random"],
        }  # fmt: skip
        return make_campaign(document | changes, "test")

    return make


def finish(campaign, out, contender="mine+random"):
    """Leave the files of a finished study that matter here."""
    claim_folder(campaign, out)
    key = StudyKey(contender, WORKLOAD, 1)
    claim_study(key.folder(out), plan_study(campaign, key).identity)
    (key.folder(out) / "trial_1").mkdir()
    (key.folder(out) / records.STUDY_FILE).write_text("{}")


def now(folder, contender="+random", workload=WORKLOAD):
    workload = get_workload(workload)
    targets = workload.targets.validation, workload.targets.test
    return identify(parse_contender(f"{folder}{contender}"), workload, targets)


def change(path: Path, old: str = "", new: str = ""):
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1) if old else f"{text}{new}")


@pytest.mark.parametrize(
    ("file", "new"),
    [
        ("submission.py", "\nEXTRA = 1\n"),
        ("tuning_search_space.json", "\n"),
        ("table.csv", ",4"),
        ("submission_info.yml", "\n# a word\n"),
    ],
)
def test_every_file_of_a_submission_is_part_of_its_identity(folder, file, new):
    before = now(folder)

    change(folder / file, new=new)

    assert differences(before, now(folder)) == [f"mine/{file}"]


def test_a_comment_and_a_search_space_that_is_not_used_are_no_part_of_it(folder):
    before, paper = now(folder), now(folder, "@paper+grid")

    change(folder / "submission.py", new="\n# A comment.\n")
    change(folder / "spaces" / "paper.json", new="\n")

    assert differences(before, now(folder)) == []
    assert differences(paper, now(folder, "@paper+grid")) == ["mine/spaces/paper.json"]


def test_each_part_of_an_identity_is_of_its_own_files(folder):
    found = now(folder, "+asha")

    assert set(found["modules"]) == {
        f"metaopt/bench/contract/{name}.py" for name in ("call_counter", "kit", "sharding", "spec")
    }
    assert {"tuning/tuners/bandits.py", "tuning/tuners/samplers.py"} < set(found["tuner"])
    assert "tuning/tuners/quasirandom.py" not in found["tuner"]
    assert {"metaopt/workloads/breast_cancer_logistic.py", "metaopt/workloads/losses.py"} < set(
        found["workload"]
    )
    assert found["data"] == {}
    assert list(found["targets"]) == [f"targets of {WORKLOAD}"]
    assert found["settings"]["jax_enable_x64"] == "False"


def test_the_data_of_a_workload_is_part_of_it(folder, data_dir, tmp_path, monkeypatch):
    before = now(folder, workload="mnist_mlp")
    (tmp_path / "data" / "mnist").mkdir(parents=True)
    names = [*before["data"]]
    for name in names:
        (tmp_path / "data" / name).write_bytes((data_dir / name).read_bytes())
    monkeypatch.setenv("METAOPT_DATA_DIR", str(tmp_path / "data"))
    assert differences(before, now(folder, workload="mnist_mlp")) == []

    (tmp_path / "data" / names[0]).write_bytes(b"other")

    assert differences(before, now(folder, workload="mnist_mlp")) == names[:1]


def test_settings_of_jax_that_change_numbers_are_part_of_it(folder):
    before = now(folder)

    with jax.default_matmul_precision("bfloat16"), jax.debug_nans(True):
        after = now(folder)

    assert differences(before, after) == ["jax_debug_nans", "jax_default_matmul_precision"]


@pytest.mark.parametrize("name", sorted(list_workloads()))
def test_a_workload_is_defined_by_the_file_of_its_name(name, root):
    stem = name.removesuffix("_fixed").removesuffix("_small")
    files = {"cifar10_vgg16": "cifar10", "ende_transformer": "translation", "mnist_mlp": "mnist"}
    module = f"metaopt.workloads.{files.get(stem, stem)}"

    modules = modules_of(get_workload(name))

    assert module in modules
    assert "metaopt.workloads.registry" not in modules
    others = {path.stem for path in (root / "metaopt" / "workloads").glob("digits_*.py")}
    assert not modules & {
        f"metaopt.workloads.{other}" for other in others - {files.get(stem, stem)}
    }


EDITS = {
    "tuning_search_space.json": lambda folder: change(
        folder / "tuning_search_space.json", new="\n"
    ),
    "table.csv": lambda folder: change(folder / "table.csv", new=",4"),
    "submission.py": lambda folder: change(folder / "submission.py", new="\nEXTRA = 1\n"),
}


@pytest.mark.parametrize("file", EDITS)
def test_a_contender_that_changed_does_not_go_on_and_the_file_is_named(
    campaign, folder, tmp_path, file
):
    out = tmp_path / "out"
    finish(campaign(), out)
    before = (out / records.CAMPAIGN_FILE).read_text()

    EDITS[file](folder)

    with pytest.raises(ValueError, match=rf"mine\+random on {WORKLOAD} from before mine/{file} ch"):
        claim_folder(campaign(studies=2), out)
    assert (out / records.CAMPAIGN_FILE).read_text() == before  # it can go on as it was
    next(out.rglob(records.STUDY_FILE)).unlink()
    with pytest.raises(ValueError, match=f"holds trials from before mine/{file} changed"):
        run_study(plan_study(campaign(), StudyKey("mine+random", WORKLOAD, 1)), out / LOGS)


def test_a_finished_contender_that_changed_is_kept_and_named_in_a_note(
    campaign, folder, tmp_path, capsys
):
    out = tmp_path / "out"
    finish(campaign(), out)
    change(folder / "table.csv", new=",4")

    claim_folder(campaign(contenders=[f"{folder}+random", "sgd+none"]), out, Console())

    assert capsys.readouterr().out == (
        f"note: mine+random on {WORKLOAD} is finished and is kept; mine/table.csv changed since it "
        "ran. Another --out runs it again.\n"
    )


def rewrite_identity(out, part, name, digest="0"):
    """Let what has run have had another version of a file."""
    for path in out.rglob(identities.FILE):
        content = json.loads(path.read_text())
        assert name in content[part]
        content[part][name] = digest
        records.write_json(path, content)


def test_another_version_of_a_module_of_ours_is_another_contender(campaign, root, tmp_path):
    folder = root / "submissions" / "self_tuning" / "metaopt_averages"
    plan, out = campaign(contenders=[str(folder)]), tmp_path / "out"
    finish(plan, out, "metaopt_averages")
    rewrite_identity(out, "modules", "metaopt/recipes.py")

    claim_folder(plan, out)
    with pytest.raises(ValueError, match=r"from before metaopt/recipes\.py changed"):
        claim_folder(campaign(contenders=[str(folder)], studies=2), out)


@pytest.mark.parametrize(
    ("part", "name"),
    [
        ("workload", "metaopt/workloads/losses.py"),
        ("targets", f"targets of {WORKLOAD}"),
        ("settings", "jax_enable_x64"),
    ],
)
def test_no_contender_joins_those_that_ran_on_another_workload(
    campaign, folder, tmp_path, part, name
):
    out = tmp_path / "out"
    finish(campaign(), out)
    rewrite_identity(out, part, name)

    claim_folder(campaign(), out)  # nothing is left to run
    with pytest.raises(ValueError, match=f"from before {name} changed"):
        claim_folder(campaign(contenders=[f"{folder}+random", "sgd+none"]), out)


def test_runs_that_kept_no_identity_do_not_go_on(campaign, tmp_path):
    out = tmp_path / "out"
    finish(campaign(), out)
    next(out.rglob(identities.FILE)).unlink()

    claim_folder(campaign(), out)
    with pytest.raises(ValueError, match=f"{WORKLOAD} from before .* changed"):
        claim_folder(campaign(studies=2), out)


def test_a_machine_with_another_version_of_a_file_is_refused_by_name(
    campaign, folder, tmp_path, monkeypatch
):
    monkeypatch.setattr("tuning.slot.take_cores", lambda count, folder: None)
    plan = campaign()
    slot = Slot(Job(plan.model_dump(mode="json"), identify_campaign(plan), tmp_path, token="test"))
    assert slot.prepare() == (None, False)

    change(folder / "table.csv", new=",4")

    assert slot.prepare() == ("its version of mine/table.csv is not the driver's", False)


def test_a_machine_with_another_commit_is_refused_and_one_without_any_is_not(
    campaign, tmp_path, monkeypatch
):
    monkeypatch.setattr("tuning.slot.take_cores", lambda count, folder: None)
    plan = campaign()
    document, identity = plan.model_dump(mode="json"), identify_campaign(plan)
    slot = Slot(Job(document, identity, tmp_path, token="test", commit="1" * 40))

    monkeypatch.setattr("tuning.slot.describe_checkout", lambda _: {"commit": "2" * 40})
    refusal = f"its checkout is at commit {'2' * 40}, the driver's at {'1' * 40}"
    assert slot.prepare() == (refusal, False)
    monkeypatch.setattr("tuning.slot.describe_checkout", lambda _: {"commit": None})
    assert slot.prepare() == (None, False)


def test_a_single_trial_does_not_go_on_with_another_version(folder, tmp_path, monkeypatch):
    options = {"budget": "2steps", "eval_period": "2steps", "seed": 1, "out": tmp_path / "out"}
    options |= {"stall_seconds": 600.0}
    record, where = run_single(str(folder), WORKLOAD, [], **options)
    assert record.digest == identities.digest_of(identities.read_identity(where.parent))
    (where / records.RUN_FILE).unlink()

    change(folder / "table.csv", new=",4")

    with pytest.raises(ValueError, match=r"from before mine/table\.csv changed"):
        run_single(str(folder), WORKLOAD, [], **options)


TOML = """
# Why this campaign is run.
name = "mine"
budget = "4steps"
trial_budget = "2steps"
eval_period = "2steps"
studies = 1
workloads = ["breast_cancer_logistic"]
contenders = ["sgd+none", "slow"]
variants = {slow = {of = "sgd+none", hyperparameters = {learning_rate = 0.01}}}
"""


def test_a_campaigns_record_holds_its_whole_file_and_can_be_run_again(tmp_path):
    (tmp_path / "own.toml").write_text(TOML)
    plan = read_campaign(tmp_path / "own.toml", budget="8steps")

    claim_folder(plan, tmp_path / "out")

    record = tmp_path / "out" / records.CAMPAIGN_FILE
    source = json.loads(record.read_text())["source"]
    assert source == {"file": "own.toml", "toml": TOML, "changes": {"budget": "8steps"}}
    again = read_campaign(record)
    assert again == plan
    assert list_studies(again) == list_studies(plan)
    assert read_campaign(record, studies=2).budget == "8steps"
    (tmp_path / "own.toml").write_text(TOML.replace("Why", "Still why"))
    claim_folder(read_campaign(tmp_path / "own.toml", budget="8steps"), tmp_path / "out")


def test_a_record_without_a_file_says_so(tmp_path):
    (tmp_path / records.CAMPAIGN_FILE).write_text('{"name": "mine"}')

    with pytest.raises(ValueError, match=r"campaign\.json: holds no campaign file"):
        read_source(tmp_path / records.CAMPAIGN_FILE)


def test_a_shipped_campaign_is_named_in_its_record(tmp_path):
    plan = read_campaign(Path("demo"))

    assert (plan.source.file, plan.source.changes) == ("demo", {})
    assert plan.source.toml.startswith("#")
