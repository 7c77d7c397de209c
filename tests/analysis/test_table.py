"""The one table type: all formats hold the same cells, and columns sort by their values."""

import csv
import dataclasses
import html.parser
import io
import json
import math
import re

import pytest
from rich.console import Console

from analysis.checks.verification import Verdict
from analysis.logs.reader import read_logs
from analysis.report.formats import Format, markdown_table, print_tables, table_csv
from analysis.report.latex import latex_table
from analysis.report.marks import make_marks
from analysis.report.pages import render_html
from analysis.report.plots.canvas import Plot, figure_at
from analysis.report.stability import stability_table as decays_table
from analysis.report.summary import contender_marks
from analysis.report.table import (
    COST,
    COUNT,
    MEDIAN_COSTS,
    P_VALUE,
    SCORE,
    SHARE,
    YES,
    Column,
    Estimate,
    Interval,
    MedianCosts,
    Share,
    Table,
    estimate_format,
    interval_format,
    number_format,
)
from analysis.report.tables import (
    campaign_tables,
    hardware_tables,
    statistics_tables,
    training_tables,
    verification_table,
)
from analysis.report.tables.score_tables import Extras, cost_table, facets_of, score_table
from analysis.report.terminal import print_in_terminal
from analysis.scoring.machines import measure_hardware
from analysis.scoring.scores import score_logs
from analysis.statistics.inference import infer
from analysis.statistics.samples import samples_of
from analysis.training.episodes import read_runs
from analysis.training.final_values import final_episode_losses, final_values
from analysis.training.last_evaluations import last_evaluations
from analysis.wording import plain
from metaopt.bench.records.stability import StabilityRecord, StabilityResult, StabilitySetting
from tests.analysis.test_latex import HOSTILE, printed

INF, NAN = math.inf, math.nan
MANY = Table(
    "Every kind of cell",
    (
        Column("contender"), Column("trials", COUNT), Column("ratio", number_format(".2f")),
        Column("cost", COST), Column("score", SCORE), Column("reached", SHARE),
        Column("range", interval_format(SCORE), "range"),
        Column("median cost", estimate_format(COST)),
        Column("p (Holm)", P_VALUE, "p_holm"), Column("verified", YES),
        Column("mnist", MEDIAN_COSTS, workload="mnist"),
    ),
    (
        ("a", 1234, 0.5, 123.4, 0.25, Share(1, 3), Interval(0.1, 0.2), Estimate(5.0, 4.0, INF),
         0.00012, True, MedianCosts(1200.0, 3400.5, 2, 3, True)),
        ("b", 900, 1.5, INF, None, Share(2, 4), Interval(0.3, INF), Estimate(INF, INF, INF),
         0.04, False, MedianCosts(INF, INF, 0, 3)),
        ("c", 0, NAN, 1e6, 0.5, Share(0, 0), None, Estimate(NAN, 1.0, 2000.0),
         0.0000034, None, MedianCosts(50.0, INF, 2, 3)),
        ("d", None, -2.0, 0.001234, 1.0, None, Interval(NAN, NAN), None, NAN, True, None),
        ("e", 2, 10.0, 99.6, 0.0, Share(3, 3), Interval(0.0, 1.0), Estimate(20.0, 9.0, 30.0), 0.9,
         False, MedianCosts(70.0, None, 3, 3)),
    ),
    "many",
    notes=("The first note.", "A second one."),
)  # fmt: skip


class _Cells(html.parser.HTMLParser):
    """Reads a page's tables: for each its rows of (text, sort key), its caption first."""

    def __init__(self, page):
        super().__init__()
        self.tables, self.inside = [], False
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append(["", dict(attrs).get("data-sort")])
            self.inside = True

    def handle_endtag(self, tag):
        self.inside = self.inside and tag not in ("td", "th")

    def handle_data(self, data):
        if self.inside:
            self.tables[-1][-1][-1][0] += data


@pytest.fixture(scope="module")
def html_rows(tmp_path_factory):
    """Return rows of (text, sort key) of a table in a page, its head first."""
    plot = Plot("heading", "text", tmp_path_factory.mktemp("page") / "plot.png")
    with figure_at(plot.path):
        pass
    texts = dict.fromkeys(("title", "dates", "commits", "command"), "")
    numbers = dict.fromkeys(("trials", "steps", "seed"), 1)

    def read(table):
        context = {**texts, **numbers, "unfinished": False, "picture": plot, "table": table}
        (rows,) = _Cells(render_html("stability", context)).tables
        return rows

    return read


def markdown_rows(table):
    """Return the cells of the pipe table, its head first."""
    head, _, *rows = markdown_table(table).split("\n\n")[0].split("\n")
    cells = [re.split(r"(?<!\\)\|", row)[1:-1] for row in (head, *rows)]
    return [[re.sub(r"\\(.)", r"\1", cell[1:-1]) for cell in row] for row in cells]


def latex_rows(table):
    """Return the cells of the tables of LaTeX, whose columns go on below; heads first."""
    parts = []
    for part in latex_table(table).split(r"\begin{longtable}")[1:]:
        body = part[part.index(r"\toprule") : part.index(r"\end{longtable}")].split("\n")
        lines = [line.removesuffix(r" \\") for line in body if line.startswith("{")]
        parts.append([[printed(cell[1:-1]) for cell in line.split(" & ")] for line in lines])
    first, *rest = parts
    return [row + [c for part in rest for c in part[i][1:]] for i, row in enumerate(first)]


def terminal_text(table, width=1000):
    """Return the table as a terminal shows it."""
    out = io.StringIO()
    print_in_terminal([table], (), Console(file=out, width=width))
    return out.getvalue()


def json_rows(table, capsys):
    """Return the rows of the JSON document; fails on NaN and Infinity."""
    capsys.readouterr()
    print_tables([table], (), Format.JSON)
    (found,) = json.loads(capsys.readouterr().out, parse_constant=pytest.fail)["tables"]
    return found["rows"]


@pytest.fixture(scope="module")
def logs(tmp_path_factory, build):
    """Four contenders, one of which learns; failures, misses, and names of strangers."""
    root = tmp_path_factory.mktemp("tables") / "runs"
    names = ["=cmd+halton", "a|b+halton", "c<i>+halton", "learner"]
    b = build(root, names, ["easy", "hard"], 3)
    for study in (1, 2, 3):
        for s, name in enumerate(names[:3]):
            hits = [None, 50.0 * (s + study), None, None]
            b.whole_study(name, "easy", study, hits)
            b.whole_study(name, "hard", study, hits if s < 1 else [None] * 4)
        for workload in ("easy", "hard"):
            b.learner(
                "learner",
                workload,
                study,
                ("learning", 40, {20: 0.9, 40: 0.7}),
                ("learning", 40, {20: 0.8, 40: 1000.0}),
                ("deployed", 30, {30: 0.4}),
            )
            b.study("learner", workload, study)
    return read_logs(root, columns=lambda key, name: True)


@pytest.fixture(scope="module")
def tables(logs):
    """Every table of a report, of the commands, and one with every kind of cell."""
    scores, marks, facets = score_logs(logs), contender_marks(logs), facets_of(logs)
    found = infer(samples_of(scores, "including"), scores.unit, resamples=200)
    intervals = {
        (name, "including"): (float(found.scores.low[s]), float(found.scores.high[s]))
        for s, name in enumerate(found.samples.contenders)
    }
    extras = Extras(score_intervals=intervals, verified={"learner": True}, facets=facets)
    last, episodes = last_evaluations(logs), final_episode_losses(logs, read_runs(logs))
    ends = final_values(logs, last)
    setting = StabilitySetting(
        label="=wide", workload="digits", pool=2, widths=(3,), eta=0.1, delta=0.01
    )
    result = StabilityResult(setting=setting, parameters=1000, gaps=(0, 1), norms=((1.0, 0.5),))
    decays = StabilityRecord(
        name="decay", seed=1, trials=1, steps=2, settings=(result,), environment={}, started_at=""
    )
    verdicts = [
        Verdict(*pair, cell, None if pair[1] == "hard" else cell, "not the same")
        for pair, cell in scores.cells.items()
    ]
    return [
        MANY, score_table(scores, marks), score_table(scores, marks, extras),
        cost_table(scores, marks, extras), *statistics_tables.statistics_tables(found, marks),
        statistics_tables.numbers_table([found]), campaign_tables.spent_table(logs, facets, marks),
        campaign_tables.status_table(logs), campaign_tables.errors_table(logs),
        campaign_tables.target_table(logs),
        campaign_tables.environment_table(logs), campaign_tables.trials_table(logs),
        *training_tables.final_values_tables(ends, marks), training_tables.final_values_table(ends),
        *training_tables.episode_tables(episodes), training_tables.episodes_table(episodes),
        hardware_tables.hardware_table([logs]),
        hardware_tables.across_hardware_table(
            measure_hardware([logs], "including"), "learner", marks
        ),
        verification_table.verdicts_table(verdicts, logs, logs, facets), decays_table(decays),
    ]  # fmt: skip


def value_of(column, value):
    """Return the number or text by which a reader would sort, independently of the formats."""
    if value is None:
        return None
    found = {
        Share: lambda: value.count / value.of if value.of else None,
        Interval: lambda: value.low,
        Estimate: lambda: value.value,
        MedianCosts: lambda: value[0 if value[1] is None else 1],
    }.get(type(value), lambda: value)()
    if isinstance(found, tuple):  # wins-ties-losses; score and place; claimed and rerun; a target
        found = {"wins-ties-losses": lambda: found[0] - found[2], "value": lambda: found[1]}.get(
            column.name, lambda: found[0]
        )()
    found = getattr(getattr(found, "summary", None), "mean", found)
    return None if isinstance(found, float) and not math.isfinite(found) else found


def test_every_column_sorts_by_its_values(tables, html_rows):
    for table in tables:
        page = html_rows(table)[1:]
        for place, column in enumerate(table.columns):
            expected = [value_of(column, row[place]) for row in table.rows]
            for (text, key), value in zip((row[place] for row in page), expected, strict=True):
                if column.format.is_text:
                    assert key is None
                    assert not re.fullmatch(r"-?[\d,]+,\d+", text), (table.name, column.name, text)
                else:
                    assert key is not None
                    assert key == "" if value is None else float(key) == value


def test_small_p_values_sort_below_larger_ones(html_rows):
    place = [column.name for column in MANY.columns].index("p (Holm)")
    cells = [row[place] for row in html_rows(MANY)[1:]]
    sort = [(math.inf if key == "" else float(key), text) for text, key in cells]

    assert [text for _, text in sorted(sort)] == ["< 0.001", "< 0.001", "0.040", "0.900", ""]
    assert min(sort)[0] == 0.0000034


def test_people_read_the_same_cells_in_every_format(tables, html_rows):
    for table in tables:
        expected = [list(table.header), *map(list, table.texts)]

        assert markdown_rows(table) == expected
        assert [[text for text, _ in row] for row in html_rows(table)] == expected
        if all(text.isascii() for row in expected for text in row):
            assert latex_rows(table) == expected
        shown = terminal_text(table, 3000).split("\n")
        for row in expected:
            line = next(n for n, line in enumerate(shown) if is_row(row, line))
            del shown[: line + 1]


def is_row(cells, line):
    """Return whether a line of a terminal has the cells in their order."""
    return re.fullmatch(r"\s*" + r"\s+".join(map(re.escape, filter(None, cells))) + r"\s*", line)


def test_csv_and_json_hold_the_same_values(tables, capsys):
    for table in tables:
        head, *read = csv.reader(io.StringIO(table_csv(table)))
        rows = json_rows(table, capsys)

        assert [name.removeprefix("'") for name in head] == list(table.fields)
        assert len(read) == len(rows) == len(table.rows)
        for cells, row in zip(read, rows, strict=True):
            assert list(row) == list(table.fields)
            for cell, value in zip(cells, row.values(), strict=True):
                if isinstance(value, int | float) and not isinstance(value, bool):
                    assert float(cell) == value
                else:
                    text = "" if value is None else plain(value)
                    assert cell in (text, f"'{text}")


def test_csv_and_json_are_values_and_not_texts(capsys):
    rows = json_rows(MANY, capsys)
    first, second, third, fourth, _ = rows

    assert first["trials"] == 1234 and first["cost"] == 123.4 and first["p_holm"] == 0.00012
    assert (first["reached"], first["reached_of"]) == (1, 3)
    assert (first["median_cost"], first["median_cost_low"], first["median_cost_high"]) == (
        5.0, 4.0, "missed",
    )  # fmt: skip
    assert (first["mnist_given_tuned"], first["mnist_including_tuning"]) == (1200.0, 3400.5)
    assert second["cost"] == second["median_cost"] == second["mnist_given_tuned"] == "missed"
    assert third["ratio"] is third["median_cost"] is third["range_low"] is None
    assert third["mnist_including_tuning"] == "missed"
    assert {fourth[name] for name in ("trials", "reached", "range_low", "p_holm")} == {None}


def test_a_miss_and_an_undefined_value_have_one_spelling(tables, html_rows, capsys):
    wrong = re.compile(r"\b(nan|inf|infinity|none)\b|∞", re.IGNORECASE)
    for table in tables[:1] + [t for t in tables if t.name in ("scores", "costs", "statistics")]:
        assert any("missed" in text for row in table.texts for text in row)
        table = dataclasses.replace(table, caption="")
        page = "\n".join(text for row in html_rows(table) for text, _ in row)
        json_text = json.dumps(json_rows(table, capsys))
        for text in (table_csv(table), markdown_table(table), latex_table(table), page,
                     terminal_text(table), json_text):  # fmt: skip
            assert "missed" in text
            assert not wrong.search(text)


@pytest.mark.parametrize(
    "name",
    (*HOSTILE, "=1+1", "@sum", "<script>alert(1)</script>", "a\N{RIGHT-TO-LEFT OVERRIDE}b"),
    ids=ascii,
)
def test_untrusted_names_are_escaped_in_every_format(name, html_rows, capsys):
    marks = make_marks([name])
    columns = Column("contender", marks.format), Column(name, COST, workload=name)
    table = Table(name, columns, ((name, 1.0),), notes=(name, *marks.notes))
    shown = plain(f"{name} *")

    assert html_rows(table) == [
        [["contender", None], [plain(name), None]], [[shown, None], ["1", "1.0"]],
    ]  # fmt: skip
    assert markdown_rows(table) == [["contender", plain(name)], [shown, "1"]]
    if plain(name).isascii():
        assert latex_rows(table) == [["contender", plain(name)], [shown, "1"]]
    head, row = csv.reader(io.StringIO(table_csv(table)))
    assert row[0].removeprefix("'") == plain(name)
    assert not any(cell[:1] in ("=", "+", "-", "@") for cell in (*head, *row))
    assert json_rows(table, capsys)[0]["contender"] == name
    for format in Format:
        print_tables([table], [name], format)
        printed_text = "".join(capsys.readouterr())
        assert not any(ch in printed_text for ch in "\x1b\N{RIGHT-TO-LEFT OVERRIDE}")


@pytest.mark.parametrize("format", Format)
def test_notes_are_printed_in_every_format(format, capsys):
    print_tables([MANY, dataclasses.replace(MANY, notes=())], ["About all of it."], format)
    out, err = capsys.readouterr()
    said = (*MANY.notes, "About all of it.")

    assert all((note in err) == (format is Format.CSV) for note in said)
    assert all(note in (err if format is Format.CSV else out) for note in said)
    if format is Format.JSON:
        document = json.loads(out)
        assert document["notes"] == ["About all of it."]
        assert [table["notes"] for table in document["tables"]] == [list(MANY.notes), []]


def test_fields_with_equal_names_stay_apart(capsys):
    columns = Column("a", SHARE), Column("a_of", COUNT), Column("a", COUNT), Column("a, of", COUNT)
    table = Table("", columns, ((Share(1, 2), 3, 4, 5),))

    assert json_rows(table, capsys) == [{"a": 1, "a_of": 2, "a_of_2": 3, "a_2": 4, "a_of_3": 5}]


def test_a_table_that_is_cut_keeps_what_its_rows_are_about():
    columns = [Column("contender"), Column("versus")]
    columns += [Column(f"number {i}", number_format(".6f")) for i in range(9)]
    rows = tuple((a, b, *[0.123456] * 9) for a, b in (("x", "y"), ("x", "z")))

    lines = terminal_text(Table("", tuple(columns), rows, keys=2), 60).splitlines()

    assert max(map(len, lines)) <= 60
    assert sum(line.split()[:2] == ["x", "y"] for line in lines) > 1
    assert all(line.split()[1] in "yz" for line in lines if line.split()[:1] == ["x"])
    assert sum(line.count("0.123456") for line in lines) == 18


def test_only_columns_of_text_without_any_are_left_out():
    columns = Column("a"), Column("b", YES), Column("c", COUNT), Column("d")
    table = Table("", columns, (("", False, None, "x"), (None, False, None, "")))

    assert table.without_empty_columns().header == ("b", "c", "d")
    assert dataclasses.replace(table, rows=()).without_empty_columns().header == tuple("abcd")
