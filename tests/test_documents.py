"""Code in the documents runs, commands parse, links lead somewhere, tables equal the code.

A code block's info string names its language: ``python``, ``toml``, ``console`` or ``text``. A
Python block is executed unless a test of its own below uses it. The commands of a console block are
parsed; those of ``console run`` are also executed, on a small campaign. A block that allows neither
has the reason in its info string, ``console not-run: needs AlgoPerf``. ``NOT_RUN`` counts them.
"""

import importlib
import importlib.util
import json
import re
import shlex
import sys
import tomllib
from collections import Counter
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import yaml
from flax import nnx

from analysis.checks.acceptance import read_acceptances
from analysis.command_line import run_app
from metaopt.bench.contract.kit import BATCH_SIZES
from metaopt.bench.contract.loading import load_submission
from metaopt.bench.contract.spec import ForwardPassMode, LossType
from metaopt.bench.rules.subprocess_check import check_in_subprocess
from metaopt.bench.rules.workload_check import check_workload
from metaopt.bench.trial.runner import run_trial
from metaopt.workloads.registry import get_workload
from tests.analysis.conftest import write_hand_made
from tests.document_blocks import Block, find_blocks, parse_command, strip_command
from tests.document_tables import (
    APPS,
    PAGES,
    ROOT,
    TABLES,
    commands_of,
    regenerate,
    tables_of,
)
from tuning.campaign import Campaign, make_campaign, read_campaign
from tuning.contenders import SUBMISSIONS

NOT_RUN = {"needs AlgoPerf": 3, "needs the example package installed": 2}
BLOCKS = find_blocks()


def blocks_of(page: str, language: str) -> list[str]:
    """Return the code of a page's blocks in one language."""
    return [b.code for b in BLOCKS if b.page == ROOT / page and b.language == language]


def chosen(language: str, run: bool | None = None) -> list:
    """Return a pytest parameter for each block in a language that is executed."""
    blocks = [b for b in BLOCKS if b.language == language and b.reason is None]
    if run is not None:
        blocks = [b for b in blocks if (" run" in b.info) is run]
    return [pytest.param(b, id=f"{b.page.name}:{b.line}") for b in blocks]


def test_blocks_that_are_not_executed_are_few_and_say_why():
    assert Counter(b.reason for b in BLOCKS if b.reason) == NOT_RUN
    # `imports` is the list that test_layers.py compares with the files
    assert {b.language for b in BLOCKS} <= {
        "python", "toml", "console", "text", "imports", "yaml",
    }  # fmt: skip


# Commands


@pytest.mark.parametrize("block", chosen("console"))
def test_every_documented_command_has_arguments_that_exist(block):
    assert block.commands, "a block without commands is `text`"
    for line in block.commands:
        for words in strip_command(line):
            parse_command(words)


@pytest.mark.parametrize("block", chosen("yaml"))
def test_a_kubernetes_job_runs_a_command_that_exists(block):
    job = yaml.safe_load(block.code)

    parse_command(shlex.split(job["spec"]["entrypoint"]))
    cluster = job["spec"]["rayClusterSpec"]
    groups = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
    for group in groups:
        pod = group["template"]["spec"]
        mounts = [m["name"] for c in pod["containers"] for m in c["volumeMounts"]]
        assert mounts == [volume["name"] for volume in pod["volumes"]]


@pytest.mark.parametrize("app", APPS)
def test_the_examples_in_the_help_of_commands_parse(app):
    for name, command in commands_of(app).items():
        _, found, example = command.help.partition("Example: ")
        for words in strip_command(" ".join(example.split())) if found else ():
            assert words[:4] == ["python", "-m", app, name]
            parse_command(words)


@pytest.fixture
def small_campaigns(tmp_path, monkeypatch):
    """Stand in the folder that documented commands are typed in, with small campaigns in it."""
    for name in ("demo", "mine", "again"):
        write_hand_made(tmp_path / "runs" / name)
    for record in (tmp_path / "runs" / "again").rglob("run.json"):  # verify refuses a copy
        record.write_text(record.read_text().replace("2026-01-01T00", "2026-01-02T00"))
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("block", chosen("console", run=True))
def test_commands_that_are_marked_to_run_do(block, small_campaigns, capsys):
    for line in block.commands:
        for _, _, name, *arguments in strip_command(line):
            # 1: the small campaign breaks a rule, or contenders fail throughout.
            assert run_app(APPS[name], name, arguments) in (0, 1), capsys.readouterr().err


def test_the_readme_shows_the_demo():
    campaign = read_campaign(Path("demo"))
    first, *_ = blocks_of("README.md", "console")

    shown = {word for line in first.splitlines() for word in line.split()[:1]}
    assert set(campaign.contenders) <= shown
    assert set(campaign.workloads) <= set(first.split())


# Python


def is_used_elsewhere(block: Block) -> bool:
    """Whether a test below runs a block: the optimizer's, a module, a submission."""
    together = block.page.name in ("README.md", "optimizer.md")
    return together or block.code.startswith(("# lamb_pkg/", '"""'))


@pytest.mark.parametrize(
    "block", [p for p in chosen("python") if not is_used_elsewhere(p.values[0])]
)
def test_every_python_block_runs(block, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    params = {"w": jnp.ones(3)}
    given = {"params": params, "grads": params, "loss": jnp.asarray(1.5)}  # of a user's own loop

    exec(compile(block.code, f"{block.page}:{block.line}", "exec"), given)


def test_the_readmes_example_ends_near_the_minimum():
    (example,) = blocks_of("README.md", "python")
    given: dict[str, Any] = {}

    exec(example, given)

    np.testing.assert_allclose(given["params"], np.arange(8), atol=0.1)


def test_the_blocks_of_the_optimizers_page_run_one_after_another(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    train, restore, *others, paper = blocks_of("docs/optimizer.md", "python")
    given: dict[str, Any] = {}

    exec(train, given)
    exec(restore, given)
    unbroken = given["make"]()
    given["train"](*unbroken, range(given["STEPS"]))
    restored = given["model"], given["optimizer"]
    for state, other in zip(
        *(jax.tree.leaves(nnx.state(p)) for p in (unbroken, restored)), strict=True
    ):
        np.testing.assert_array_equal(state, other)

    for code in [*others, others[-1]]:  # the last one replaces its checkpoint
        exec(code, given)
    assert given["read"](given["optimizer"].opt_state) == dict.fromkeys(
        ("held", "restarts", "below"), 0
    )
    assert given["loss"] < 1

    capsys.readouterr()
    exec(paper, given)
    losses = [float(line.split(": ")[1]) for line in capsys.readouterr().out.splitlines()]
    assert len(losses) == 4
    assert losses == sorted(losses, reverse=True)
    assert json.loads(Path("controller.json").read_text())["family"] == "scalar_lags"


def test_the_example_of_a_submission_is_one(tmp_path, make_plan):
    folder = tmp_path / "lamb"
    folder.mkdir()
    code, *_ = blocks_of("docs/extending.md", "python")
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


@pytest.mark.slow
def test_the_example_of_mistakes_has_them(tmp_path):
    folder = tmp_path / "external_tuning" / "mine"
    folder.mkdir(parents=True)
    (code,) = blocks_of("docs/checking.md", "python")
    (folder / "submission.py").write_text(code)
    space = {"learning_rate": {"min": 1e-5, "max": 1e-2, "scaling": "log"}}
    (folder / "tuning_search_space.json").write_text(json.dumps(space))
    shown = next(code for code in blocks_of("docs/checking.md", "console") if "error: " in code)

    found = [f for f in check_in_subprocess(folder).findings if f.severity == "error"]

    lines = re.findall(r"^error: ([a-z-]+): (\S+): ", shown, re.MULTILINE)
    assert [(finding.rule, finding.where) for finding in found] == lines


@pytest.fixture
def import_example(tmp_path, monkeypatch):
    """Import a name from the modules that docs/extending.md shows."""
    monkeypatch.syspath_prepend(tmp_path)
    for code in blocks_of("docs/extending.md", "python")[1:]:
        path = tmp_path / code.partition("\n")[0].removeprefix("# ")
        path.parent.mkdir(exist_ok=True)
        path.write_text(code)
    yield lambda module, name: getattr(importlib.import_module(f"lamb_pkg.{module}"), name)
    for name in [name for name in sys.modules if name.startswith("lamb_pkg")]:
        del sys.modules[name]


@pytest.mark.parametrize(
    "module, name, parameters",
    [
        ("diabetes", "DIABETES", "385"), ("robust", "ROBUST", None), ("sums", "SUMS", "28,380"),
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


def test_the_linen_form_of_the_example_computes_a_loss(import_example):
    workload = import_example("sums_linen", "SUMS_LINEN")
    key = jax.random.PRNGKey(0)
    params, model_state = workload.init_model_fn(key)
    batch = next(workload._build_input_queue(key, "train", "", 16))

    logits, _ = workload.model_fn(params, batch, model_state, ForwardPassMode.TRAIN, key, False)
    loss = workload.loss_fn(batch["targets"], logits, batch["weights"])

    assert logits.shape == (16, 36, 28)
    assert 0 < loss["n_valid_examples"] < 16 * 36  # the end of a line is masked
    assert jnp.isfinite(loss["summed"])


def test_every_module_of_the_example_is_imported(import_example):
    modules = {
        code.partition("\n")[0].removeprefix("# lamb_pkg/").removesuffix(".py")
        for code in blocks_of("docs/extending.md", "python")[1:]
    }

    assert modules == {"diabetes", "robust", "sums", "sums_linen", "tuners"}
    assert callable(import_example("tuners", "sobol"))


# TOML


def test_the_example_of_a_campaign_is_one():
    text, *_ = blocks_of("docs/extending.md", "toml")

    assert make_campaign(tomllib.loads(text), "docs/extending.md").studies == 3


def test_the_example_of_accepted_findings_is_one(tmp_path):
    (text,) = blocks_of("docs/validation.md", "toml")
    (tmp_path / "accepted.toml").write_text(text)

    assert len(read_acceptances(tmp_path / "accepted.toml")) == 1


def test_no_other_toml_block_is_shown():
    shown = Counter(block.page.name for block in BLOCKS if block.language == "toml")

    # The second block of extending.md is the package that tests/tuning/test_plugins.py installs.
    assert shown == {"extending.md": 2, "validation.md": 1}


# Tables


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_generated_tables_are_up_to_date(page):
    text = page.read_text("utf-8")

    assert regenerate(text) == text, "run: python -m tests.document_tables"


def test_every_table_that_can_be_generated_is_shown():
    shown = [name for page in PAGES for name in tables_of(page.read_text("utf-8"))]

    assert set(shown) == set(TABLES)


def first_column(page: str, header: str) -> list[str]:
    """Return the names in code style in the first cells of the table below a header cell."""
    text = (ROOT / page).read_text("utf-8")
    rows = text.partition(f"\n| {header} |")[2].partition("\n\n")[0].splitlines()[2:]
    return [name for row in rows for name in re.findall(r"`(\w+)", row.split(" | ")[0])]


def test_the_keys_of_a_campaign_are_those_that_the_document_lists():
    listed = first_column("docs/extending.md", "key")

    assert sorted(listed) == sorted(Campaign.model_fields)


def test_the_loss_types_are_those_that_the_document_lists():
    listed = first_column("docs/extending.md", "`LossType`")

    assert sorted(listed) == sorted(kind.name for kind in LossType)


# Links


def anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings, as GitHub makes them, and of its `id`s."""
    text = re.sub(r"^ *```.*?^ *```$", "", page.read_text("utf-8"), flags=re.DOTALL | re.MULTILINE)
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    made = {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
    return made | set(re.findall(r'id="([^"]+)"', text))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_inside_the_checkout_leads_somewhere(page):
    broken = []
    for path, anchor in re.findall(
        r"\]\((?!https?:)([^)#]*)(?:#([^)]+))?\)", page.read_text("utf-8")
    ):
        target = page.parent / path if path else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            broken.append((path, anchor))

    assert broken == []


def test_the_readme_is_short_and_its_lines_are_wrapped():
    lines = (ROOT / "README.md").read_text("utf-8").splitlines()

    assert len(lines) <= 120


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
