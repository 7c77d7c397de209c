"""Strict rules on AlgoPerf's logs, the diff of the two rules, and the commands that print them."""

import csv
import io
import json
import math
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from analysis.cli import app
from analysis.logs.competition import OfficialTargets, read_official_targets
from analysis.scoring.algoperf_rules import official_scores, official_times
from analysis.scoring.outcomes import read_outcomes
from analysis.scoring.rule_diff import compare_rules
from analysis.scoring.strict_rules import Demands, demands_of, score_outcomes

INF = math.inf
THREE = Demands(studies=3, trials=2, budget_factor=1.0)


@pytest.fixture
def logs(tmp_path, official):
    return official(tmp_path / "logs")


@pytest.fixture
def outcomes(logs, tmp_path):
    def read(currency="seconds", **changes):
        targets = logs.targets(tmp_path / "t.json", **({"base_workloads": ["easy"]} | changes))
        targets = read_official_targets(targets)
        return read_outcomes(logs.root, targets, currency=currency, budgets=True)

    return read


@pytest.fixture
def hand_table(logs, outcomes):
    """Three studies of two trials: what each rule makes of it is in the tests."""
    # Trial 1 is earlier by evaluation, trial 2 cheaper.
    logs.trial("s", 1, "easy", 1, [(0.9, 10.0), (0.4, 50.0), (0.3, 60.0)])
    logs.trial("s", 1, "easy", 2, [(0.9, 10.0), (0.9, 20.0), (0.4, 40.0)])
    # Trial 1 crashed, and is charged its whole budget of 100 s.
    logs.trial("s", 2, "easy", 1, None)
    logs.trial("s", 2, "easy", 2, [(0.9, 10.0), (0.4, 30.0)])
    # Trial 1 hits beyond its budget, trial 2 never.
    logs.trial("s", 3, "easy", 1, [(0.9, 10.0), (0.4, 101.0)])
    logs.trial("s", 3, "easy", 2, [(0.9, 10.0), (math.nan, 80.0)])
    return outcomes()


def test_the_hand_made_table_under_strict_rules(hand_table):
    cell = score_outcomes(hand_table, THREE).cells["s", "easy"]

    assert cell.given == (40.0, 30.0, INF)
    assert cell.including == (50.0, 130.0, INF)
    assert (cell.median("given"), cell.median("including"), cell.reached) == (40.0, 130.0, 2)


def test_the_hand_made_table_is_explained(hand_table):
    comparison = compare_rules(hand_table, Demands(studies=4, trials=2, budget_factor=1.0))

    (difference,) = comparison.differences
    assert (difference.algoperf, difference.strict) == (50.0, INF)
    assert difference.reasons == (
        "study 1: trial 1 hit at evaluation 1 in 50 s, trial 2 hit at evaluation 2 in 40 s: "
        "strict takes the cheaper",
        "study 3: trial 1 hit at evaluation 1 in 101 s, beyond its budget of 100 s: strict counts "
        "a miss",
        "3 of 4 studies are there (1, 2, 3): strict counts the others as misses, algoperf leaves "
        "them out of the median",
    )


def test_a_study_without_evaluations_is_explained(logs, outcomes):
    logs.trial("s", 1, "easy", 1, [(0.4, 30.0)])
    logs.trial("s", 2, "easy", 1, None)

    (difference,) = compare_rules(outcomes(), Demands(2, 1, 1.0)).differences

    assert (difference.algoperf, difference.strict) == (30.0, INF)
    assert difference.reasons == (
        "study 2: no trial has evaluations: strict counts a miss, algoperf leaves the study out",
    )


def test_trials_beyond_the_rulesets_number_do_not_count(logs, outcomes):
    for trial, seconds in [(1, 60.0), (2, 50.0), (3, 10.0)]:
        logs.trial("s", 1, "easy", trial, [(0.4, seconds)])

    read = outcomes()
    cell = score_outcomes(read, Demands(1, 2, 1.0)).cells["s", "easy"]
    (difference,) = compare_rules(read, Demands(1, 2, 1.0)).differences

    assert cell.given == (50.0,)
    assert difference.reasons == (
        "study 1: trial 3 hit at evaluation 0 in 10 s, which is beyond the 2 that a study has: "
        "strict takes trial 2 hit at evaluation 0 in 50 s",
    )


def test_more_studies_than_asked_for_all_count(logs, outcomes):
    for study in (1, 2, 3):
        logs.trial("s", study, "easy", 1, [(0.4, 10.0 * study)])

    assert score_outcomes(outcomes(), Demands(2, 1, 1.0)).cells["s", "easy"].median("given") == 20


def test_the_budget_is_multiplied_by_the_rulesets_factor(logs, outcomes):
    logs.trial("s", 1, "easy", 1, [(0.9, 10.0), (0.4, 140.0)], ruleset="self")

    def given(factor):
        return score_outcomes(outcomes(), Demands(1, 1, factor)).cells["s", "easy"].given

    assert (given(1.0), given(1.5)) == ((INF,), (140.0,))


def test_steps_are_a_currency_and_a_late_hit_is_a_miss_in_it_too(logs, outcomes):
    logs.trial("s", 1, "easy", 1, [(0.9, 10.0), (0.4, 50.0)])
    logs.trial("t", 1, "easy", 1, [(0.9, 10.0), (0.4, 150.0)])

    cells = score_outcomes(outcomes("steps"), Demands(1, 1, 1.0)).cells

    assert (cells["s", "easy"].given, cells["t", "easy"].given) == ((11.0,), (INF,))


def test_the_area_is_exact_and_missing_workloads_give_nothing(logs, outcomes):
    logs.trial("a", 1, "easy", 1, [(0.4, 10.0)])
    logs.trial("b", 1, "easy", 1, [(0.4, 15.0)])
    logs.trial("a", 1, "hard", 1, [(0.4, 10.0)])

    scores = score_outcomes(outcomes(base_workloads=["easy", "hard"]), Demands(1, 1, 1.0)).scores

    assert scores["a"]["given"] == 1.0
    assert scores["b"]["given"] == pytest.approx(2.5 / 3 / 2, abs=1e-12)


def markdown_tables(text):
    """The tables of a page, as lists of rows of cells, headers first."""
    tables = [[]]
    for line in text.splitlines():
        if line.startswith("| "):
            tables[-1].append([cell.strip() for cell in line.strip("|").split(" | ")])
        elif tables[-1] and not line.startswith("|--"):
            tables.append([])
    return tables


def test_the_worked_example_of_the_document(logs, outcomes, root):
    page = (root / "docs" / "scoring.md").read_text()
    example, results = (
        next(t for t in markdown_tables(page) if t and t[0][0] == first)[1:]
        for first in ("submission", "rules")
    )
    for submission, workload, study, trial, evaluation, hit, end in example:
        rows = [(0.9, 1.0 + n) for n in range(int(evaluation) if hit != "-" else 2)]
        rows += [(0.4, float(hit))] if hit != "-" else [(0.9, float(end))]
        logs.trial(submission, study, workload, trial, rows)
    read = outcomes(base_workloads=["easy", "hard"])

    times = official_times(read.cells, read.submissions)
    strict = score_outcomes(read, Demands(studies=3, trials=2, budget_factor=100.0))
    computed = {"algoperf": (times, official_scores(times, read.targets))}
    for view in ("given", "including"):
        scores = {name: views[view] for name, views in strict.scores.items()}
        computed[f"strict, {view}"] = strict.times(view), scores

    assert {name for name, *_ in results} == set(computed)
    for name, *cells in results:
        times, scores = computed[name]
        expected = [f"{times[s][w]:g}" for s in ("a", "b") for w in ("easy", "hard")]
        assert cells == [*expected, *(f"{scores[s]:.4f}" for s in ("a", "b"))]


@pytest.mark.parametrize(
    "version, ruleset, expected",
    [("0.5", "external", (5, 5, 1.0)), ("0.5", "self", (5, 1, 3.0)),
     ("0.6", "external", (3, 5, 1.0)), ("0.6", "self", (3, 1, 1.5))],
)  # fmt: skip
def test_demands_are_those_of_the_version_and_the_ruleset(version, ruleset, expected):
    demands = demands_of(OfficialTargets((), (), {}, version), ruleset)

    assert (demands.studies, demands.trials, demands.budget_factor) == expected
    assert demands_of(OfficialTargets((), (), {}), "self", studies=9).studies == 9


@pytest.mark.parametrize("value", [0, -1])
def test_demands_are_positive(value):
    with pytest.raises(ValueError, match="`studies` must be at least 1"):
        Demands(value, 1, 1.0)
    with pytest.raises(ValueError, match="`budget_factor` must be positive"):
        Demands(1, 1, value)


@pytest.fixture
def command(logs, tmp_path):
    """Score the good logs."""
    logs.good()
    targets = logs.targets(tmp_path / "t.json")

    def run(*arguments):
        line = ["score", str(logs.root), "--targets", str(targets), "--studies", "2", *arguments]
        return CliRunner().invoke(app, line)

    return run


def test_json_has_rules_and_scores(command):
    document = json.loads(command("--rules", "algoperf", "--format", "json").stdout)

    assert document == {
        "rules": "algoperf", "scores": {"fast": 1.0, "slow": pytest.approx(2 / 3, abs=6e-3)}
    }  # fmt: skip


def test_json_has_times_on_request_and_no_number_for_a_miss(command, logs):
    logs.trial("worse", 1, "easy", 1, [(0.9, 1.0)])

    document = json.loads(command("--rules", "algoperf", "--format", "json", "--times").stdout)

    assert document["times"]["fast"] == {"easy": 10.0, "hard": 10.0}
    assert document["times"]["worse"] == {"easy": "inf"}


def test_strict_is_the_default_and_includes_tuning(command):
    document = json.loads(command("--format", "json").stdout)

    assert document == {"rules": "strict", "scores": {"fast": 1.0, "slow": pytest.approx(2 / 3)}}


def test_csv_has_every_digit_and_names_that_are_no_formulas(command, logs):
    logs.trial("=1+1", 1, "easy", 1, [(0.4, 1 / 3 + 10)])

    rows = list(csv.DictReader(io.StringIO(command("--format", "csv", "--view", "given").stdout)))

    assert [row["submission"] for row in rows] == ["fast", "slow", "'=1+1"]
    assert [row["easy"] for row in rows] == ["10.0", "20.0", "inf"]


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
    line = ["score", str(tar), "--within", "logs", "--targets", str(tmp_path / "t.json")]

    result = CliRunner().invoke(app, [*line, "--studies", "2", "--format", "json"])

    assert result.stdout == command("--format", "json").stdout


def test_the_diff_is_printed_as_sentences_and_as_json(command, logs):
    for study in (1, 2):
        logs.trial("odd", study, "hard", 1, [(0.9, 1.0), (0.4, 50.0)])
        logs.trial("odd", study, "hard", 2, [(0.9, 1.0), (0.9, 2.0), (0.4, 12.0)])

    text = command("--diff").stdout.splitlines()
    document = json.loads(command("--diff", "--format", "json").stdout)

    why = "trial 1 hit at evaluation 1 in 50 s, trial 2 hit at evaluation 2 in 12 s: strict takes"
    assert text[:4] == [
        "odd on hard: algoperf 50 s, strict 12 s",
        f"    study 1: {why} the cheaper",
        f"    study 2: {why} the cheaper",
        "Times to target in seconds, given tuned: 1 of 5 cells differ.",
    ]
    (difference,) = document["differences"]
    assert (difference["algoperf"], difference["strict"], document["cells"]) == (50.0, 12.0, 5)
    assert document["scores"]["odd"] == {
        "algoperf": 0.0, "algoperf_exact": 0.0, "strict": pytest.approx((4 - 1.2) / 3 / 2)
    }  # fmt: skip


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--rules", "algoperf", "--view", "including"], "count given tuned"),
        (["--studies", "0"], "`studies` must be at least 1"),
        (["--within", "nowhere"], "No folder 'nowhere' in"),
        (["--hardware", "x"], "--hardware goes with --rules strict and our records"),
        (["--rules", "algoperf", "--mix-hardware"], "algoperf mixes whatever comes"),
    ],
)
def test_contradictions_are_one_line(command, arguments, message):
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
    assert "the logs are of beads x 8, pebbles x 8" in refused.stderr
    assert mixed.exit_code == 0 and "MIXED HARDWARE" in " ".join(mixed.stdout.split())
    assert command("--cost", "steps").exit_code == 0  # steps compare anywhere
    assert command("--rules", "algoperf").exit_code == 0  # the official scorer does not look
    compared = command("--diff"), command("--diff", "--mix-hardware")
    assert [result.exit_code for result in compared] == [2, 0]
    assert "MIXED HARDWARE" in " ".join(compared[1].stdout.split())


def test_a_trial_that_does_not_say_its_hardware_is_a_note_and_no_other_hardware(command, logs):
    path = next((logs.root / "slow").rglob("meta_data_0.json"))
    path.write_text(json.dumps({"workload.max_allowed_runtime_sec": 1000, "rng_seed": 7}))

    result = command()

    assert result.exit_code == 0
    assert "1 trial does not say on which hardware" in " ".join(result.stdout.split())


def test_costs_that_no_evaluation_has_are_refused(command):
    result = command("--cost", "gradient_evaluations")

    assert result.exit_code == 2
    assert "no evaluation has a column gradient_evaluations" in result.stderr


def test_machines_with_the_same_accelerators_are_one_kind_and_their_differences_are_said(
    command, logs
):
    edit_meta_data(logs, "slow", gpu_driver="2", cpu_model_name="an older abacus")

    result = command()

    text = " ".join(result.stdout.split())
    assert "all on beads x 8, of machines that differ in their processor, driver" in text


def test_a_ruleset_without_targets_is_refused_for_ours(hand_made):
    result = CliRunner().invoke(app, ["score", str(hand_made()), "--studies", "3"])

    assert result.exit_code == 2
    assert "--studies goes with --targets; our records say it." in result.stderr


def test_validate_has_exit_codes_and_json(logs):
    root = str(logs.good())

    fine = CliRunner().invoke(app, ["validate", root, "--format", "json"])
    (logs.root / "fast" / "study_1" / "trial_1").mkdir()
    wrong = CliRunner().invoke(app, ["validate", root])

    assert (fine.exit_code, wrong.exit_code) == (0, 1)
    assert json.loads(fine.stdout) == {"errors": 0, "notes": 0, "trials": 16, "findings": []}
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
