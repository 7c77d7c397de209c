"""A packaged submission needs nothing of this project and does to the bit what it did before."""

import ast
import csv
import io
import json
import os
import sys

import pytest
import yaml

from analysis.command_line import run_app
from metaopt.bench.contract.loading import SPACE_FILE, find_submissions, load_submission
from metaopt.bench.contract.requirements import read_requirements
from metaopt.bench.contract.spec import ForwardPassMode
from metaopt.bench.records import EVAL_FILE
from metaopt.bench.records.findings import Finding
from metaopt.bench.records.submission_info import KEYS, read_info
from metaopt.bench.rules.check import Report
from metaopt.bench.trial.runner import run_trial
from metaopt.workloads.registry import get_workload
from tuning.campaign import make_campaign
from tuning.cli import app
from tuning.commands import package_command
from tuning.commands.evidence import campaign_evidence
from tuning.contenders import SUBMISSIONS
from tuning.executor import run_campaign
from tuning.packaging import package, package_submission
from tuning.packaging.sources import collect_sources
from tuning.rehearsal.rehearsal_run import Rehearsal

FOLDERS = find_submissions(SUBMISSIONS)
INFO = dict.fromkeys(KEYS, "x") | {
    "submission_folder": "plain", "ruleset": "self-tuning", "framework": "JAX",
}  # fmt: skip

PLAIN = """
from metaopt.bench.contract import kit
import optax

_baseline = kit.Baseline(lambda step_hint: optax.sgd(0.1), {})
get_batch_size = kit.get_batch_size
data_selection = kit.data_selection
init_optimizer_state = _baseline.init_optimizer_state
update_params = _baseline.update_params
"""


def upstream_reads(text: str) -> dict:
    """The rule of upstream's check of pull requests: cut at ``#``, trim, then YAML."""
    return yaml.safe_load("\n".join(line.split("#")[0].strip() for line in text.split("\n")))


@pytest.fixture
def make(tmp_path):
    """Write a submission's files and return its folder."""

    def write(**files):
        folder = tmp_path / "plain"
        files = {"submission.py": PLAIN, **files}
        for name, text in files.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(text)
        return folder

    return write


@pytest.fixture
def no_step(monkeypatch):
    """Leave out the step in an empty process, which takes seconds."""
    monkeypatch.setattr(package, "_try_step", lambda *_: None)


@pytest.fixture(scope="session")
def packaged_metaopt(tmp_path_factory):
    """Our own submission as the command leaves it."""
    return package_submission("metaopt", tmp_path_factory.mktemp("packaged") / "out")


def imported_of(folder):
    names = set()
    for path in folder.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Import):
                names |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and not node.level:
                names.add((node.module or "").split(".")[0])
    return names


def test_the_packaged_metaopt_trains_to_the_bit_as_the_unpackaged_one(
    packaged_metaopt, make_plan, tmp_path
):
    workload, rows = get_workload("breast_cancer_logistic"), []
    # Through learning, a restart and deployment.
    point = {"episodes": 2, "episode_steps": 8, "history": 2, "rollout": 1}
    for number, submission in enumerate(("metaopt", packaged_metaopt.folder)):
        loaded = load_submission(submission, SUBMISSIONS)
        plan = make_plan(loaded, workload, eval_period=4.0, allowance=40.0,
                         hyperparameters=loaded.defaults | point)  # fmt: skip
        assert run_trial(plan, tmp_path / str(number)).error is None
        with (tmp_path / str(number) / EVAL_FILE).open(newline="") as file:
            rows.append([*csv.DictReader(file)])

    losses = [[row["train/loss"] + row["validation/loss"] for row in table] for table in rows]
    assert {row["episode"] for row in rows[0]} == {"0", "1", "2"}
    assert losses[0] == losses[1]


def test_the_packaged_metaopt_imports_algoperfs_environment_itself_and_jaxtyping(packaged_metaopt):
    third = imported_of(packaged_metaopt.folder) - set(sys.stdlib_module_names)

    assert third <= {"jax", "flax", "optax", "algoperf", "numpy", "jaxtyping"}
    requirements = (packaged_metaopt.folder / "requirements.txt").read_text("utf-8")
    assert [line.name for line in read_requirements(packaged_metaopt.folder)] == ["jaxtyping"]
    assert "# imported by metaopt/" in requirements
    assert ["jaxtyping" in warning for warning in packaged_metaopt.warnings] == [True]
    assert {"NOTICE", "metaopt/LICENSE", "__init__.py"} <= set(packaged_metaopt.files)
    assert SPACE_FILE not in packaged_metaopt.files


def test_modules_of_metaopt_are_copied_unchanged(packaged_metaopt, root):
    copies = [name for name in packaged_metaopt.files if name.startswith("metaopt/")]

    assert {"metaopt/__init__.py", "metaopt/bench/contract/kit.py"} <= set(copies)
    for name in set(copies) - {"metaopt/LICENSE"}:
        assert (packaged_metaopt.folder / name).read_text() == (root / name).read_text()


@pytest.mark.parametrize("name", FOLDERS)
def test_every_submission_of_ours_packages(name, tmp_path, no_step):
    packaged = package_submission(name, tmp_path / "out")

    assert "metaopt" not in imported_of(packaged.folder)
    assert upstream_reads((packaged.folder / "submission_info.yml").read_text("utf-8")) == {
        **read_info(FOLDERS[name]), "submission_folder": name,
    }  # fmt: skip
    space = FOLDERS[name] / SPACE_FILE
    assert (packaged.folder / SPACE_FILE).exists() == space.exists()
    assert not (packaged.folder / "spaces").exists()
    assert packaged.destination.split("/")[1] == FOLDERS[name].parent.name
    requirements = (packaged.folder / "requirements.txt").read_text("utf-8")
    extra = {
        "ademamix": "optax>=0.2.5", "dog": "optax>=0.2.3", "muon": "optax>=0.2.7",
        "schedule_free_adamw": "optax>=0.2.4", "momo_adam": "optax>=0.2.3",
        "schedule_free_plus": "optax>=0.2.5",
        "hgd": "jaxtyping", "metaopt": "jaxtyping", "metaopt_averages": "jaxtyping",
        "metaopt_step_size": "jaxtyping",
    }  # fmt: skip
    assert requirements.startswith(extra.get(name, "# Nothing beyond"))
    assert bool(packaged.warnings) == (name in extra)


def test_a_package_of_a_package_is_the_same(packaged_metaopt, tmp_path, no_step):
    again = package_submission(packaged_metaopt.folder, tmp_path / "out", {
        "submission_folder": "metaopt"})  # fmt: skip

    before = {name: (packaged_metaopt.folder / name).read_text() for name in again.files}
    after = {name: (again.folder / name).read_text() for name in again.files}
    assert {name for name in after if after[name] != before[name]} <= {"NOTICE"}


def test_files_beside_a_submission_come_along(make, tmp_path, no_step):
    folder = make(**{
        "submission.py": f"from . import helper\n{PLAIN}",
        "helper/__init__.py": "from metaopt.xla.precision import widen\n",
        "weights.json": "[1]", ".hidden": "", "requirements.txt": "einops  # shapes\n",
    })  # fmt: skip

    packaged = package_submission(folder, tmp_path / "out", INFO)

    assert (packaged.folder / "helper" / "__init__.py").read_text() == (
        "from ..metaopt.xla.precision import widen\n"
    )
    assert (packaged.folder / "weights.json").read_text() == "[1]"
    assert (packaged.folder / "requirements.txt").read_text() == "einops  # shapes\n"
    assert ".hidden" not in packaged.files


@pytest.mark.parametrize(
    ("name", "before", "after"),
    [
        ("submission.py", "from metaopt import ScalarLags as S", "from .metaopt import"),
        ("submission.py", "from metaopt.bench import (\n    x,\n)", "from .metaopt.bench import ("),
        ("submission.py", "try:\n    from metaopt import x\nexcept ImportError:\n    pass", (
            "\n    from .metaopt import x"
        )),
        ("deep/er/file.py", "from metaopt.xla import rings", "from ...metaopt.xla import"),
        ("submission.py", "from . import metaopt", "from . import metaopt"),
        ("submission.py", "if TYPE_CHECKING:\n    from tuning import x", "from tuning import x"),
    ],
)  # fmt: skip
def test_imports_of_metaopt_become_relative_and_others_stay(make, name, before, after):
    own = collect_sources(make(**{"submission.py": "", name: before})).own[name]

    assert after in own
    assert own.replace(".", "") == before.replace(".", "")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("import metaopt", "Write 'from metaopt import NAME'"),
        ("import metaopt.bench.contract.spec as s", "Write 'from metaopt import NAME'"),
        ("x = 1; from metaopt import ScalarLags", "on a line of its own"),
        ("from tuning.spaces import Space", "'tuning' is never packaged, only 'metaopt' is"),
        ("x =", "not Python"),
    ],
)
def test_an_import_that_cannot_be_packaged_is_named_with_its_line(make, line, message):
    with pytest.raises(ValueError, match=rf"submission.py:1: .*{message}"):
        collect_sources(make(**{"submission.py": line}))


def test_what_algoperf_lacks_is_a_requirement_with_its_reason(make, tmp_path, no_step):
    folder = make(**{"submission.py": f"import pydantic\nprint(pydantic)\n{PLAIN}"})

    packaged = package_submission(folder, tmp_path / "out", INFO)

    (line,) = (packaged.folder / "requirements.txt").read_text().splitlines()
    assert line.startswith("pydantic>=2") and line.endswith("  # imported by submission.py")
    assert "pydantic, imported by submission.py, is not in AlgoPerf's" in packaged.warnings[0]


def test_a_package_that_does_not_work_is_not_left_behind(make, tmp_path):
    hidden = "import importlib; importlib.import_module('metaopt.xla.rings')"
    folder = make(**{"submission.py": f"{PLAIN}{hidden}\n"})
    before = {*tmp_path.rglob("*")}

    line = PLAIN.count("\n") + 1
    with pytest.raises(ValueError, match=f"submission.py:{line}: .*still needs 'metaopt'"):
        package_submission(folder, tmp_path / "new" / "out", INFO)

    assert {path for path in tmp_path.rglob("*") if "__pycache__" not in path.parts} == before


def test_a_folder_that_is_not_empty_is_refused_and_an_empty_one_is_taken(make, tmp_path, no_step):
    folder, out = make(), tmp_path / "out"
    out.mkdir()

    package_submission(folder, out, INFO)
    with pytest.raises(ValueError, match="out is not an empty folder; use another --out"):
        package_submission(folder, out, INFO)


def test_the_command_asks_for_nothing_off_a_terminal_and_names_the_flags(make, tmp_path, capsys):
    command = ["package", str(make()), "--out", str(tmp_path / "out"), "--name", "Plain",
               "--version", "1.0", "--authors", "A, B"]  # fmt: skip

    assert run_app(app, "tuning", command) == 2
    assert capsys.readouterr().err == (
        "tuning: submission_info.yml lacks affiliations, description: "
        "give --affiliations, --description.\n"
    )
    assert not (tmp_path / "out").exists()


def test_the_command_asks_on_a_terminal_with_examples_until_a_value_passes(
    make, tmp_path, capsys, monkeypatch, no_step
):
    monkeypatch.setattr("sys.stdin", io.StringIO("Nowhere\ncosts 5$\nPlain descent\n"))
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    command = ["package", str(make()), "--out", str(tmp_path / "out"), "--name", "Plain",
               "--version", "1.0", "--authors", "A, B", "--no-rehearsal"]  # fmt: skip

    assert run_app(app, "tuning", command) == 0
    written = read_info(tmp_path / "out")
    assert (written["affiliations"], written["description"]) == ("Nowhere", "Plain descent")
    said = capsys.readouterr().out
    assert "Affiliations, separated by commas (example: University of London): " in said
    assert said.count("The algorithm in one line (example: ") == 2
    assert said.count("Error: must not contain '$', which upstream's scripts change.") == 1
    assert "submissions/self_tuning/plain of mlcommons" in said
    assert 'branch evaluation, with the title "[submission] Plain".' in said


@pytest.mark.parametrize(("found", "code"), [(0, 0), (1, 2)], ids=["passed", "failed"])
def test_a_package_appears_only_if_its_rehearsal_passed(
    make, tmp_path, capsys, monkeypatch, no_step, found, code
):
    rehearsed, folder, out = [], str(make()), tmp_path / "out"
    problem = Finding("loss", "error", "the loss rises", "submission.py", "Change the sign.")
    result = Rehearsal("plain", (), Report([problem] * found))
    monkeypatch.setattr(
        package_command,
        "rehearse_and_print",
        lambda name, *_, **__: rehearsed.append(name) or result,
    )
    words = {
        "name": "Plain",
        "version": "1.0",
        "authors": "A",
        "affiliations": "B",
        "description": "C",
    }
    options = [part for key, word in words.items() for part in (f"--{key}", word)]

    assert run_app(app, "tuning", ["package", folder, "--out", str(out), *options]) == code

    assert rehearsed == [folder]
    assert out.exists() is (found == 0)
    assert ("--no-rehearsal" in capsys.readouterr().err) is (found == 1)
    if not found:
        text = (out / "PULL_REQUEST.md").read_text()
        assert "plain trained on 0 of 0 miniatures. Nothing was found that would fail" in text


def upstream_block(text: str) -> str:
    """The part of a pull request that upstream reads, found as its workflow finds it."""
    start = text.index("```yaml\n") + len("```yaml\n")
    return text[start : text.index("\n```", start)]


def test_the_pull_requests_text_holds_the_description_that_upstream_reads(make, tmp_path, no_step):
    sly = "| a | ```yaml\nsubmission_name: other\n```"
    packaged = package_submission(make(), tmp_path / "out", INFO, evidence=lambda: sly)

    text = (packaged.folder / "PULL_REQUEST.md").read_text("utf-8")
    info = (packaged.folder / "submission_info.yml").read_text("utf-8")
    assert upstream_reads(upstream_block(text)) == INFO == upstream_reads(info)
    assert text.startswith("# [submission] x\n")  # upstream's workflows look for this in the title
    headings = [line for line in text.splitlines() if line.startswith("## ")]
    assert headings == [
        "## Submission Information", "## Evidence for the Submission's Performance", "## Comments",
    ]  # fmt: skip
    assert sly in text.partition("## Evidence")[2].partition("## Comments")[0]
    assert f"and took a step, with {packaged.versions}." in text.partition("## Comments")[2]


def test_without_evidence_the_text_asks_for_it(make, tmp_path, no_step):
    packaged = package_submission(make(), tmp_path / "out", INFO)

    assert "*Add a link to a paper" in (packaged.folder / "PULL_REQUEST.md").read_text("utf-8")


@pytest.fixture
def measured(make, tmp_path):
    """A campaign of the plain submission, and the submission's folder."""
    folder = make(**{"submission_info.yml": "authors: A"})
    document = {
        "name": "tiny", "budget": "20grads", "studies": 1, "workloads": ["breast_cancer_logistic"],
        "contenders": [str(folder), "sgd+none"],
    }  # fmt: skip
    run_campaign(make_campaign(document, "test"), tmp_path / "runs")
    return load_submission(folder, SUBMISSIONS), tmp_path / "runs"


def test_a_campaign_is_evidence_for_the_code_that_ran_in_it(measured):
    submission, runs = measured

    text = campaign_evidence(submission, runs)

    rows = [line.split("|")[1].strip(" *\\") for line in text.splitlines() if line.startswith("|")]
    assert {"contender", "plain", "sgd+none"} < {row.split()[0] for row in rows if row}
    assert "Campaign tiny: the budget of a study, tuning included, is 20grads" in text
    with pytest.raises(ValueError, match=r"has no runs of 'adamw', only of \['plain', 'sgd'\]"):
        campaign_evidence(load_submission("adamw", SUBMISSIONS), runs)
    (submission.folder / "submission_info.yml").write_text("authors: B")
    assert campaign_evidence(submission, runs) == text
    (submission.folder / "submission.py").write_text(PLAIN.replace("0.1", "0.2"))
    with pytest.raises(ValueError, match=r"plain/submission.py changed since plain ran in .*runs"):
        campaign_evidence(submission, runs)


def test_a_folder_without_a_campaign_is_no_evidence_and_stops_before_any_question(
    make, tmp_path, capsys
):
    command = ["package", str(make()), "--out", str(tmp_path / "out"), "--evidence",
               str(tmp_path / "nowhere")]  # fmt: skip

    assert run_app(app, "tuning", command) == 2
    assert capsys.readouterr().err.startswith("tuning: No folder ")


def test_a_description_that_contradicts_the_submission_is_refused(make, tmp_path, no_step):
    folder = make(**{"submission_info.yml": "ruleset: external"})

    with pytest.raises(ValueError, match="ruleset is 'external', but it has no tuning_search"):
        package_submission(folder, tmp_path / "out", INFO)


def test_a_second_referee_never_mistakes_a_packages_training_mode(packaged_metaopt):
    module = load_submission(packaged_metaopt.folder, SUBMISSIONS).module

    assert module.kit.ForwardPassMode is ForwardPassMode
    assert module.kit.__file__ == os.fspath(
        packaged_metaopt.folder / "metaopt" / "bench" / "contract" / "kit.py"
    )
    assert json.dumps(module.DEFAULTS) == json.dumps(
        load_submission("metaopt", SUBMISSIONS).defaults
    )
