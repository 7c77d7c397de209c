"""``metaopt-bench``: one program for the commands of both modules, and its completion."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import metaopt.__main__ as command
from analysis.cli import app as analysis_app
from analysis.command_line import VERBS, run_app
from metaopt import __version__
from metaopt.workloads.registry import list_workloads
from tuning import completion
from tuning.campaign import list_campaigns
from tuning.cli import app as tuning_app
from tuning.contenders import SUBMISSIONS, parse_contender
from tuning.tuners import TUNERS

APPS = {"tuning": tuning_app, "analysis": analysis_app}


@pytest.fixture
def bench(monkeypatch, capsys, root):
    """Run the command in this process; returns its exit code, output and errors."""
    monkeypatch.setenv("PYTHONPATH", "")

    def run(*arguments, folder=root):
        monkeypatch.chdir(folder)
        monkeypatch.setattr(sys, "argv", ["metaopt-bench", *arguments])
        code = command.run_program()
        return code, *capsys.readouterr()

    return run


def run_python(code, folder, **environment):
    return subprocess.run(
        [sys.executable, "-P", "-c", code],
        cwd=folder, env={**os.environ, **environment}, capture_output=True, text=True,
    )  # fmt: skip


def test_no_verb_exists_in_both_modules():
    assert not command._verbs(tuning_app) & command._verbs(analysis_app)


def test_the_help_lists_every_verb_below_its_module(bench):
    code, out, _ = bench("--help")

    assert code == 0
    texts = out.partition(command.MODULES["tuning"])[2].partition(command.MODULES["analysis"])[::2]
    for text, app in zip(texts, (tuning_app, analysis_app), strict=True):
        listed = {line.split()[1] for line in text.splitlines() if line.startswith("│ ")}
        assert command._verbs(app) <= listed


@pytest.mark.parametrize("verb", ["compare", "score"])
def test_a_verb_of_either_module_runs_under_the_programs_name(bench, root, verb):
    code, out, _ = bench(verb, "--help", folder=root / "docs")

    assert code == 0
    assert f"Usage: metaopt-bench {verb} " in out


def test_the_version_needs_no_checkout(bench, tmp_path):
    assert bench("--version", folder=tmp_path)[:2] == (0, f"metaopt-bench {__version__}\n")


def test_the_help_outside_a_checkout_says_what_the_commands_need(bench, tmp_path, monkeypatch):
    monkeypatch.setattr(command, "_OWN", tmp_path)

    code, out, err = bench("--help", folder=tmp_path)

    assert (code, err) == (0, "")
    assert "need a checkout" in out and "the extra `bench`" in out


def test_outside_a_checkout_there_is_one_line_and_nothing_while_completing(
    bench, tmp_path, monkeypatch
):
    monkeypatch.setattr(command, "_OWN", tmp_path)

    code, out, err = bench("list", folder=tmp_path)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "no checkout of metaopt-bench in this folder" in err

    monkeypatch.setenv("_METAOPT_BENCH_COMPLETE", "complete_bash")
    assert bench(folder=tmp_path) == (2, "", "")


def test_the_checkout_around_a_folder_goes_before_that_of_the_editable_install(root, tmp_path):
    for name in ("metaopt", "tuning", "analysis"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__main__.py").write_text(f"print('{name} of another checkout')")
    (tmp_path / "metaopt" / "__init__.py").touch()
    inner = tmp_path / "analysis"

    assert command.find_checkout(inner) == tmp_path
    assert command.find_checkout(root / "docs") == root
    assert command.find_checkout(tmp_path.parent) == root  # of the tests' own metaopt
    code = "import sys; from metaopt.__main__ import run_program; sys.exit(run_program())"
    run = run_python(code, inner, PYTHONPATH=str(root))
    assert (run.returncode, run.stdout) == (0, "metaopt of another checkout\n")


@pytest.mark.parametrize(("wrong", "right"), [("comapre", "compare"), ("scoer", "score")])
def test_a_misspelt_verb_of_either_module_is_answered_with_the_right_one(bench, wrong, right):
    code, _, err = bench(wrong)

    assert (code, err.count("\n")) == (2, 1)
    assert err.startswith(f"metaopt-bench: No such command '{wrong}'. Did you mean ")
    assert f"'{right}'" in err.partition("There are")[0]


@pytest.mark.parametrize(
    ("name", "verb", "other"), [("analysis", "compare", "tuning"), ("tuning", "report", "analysis")]
)
def test_a_verb_of_the_other_module_is_answered_with_that_module(capsys, name, verb, other):
    assert run_app(APPS[name], name, [verb, "demo"]) == 2

    said = capsys.readouterr().err
    assert said == f"{name}: `{verb}` is a command of `python -m {other}`.\n"
    assert {name: command._verbs(app) for name, app in APPS.items()} == VERBS


@pytest.mark.parametrize(
    ("verb", "taken"),
    [
        ("validate", "one argument at a time: LOGS"),
        ("verify", "2 arguments at a time: RUNS, RERUN"),
        ("leaderboard", "no arguments"),
    ],
)
def test_an_argument_too_many_is_answered_with_those_that_a_verb_takes(capsys, verb, taken):
    assert run_app(analysis_app, "analysis", [verb, "a", "b", "c"]) == 2

    said = capsys.readouterr().err
    assert said.startswith("analysis: Got unexpected extra argument")
    assert said.endswith(f". `{verb}` takes {taken}.\n")


@pytest.mark.parametrize(
    ("start", "missing"),
    [
        ("sys.argv[1:] = ['list']; runpy.run_module('tuning', run_name='__main__')", "typer"),
        ("sys.argv[1:] = ['list']; runpy.run_module('tuning', run_name='__main__')", "optuna"),
        ("runpy.run_module('analysis', run_name='__main__')", "typer"),
        ("runpy.run_module('metaopt', run_name='__main__')", "typer"),
    ],
)
def test_a_missing_library_is_one_line_that_names_the_extra(root, start, missing):
    code = f"import runpy, sys; sys.modules['{missing}'] = None; {start}"

    run = run_python(code, root, PYTHONPATH=str(root))

    assert (run.returncode, run.stdout, run.stderr.count("\n")) == (2, "", 1)
    assert f"{missing} is not installed. The extra `bench` installs it" in run.stderr


def complete(words, folder):
    """Return what bash is offered for the last word, and whether JAX was imported for it."""
    code = (
        "import sys; from metaopt.__main__ import run_program\n"
        "try: run_program()\n"
        "finally: print('jax' in sys.modules, 'optuna' in sys.modules, file=sys.stderr)"
    )
    run = run_python(
        code, folder, PYTHONPATH=str(Path(command.__file__).parents[1]),
        _METAOPT_BENCH_COMPLETE="complete_bash", COMP_WORDS="\n".join(words),
        COMP_CWORD=str(len(words) - 1),
    )  # fmt: skip
    return run.stdout.split(), run.stderr.strip().splitlines()[-1]


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        (["comp"], ["compare"]),
        (["run", "adamw", "mini_w"], ["mini_wmt", "mini_wmt_fixed"]),
        (["compare", "demo", "--contenders", "metaopt,adamw+t"], ["metaopt,adamw+tpe"]),
    ],
    ids=["verb", "workload", "contenders"],
)
def test_completion_offers_names_without_importing_slow_libraries(root, words, offered):
    assert complete(["metaopt-bench", *words], root / "docs") == (offered, "False False")


def test_completion_knows_the_names_of_the_registries():
    ours = [name for name in completion.workload_names() if not name.startswith("algoperf_")]

    assert sorted(ours) == sorted(list_workloads())
    assert completion.tuner_names() == sorted(TUNERS)
    assert sorted(completion.submission_names()) == sorted(
        path.parent.name
        for path in SUBMISSIONS.glob("*/*/submission.py")
        if path.parent.name != "template"
    )
    both = completion.campaign_names() + completion.campaign_names("stability")
    assert sorted(both) == sorted(list_campaigns())


def test_a_completed_contender_can_be_parsed_and_is_not_offered_twice():
    every = completion.complete_contenders("adamw+") + completion.complete_contenders("metao")
    for name in {"adamw+random", "metaopt", "metaopt_averages"} & set(every):
        assert parse_contender(name).name == name

    assert {"adamw+random", "metaopt", "metaopt_averages"} <= set(every)
    assert completion.complete_contenders("metaopt,metao") == [
        "metaopt,metaopt_averages", "metaopt,metaopt_step_size"
    ]  # fmt: skip
    assert completion.complete_contenders("ada") == ["adamw+" + name for name in sorted(TUNERS)]
