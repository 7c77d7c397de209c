"""A campaign of which only some workloads have records says so before its answer."""

import json
import re

import pytest

from analysis.leaderboard.board_pages import generated_files
from analysis.leaderboard.entries import read_entries, read_planned
from analysis.leaderboard.standings import standings
from analysis.leaderboard.submitting import submit
from metaopt.bench import records
from tests.analysis.conftest import WORKLOADS

SENTENCE = (
    "Incomplete: 2 of 4 workloads of this campaign have records here. Missing: zebra, antelope."
)


def with_source(runs, toml):
    """Give the runs a campaign's file, of which they may have left something out."""
    campaign = json.loads((runs / "campaign.json").read_text())
    source = {"file": "made", "toml": toml, "changes": {"workloads": WORKLOADS}}
    campaign["contenders"] = ["a+halton", "b+halton"]
    records.write_json(runs / "campaign.json", campaign | {"source": source})
    return runs


def toml_of(*workloads):
    return f'name = "made"\ncontenders = ["a+halton", "b+halton"]\nworkloads = {list(workloads)}\n'


def test_pages_name_the_missing_workloads_before_their_answer(make_runs, board):
    submit(with_source(make_runs(), toml_of("zebra", *WORKLOADS, "antelope")), board)

    files = generated_files(board)

    for name in ("index.html", "protocols/made.html", "README.md"):
        page = files[board / name]
        answer = page.index("it wins" if name == "README.md" else 'class="answer"')
        assert SENTENCE in page and page.index(SENTENCE) < answer, name
    beginning = "Incomplete campaigns"
    (index, readme) = (files[board / name] for name in ("index.html", "README.md"))
    said = "(workloads without records): made on abacus"
    assert f'</h1>\n<p class="warn">{beginning} {said}' in index
    assert readme.split("\n\n")[1].startswith(f"**{beginning}** {said}")


@pytest.mark.parametrize("toml", [toml_of(*WORKLOADS[::-1]), toml_of(), None])
def test_pages_say_nothing_if_no_workload_is_known_to_be_missing(make_runs, board, toml):
    runs = make_runs()
    submit(runs if toml is None else with_source(runs, toml), board)

    assert not any("Incomplete" in text for text in generated_files(board).values())


def test_a_part_that_is_run_later_completes_the_campaign(make_runs, board):
    runs = with_source(make_runs(), toml_of(*WORKLOADS))
    submit(runs, board)
    for path in (board / "records").rglob("digits_mlp/*.json"):
        path.unlink()

    (standing,) = standings(read_entries(board), read_planned(board))
    assert standing.missing == ["digits_mlp"]

    submit(runs, board)
    (standing,) = standings(read_entries(board), read_planned(board))
    assert standing.missing == []


@pytest.mark.parametrize(
    "content, message",
    [
        (b"name = ", "campaigns/made.toml: Invalid value (at end of document)"),
        (b"\xff", "campaigns/made.toml: 'utf-8' codec can't decode"),
        (b"workloads = []", "campaigns/made.toml: name: Field required"),
        (b"name = 'made'\nworkloads = [1]", "campaigns/made.toml: workloads.0: Input should be"),
    ],
)
def test_a_file_that_is_no_campaigns_is_refused_by_name(filled, content, message):
    (filled / "campaigns").mkdir()
    (filled / "campaigns/made.toml").write_bytes(content)

    with pytest.raises(ValueError, match=re.escape(message)):
        generated_files(filled)


def test_only_files_of_campaigns_may_lie_among_them(filled, tmp_path):
    (filled / "campaigns").mkdir()
    (filled / "campaigns/made.toml").symlink_to(tmp_path / "other.toml")

    with pytest.raises(ValueError, match=r"campaigns/made\.toml: only files of campaigns, regular"):
        generated_files(filled)


def test_runs_whose_campaign_has_no_name_are_refused_before_anything_is_written(make_runs, board):
    with pytest.raises(ValueError, match=r"campaigns/made\.toml: name: Field required"):
        submit(with_source(make_runs(), toml_of(*WORKLOADS).split("\n", 1)[1]), board)

    assert not board.exists()


def test_the_newest_file_of_a_campaign_of_the_project_counts(make_runs, board):
    submit(with_source(make_runs(), toml_of(*WORKLOADS, "zebra")), board)
    submit(with_source(make_runs("again"), toml_of(*WORKLOADS)), board)

    assert read_planned(board) == {"made": tuple(WORKLOADS)}
