"""A rehearsal trains on miniatures, and says in one line what would fail in a competition."""

import re
from types import SimpleNamespace

import pytest

from analysis.command_line import run_app
from metaopt.bench.contract.loading import load_submission
from metaopt.bench.contract.spaces import Range, parse_space
from metaopt.bench.records.findings import Finding
from metaopt.bench.rules.check import Report, check
from metaopt.bench.rules.checked_submission import with_batch_size
from metaopt.bench.rules.workload_names import ALGOPERF_WORKLOADS
from metaopt.workloads.registry import get_workload, list_workloads
from tuning.cli import app
from tuning.commands import rehearse_command
from tuning.contenders import SUBMISSIONS
from tuning.rehearsal import rehearsal_run
from tuning.rehearsal.miniature import (
    ask_size,
    batch_structure,
    first_point,
    judge_trial,
    rehearse_miniature,
)
from tuning.rehearsal.miniature_result import MINIATURES, MiniatureResult
from tuning.rehearsal.rehearsal_page import rehearsal_table, verdict, write_rehearsal_page
from tuning.rehearsal.rehearsal_run import Rehearsal, rehearse

# SGD with momentum, written without this project's kit: one copy of the parameters, and a count.
PLAIN = """
import functools
import jax
import jax.numpy as jnp
from metaopt.bench.contract.spec import ForwardPassMode, TrainingCompleteError

SIZES = {"criteo1tb": 262_144, "ogbg": 512}

def get_batch_size(workload_name):
    if workload_name not in SIZES:
        raise ValueError(f"unknown: {workload_name}")
    return SIZES[workload_name]

def init_optimizer_state(workload, model_params, model_state, hyperparameters, rng):
    velocity = jax.tree.map(jnp.zeros_like, model_params)
    return {"velocity": velocity, "count": jnp.zeros((), jnp.int32)}, None

def data_selection(workload, input_queue, optimizer_state, current_param_container, model_state,
                   hyperparameters, global_step, rng):
    return next(input_queue)

@functools.partial(jax.jit, static_argnums=0)
def step(workload, state, params, model_state, batch, rng):
    def loss(params):
        logits, new_state = workload.model_fn(
            params, batch, model_state, ForwardPassMode.TRAIN, rng, True)
        found = workload.loss_fn(batch["targets"], logits, batch.get("weights"))
        return found["summed"] / found["n_valid_examples"], new_state

    gradient, new_state = jax.grad(loss, has_aux=True)(params)
    velocity = jax.tree.map(lambda v, g: 0.9 * v + g, state["velocity"], gradient)
    params = jax.tree.map(lambda p, v: p - 0.01 * v, params, velocity)
    return {"velocity": velocity, "count": state["count"] + 1}, params, new_state

def update_params(workload, current_param_container, current_params_types, model_state,
                  hyperparameters, batch, loss_type, optimizer_state, eval_results, global_step,
                  rng):
    state, params, model_state = step(
        workload, optimizer_state[0], current_param_container, model_state, batch, rng)
    return (state, None), params, model_state
"""
UPDATE = "    state, params, model_state = step("  # the first line of `update_params`


@pytest.fixture
def write(tmp_path):
    """Write the plain submission with a change; return its folder."""

    def write(old="", new="", space=None):
        assert old in PLAIN
        folder = tmp_path / "plain"
        folder.mkdir()
        (folder / "submission.py").write_text(PLAIN.replace(old, new) if old else PLAIN)
        if space is not None:
            (folder / "tuning_search_space.json").write_text(space)
        return folder

    return write


def test_the_miniatures_stand_for_the_nine_workloads_of_algoperf():
    development = {"cifar", "mnist"}

    assert sorted(MINIATURES.values()) == sorted(set(ALGOPERF_WORKLOADS) - development)
    fixed = {name for name in list_workloads() if name.endswith("_fixed")}
    assert set(MINIATURES) == {n for n in list_workloads() if n.startswith("mini_")} - fixed


def test_a_sound_submission_trains_and_is_measured(write):
    result = rehearse_miniature(write(), "mini_criteo")

    assert result.findings == ()
    assert result.is_trained and result.is_saved and result.falls
    assert (result.batch_size, result.steps) == (262_144, 300)
    assert result.compilations == 1
    # One velocity for each parameter, and one count of 4 bytes for 20,489 parameters.
    assert result.state_copies == pytest.approx(1 + 1 / 20_489)
    assert result.time_factor is not None and result.time_factor > 0


@pytest.mark.parametrize(
    ("old", "new", "rule", "what"),
    [
        (
            UPDATE, "    raise TrainingCompleteError\n" + UPDATE,
            "early-end", "the submission ends training after 0 steps",
        ),
        (
            UPDATE, "    if global_step == 20: raise TrainingCompleteError\n" + UPDATE,
            "early-end", "the submission ends training after 20 steps",
        ),
        (
            UPDATE, "    return\n" + UPDATE,
            "return", "`update_params` returns None",
        ),
        (
            UPDATE, "    jax.devices('gpu')\n" + UPDATE,
            "crash", "`update_params` raises RuntimeError: Unknown backend",
        ),
        (
            UPDATE, "    assert batch['inputs'].ndim == 4, 'images only'\n" + UPDATE,
            "crash", "`update_params` raises AssertionError: images only",
        ),
        (
            "p - 0.01 * v", "p - jnp.where(state['count'] < 9, 0.01, jnp.nan) * v",
            "trial", "after 75 steps: After step 75: test/loss is nan",
        ),
        (
            "p - 0.01 * v", "p + 1e-5 * v",
            "loss", "the training loss does not fall: ",
        ),
        (
            '"count": jnp.zeros((), jnp.int32)}', '"count": jnp.zeros((), jnp.int32), "lost": 0.0}',
            "state-checkpoint", "the optimizer state cannot be saved and restored",
        ),
        (
            "import functools", "import functools, a_module_that_is_missing",
            "import", "ModuleNotFoundError: No module named 'a_module_that_is_missing'",
        ),
        (
            '"criteo1tb": 262_144', '"mini_criteo": 256',
            "batch-size", "get_batch_size('criteo1tb'): raises ValueError: unknown: criteo1tb",
        ),
        (
            "262_144", "262_144.0",
            "batch-size", "get_batch_size must return a positive integer, got 262144.0",
        ),
        (
            "262_144", "1000 + 1",
            "batch-size", "get_batch_size('criteo1tb') returns 1001, which 4 GPUs cannot share",
        ),
    ],
    ids=[
        "ends at once", "ends early", "returns nothing", "needs a GPU", "wants images", "NaN",
        "climbs", "state loses a part", "missing module", "own names only", "no integer",
        "odd size",
    ],
)  # fmt: skip
def test_a_mistake_is_one_error_with_its_place(write, old, new, rule, what):
    result = rehearse_miniature(write(old, new), "mini_criteo")

    (error,) = result.errors
    assert error.rule == rule
    assert what in error.what
    assert "\n" not in error.what + error.fix
    assert error.where.startswith("submission.py") or rule == "import"


def test_a_crash_is_told_with_the_batch_that_it_is_about(write):
    folder = write(UPDATE, "    batch['inputs'].nodes\n" + UPDATE)

    (error,) = rehearse_miniature(folder, "mini_criteo").errors

    assert error.fix.endswith("['inputs'] float32[256, 39], ['targets'] float32[256]")
    line = 1 + PLAIN[: PLAIN.index(UPDATE)].count("\n")
    assert error.where == f"submission.py:{line}"


def test_the_structure_of_graphs_names_their_fields():
    text = batch_structure(list_workloads()["mini_ogbg"])

    assert re.search(r"\['inputs'\]\.nodes float32\[\d+, \d+\]", text)
    assert "['weights']" in text


def test_the_batch_size_is_asked_with_algoperfs_name_and_replaced_for_training(write):
    submission = load_submission(write(), SUBMISSIONS)

    assert ask_size(submission, "ogbg") == 512
    assert isinstance(ask_size(submission, "wmt"), Finding)
    assert with_batch_size(submission.module, 16).get_batch_size("mini_ogbg") == 16
    assert submission.module.get_batch_size("ogbg") == 512


def test_an_entry_that_knows_algoperfs_names_only_passes_the_check(write):
    report = check(write())

    assert [f for f in report.findings if f.severity == "error"] == []
    assert report.not_applied == []


def test_an_external_entry_takes_the_first_listed_point(write):
    listed = '[{"rate": 0.3, "decay": 0.1}, {"rate": 0.2, "decay": 0.0}]'

    assert first_point(load_submission(write(space=listed), SUBMISSIONS)) == {
        "rate": 0.3, "decay": 0.1,
    }  # fmt: skip


def test_an_external_entry_takes_the_same_halton_point_each_time():
    adamw = load_submission("adamw", SUBMISSIONS)
    space = parse_space(adamw.read_space(), "adamw")

    point = first_point(adamw)

    assert point is not None and point == first_point(adamw)
    for name, part in space.parameters.items():
        inside = (
            part.low <= point[name] <= part.high if isinstance(part, Range)
            else point[name] in part.points
        )  # fmt: skip
        assert inside


def test_a_submission_that_tunes_itself_has_no_point():
    assert first_point(load_submission("metaopt_averages", SUBMISSIONS)) is None


# The whole of it.


def result(workload, *findings, **measured):
    return MiniatureResult(workload=workload, findings=findings, **measured)


ERROR = Finding("crash", "error", "`update_params` raises E", "submission.py:3", "Mend it.")
NOTE = Finding("loss", "note", "the training loss does not fall", "submission.py", "Look.")
TRAINED = {"is_trained": True, "loss_before": 2.0, "loss_after": 1.0, "batch_size": 512}


def test_the_same_finding_on_several_miniatures_is_one_line():
    found = Rehearsal(
        "x", (result("mini_ogbg", ERROR), result("mini_wmt", ERROR, NOTE), result("mini_lm")),
        Report(),
    )  # fmt: skip

    assert found.findings == [("mini_ogbg, mini_wmt", ERROR), ("mini_wmt", NOTE)]
    assert found.errors == 1


def test_a_loss_that_falls_nowhere_is_an_error_although_each_is_a_note():
    climbing = {**TRAINED, "loss_after": 3.0}
    everywhere = Rehearsal("x", (result("mini_ogbg", NOTE, **climbing),) * 2, Report())
    once = Rehearsal(
        "x", (result("mini_ogbg", NOTE, **climbing), result("mini_wmt", **TRAINED)), Report()
    )

    assert everywhere.errors == 1
    assert once.errors == 0


def test_the_page_opens_with_the_verdict_and_holds_the_table(tmp_path):
    hostile = Finding("crash", "error", "raises <script>alert(1)</script>", "s.py:1", "Mend it.")
    found = Rehearsal("x", (result("mini_ogbg", hostile, **TRAINED),), Report())

    page = write_rehearsal_page(found, tmp_path, command="python -m tuning rehearse x").read_text()

    assert verdict(found) == (
        "x trained on 1 of 1 miniatures. 1 problem would fail in a competition."
    )
    assert page.index("1 problem would fail") < page.index("mini_ogbg")
    assert "2 to 1" in page and "&lt;script&gt;" in page and "<script>alert" not in page
    markdown = (tmp_path / "report.md").read_text()
    assert "mini\\_ogbg" in markdown and re.search(r"script.*[^.]\. Mend it\.", markdown)
    (row,) = rehearsal_table(found).records
    assert (row["stands_for"], row["batch_size"], row["trained"]) == ("ogbg", 512, True)


@pytest.fixture
def in_this_process(monkeypatch):
    """Rehearse two made-up miniatures, one of which fails, without processes."""

    def stand_in(folder, cache, *, timeout, on_end):
        on_end("1 of 1: mini_ogbg: passed")
        report = Report([] if folder.name == "adamw" else [ERROR])
        return Rehearsal(folder.name, (result("mini_ogbg", **TRAINED),), report)

    monkeypatch.setattr(rehearse_command, "rehearse", stand_in)


@pytest.mark.parametrize(("name", "code"), [("adamw", 0), ("sgd", 1)])
def test_the_exit_code_is_1_if_something_would_fail(in_this_process, tmp_path, capsys, name, code):
    assert run_app(app, "tuning", ["rehearse", name, "--out", str(tmp_path)]) == code

    printed = capsys.readouterr().out
    assert f"page: {tmp_path / 'report.html'}" in printed
    assert ("error: tuning check: crash: submission.py:3" in printed) is bool(code)


def test_a_path_that_does_not_exist_is_one_line(tmp_path, capsys):
    assert run_app(app, "tuning", ["rehearse", str(tmp_path / "nothing")]) == 2

    printed = capsys.readouterr()
    assert re.fullmatch(r"tuning: No submission '.*nothing'.*\n", printed.err)


def test_a_process_that_ends_or_never_returns_loses_one_miniature(write, tmp_path, monkeypatch):
    monkeypatch.setattr(rehearsal_run, "check_in_subprocess", lambda *_, **__: Report())
    ends = "    import os, time\n    os._exit(3) if SIZES else time.sleep(60)\n"
    folder, lines = write(UPDATE, ends + UPDATE), []

    found = rehearse(
        folder, tmp_path / "cache", timeout=100.0, miniatures=["mini_criteo"], on_end=lines.append
    )

    (error,) = found.miniatures[0].errors
    assert error.what.startswith("`update_params` at step 0 ended the process with exit code 3")
    assert lines[-1].startswith("2 of 2") and "mini_criteo: 1 error" in " ".join(lines)


def test_the_folder_of_the_cores_locks_does_not_stay(tmp_path, monkeypatch):
    def stand_in(folder, name, cache, timeout):
        (cache / "cores").mkdir()  # as `take_cores` leaves it
        return result(name)

    monkeypatch.setattr(rehearsal_run, "check_in_subprocess", lambda *_, **__: Report())
    monkeypatch.setattr(rehearsal_run, "_in_process", stand_in)

    rehearse(tmp_path, tmp_path, timeout=1.0, miniatures=["mini_ogbg"])

    assert [*tmp_path.iterdir()] == []


@pytest.mark.slow
def test_the_whole_command_rehearses_adamw_on_every_miniature(tmp_path, capsys):
    code = run_app(app, "tuning", ["rehearse", "adamw", "--out", str(tmp_path), "--timeout", "600"])

    printed = capsys.readouterr().out
    assert code == 0, printed
    assert "adamw trained on 9 of 9 miniatures." in printed
    assert all(name in (tmp_path / "report.html").read_text() for name in MINIATURES)


@pytest.mark.parametrize("factor, advice", [(1.2, "kept this machine busy"), (9.0, "step faster")])
def test_a_trial_that_is_cut_short_blames_the_machine_if_adamw_is_as_slow(factor, advice):
    result = MiniatureResult(
        workload="mini_criteo", steps=75, is_trained=True, time_factor=factor, target="cut short"
    )
    record = SimpleNamespace(status="pruned", reached=None, ruleset="external", cause=None)

    (found,) = judge_trial(record, result, get_workload("mini_criteo"))

    assert (found.rule, found.severity) == ("slow", "note")
    assert advice in found.fix
