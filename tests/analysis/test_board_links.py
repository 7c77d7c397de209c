"""The leaderboard's links: which texts become links, and where pages and code lie."""

import pytest

from analysis.leaderboard.board import board_of
from analysis.leaderboard.entries import Authorship, read_entries
from analysis.leaderboard.links import page_path, repository, safe_link


@pytest.mark.parametrize(
    "link, is_safe",
    [
        ("https://example.org/a?b=c#d", True),
        ("http://example.org", False),
        ("HTTPS://example.org", False),
        ("javascript:alert(1)//https://example.org", False),
        ("https://example.org@evil.example", False),
        ("https:///nowhere", False),
        ("https://[broken", False),
        ("https://a b", False),
        ("", False),
    ],
)
def test_only_https_addresses_become_links(link, is_safe):
    assert safe_link(link) == (link if is_safe else None)


def test_commits_and_code_are_links_where_the_project_has_an_address(filled):
    board = board_of(read_entries(filled), "https://example.org/project")

    links = board.links()

    commit = "0" * 40
    assert links["commit"] == {commit[:12]: f"https://example.org/project/commit/{commit}"}
    entry = (
        board.entries[0]
        .campaigns["made"]
        .model_copy(update={"about": Authorship(folder="submissions/self_tuning/dog")})
    )
    folder = f"https://example.org/project/tree/{commit}/submissions/self_tuning/dog"
    assert board.code_links([entry]) == {"s": folder}
    without = board_of(board.entries, None)
    assert without.links()["commit"] == {}
    code = "../../submissions/self_tuning/dog/submission.py"
    assert without.code_links([entry]) == {"s": code}
    assert board_of(board.entries, None, is_own=False).code_links([entry]) == {}


def test_long_names_have_pages_of_their_own():
    names = ["\N{SNOWMAN}" * 100, "\N{SNOWMAN}" * 99 + "x", "a" * 100, "A/" * 50]

    paths = [page_path("protocols", name) for name in names]

    assert len(set(paths)) == len(names)
    assert all(len(path.name) < 200 and len(path.parts) == 2 for path in paths)


def test_the_address_of_the_project_is_that_of_its_package(tmp_path):
    assert repository(tmp_path) is None
    file = tmp_path / "pyproject.toml"
    for text, address in [
        ("[project]", None),
        ('[project.urls]\nRepository = "https://example.org/me/"', "https://example.org/me"),
        ('[project.urls]\nRepository = "git@example.org:me"', None),
    ]:
        file.write_text(text)

        assert repository(tmp_path) == address


@pytest.mark.parametrize(
    "folder", ["../secret", "submissions/../x", "/etc", "submissions/a b", "x"]
)
def test_a_folder_outside_of_the_submissions_is_no_part_of_a_record(folder):
    with pytest.raises(ValueError, match="folder"):
        Authorship(folder=folder)
