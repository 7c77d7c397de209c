"""What the documents show works as they show it."""

import json
import re
from pathlib import Path

import pytest

from metaopt.bench.loading import load_submission
from metaopt.bench.runner import run_trial
from metaopt.workloads.registry import get_workload
from tuning.campaign import make_campaign

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


def test_the_example_of_a_campaign_is_one():
    import tomllib

    text, *_ = blocks("docs/extending.md", "toml")

    assert make_campaign(tomllib.loads(text), "docs/extending.md").studies == 3


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_inside_the_checkout_leads_somewhere(page):
    links = re.findall(r"\]\((?!https?:)([^)#]+)\)", page.read_text("utf-8"))

    assert not [link for link in links if not (page.parent / link).exists()]
