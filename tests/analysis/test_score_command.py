"""The commands that print scores: every format, with everything that decides the table."""

import csv
import io
import itertools
import json
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from analysis.cli import app


@pytest.fixture
def logs(tmp_path, official):
    return official(tmp_path / "logs")


def run(*arguments):
    return CliRunner().invoke(app, [*map(str, arguments)], env={"COLUMNS": "300"})


@pytest.fixture
def command(logs, tmp_path):
    """Score the good logs."""
    logs.good()
    targets = logs.targets(tmp_path / "t.json")
    line = ["score", logs.root, "--targets", targets, "--studies", "2", "--trials", "2"]
    return lambda *arguments: run(*line, *arguments)


def document(result):
    assert result.exit_code == 0, result.stderr
    return json.loads(result.stdout)


def test_json_has_rules_scores_and_times(command, logs):
    logs.trial("worse", 1, "easy", 1, [(0.9, 1.0)])

    found = document(command("--rules", "algoperf", "--format", "json"))

    assert (found["rules"], found["view"], found["cost"]) == ("algoperf", "given", "seconds")
    assert found["scores"] == {"fast": 1.0, "slow": pytest.approx(2 / 3, abs=6e-3), "worse": 0.0}
    rows = {row["contender"]: row for row in found["tables"][0]["rows"]}
    assert rows["fast"]["easy_given_tuned"] == pytest.approx(10, abs=0.1)
    assert rows["worse"]["easy_given_tuned"] == "missed"
    assert rows["worse"]["hard_given_tuned"] is None


def test_strict_is_the_default_and_includes_tuning(command):
    found = document(command("--format", "json"))

    assert (found["rules"], found["view"]) == ("strict", "including")
    assert found["scores"] == {"fast": 1.0, "slow": pytest.approx(0.8, abs=1e-3)}  # twice the cost


def test_csv_has_every_digit_and_names_that_are_no_formulas(command, logs):
    logs.trial("=1+1", 1, "easy", 1, [(0.4, 1 / 3 + 10)])

    rows = list(csv.DictReader(io.StringIO(command("--format", "csv", "--view", "given").stdout)))

    assert [row["contender"] for row in rows] == ["fast", "slow", "'=1+1"]
    assert [row["easy_given_tuned"][:4] for row in rows] == ["10.0", "20.0", "miss"]
    assert len(rows[1]["score_given"]) > 15


@pytest.mark.parametrize("format", ["table", "markdown", "latex"])
def test_names_are_text_in_every_format(command, logs, format):
    logs.trial("\x1b[31mred_<b>|", 1, "easy", 1, [(0.4, 20.0)])

    result = command("--format", format)

    assert result.exit_code == 0
    assert "\x1b[31m" not in result.stdout
    assert {"table": "red_<b>|", "markdown": r"red\_\<b\>\|", "latex": r"red\_\textless{}b"}[
        format
    ] in result.stdout.replace("�", "")


def test_a_tar_gives_what_its_folder_gives(command, logs, tmp_path, pack):
    tar = pack(logs.root, tmp_path / "l.tar.gz", "w:gz")
    line = ["score", tar, "--within", "logs", "--targets", tmp_path / "t.json", "--trials", "2"]

    result = run(*line, "--studies", "2", "--format", "json")

    assert result.stdout == command("--format", "json").stdout


FORMATS = ["table", "json", "csv", "markdown", "latex"]


def said(result):
    """Everything that was printed, with the escapes of Markdown and LaTeX taken out."""
    text = " ".join((result.stdout + result.stderr).split())
    return text.replace("\\", "").replace("{", "").replace("}", "")


@pytest.mark.parametrize("format", FORMATS)
def test_everything_that_decides_the_table_is_printed_in_every_format(command, logs, format):
    logs.trial("odd", 1, "easy", 1, [(0.9, 1.0), (0.9, 5.0)])  # broke off; study 2 is missing
    logs.trial("tie", 1, "easy", 1, [(0.4, 7.0)])
    logs.trial("tie", 1, "easy", 2, [(0.4, 6.0)])
    logs.trial("tie", 2, "easy", 1, None)  # crashed; trial 2 is missing

    strict, algoperf = (said(command("--format", format, *more))
                        for more in ((), ("--rules", "algoperf")))  # fmt: skip

    for text in (strict, algoperf):
        assert "odd on easy: 1 of 2 studies" in text
        assert "odd on easy: 1 of 1 trial broke off" in text
        assert "tie on easy" in text and "crashed" in text
        assert "trials" in text.lower()
    ties = "Ties in the evaluation index"
    assert ties in algoperf and ties not in strict
    assert "tie on easy, study 1" in algoperf or format == "table"  # which shows the first five


@pytest.mark.parametrize("format", FORMATS)
def test_base_workloads_without_logs_are_named_in_every_format(logs, tmp_path, format):
    logs.trial("s", 1, "easy", 1, [(0.4, 7.0)])
    targets = logs.targets(tmp_path / "t.json")

    text = said(run("score", logs.root, "--targets", targets, "--format", format))

    assert "Workloads without logs" in text and "hard" in text


def test_the_diff_is_a_table_in_every_format(command, logs):
    for study in (1, 2):
        logs.trial("odd", study, "hard", 1, [(0.9, 1.0), (0.4, 50.0)])
        logs.trial("odd", study, "hard", 2, [(0.9, 1.0), (0.9, 2.0), (0.4, 12.0)])

    cells, scores = document(command("--diff", "--format", "json"))["tables"]

    (row,) = cells["rows"]
    assert (row["contender"], row["workload"]) == ("odd", "hard")
    assert (row["algoperf"], row["strict"]) == pytest.approx((50, 12), abs=0.1)
    assert row["why"] == "2 studies with a cheaper trial than that of the earliest evaluation"
    odd = next(row for row in scores["rows"] if row["contender"] == "odd")
    assert (odd["algoperf"], odd["exact"]) == (0.0, 0.0)
    assert odd["strict"] == pytest.approx((4 - 1.2) / 6, abs=1e-3)
    for format in FORMATS:
        assert command("--diff", "--format", format).exit_code == 0


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--rules", "algoperf", "--view", "including"], "count given tuned"),
        (["--rules", "algoperf", "--cost", "steps"], "count seconds"),
        (["--studies", "0"], "`studies` must be at least 1"),
        (["--within", "nowhere"], "No folder 'nowhere' in"),
        (["--hardware", "x"], "No runs on hardware 'x', only on"),
        (["--rules", "algoperf", "--mix-hardware"], "--mix-hardware"),
        (["--cost", "steps", "--mix-hardware"], "--mix-hardware"),
        (["--diff", "--view", "including"], "--view including"),
        (["--diff", "--cost", "steps"], "--cost steps"),
        (["--diff", "--rules", "algoperf"], "--rules"),
        (["--cost", "gradient_evaluations"], "no costs in gradient evaluations"),
        (["--cost", "adjusted"], "no costs in adjusted"),
        (["--ruleset", "self"], "--tuning_ruleset=external"),
    ],
)
def test_contradictions_and_options_without_effect_are_one_line(command, arguments, message):
    result = command(*arguments)

    assert result.exit_code == 2
    assert message in result.stderr
    assert result.stderr.count("\n") == 1


def edit_meta_data(logs, submission, **changes):
    for path in (logs.root / submission).rglob("meta_data_0.json"):
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_seconds_of_two_accelerators_are_refused_unless_asked_for(command, logs):
    edit_meta_data(logs, "slow", gpu_model_name="pebbles")

    refused = command()
    mixed = command("--mix-hardware")

    assert refused.exit_code == 2 and refused.stderr.count("\n") == 1
    assert "beads x 8, pebbles x 8" in refused.stderr
    assert mixed.exit_code == 0 and "MIXED HARDWARE" in said(mixed)
    assert command("--cost", "steps").exit_code == 0  # steps compare anywhere
    assert command("--rules", "algoperf").exit_code == 0  # the official scorer does not look
    compared = command("--diff"), command("--diff", "--mix-hardware")
    assert [result.exit_code for result in compared] == [2, 0]
    assert "MIXED HARDWARE" in said(compared[1])


def test_hardware_is_chosen_in_algoperfs_logs_too(command, logs):
    edit_meta_data(logs, "slow", gpu_model_name="pebbles")
    listed = run("hardware", logs.root, "--format", "json")
    slug = next(row["hardware"] for row in json.loads(listed.stdout)["tables"][0]["rows"]
                if "pebbles" in row["accelerators"])  # fmt: skip

    found = document(command("--hardware", slug, "--format", "json"))

    assert list(found["scores"]) == ["slow"]
    assert command("--hardware", slug, "--diff").exit_code == 0


def test_a_trial_that_does_not_say_its_hardware_is_a_note_and_no_other_hardware(command, logs):
    path = next((logs.root / "slow").rglob("meta_data_0.json"))
    path.write_text(json.dumps({"workload.max_allowed_runtime_sec": 1000, "rng_seed": 7}))

    result = command()

    assert result.exit_code == 0
    assert "1 trial does not say on which hardware" in said(result)


def test_machines_with_the_same_accelerators_are_one_kind_and_their_differences_are_said(
    command, logs
):
    edit_meta_data(logs, "slow", gpu_driver="2", cpu_model_name="an older abacus")

    text = said(command())

    assert "on beads x 8, of machines that differ in their processor, driver" in text


@pytest.mark.parametrize("option", ["--studies", "--trials", "--budget-factor"])
def test_a_competitions_options_are_refused_for_ours(hand_made, option):
    result = run("score", hand_made(), option, "3")

    assert result.exit_code == 2
    assert f"{option} is for AlgoPerf's logs" in result.stderr


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("what", ["score", "statistics", "hardware", "table"])
def test_every_command_takes_algoperfs_logs_and_ours_in_every_format(
    logs, hand_made, tmp_path, what, format
):
    for path in (logs.good(), hand_made(tmp_path / "ours")):
        result = run(what, path, "--format", format)
        assert result.exit_code == 0, result.stderr
        assert result.stdout


COMMANDS = [["score"], ["score", "--diff"], ["statistics"], ["hardware"]]


@pytest.mark.parametrize("command", COMMANDS)
def test_a_contender_that_failed_throughout_is_exit_code_1_and_the_first_line(
    build, tmp_path, command
):
    b = build(tmp_path, ["bad+halton", "good+halton"], ["w"], 2)
    cause = "the workload reports no 'validation/perplexity'"
    for study in (1, 2):
        b.trial("bad+halton", "w", study, 0.0, status="invalid", cause=cause)
        b.trial("good+halton", "w", study, 100.0, reached=100.0)

    table, as_json = run(*command, tmp_path), run(*command, tmp_path, "--format", "json")

    assert table.exit_code == as_json.exit_code == 1
    assert "bad+halton on w: 2 of 2 trials invalid" in table.stdout.splitlines()[0]
    assert cause in table.stdout.splitlines()[0]
    assert "bad+halton ✗" in table.stdout
    found = json.loads(as_json.stdout)
    assert any(cause in note for note in found["notes"])
    if command != ["statistics"]:  # its JSON is one long table of numbers
        last = found["tables"][-1]
        assert any("✗ bad+halton on w" in note for note in last["notes"])
        (row,) = (row for row in last["rows"] if row["contender"] == "bad+halton")
        assert cause in row["contender_failure"]


def audit(b, contender, workload, seconds, *findings, **changes):
    """Write an audit beside a contender's first trial."""
    from metaopt.bench import records
    from metaopt.bench.records.audit import AUDIT_FILE, AuditRecord

    found = AuditRecord(
        campaign="made", contender=contender, workload=workload, study=1, trial=1, position=0.5,
        seconds=seconds, reference_seconds=1.0, findings=findings, **changes,
    )  # fmt: skip
    folder = records.trial_directory(b.out / "logs", contender, 1, workload, 1)
    records.write_json(folder / AUDIT_FILE, found)


def test_adjusted_costs_are_gradients_times_the_time_factor(build, tmp_path):
    b = build(tmp_path, ["fast", "slow"], ["w"], 1)
    for name, seconds, cost in [("fast", 0.5, 100.0), ("slow", 4.0, 50.0)]:
        b.trial(name, "w", 1, cost, reached=cost)
        audit(b, name, "w", seconds)

    plain = json.loads(run("score", tmp_path, "--format", "json").stdout)
    adjusted = json.loads(run("score", tmp_path, "--cost", "adjusted", "--format", "json").stdout)

    assert list(plain["scores"]) == ["slow", "fast"]
    assert list(adjusted["scores"]) == ["fast", "slow"]
    costs = [row["w_including_tuning"] for row in adjusted["tables"][0]["rows"]]
    assert costs == [50.0, 200.0]


def test_adjusted_costs_without_a_time_factor_are_refused(build, tmp_path):
    b = build(tmp_path, ["a", "b"], ["w"], 1)
    for name in ("a", "b"):
        b.trial(name, "w", 1, 100.0, reached=100.0)
    audit(b, "a", "w", 1.0)

    result = run("score", tmp_path, "--cost", "adjusted")

    assert result.exit_code == 2 and "not known for: b on w" in result.stderr


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("command", COMMANDS)
def test_a_failed_audit_is_flagged_in_every_format_with_both_numbers(
    build, tmp_path, command, format
):
    from metaopt.bench.records.audit import AuditFinding

    b = build(tmp_path, ["cheat", "fair"], ["w"], 2)
    for name, study in itertools.product(("cheat", "fair"), (1, 2)):
        b.trial(name, "w", study, 100.0, reached=100.0)
    what = "In steps 1 to 8, 32 gradient evaluations were counted and 8 charged (ratio 4.00)."
    audit(b, "cheat", "w", 1.0, AuditFinding(audit="passes", failed=True, what=what))
    audit(b, "fair", "w", 1.0)

    result = run(*command, tmp_path, "--format", format)

    text = said(result)
    assert result.exit_code == 0
    assert "32 gradient evaluations were counted and 8 charged" in text
    assert "fair §" not in text and "fair S" not in text
    if format in ("table", "markdown"):
        assert "cheat §" in text
    elif format in ("csv", "json") and command != ["statistics"]:
        assert "contender_failure" in text
        assert "Failed an audit: cheat on w" in result.stdout


@pytest.mark.parametrize("format", FORMATS)
def test_time_factors_stand_beside_the_costs_in_every_format(build, tmp_path, format):
    b = build(tmp_path, ["fast", "slow"], ["w"], 1)
    for name, seconds in [("fast", 0.5), ("slow", 4.25)]:
        b.trial(name, "w", 1, 100.0, reached=100.0)
        audit(b, name, "w", seconds)

    result = run("score", tmp_path, "--format", format)

    text = said(result)
    assert "time factor" in text.replace("_", " ")
    for factor in ("0.5", "4.25"):
        assert factor in text if format in ("csv", "json") else f"x{float(factor):.2f}" in text


def test_validate_has_exit_codes_and_json(logs):
    root = str(logs.good())

    fine = CliRunner().invoke(app, ["validate", root, "--format", "json"])
    (logs.root / "fast" / "study_1" / "trial_1").mkdir()
    wrong = CliRunner().invoke(app, ["validate", root])

    assert (fine.exit_code, wrong.exit_code) == (0, 1)
    assert json.loads(fine.stdout) == {
        "errors": 0, "notes": 0, "accepted": 0, "trials": 16, "findings": []
    }  # fmt: skip
    assert wrong.stdout.splitlines()[0] == (
        "error: files-stray: fast/study_1/trial_1: not <workload>_<framework>"
    )


def test_validate_explains_a_rule(logs):
    text = CliRunner().invoke(app, ["validate", "--explain", "clocks-back"]).stdout

    assert text.splitlines()[0] == "clocks-back: no clock goes back"
    assert CliRunner().invoke(app, ["validate", "--explain", "x"]).exit_code == 2


@pytest.mark.parametrize("what", ["score", "validate", "table"])
def test_no_command_on_logs_imports_jax(logs, tmp_path, root, what):
    targets = logs.targets(tmp_path / "t.json")
    arguments = [what, str(logs.good()), *(["--targets", str(targets)] if what != "table" else [])]
    code = (
        "import sys; from analysis.cli import app; "
        "app(sys.argv[1:], standalone_mode=False); sys.exit('jax' in sys.modules)"
    )

    run = subprocess.run([sys.executable, "-c", code, *arguments], cwd=root, capture_output=True)

    assert run.returncode == 0, run.stderr
