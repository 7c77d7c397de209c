"""The rules: each finds one mistake in one submission, and nothing in a sound one."""

import json

import pytest

from metaopt.bench.rules.check import RULES, check
from metaopt.bench.rules.subprocess_check import check_in_subprocess
from metaopt.bench.rules.workload_names import ALGOPERF_WORKLOADS, OUR_WORKLOADS, WORKLOAD_NAMES
from metaopt.workloads.registry import list_workloads
from metaopt.workloads.synthetic import Quadratic

SOUND = """
import functools
import jax
import jax.numpy as jnp
from metaopt.bench.contract.spec import ForwardPassMode

def get_batch_size(workload_name):
    return {"wmt": 128}.get(workload_name, 1)

def init_optimizer_state(workload, model_params, model_state, hyperparameters, rng):
    return {"steps": jnp.zeros(())}, step

def data_selection(workload, input_queue, optimizer_state, current_param_container, model_state,
                   hyperparameters, global_step, rng):
    return next(input_queue)

@functools.partial(jax.jit, static_argnums=0)
def step(workload, state, params, batch):
    def loss(params):
        logits, _ = workload.model_fn(params, batch, None, ForwardPassMode.TRAIN, None, False)
        return workload.loss_fn(batch["targets"], logits)["summed"]

    params = jax.tree.map(lambda p, g: p - 1e-3 * g, params, jax.grad(loss)(params))
    return {**state, "steps": state["steps"] + 1.0}, params

def update_params(workload, current_param_container, current_params_types, model_state,
                  hyperparameters, batch, loss_type, optimizer_state, eval_results, global_step,
                  rng):
    state, step = optimizer_state
    state, params = step(workload, state, current_param_container, batch)
    jax.block_until_ready(params)
    return (state, step), params, model_state
"""
SPACE = "tuning_search_space.json"
RATES = '{"rate": {"min": 0.1, "max": 1.0, "scaling": "log"}}'


def write(folder, *changes, **files):
    """Write the sound submission with changes, and files beside it."""
    text = SOUND
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    for name, content in {"submission.py": text, **files}.items():
        path = folder / name.replace("__", "/")
        path.parent.mkdir(exist_ok=True)
        path.write_text(content)
    return folder


def findings(folder):
    """Check a submission on the smallest workload, in this process."""
    return check(folder, workload=Quadratic()).findings


def space(text):
    return {SPACE: text}


MISTAKES = {
    "source": ([("def step(", "def (")], {}),
    "import": ([("import jax.numpy as jnp", "import jax.numpy as jnp, of_no_one")], {}),
    "functions": ([("def data_selection(", "def select_data(")], {}),
    "arguments": ([("model_state, hyperparameters, rng", "model_state, hyperparameters")], {}),
    "arguments-order": ([("model_params, model_state", "model_state, model_params")], {}),
    "workload-branches": (
        [("p - 1e-3 * g", "p - (1 if 'Wmt' in type(workload).__name__ else 1e-3) * g")],
        {},
    ),
    "workload-spaces": ([], {SPACE: RATES, "spaces__wmt.json": RATES}),
    "requirements": ([], {"requirements.txt": "optax >= 0.2.7  # muon\njax\n"}),
    "ruleset": ([], {SPACE: RATES, "submission_info.yml": 'ruleset: "self-tuning"\n'}),
    "template": ([], {"submission_info.yml": 'submission_name: "Template"\n'}),
    "space-json": ([], space('{"a": {"feasible_points": [1]}, "a": {"feasible_points": [2]}}')),
    "space-form": ([], space('{"a": {"min": 1, "max": 2}}')),
    "space-names": ([], space('{"two words": {"feasible_points": [1]}}')),
    "space-scalar": ([], space('{"a": {"feasible_points": 0.9}}')),
    "space-range": ([], space('{"a": {"min": 0, "max": 1, "scaling": "log"}}')),
    "space-points": ([], space('[{"a": 1}, {"a": 1, "b": 2}]')),
    "space-defaults": (
        [("def get_batch", 'DEFAULTS = {"rate": 0.1}\n\ndef get_batch')],
        space('[{"speed": 1.0}]'),
    ),
    "batch-size": ([(".get(workload_name, 1)", "[workload_name]")], {}),
    "crash": ([("    state, step = opt", "    1 / 0\n    state, step = opt")], {}),
    "state": ([('return {"steps": jnp.zeros(())}, step', 'return {"steps": jnp.zeros(())}')], {}),
    "state-checkpoint": ([('{"steps": jnp', '{"key": jax.random.key(0), "steps": jnp')], {}),
    "return": ([("return (state, step), params, model_state", "return params, model_state")], {}),
    "params": ([("(state, step), params,", "(state, step), params[:1],")], {}),
    "recompilation": (
        [("= step(workload, state,", "= jax.jit(lambda *a: step(workload, *a))(state,")],
        {},
    ),
    "early-return": ([("    jax.block_until_ready(params)\n", "")], {}),
    "trial": (
        [("    state, step = opt", "    1 / (global_step < 20)\n    state, step = opt")],
        {},
    ),
    "passes": (
        [("jax.grad(loss)(params))", "jax.grad(lambda p: loss(p) + loss(p) + loss(p))(params))")],
        {},
    ),
    "set-up": (
        [('    return {"steps"', "    mode = ForwardPassMode.EVAL\n"
          "    workload.model_fn(model_params, {}, None, mode, None, False)\n    return {'steps'")],
        {},
    ),
    "replay": (
        [("    jax.block_until_ready(params)\n", "    step.calls = getattr(step, 'calls', 0) + 1\n"
          "    params = params / (1 + 1e-3 * step.calls)\n    jax.block_until_ready(params)\n")],
        {},
    ),
    "fresh-start": ([("p - 1e-3 * g", "0.0 * (p - g) + 1.0 - 1e-3 * state['steps']")], {}),
}  # fmt: skip


def test_a_sound_submission_breaks_no_rule(tmp_path):
    assert findings(write(tmp_path)) == []


def test_a_sound_submission_with_a_space_and_an_evaluation_breaks_no_rule(tmp_path):
    prepare = """
def prepare_for_eval(workload, current_param_container, current_params_types, model_state,
                     hyperparameters, loss_type, optimizer_state, eval_results, global_step, rng):
    assert hyperparameters.rate > 0
    return optimizer_state, current_param_container, model_state
"""
    folder = tmp_path / "external_tuning" / "sound"
    folder.mkdir(parents=True)
    write(folder, ("@functools", f"{prepare}\n@functools"), **space(RATES))

    assert findings(folder) == []


@pytest.mark.parametrize("rule", MISTAKES)
def test_each_mistake_is_found_by_its_rule_and_by_no_other(rule, tmp_path):
    changes, files = MISTAKES[rule]

    found = findings(write(tmp_path, *changes, **files))

    assert {finding.rule for finding in found} == {rule}, found
    severity = "note" if rule in ("early-return", "requirements", "template") else "error"
    assert all(finding.severity == severity and finding.fix for finding in found)
    assert all((tmp_path / finding.where.split(":")[0]).name for finding in found)


@pytest.mark.parametrize("rule, applied", [("space-range", False), ("space-defaults", True)])
def test_without_a_point_no_step_is_taken_and_that_is_said(rule, applied, tmp_path):
    changes, files = MISTAKES[rule]
    write(tmp_path, *changes, ("    jax.block_until_ready(params)\n", ""), **files)

    report = check(tmp_path, workload=Quadratic())

    assert ("early-return" in {finding.rule for finding in report.findings}) == applied
    assert ("early-return" in report.not_applied) != applied
    assert "batch-size" not in report.not_applied


def test_every_rule_has_its_mistake():
    assert {*MISTAKES, "timeout"} == {rule.id for rule in RULES}


@pytest.mark.parametrize(
    "text, line",
    [
        ("def prepare_for_eval(workload):\n    return 1", 1),
        ("def update_params(workload, /, **more):\n    return 1", 1),
    ],
)
def test_arguments_are_read_without_an_import(tmp_path, text, line):
    (tmp_path / "submission.py").write_text(text)

    found = check(tmp_path, importing=False).findings

    wrong = [finding for finding in found if finding.rule == "arguments"]
    assert [finding.where for finding in wrong] == [f"submission.py:{line}"]


def test_arguments_that_runners_pass_by_name_may_stand_in_any_order(tmp_path):
    folder = write(tmp_path, ("batch, loss_type,", "loss_type, batch,"))

    (found,) = findings(folder)

    assert (found.rule, found.severity) == ("arguments-order", "note")


def test_the_part_of_the_state_that_cannot_be_saved_is_named(tmp_path):
    changes, _ = MISTAKES["state-checkpoint"]

    (found,) = findings(write(tmp_path, *changes))

    assert found.what == "optimizer_state.key is a typed random key"


def test_the_line_of_a_mistake_is_named(tmp_path):
    folder = write(tmp_path, ("    state, step = opt", "    1 / 0\n    state, step = opt"))

    (found,) = findings(folder)

    lines = (folder / "submission.py").read_text().splitlines()
    assert found.where == f"submission.py:{lines.index('    1 / 0') + 1}"
    assert "`update_params` raises ZeroDivisionError" in found.what


BY_NAME = {
    "the class": "1.0 if type(workload).__name__ == 'WmtWorkload' else 1e-3",
    "a part of the class's name": "1.0 if 'conformer' in str(workload.__class__).lower() else 1e-3",
    "the module of the class": "1.0 if 'ogbg' in type(workload).__module__ else 1e-3",
    "the name that was asked for": "1.0 if len(_asked[-1]) == 3 else 1e-3",
    "a table of names": "{'breast_cancer_logistic': 1.0}.get(_asked[-1], 1e-3)",
    "an unknown name": (
        "1e-3 if _asked[-1] in 'wmt ogbg librispeech_conformer breast_cancer_logistic quadratic' "
        "else 1.0"
    ),
    "an error": "{'quadratic': 1e-3}[_asked[-1]]",
}


@pytest.mark.parametrize("rate", BY_NAME.values(), ids=BY_NAME)
def test_a_rate_by_the_name_of_the_workload_is_found(rate, tmp_path):
    write(
        tmp_path,
        ("p - 1e-3 * g", f"p - ({rate}) * g"),
        ('    return {"wmt', '    _asked.append(workload_name)\n    return {"wmt'),
        ("def get_batch_size", "_asked = ['']\n\ndef get_batch_size"),
    )

    found = findings(tmp_path)

    assert "workload-branches" in {finding.rule for finding in found}


def test_a_batch_size_by_name_decides_nothing_else(tmp_path):
    folder = write(tmp_path, ('{"wmt": 128}', '{"wmt": 128, "ogbg": 2}'))

    assert findings(folder) == []


def test_the_names_of_workloads_are_those_of_the_registry():
    assert set(OUR_WORKLOADS) == {name.removesuffix("_fixed") for name in list_workloads()}
    assert set(list_workloads()) <= WORKLOAD_NAMES
    assert not set(list_workloads()) & set(ALGOPERF_WORKLOADS)


def test_a_submission_that_never_returns_is_ended_and_named(tmp_path):
    write(tmp_path, ("import jax\n", "import time; time.sleep(1000)\nimport jax\n"))

    report = check_in_subprocess(tmp_path, timeout=8.0)

    assert [finding.rule for finding in report.findings] == ["timeout"]
    assert "the import of submission.py had not returned after 8 s" in report.findings[0].what


def test_a_submission_that_ends_its_process_is_named_beside_what_its_files_show(tmp_path):
    write(
        tmp_path, ("import jax\n", "import os; print('x', flush=True); os._exit(3)\nimport jax\n"),
        **space("{}"),
    )  # fmt: skip

    report = check_in_subprocess(tmp_path)

    assert [finding.rule for finding in report.findings] == ["space-form", "crash"]
    assert "the import of submission.py ended the process with exit" in report.findings[1].what
    assert "recompilation" in report.not_applied and "crash" not in report.not_applied


def test_findings_are_the_same_in_a_process_of_their_own(tmp_path):
    write(tmp_path, ("def data_selection(", "def select_data("), **space('{"a": 1}'))

    assert check_in_subprocess(tmp_path) == check(tmp_path)


def test_without_a_submission_no_other_file_is_read(tmp_path, monkeypatch):
    (tmp_path / "other.py").write_text("def (")
    monkeypatch.setattr("subprocess.run", None)

    report = check_in_subprocess(tmp_path)

    assert [finding.what for finding in report.findings] == ["there is no submission.py"]
    assert {"workload-spaces", "trial"} <= set(report.not_applied)


def test_findings_are_plain_data(tmp_path):
    (found,) = check(tmp_path).findings

    assert json.loads(json.dumps(vars(found)))["rule"] == "source"
