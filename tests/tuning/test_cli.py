"""The commands of ``python -m tuning``, in this process."""

import json
import shutil
import subprocess
import sys
from typing import NamedTuple

import pytest
import typer

from analysis.cli import app as analysis_app
from analysis.command_line import run_app
from metaopt.bench import records
from metaopt.bench.measure.targets import load_targets
from metaopt.bench.records.findings import Finding
from metaopt.bench.rules.check import Report
from tuning.cli import app
from tuning.commands import targets_command
from tuning.targets import NoTargetError


class Result(NamedTuple):
    """What a command returned and printed."""

    code: int
    out: str
    err: str


@pytest.fixture
def tuning(monkeypatch, capsys):
    """Run a command with only the data that ships with the dependencies."""
    monkeypatch.delenv("METAOPT_DATA_DIR", raising=False)

    def run(*arguments, commands=app):
        code = run_app(commands, "tuning", [str(argument) for argument in arguments])
        return Result(code, *capsys.readouterr())

    return run


def test_the_package_is_a_command(root):
    command = [sys.executable, "-m", "tuning", "bogus"]
    result = subprocess.run(command, cwd=root, capture_output=True, text=True)

    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr.startswith("tuning: No such command 'bogus'. There are ['check',")


@pytest.mark.parametrize("name", sorted(typer.main.get_command(app).commands))
def test_the_help_of_a_command_has_an_example_of_it(name, tuning):
    result = tuning(name, "--help")

    assert result.code == 0
    assert f"Example: python -m tuning {name} " in " ".join(result.out.split())


def test_list_names_everything_that_there_is(tuning, root):
    listed = json.loads(tuning("list", "--format", "json").out)

    kinds = {"workloads", "workloads of AlgoPerf", "submissions", "tuners", "campaigns"}
    assert set(listed) == kinds
    assert "algoperf_ogbg" in listed["workloads of AlgoPerf"]  # there with a reason, if need be
    on_disk = {path.parent.name for path in (root / "submissions").glob("*/*/submission.py")}
    assert set(listed["submissions"]) == on_disk
    assert {"digits_mlp", "digits_mlp_fixed", "mnist_mlp"} <= set(listed["workloads"])
    assert {"grid", "random", "tpe"} <= set(listed["tuners"])
    assert {"demo", "figure1_mnist", "figure3_digits"} <= set(listed["campaigns"])


def test_run_leaves_a_record_and_does_not_write_over_it(tuning, tmp_path):
    arguments = ("run", "sgd", "breast_cancer_logistic", "--hparams", "learning_rate=0.01",
                 "--budget", "10grads", "--out", tmp_path / "one")  # fmt: skip

    first, second = tuning(*arguments), tuning(*arguments)

    assert first.code == 0
    folder = first.out.splitlines()[-1]
    record = records.read_trial(tmp_path / "one" / folder / records.RUN_FILE)
    assert record.hyperparameters["learning_rate"] == 0.01
    assert record.ledger.cost.gradient_evaluations <= 10
    assert second.code == 2
    assert "holds a finished trial; use another --out" in second.err


def test_compare_writes_a_report_and_a_second_call_runs_nothing(tuning, tmp_path, monkeypatch):
    report = tmp_path / "out" / "report" / "report.html"
    arguments = ("compare", "demo", "--workloads", "breast_cancer_logistic", "--contenders",
                 "sgd+random", "--studies", 1, "--budget", "50grads", "--in-process", "--out",
                 tmp_path / "out")  # fmt: skip

    first = tuning(*arguments)
    assert report.is_file()
    before = {path: path.read_bytes() for path in tmp_path.rglob("run.json")}
    monkeypatch.setattr("tuning.commands.compare_command.write_report", lambda *_, **__: report)
    second = tuning(*arguments)

    assert (first.code, second.code) == (0, 0)
    for said in (first.out, second.out):
        assert f"\nreport: {report}\n" in said
        assert said.splitlines()[-1] == (
            "No contender's median study reached the target of any workload."
        )
    assert before == {path: path.read_bytes() for path in tmp_path.rglob("run.json")}


STABILITY = """
kind = "stability"
name = "tiny"
trials = 2
steps = 3

[[settings]]
label = "weight decay"
workload = "digits"
pool = 4
widths = [2]
eta = 0.1
delta = 0.2
"""


def test_stability_is_measured_and_reported(tuning, tmp_path):
    file, out, again = tmp_path / "tiny.toml", tmp_path / "out", tmp_path / "again"
    file.write_text(STABILITY)

    result = tuning("stability", file, "--seed", 5, "--out", out)

    assert result.code == 0, result.err
    assert result.out.splitlines()[-1] == f"report: {out / 'report' / 'report.html'}"
    assert "weight decay" in result.out
    assert json.loads((out / "stability.json").read_text())["seed"] == 5
    reported = tuning("report", out, "--out", again, commands=analysis_app)
    assert reported.code == 0, reported.err
    page = (again / "report.html").read_text()
    assert "do products of transitions decay?" in page
    assert 'role="img"' in page and "<svg" in page
    for name in ("report.md", "stability.csv", "stability.png"):
        assert (again / name).stat().st_size > 100


def test_targets_are_written_where_the_package_reads_them(tuning, root, tmp_path, monkeypatch):
    frozen = load_targets()
    found = frozen["digits_mlp"]

    def set_targets(name, out, **_):
        if name == "hard":
            raise NoTargetError("hard: no target")
        return found

    monkeypatch.setattr(targets_command, "set_targets", set_targets)
    for name in ("PACKAGED", "PUBLISHED"):
        assert getattr(targets_command, name).is_file()
        copy = tmp_path / f"{name}.json"
        shutil.copy(getattr(targets_command, name), copy)
        monkeypatch.setattr(targets_command, name, copy)

    result = tuning("targets", "hard", "new")

    assert (result.code, result.err) == (1, "tuning: hard: no target\n")
    for name in ("PACKAGED", "PUBLISHED"):
        assert load_targets(tmp_path / f"{name}.json") == {**frozen, "new": found}


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["run", "adamw"], "Missing argument 'workload'"),
        (["run", "nothing", "digits_mlp"], "it is neither one of ['adamw', 'ademamix',"),
        (["run", "adamw", "digit_mlp"], "No workload 'digit_mlp' (did you mean 'digits_mlp'?)"),
        (["check", "adamv"], "No submission 'adamv' (did you mean 'adamw'?)"),
        (["compare", "dmeo"], "No campaign file 'dmeo' (did you mean 'demo'?)"),
        (
            ["compare", "demo", "--contenders", "adamw+tpee"],
            "no tuner 'tpee' (did you mean 'tpe'?)",
        ),
        (["compare", "demo", "--contenders", "adamw@papr+tpe"], "'papr' (did you mean 'paper'?)"),
        (["run", "adamw", "nowhere"], "No workload 'nowhere', only ['breast_cancer_logistic',"),
        (["run", "adamw", "mnist_mlp"], "Missing data file train-images-idx3-ubyte.gz: looked in"),
        (["run", "metaopt", "digits_mlp", "--hparams", "x=1"], "name of ['learning_rate'"),
        (["run", "metaopt", "digits_mlp", "--hparams", "fixed_batch=1"], "true or false"),
        (["run", "dog", "digits_mlp", "--hparams", "x=1"], "takes no"),
        (["run", "adamw", "digits_mlp", "--hparams", "learning_rate=fast"], "must be a number"),
        (["run", "adamw", "digits_mlp", "--budget", "-1grads"], "positive and finite, got -1"),
        (["compare", "demo", "--workloads", "mnist_mlp"], "to get it: python -m tuning download"),
        (["compare", "figure3_digits"], "python -m tuning stability figure3_digits"),
        (["stability", "demo"], "kind: Field required"),
        (["compare", "nothing"], "No campaign file 'nothing'; there are ['ablation_digits'"),
        (["compare", "demo", "--studies", "0"], "studies: Input should be greater than or equal"),
        (["compare", "demo", "--contenders", "adamw"], "needs a tuner, as in 'adamw+random'"),
        (
            ["compare", "demo", "--budget", "9s", "--eval-period", "25grads"],
            "eval_period = '25grads' must be in the currency",
        ),
        (["compare", "demo", "--gpus-per-study", "1.5"], "--gpus-per-study"),
        (["compare", "demo", "--gpus-per-study", "-1"], "--gpus-per-study"),
        (["compare", "demo", "--cpus-per-study", "0"], "--cpus-per-study"),
        (
            ["compare", "demo", "--in-process", "--cpus-per-study", "1"],
            "--cpus-per-study has no effect with --in-process",
        ),
        (["compare", "demo", "--dry-run", "--slurm", "2"], "--slurm has no effect with --dry-run"),
        (
            ["compare", "demo", "--slurm", "2", "--address", "a:1"],
            "--address has no effect with --slurm",
        ),
        (
            ["compare", "demo", "--slurm-option", "time=1:00"],
            "--slurm-option has no effect without --slurm",
        ),
        (["targets", "nowhere"], "No workload 'nowhere'"),
        (["download", "imagenet"], "No data set 'imagenet', only ['mnist']"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_mistake_is_one_line_and_exit_code_2(tuning, tmp_path, arguments, message):
    if arguments[0] in ("run", "compare", "stability"):
        arguments = [*arguments, "--out", tmp_path / "out"]
    if arguments[0] == "download":
        arguments = [*arguments, "--to", tmp_path]

    result = tuning(*arguments)

    assert result.code == 2
    assert result.err.startswith("tuning: ")
    assert message in result.err
    assert result.err.count("\n") == 1
    assert not (tmp_path / "out" / "logs").exists()


def test_an_address_in_the_environment_may_have_no_effect(tuning, monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", "host:1")

    result = tuning("compare", "demo", "--in-process", "--studies", "0")

    assert "studies: Input should be greater" in result.err


def test_check_names_what_is_wrong_and_how_to_put_it_right(tuning, tmp_path):
    (tmp_path / "submission.py").write_text("import of_no_one\n")

    checked = tuning("check", tmp_path)

    assert checked.code == 1
    assert "error: import: submission.py:1: the import fails: ModuleNotFound" in checked.out
    assert "    Install the missing module" in checked.out
    assert "31 rules: 5 errors, 0 notes, 14 not applied" in checked.out


@pytest.mark.parametrize("severity, code", [("note", 0), ("error", 1)])
def test_check_fails_for_errors_alone_and_prints_plain_data(severity, code, monkeypatch, capsys):
    finding = Finding("crash", severity, "what", "submission.py:1", "fix")
    monkeypatch.setattr(
        "tuning.commands.check_command.check_in_subprocess",
        lambda folder, timeout: Report([finding]),
    )

    assert run_app(app, "tuning", ["check", "sgd", "--format", "json"]) == code
    assert json.loads(capsys.readouterr().out) == [vars(finding)]
