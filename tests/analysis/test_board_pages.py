"""The leaderboard's pages: from records alone, safe with hostile records, accessible."""

import html.parser
import json
import math
import random
import re
import shutil
import urllib.parse

import pytest

from analysis.cli import app
from analysis.command_line import run_app
from analysis.leaderboard.board_pages import (
    generated_files,
    write_leaderboard,
    wrong_files,
)
from analysis.leaderboard.entries import Authorship, Entry, entry_text, file_name, read_entries
from analysis.leaderboard.standings import standings
from analysis.leaderboard.submitting import entries_of
from analysis.logs.reader import read_logs
from tests.analysis.conftest import target


def run(*arguments):
    return run_app(app, "analysis", [str(argument) for argument in arguments])


def test_regenerating_is_byte_identical_whatever_the_order_of_files(filled, tmp_path):
    before = {
        path.relative_to(filled): path.read_bytes()
        for path in filled.rglob("*.*")
        if "records" not in path.parts
    }

    files = [*(filled / "records").rglob("*.json")]
    random.Random(0).shuffle(files)
    for path in files:
        copied = tmp_path / "other" / path.relative_to(filled)
        copied.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, copied)
    other = tmp_path / "other"
    after = generated_files(other)

    assert {path.relative_to(other): text.encode() for path, text in after.items()} == before
    folders = {path.parts[0] for path in before if len(path.parts) > 1}
    assert folders == {"protocols", "contenders", "workloads", "assets"}
    entries = read_entries(filled)
    random.Random(1).shuffle(entries)
    assert standings(entries) == standings(read_entries(filled))


@pytest.mark.parametrize(
    "name",
    ["README.md", "index.html", "targets.json", "protocols/made.html",
     "workloads/digits_mlp.costs.csv"],
)  # fmt: skip
def test_the_check_names_the_file_that_a_byte_was_changed_in(filled, capsys, name):
    before = (filled / name).read_bytes()
    assert run("leaderboard", "--check", "--board", filled) == 0
    (filled / name).write_bytes(before.replace(b"a", b"b", 1))

    assert run("leaderboard", "--check", "--board", filled) == 1

    said = capsys.readouterr().err
    assert str(filled / name) in said
    assert f"Run `python -m analysis leaderboard --board {filled}` to rebuild it." in said
    assert list(wrong_files(filled)) == [filled / name]
    assert run("leaderboard", "--board", filled) == 0
    assert (filled / name).read_bytes() == before


@pytest.mark.parametrize("options", [["--check"], []], ids=["check", "rebuild"])
def test_a_leaderboard_that_does_not_exist_is_a_mistake(tmp_path, capsys, options):
    assert run("leaderboard", *options, "--board", tmp_path / "nowhere") == 2

    assert f"analysis: There is no folder {tmp_path / 'nowhere'}." in capsys.readouterr().err
    assert not (tmp_path / "nowhere").exists()


def test_a_leaderboard_outside_of_the_checkout_refers_to_nothing_of_the_checkout(filled):
    readme, page = (filled / "README.md").read_text(), (filled / "index.html").read_text()

    assert "../" not in readme and "docs/" not in readme
    assert "other work to do" not in readme + page and "no ranking here is by seconds" in page
    commands = re.findall(r"^\$ (python -m analysis .*?) +#", readme, re.MULTILINE)
    assert len(commands) == 3 and all(command.endswith(" --board .") for command in commands)
    assert "`python -m analysis leaderboard --board .` from the files" in readme


def test_pages_open_with_the_rankings_that_would_not_repeat(build, tmp_path):
    # Halves of the studies disagree if one has both of the studies with a cost of 100.
    b = build(tmp_path / "runs", ["adamw+random", "b"], ["digits_mlp"], 4)
    for study in (1, 2, 3, 4):
        for name, hit in (("adamw+random", 100.0 if study % 2 else 400.0), ("b", 200.0)):
            b.trial(name, "digits_mlp", study, 1000.0, hit, target=target("digits_mlp"))
            b.study(name, "digits_mlp", study)
    board = tmp_path / "board"
    for entry in entries_of(read_logs(tmp_path / "runs")):
        (board / entry.path).parent.mkdir(parents=True, exist_ok=True)
        (board / entry.path).write_text(entry_text(entry))

    files = generated_files(board)

    markdown, page = files[board / "README.md"], files[board / "index.html"]
    blocks = markdown.split("\n\n")
    assert blocks[1].startswith("**Rankings that would not repeat with other studies**: made on")
    part = blocks.index(next(block for block in blocks if block.startswith("## [made]")))
    assert blocks[part + 2].startswith("**The ranking including tuning would not repeat")
    assert blocks[part + 3].startswith("**The ranking given tuned would not repeat")
    assert blocks[part + 4].startswith("b reaches the targets with 1.2 times less budget")
    assert '</h1>\n<p class="warn">Rankings that would not repeat' in page
    page = files[board / "protocols/made.html"]
    assert page.index("The ranking including tuning would") < page.index('class="answer"')
    assert ">1.25</td>" in page  # the speed-up over a median of 250


def test_a_changed_record_changes_the_pages(filled):
    path = next((filled / "records").rglob("breast_cancer_logistic/b+halton.json"))
    document = json.loads(path.read_text())
    document["campaigns"]["made"]["studies"][0]["including"]["gradient_evaluations"] = 81.0
    document["campaigns"]["made"]["studies"][1]["including"]["gradient_evaluations"] = 81.0
    path.write_text(json.dumps(document))

    names = {path.relative_to(filled).as_posix() for path in wrong_files(filled)}
    assert names >= {
        "README.md", "protocols/made.html", "contenders/b+halton.costs.csv",
        "contenders/b+halton.html", "workloads/breast_cancer_logistic.html",
    }  # fmt: skip
    assert "workloads/digits_mlp.html" not in names


EVIL = "<img src=x onerror=alert(1)>|=cmd()\\`$x$&amp;"
EVIL_ABOUT = Authorship(
    name=EVIL, authors=EVIL, affiliations=EVIL, description=EVIL, link=f"javascript:alert('{EVIL}')"
)


def evil_entries(runs):
    entries = entries_of(read_logs(runs), command=EVIL)
    return [
        entry.model_copy(
            update={
                "contender": f"{EVIL}{entry.contender}/../..",
                "hardware": entry.hardware.model_copy(
                    update={"processor": EVIL, "xla_flags": "\x1b[31m" + EVIL}
                ),
                "campaigns": {
                    EVIL: entry.campaigns["made"].model_copy(update={"about": EVIL_ABOUT})
                },
            }
        )
        for entry in entries
    ]


def test_untrusted_names_are_escaped_on_every_page_and_stay_inside_the_folder(make_runs, board):
    for entry in evil_entries(make_runs()):
        path = board / entry.path
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(entry_text(entry))

    pages = generated_files(board)

    write_leaderboard(board)
    written = {path for path in board.rglob("*") if path.is_file()}
    assert all(path.is_relative_to(board / "records") for path in written - set(pages))
    for path, text in pages.items():
        assert "\x1b" not in text
        if path.suffix == ".html":
            page = Outline(text)
            assert "img" not in page.tags
            links = [a["href"] for t, a in page.attributes if t == "a"]
            assert not [link for link in links if link.startswith(("java", "http", "//"))]
            for link in links:
                assert link.startswith("#") or leads_somewhere(path, link), link
    readme = pages[board / "README.md"]
    assert not re.search(r"(?<!\\)<img", readme) and "\\<img" in readme
    rows = [line for line in readme.splitlines() if line.startswith("| \\<img")]
    assert rows and all(len(re.findall(r"(?<!\\)\|", line)) == 10 for line in rows)


def leads_somewhere(page, link):
    """Whether a relative link of a page leads to a file or to code outside of the leaderboard."""
    path = urllib.parse.unquote(link.partition("#")[0])
    target = (page.parent / path).resolve()
    return target.exists() or path.startswith(("../submissions/", "../../submissions/"))


def test_every_link_of_every_page_leads_to_a_file(filled):
    pages = [path for path in filled.rglob("*.html")]

    assert len(pages) == 1 + 1 + 2 + 2
    for path in pages:
        page = Outline(path.read_text())
        links = [a["href"] for t, a in page.attributes if t == "a"]
        assert all(link.startswith("#") or leads_somewhere(path, link) for link in links)


def test_the_csv_beside_a_page_is_the_one_in_it(filled):
    for path in filled.rglob("*.html"):
        page = Outline(path.read_text())
        tables = {a["id"]: a["data-csv"] for t, a in page.attributes if t == "table"}
        assert tables
        for name, text in tables.items():
            assert path.with_name(f"{path.stem}.{name}.csv").read_text() == text


def test_pages_whose_records_are_gone_are_named_and_deleted(filled, capsys):
    page = filled / "contenders" / "a+halton.html"
    for path in (filled / "records").rglob("a+halton.json"):
        path.unlink()

    assert run("leaderboard", "--check", "--board", filled) == 1
    assert f"{page} belongs to no record." in capsys.readouterr().err

    assert run("leaderboard", "--board", filled) == 0
    assert not page.exists()
    assert run("leaderboard", "--check", "--board", filled) == 0


def test_authors_and_their_link_are_on_the_pages(make_runs, board):
    about = Authorship(name="Mine", authors="Ann, Bo", link="https://example.org/paper")
    for entry in entries_of(read_logs(make_runs())):
        (campaign,) = entry.campaigns.values()
        changed = {"made": campaign.model_copy(update={"about": about})}
        path = board / entry.path
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(entry_text(entry.model_copy(update={"campaigns": changed})))

    pages = generated_files(board)

    for name in ("index.html", "contenders/a+halton.html"):
        page = Outline(pages[board / name])
        assert "https://example.org/paper" in [
            a.get("href") for t, a in page.attributes if t == "a"
        ]
        assert "Ann, Bo" in pages[board / name]
    # No column of affiliations, because nobody has one.
    header = pages[board / "index.all-contenders.csv"].splitlines()[0]
    assert (
        header == "contender,name,authors,link,protocol,entries,verified,verified_of,last_run_(UTC)"
    )
    assert "Name, authors, link: from submission_info.yml" in pages[board / "index.html"]


@pytest.mark.parametrize("name", ["..", "../x", "a/b", ".hidden", "A\\B", "ü", "a b", "con\n"])
def test_every_name_is_one_file_of_its_own(name):
    encoded = file_name(name)

    assert "/" not in encoded and "\\" not in encoded and not encoded.startswith(".")
    assert encoded.isascii() and encoded != file_name(encoded)


def damage(board, path, kind):
    document = json.loads(path.read_text())
    studies = document["campaigns"]["made"]["studies"]
    if kind == "link":
        path.rename(board / "elsewhere.json")
        path.symlink_to(board / "elsewhere.json")
        return
    if kind == "misplaced":
        path.rename(path.with_name("z+halton.json"))
        return
    if kind == "stray":
        path.with_name("notes.txt").write_text("hello")
        return
    if kind == "large":
        path.write_text(path.read_text() + " " * 4_000_000)
        return
    if kind == "schema":
        document["schema_version"] = 2
    elif kind == "unknown key":
        document["extra"] = 1
    elif kind == "gap":
        studies[1]["study"] = 5
    elif kind == "half a miss":
        studies[0]["given"] = None
    elif kind == "not finite":
        studies[0]["including"]["seconds"] = math.nan
    elif kind == "negative":
        studies[0]["spent"]["steps"] = -1
    path.write_text(json.dumps(document))


@pytest.mark.parametrize(
    "kind, message",
    [
        ("link", "only records, regular files"),
        ("stray", "notes.txt: only records, regular files"),
        ("misplaced", "its content belongs to records/abacus"),
        ("large", "a file has at most 4,000,000"),
        ("schema", "schema_version: Input should be 1"),
        ("unknown key", "extra: Extra inputs are not permitted"),
        ("gap", "studies must be 1, 2, ..., without a gap"),
        ("half a miss", "a study reached its target given tuned and including tuning, or not"),
        ("not finite", "Input should be a finite number"),
        ("negative", "a cost must be finite and not negative"),
    ],
)
def test_files_that_are_no_records_are_refused_by_name(filled, capsys, kind, message):
    damage(filled, next((filled / "records").rglob("digits_mlp/a+halton.json")), kind)

    assert run("leaderboard", "--check", "--board", filled) == 2

    error = capsys.readouterr().err
    assert message in error and "digits_mlp" in error and error.count("\n") == 1


class Outline(html.parser.HTMLParser):
    """Collects what a page is made of."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.attributes, self.texts, self.inside = [], [], {}, None
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.attributes.append((tag, dict(attributes)))
        self.inside = tag

    def handle_endtag(self, tag):
        self.inside = None

    def handle_data(self, data):
        self.texts.setdefault(self.inside, []).append(data)


def read(path):
    return path.read_text()


PAGES = [
    "index.html", "protocols/made.html", "contenders/a+halton.html", "workloads/digits_mlp.html",
]  # fmt: skip


@pytest.mark.parametrize("name", PAGES)
def test_the_page_loads_only_the_style_and_the_script_that_all_pages_share(filled, name):
    text = (filled / name).read_text()

    page = Outline(text)

    (policy,) = (a["content"] for t, a in page.attributes if t == "meta" and "http-equiv" in a)
    allowed = dict(part.split(" ", 1) for part in policy.split("; "))
    assert allowed == {
        "default-src": "'none'", "style-src": "'self' file:", "script-src": "'self' file:",
        "base-uri": "'none'", "form-action": "'none'",
    }  # fmt: skip
    (style,) = (a["href"] for t, a in page.attributes if t == "link")
    (script,) = (a["src"] for _, a in page.attributes if "src" in a)
    assert (filled / name).parent.joinpath(style).resolve() == filled / "assets/leaderboard.css"
    assert (filled / name).parent.joinpath(script).resolve() == filled / "assets/leaderboard.js"
    assert "style" not in page.tags and page.tags.count("script") == 1
    assert not page.texts.get("script")
    names = {name for _, attributes in page.attributes for name in attributes}
    assert not {"srcset", "style"} & names and not {n for n in names if n.startswith("on")}
    shared = (filled / "assets/leaderboard.css", filled / "assets/leaderboard.js")
    assert not any(re.search(r"https?:|@import|url\(", t) for t in (text, *map(read, shared)))


@pytest.mark.parametrize("name", PAGES)
def test_every_table_can_be_read_without_eyes_and_used_without_a_mouse(filled, name):
    page = Outline((filled / name).read_text())

    tables = page.tags.count("table")
    assert tables >= 3
    ids = [a["id"] for _, a in page.attributes if "id" in a]
    assert len(set(ids)) == len(ids)
    assert {a["aria-labelledby"] for t, a in page.attributes if t == "section"} <= set(ids)
    assert page.tags.count("caption") == tables
    assert all(a.get("scope") in ("col", "row") for t, a in page.attributes if t == "th")
    regions = [a for t, a in page.attributes if t == "div" and a.get("role") == "region"]
    assert len(regions) == tables
    assert all(a["tabindex"] == "0" and a["aria-label"] for a in regions)
    # The script makes buttons of their heads, as in a report.
    assert sum("data-sortable" in a for t, a in page.attributes if t == "table") >= 2
    assert ("html", {"lang": "en"}) in page.attributes


def test_a_leaderboard_without_records_is_a_page_that_says_so(board):
    board.mkdir()

    pages = generated_files(board)

    assert "0 records" in pages[board / "index.html"]
    assert Entry.model_fields["schema_version"].default == 1
