"""What the documents show works as they show it."""

import importlib
import importlib.util
import json
import re
import sys
from pathlib import Path

import jax
import pytest

from metaopt.bench.contract.kit import BATCH_SIZES
from metaopt.bench.contract.loading import load_submission
from metaopt.bench.rules.workload_rules import check_workload
from metaopt.bench.trial.runner import run_trial
from metaopt.workloads.registry import get_workload
from tuning.campaign import make_campaign
from tuning.contenders import SUBMISSIONS

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])


def blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", (ROOT / page).read_text("utf-8"), re.DOTALL)


def test_the_readmes_example_learns_from_episode_to_episode(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)

    (example,) = blocks("README.md", "python")
    exec(example, {})

    losses = [float(line.split(": ")[1]) for line in capsys.readouterr().out.splitlines()]
    assert len(losses) == 4
    assert losses == sorted(losses, reverse=True)
    assert json.loads((tmp_path / "controller.json").read_text())["family"] == "scalar_lags"


def test_the_example_of_a_submission_is_one(tmp_path, make_plan):
    folder = tmp_path / "lion"
    folder.mkdir()
    code, *_ = blocks("docs/extending.md", "python")
    (folder / "submission.py").write_text(code)
    space = {"learning_rate": {"min": 1e-5, "max": 1e-2, "scaling": "log"}}
    (folder / "tuning_search_space.json").write_text(json.dumps(space))
    submission = load_submission(folder, ROOT / "submissions")

    plan = make_plan(
        submission, get_workload("digits_mlp"), hyperparameters={"learning_rate": 1e-3}
    )
    record = run_trial(plan, tmp_path / "trial")

    assert record.error is None
    assert record.ledger.cost.steps == record.ledger.cost.gradient_evaluations == 100


@pytest.fixture
def import_example(tmp_path, monkeypatch):
    """Import a name from the modules that docs/extending.md shows."""
    monkeypatch.syspath_prepend(tmp_path)
    for code in blocks("docs/extending.md", "python")[1:]:
        path = tmp_path / code.partition("\n")[0].removeprefix("# ")
        path.parent.mkdir(exist_ok=True)
        path.write_text(code)
    yield lambda module, name: getattr(importlib.import_module(f"lion_pkg.{module}"), name)
    for name in [name for name in sys.modules if name.startswith("lion_pkg")]:
        del sys.modules[name]


@pytest.mark.parametrize(
    "module, name, parameters",
    [
        ("diabetes", "DIABETES", "385"), ("robust", "ROBUST", None), ("sums", "SUMS", "28,380"),
        ("sums_linen", "SUMS_LINEN", None),
    ],
)  # fmt: skip
def test_the_examples_of_workloads_reach_their_targets_and_keep_the_contract(
    import_example, tmp_path, make_plan, monkeypatch, module, name, parameters
):
    workload = import_example(module, name)
    monkeypatch.setitem(BATCH_SIZES, workload.name, workload.reference_batch_size)
    params, _ = workload.init_model_fn(jax.random.PRNGKey(0))

    plan = make_plan(
        load_submission("adamw", SUBMISSIONS), workload, hyperparameters={"learning_rate": 0.01},
        study_budget=1000.0, trial_budget=1000.0, allowance=float(workload.step_hint),
        target=workload.targets.validation, test_target=workload.targets.test,
    )  # fmt: skip
    record = run_trial(plan, tmp_path / "trial")

    assert (record.error, record.status) == (None, "target")
    if parameters is not None:
        assert [f for f in check_workload(workload) if f.severity == "error"] == []
        assert f"{sum(leaf.size for leaf in jax.tree.leaves(params)):,}" == parameters
        assert parameters in workload.summary


def test_the_example_of_a_campaign_is_one():
    import tomllib

    text, *_ = blocks("docs/extending.md", "toml")

    assert make_campaign(tomllib.loads(text), "docs/extending.md").studies == 3


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_inside_the_checkout_leads_somewhere(page):
    links = re.findall(r"\]\((?!https?:)([^)#]+)\)", page.read_text("utf-8"))

    assert not [link for link in links if not (page.parent / link).exists()]


def test_every_module_that_a_docstring_refers_to_exists():
    sources = [
        path for room in ("metaopt", "tuning", "analysis") for path in ROOT.glob(f"{room}/**/*.py")
    ]
    named = {
        (module, path.relative_to(ROOT))
        for path in sources
        for module in re.findall(r":mod:`~?([\w.]+)`", path.read_text("utf-8"))
    }

    assert len(named) > 20
    assert [entry for entry in sorted(named) if importlib.util.find_spec(entry[0]) is None] == []
