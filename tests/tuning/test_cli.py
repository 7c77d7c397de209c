"""The commands of ``python -m tuning``, as a person types them."""

import json
import subprocess
import sys

import pytest

from analysis.command_line import run_app
from metaopt.bench import records
from metaopt.bench.records.findings import Finding
from tuning.cli import app


@pytest.fixture
def tuning(root, tmp_path, monkeypatch):
    """Run a command, with no data but what ships with the dependencies."""
    monkeypatch.delenv("METAOPT_DATA_DIR", raising=False)

    def run(*arguments):
        command = [sys.executable, "-m", "tuning", *map(str, arguments)]
        return subprocess.run(command, cwd=root, capture_output=True, text=True)

    return run


def test_list_names_everything_that_there_is(tuning, root):
    listed = json.loads(tuning("list", "--format", "json").stdout)

    kinds = {"workloads", "workloads of AlgoPerf", "submissions", "tuners", "campaigns"}
    assert set(listed) == kinds
    assert "algoperf_ogbg" in listed["workloads of AlgoPerf"]  # there with a reason, if need be
    on_disk = {path.parent.name for path in (root / "submissions").glob("*/*/submission.py")}
    assert set(listed["submissions"]) == on_disk
    assert {"digits_mlp", "digits_mlp_fixed", "mnist_mlp"} <= set(listed["workloads"])
    assert {"grid", "random", "tpe"} <= set(listed["tuners"])
    assert {"demo", "figure1_mnist", "figure3_digits"} <= set(listed["campaigns"])


def test_run_leaves_a_record_and_does_not_write_over_it(tuning, tmp_path):
    arguments = ("run", "adamw", "breast_cancer_logistic", "--hparams", "learning_rate=0.01",
                 "--budget", "50grads", "--out", tmp_path / "one")  # fmt: skip

    first, second = tuning(*arguments), tuning(*arguments)

    assert first.returncode == 0
    folder = first.stdout.splitlines()[-1]
    record = records.read_trial(tmp_path / "one" / folder / records.RUN_FILE)
    assert record.hyperparameters["learning_rate"] == 0.01
    assert record.ledger.cost.gradient_evaluations <= 50
    assert second.returncode == 2
    assert "holds a finished trial; use another --out" in second.stderr


def test_compare_ends_with_the_path_of_the_report_and_a_second_call_runs_nothing(tuning, tmp_path):
    arguments = ("compare", "demo", "--workloads", "breast_cancer_logistic", "--contenders",
                 "adamw+random,sgd+random", "--studies", 1, "--budget", "2x",
                 "--out", tmp_path / "out")  # fmt: skip

    first = tuning(*arguments)
    before = {path: path.read_bytes() for path in tmp_path.rglob("run.json")}
    second = tuning(*arguments)

    assert (first.returncode, second.returncode) == (0, 0)
    last = first.stdout.splitlines()[-1]
    assert last == f"report: {tmp_path / 'out' / 'report' / 'report.html'}"
    assert (tmp_path / "out" / "report" / "report.html").is_file()
    assert before == {path: path.read_bytes() for path in tmp_path.rglob("run.json")}
    assert second.stdout.splitlines()[-1] == last


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


def test_a_campaign_on_stability_is_run_and_reported_by_the_same_commands(tuning, root, tmp_path):
    file, out = tmp_path / "tiny.toml", tmp_path / "out"
    file.write_text(STABILITY)

    result = tuning("compare", file, "--out", out)

    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines()[-1] == f"report: {out / 'report' / 'report.html'}"
    assert "weight decay" in result.stdout
    again = subprocess.run(
        [sys.executable, "-m", "analysis", "report", out, "--out", tmp_path / "again"],
        cwd=root, capture_output=True, text=True,
    )  # fmt: skip
    assert again.returncode == 0, again.stderr
    page = (tmp_path / "again" / "report.html").read_text()
    assert "do products of transitions decay?" in page
    assert "data:image/svg+xml;base64," in page
    for name in ("report.md", "stability.csv", "stability.png"):
        assert (tmp_path / "again" / name).stat().st_size > 100
    refused = tuning("compare", file, "--out", out, "--studies", "3")
    assert refused.returncode == 2
    assert "takes --seed and --out only, got --studies." in refused.stderr


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["bogus"], "No such command 'bogus'. There are ['check',"),
        (["run", "adamw"], "Missing argument 'workload'"),
        (["run", "nothing", "digits_mlp"], "it is neither one of ['adamw', 'd_adaptation',"),
        (["run", "adamw", "nowhere"], "No workload 'nowhere', only ['breast_cancer_logistic',"),
        (["run", "adamw", "mnist_mlp"], "Missing data file train-images-idx3-ubyte.gz: looked in"),
        (["run", "metaopt", "digits_mlp", "--hparams", "x=1"], "name of ['learning_rate'"),
        (["run", "metaopt", "digits_mlp", "--hparams", "fixed_batch=1"], "true or false"),
        (["run", "dog", "digits_mlp", "--hparams", "x=1"], "takes no"),
        (["run", "adamw", "digits_mlp", "--hparams", "learning_rate=fast"], "must be a number"),
        (["run", "adamw", "digits_mlp", "--budget", "-1grads"], "positive and finite, got -1"),
        (["compare", "demo", "--workloads", "mnist_mlp"], "to get it: python -m tuning download"),
        (["compare", "nothing"], "No campaign file 'nothing'; there are ['ablation_digits'"),
        (["compare", "demo", "--studies", "0"], "studies: Input should be greater than or equal"),
        (["compare", "demo", "--contenders", "adamw"], "needs a tuner, as in 'adamw+random'"),
        (["compare", "demo", "--budget", "9s"], "eval_period = '25grads' must be in the currency"),
        (
            ["compare", "demo", "--budget", "9s", "--eval-period", "1s", "--workers", "2"],
            "run one study at a time",
        ),
        (["targets", "nowhere"], "No workload 'nowhere'"),
        (["download", "imagenet"], "No data set 'imagenet', only ['mnist']"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_mistake_is_one_line_and_exit_code_2(tuning, tmp_path, arguments, message):
    if arguments[0] in ("run", "compare"):
        arguments = [*arguments, "--out", tmp_path / "out"]
    if arguments[0] == "download":
        arguments = [*arguments, "--to", tmp_path]

    result = tuning(*arguments)

    assert result.returncode == 2
    assert result.stderr.startswith("tuning: ")
    assert message in result.stderr
    assert result.stderr.count("\n") == 1
    assert not (tmp_path / "out" / "logs").exists()


def test_check_names_what_is_wrong_and_how_to_put_it_right(tuning, tmp_path):
    (tmp_path / "submission.py").write_text("import of_no_one\n")

    checked = tuning("check", tmp_path)

    assert checked.returncode == 1
    assert "error: import: submission.py:1: the import fails: ModuleNotFound" in checked.stdout
    assert "    Install the missing module" in checked.stdout
    assert "29 rules: 5 errors, 0 notes, 13 not applied" in checked.stdout


@pytest.mark.parametrize("severity, code", [("note", 0), ("error", 1)])
def test_check_fails_for_errors_alone_and_prints_plain_data(severity, code, monkeypatch, capsys):
    finding = Finding("crash", severity, "what", "submission.py:1", "fix")
    monkeypatch.setattr("metaopt.bench.rules.check.check_apart", lambda folder, timeout: [finding])

    assert run_app(app, "tuning", ["check", "sgd", "--format", "json"]) == code
    assert json.loads(capsys.readouterr().out) == [vars(finding)]
