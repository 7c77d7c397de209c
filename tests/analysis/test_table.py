"""The one table: columns sort by their values, and every format holds the same cells."""

import csv
import html.parser
import io
import json
import math
import os
import re
import socket
import subprocess
import sys

import pytest
from markdown_it import MarkdownIt
from rich.console import Console

from analysis.cli import app
from analysis.command_line import run_app
from analysis.logs.competition import Competition, read_official_targets
from analysis.logs.reader import read_logs
from analysis.report import report, table
from analysis.report.formats import document_of, markdown_table, print_tables, table_csv
from analysis.report.latex import latex_table
from analysis.report.marks import Marks
from analysis.report.pages import publish
from analysis.report.table import (
    Column,
    Costs,
    Estimate,
    Interval,
    Share,
    Table,
    estimate,
    interval,
    number,
)
from analysis.report.tables.campaign import trials_table
from analysis.report.tables.hardware import hardware_table
from analysis.report.tables.statistics import comparisons_table, numbers_table, statistics_tables
from analysis.report.terminal import print_in_terminal
from analysis.scoring.scores import score_logs
from analysis.statistics.inference import infer
from analysis.statistics.samples import samples_of
from tests.analysis.conftest import OfficialBuilder, write_hand_made
from tests.analysis.test_latex import printed


class Page(html.parser.HTMLParser):
    """The tables of a page: rows of ``[text, sort key]``; a cell without a key has ``None``."""

    def __init__(self, text):
        super().__init__()
        self.tables, self.cell, self.tags = [], None, []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("th", "td"):
            self.cell = ["", dict(attributes).get("data-sort")]
            self.tables[-1][-1].append(self.cell)

    def handle_endtag(self, tag):
        if tag in ("th", "td"):
            self.cell = None

    def handle_data(self, data):
        if self.cell is not None:
            self.cell[0] += data


def write_whole_report(logs, out):
    """Write a report; return its page, and the tables that it shows and writes."""
    shown, others = [], [trials_table(logs), hardware_table([logs])]
    write_pages = report.write_pages

    def keep(template, context, out):
        for section in context["sections"]:
            shown.extend(section.tables)
            others.extend(section.data)
        write_pages(template, context, out)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(report, "write_pages", keep)
        path = report.write_report(logs, out)
    found = infer_from(score_logs(logs))
    others += [*statistics_tables(found, Marks()), numbers_table([found])]
    return Page(path.read_text("utf-8")), shown, others


def infer_from(scores, view=None):
    view = view or scores.views[0]
    return infer(samples_of(scores, view), scores.unit, view)


@pytest.fixture(scope="module")
def reports(tmp_path_factory):
    """Reports of the hand-made campaign, and of AlgoPerf's logs with misses and a crash."""
    folder = tmp_path_factory.mktemp("tables")
    ours = read_logs(write_hand_made(folder / "ours"))
    b = OfficialBuilder(folder / "theirs")
    b.good()
    for study in (1, 2):
        b.trial("worse", study, "easy", 1, [(0.9, 1.0), (0.4, 90.0)])
        b.trial("worse", study, "hard", 1, [(0.9, 1.0), (0.8, 100.0)])
        b.trial("worse", study, "hard", 2, None)
    rules = Competition(read_official_targets(b.targets(folder / "t.json")), None, 2, 2)
    theirs = read_logs(b.root, None, rules)
    return {
        name: write_whole_report(logs, folder / f"{name}-report")
        for name, logs in (("ours", ours), ("algoperf", theirs))
    }


@pytest.fixture(params=["ours", "algoperf"])
def whole(request, reports):
    """A report's page, the tables on it, and the others."""
    return reports[request.param]


# Columns sort by their values.


def raw_key(value):
    """The number that a value is about, without its format; ``None`` comes last."""
    if value is None or isinstance(value, bool | str):
        return value
    if isinstance(value, Share):
        value = value.count / value.of if value.of else None
    elif isinstance(value, Interval):
        value = value.low
    elif isinstance(value, Estimate):
        value = value.value
    elif isinstance(value, Costs):
        value = value.given_tuned if value.including_tuning is None else value.including_tuning
    elif hasattr(value, "summary"):
        value = value.summary.mean
    elif isinstance(value, tuple) and len(value) == 3:  # wins, ties, losses
        value = value[0] - value[2]
    elif isinstance(value, tuple):  # a score and its place, a cost and that of a rerun
        value = value[0]
    return None if value is None or not math.isfinite(value) else float(value)


def page_key(cell):
    """What ``page.js`` sorts a cell by."""
    text, key = cell
    if key is None:
        return text.strip().lower() or None
    return float(key) if key else None


def in_order(keys):
    """The indices of keys as a page sorts them: those without a key last."""
    return sorted(range(len(keys)), key=lambda i: (keys[i] is None, keys[i] or 0))


def check_columns(found, rows):
    """Assert that a page's cells sort every column of a table as its values do."""
    for place, column in enumerate(found.columns):
        values = [row[place] for row in found.rows]
        keys = [page_key(row[place]) for row in rows]
        if column.format.is_text:  # then the text is the value
            assert all(v is None or isinstance(v, str | bool) for v in values), column
            continue
        assert place >= 1, f"{column.name}: the head of a row has no key"
        raw = [raw_key(value) for value in values]
        assert keys == raw == [column.format.key(value) for value in values], column
        kinds = {type(key) for key in raw if key is not None}
        assert kinds <= {float}, column
        assert in_order(keys) == in_order(raw)


def test_every_column_of_a_report_sorts_by_its_values(whole):
    page, shown, others = whole

    assert len(page.tables) == len(shown) >= 8
    for found, (_, *rows) in zip(shown, page.tables, strict=True):
        check_columns(found, rows)
    for found in others:
        for place, column in enumerate(found.columns):
            if not column.format.is_text:
                values = [row[place] for row in found.rows]
                assert [column.format.key(v) for v in values] == [raw_key(v) for v in values]


def test_p_values_sort_by_value_also_where_their_texts_are_equal(build, tmp_path):
    # Each beats the later ones in all of 40 studies but a few: p from 1e-12 on, then Holm's.
    names = ["a", "b", "c", "d"]
    b = build(tmp_path, names, ["w"], 40)
    for study in range(1, 41):
        costs = [10.0, 20.0 - 15 * (study < 3), 30.0 - 29 * (study < 12), 40.0]
        for name, cost in zip(names, costs, strict=True):
            b.trial(name, "w", study, 1000.0, reached=cost)
            b.study(name, "w", study)
    found = comparisons_table(infer_from(score_logs(read_logs(tmp_path))), Marks())

    page = Page(page_of([found]))

    place = found.header.index("p (Holm)")
    values, texts = ([row[place] for row in rows] for rows in (found.rows, found.texts))
    assert 1 < texts.count("< 0.001") < len(texts)
    assert len({v for v, text in zip(values, texts, strict=True) if text == "< 0.001"}) > 1
    ((_, *rows),) = page.tables
    assert [float(row[place][1]) for row in rows] == values
    check_columns(found, rows)


# All formats hold the same cells.


def page_of(tables):
    """A page that shows tables, through the templates of the stability report."""
    import jinja2

    from analysis.report import pages

    environment = pages._environment(autoescape=True, finalize=pages._as_text)
    environment.filters |= {"json": pages._names, "attributes": pages._attributes}
    environment.filters |= {"label": pages._label}
    source = '{% from "macros.html.j2" import show %}{% for t in tables %}{{ show(t) }}{% endfor %}'
    template = environment.from_string(source)
    assert isinstance(template, jinja2.Template)
    return template.render(tables=tables)


def read_markdown(text):
    """The tables of a Markdown document, as another parser sees them."""
    found = []
    for token in MarkdownIt("commonmark").enable("table").parse(text):
        if token.type == "table_open":
            found.append([])
        elif token.type == "tr_open":
            found[-1].append([])
        elif token.type == "inline" and token.level >= 3 and found:
            found[-1][-1].append("".join(part.content for part in token.children))
    return found


def read_latex(text):
    """The cells of a table in LaTeX, its parts side by side."""
    parts = []
    for part in text.split(r"\begin{longtable}")[1:]:
        rows = re.findall(r"^\{(.*)\} \\\\$", part, re.MULTILINE)
        parts.append([[printed(cell) for cell in row.split("} & {")] for row in rows])
    first, *more = parts
    return [sum((part[i][1:] for part in more), row) for i, row in enumerate(first)]


def squeezed(cells):
    return " ".join(" ".join(cells).split())


def same(value, back):
    """Whether a raw value is what was read back from JSON."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return back is None
    if isinstance(value, float) and math.isinf(value):
        return back == "missed"
    return back == value and isinstance(back, bool) == isinstance(value, bool)


def test_all_formats_of_a_table_hold_the_same_cells(whole):
    page, shown, others = whole
    for found in [*shown, *others]:
        lines = [list(found.header), *map(list, found.texts)]

        assert [[cell.strip() for cell in row] for row in lines] == read_markdown(
            markdown_table(found)
        )[0]
        assert read_latex(latex_table(found)) == lines
        terminal = io.StringIO()
        print_in_terminal([found], (), Console(file=terminal, width=5000, color_system=None))
        printed_lines = [squeezed([line]) for line in terminal.getvalue().splitlines()]
        assert [row for row in map(squeezed, lines) if row not in printed_lines] == []

        (document,) = document_of([found], ())["tables"]
        rows = json.loads(json.dumps(document, allow_nan=False))["rows"]
        assert [list(row) for row in rows] == [list(found.fields)] * len(found.rows)
        header, *cells = csv.reader(io.StringIO(table_csv(found)))
        assert header == list(found.fields)
        assert len(rows) == len(cells) == len(found.records)
        for record, row, line in zip(found.records, rows, cells, strict=True):
            assert all(same(record[name], row[name]) for name in found.fields)
            for back, text in zip(row.values(), line, strict=True):
                if isinstance(back, int | float) and not isinstance(back, bool):
                    assert float(text) == back
                else:
                    assert text.removeprefix("'") == ("" if back is None else str(back))
    for found, rows in zip(shown, page.tables, strict=True):
        texts = [list(found.header), *map(list, found.texts)]
        assert [[cell[0].strip() for cell in row] for row in rows] == [
            [cell.strip() for cell in row] for row in texts
        ]


INF, NAN = math.inf, math.nan
FORMATS = {
    "cost": (table.COST, 1234.5, INF, NAN),
    "count": (table.COUNT, 1234, INF, None),
    "score": (table.SCORE, 0.25, INF, NAN),
    "p": (table.P_VALUE, 0.0001, INF, NAN),
    "speed": (number(".3g"), 0.5, INF, None),
    "costs": (table.COSTS, Costs(5.0, 50.0, 3, 3), Costs(INF, INF, 0, 3), None),
    "estimate": (estimate(table.COST), Estimate(5.0, 4.0, INF), Estimate(INF, INF, INF),
                 Estimate(NAN, NAN, NAN)),
    "range": (interval(table.COST), Interval(4.0, INF), INF, Interval(NAN, NAN)),
}  # fmt: skip


def test_a_miss_has_one_name_and_an_undefined_cell_is_empty_in_every_format():
    columns = (Column("contender"), *(Column(name, f[0]) for name, f in FORMATS.items()))
    rows = tuple((text, *(f[i] for f in FORMATS.values())) for i, text in enumerate("abc", start=1))
    found = Table("caption", columns, rows)

    reached, missed, undefined = found.texts
    assert "missed" not in "".join(cell for cell in reached if " to " not in cell)
    assert missed[0] == "b" and all(re.fullmatch(r"missed( \(0/3\))?", c) for c in missed[1:])
    assert undefined == ("c", *[""] * len(FORMATS))
    assert reached[-2:] == ("5 (4 to missed)", "4 to missed")
    records = [json.loads(json.dumps(r)) for r in document_of([found], ())["tables"][0]["rows"]]
    numbers = {name for name in records[0] if name.partition("_")[0] in FORMATS}
    counts = {"costs_reached", "costs_studies", "range_low", "range_high", "range"}
    assert {records[1][name] for name in numbers - counts} == {"missed"}
    assert {records[2][name] for name in numbers} == {None}
    assert records[0]["range_high"] == records[0]["estimate_high"] == "missed"
    lines = list(csv.DictReader(io.StringIO(table_csv(found))))
    assert {lines[1][name] for name in numbers - counts} == {"missed"}
    assert {lines[2][name] for name in numbers} == {""}
    for rows in (read_markdown(markdown_table(found))[0][1:], read_latex(latex_table(found))[1:]):
        assert [tuple(row) for row in rows] == found.texts
    ((_, *cells),) = Page(page_of([found])).tables
    assert [[cell[1] for cell in row[1:]] for row in cells[1:]] == [[""] * len(FORMATS)] * 2
    assert "" not in [cell[1] for cell in cells[0][1:]]


# Strangers' names.

EVIL = "=cmd()|<script>alert(1)</script>$x$\\input{x}[b](c)`_*&amp;\x1b[31m\x07\u202e"


def evil_table():
    columns = (Column(EVIL), Column(f"+{EVIL}", table.COST, workload=EVIL), Column("@b"))
    return Table(EVIL, columns, ((EVIL, 1.0, f"-{EVIL}"), ("\tx", INF, "\r=1")), notes=(EVIL,))


@pytest.mark.parametrize("format", ["table", "json", "csv", "markdown", "latex"])
def test_strangers_names_do_nothing_in_any_format(capsys, format):
    print_tables([evil_table()], [EVIL], table_format(format))

    out, err = capsys.readouterr()
    assert not re.search("[\x00-\x09\x0b-\x1f\u202e]", out + err)
    if format == "csv":
        cells = [cell for row in csv.reader(io.StringIO(out)) for cell in row]
        assert not [cell for cell in cells if cell[:1] in tuple("=+-@\t\r")]
        assert any(cell.startswith("'=cmd()|<script>") for cell in cells)
    elif format == "markdown":
        tokens = MarkdownIt("commonmark").enable("table").parse(out)
        kinds = {t.type for token in tokens for t in (token, *(token.children or ()))}
        assert not kinds & {"html_block", "html_inline", "link_open", "code_inline", "em_open"}
        (rows,) = read_markdown(out)
        assert [len(row) for row in rows] == [3, 3, 3]
        assert rows[1][0].startswith("=cmd()|<script>alert(1)</script>$x$\\input{x}[b](c)`_*&amp;")
    elif format == "latex":
        assert "\\input" not in out and "$x$" not in out
        assert read_latex(out)[1][0].startswith("=cmd()|<script>")
    elif format == "json":
        assert json.loads(out)["tables"][0]["rows"][0][EVIL] == EVIL  # as data, all of it


def test_strangers_names_are_text_in_html():
    text = page_of([evil_table()])

    page = Page(text)

    assert set(page.tags) <= {"div", "table", "caption", "span", "thead", "tbody", "tr", "th", "td"}
    assert not re.search("[\x00-\x08\x0b-\x1f\u202e]", text)
    assert page.tables[0][1][0][0].startswith("=cmd()|<script>alert(1)</script>")


def table_format(name):
    from analysis.report.formats import Format

    return Format(name)


# Files are written where they are asked for, and nowhere else.


@pytest.fixture
def logs(tmp_path):
    return OfficialBuilder(tmp_path / "logs").good()


def run(*arguments):
    return run_app(app, "analysis", [str(argument) for argument in arguments])


@pytest.mark.parametrize("there", [True, False], ids=["to a file", "to nothing"])
def test_a_link_is_neither_replaced_nor_followed(logs, tmp_path, capsys, there):
    link, aim = tmp_path / "link.csv", tmp_path / "precious.txt"
    if there:
        aim.write_text("precious")
    link.symlink_to(aim)

    with pytest.raises(ValueError, match=r"link\.csv"):
        publish(link, "x")
    assert run("table", logs, "--out", link) == 2

    assert "link.csv" in capsys.readouterr().err
    assert link.is_symlink() and aim.exists() == there
    assert not there or aim.read_text() == "precious"


def test_pictures_of_a_report_follow_no_links_either(tmp_path):
    logs = read_logs(write_hand_made(tmp_path / "runs"))
    aim = tmp_path / "precious.txt"
    aim.write_text("precious")
    (tmp_path / "report").mkdir()
    (tmp_path / "report" / "costs-1-easy.svg").symlink_to(aim)

    with pytest.raises(ValueError, match="costs-1-easy"):
        report.write_report(logs, tmp_path / "report")

    assert aim.read_text() == "precious"


def test_a_pipe_is_written_to_and_stays_a_pipe(logs, tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    end = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    try:
        publish(pipe, "hello")
        assert os.read(end, 100) == b"hello"
    finally:
        os.close(end)
    command = [sys.executable, "-m", "analysis", "table", str(logs), "--out", str(pipe)]
    with subprocess.Popen(command) as process, pipe.open(encoding="utf-8") as reader:
        text = reader.read()
    assert process.returncode == 0 and text.count("\n") > 16
    assert pipe.is_fifo()


def test_devices_and_sockets_stay_what_they_are(logs, tmp_path):
    assert run("table", logs, "--out", "/dev/null") == 0
    with socket.socket(socket.AF_UNIX) as one:
        one.bind(str(tmp_path / "socket"))
        with pytest.raises(ValueError, match="socket"):
            publish(tmp_path / "socket", "x")
        assert (tmp_path / "socket").is_socket()
    with pytest.raises(ValueError, match="folder"):
        (tmp_path / "folder").mkdir()
        publish(tmp_path / "folder", "x")


def test_the_standard_output_may_be_named_as_a_file(logs):
    command = [sys.executable, "-m", "analysis", "table", str(logs)]
    named, plain = (
        subprocess.run([*command, *more], capture_output=True, text=True, check=True).stdout
        for more in (["--out", "/dev/stdout"], [])
    )

    assert named == plain and plain.count("\n") > 16
