"""The page of a real campaign in a browser: its numbers, its tables, and who can read them."""

import json

import pytest

from analysis.logs.reader import read_logs
from analysis.report.table import format_cost
from analysis.wording import MISSED
from tests.analysis.browser.conftest import CAMPAIGN, RUN_AGAIN

pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from tests.analysis.browser.page_tools import csv_of, emulated, heads_of, named_rows_of, rows_of
from tests.analysis.browsing import NEEDS_BROWSER

pytestmark = NEEDS_BROWSER
FACETS = ("ruleset", "hardware")


def test_the_page_opens_without_a_network_and_asks_for_nothing(page):
    pictures = page.find_elements(By.CSS_SELECTOR, ".plot")

    assert len(pictures) > 8
    for picture in pictures:
        assert picture.find_element(By.TAG_NAME, "svg").rect["width"] > 200
        assert len(picture.get_attribute("aria-label")) > 40
    events = [json.loads(entry["message"])["message"] for entry in page.get_log("performance")]
    asked = [e["params"]["request"]["url"] for e in events if e["method"].endswith("WillBeSent")]
    assert asked
    assert {url.split(":")[0] for url in asked} == {"file"}


def test_the_policy_of_the_page_refuses_other_scripts_and_the_network(browser, folder):
    browser.get((folder / "report" / "report.html").as_uri())
    browser.get_log("browser")

    browser.execute_script(
        """
        const script = document.createElement("script");
        script.textContent = "document.title = 'taken over'";
        document.body.append(script);
        const picture = document.createElement("img");
        picture.src = "https://example.com/x.png";
        document.body.append(picture);
        """
    )

    assert browser.title != "taken over"
    refused = [entry["message"] for entry in browser.get_log("browser")]
    assert any("script-src" in message for message in refused)
    assert any("img-src" in message for message in refused)


def shown_estimate(row, key, show):
    """The text that a page has for an estimate in a row of a CSV file."""
    value, low, high = (
        MISSED if row[f"{key}{end}"] == MISSED else show(float(row[f"{key}{end}"]))
        for end in ("", "_low", "_high")
    )
    return MISSED if low == MISSED else f"{value} ({low} to {high})"


def score_text(value):
    return f"{value:.3f}"


def test_the_numbers_of_the_page_are_those_of_the_csv(page, folder):
    rows, scores = csv_of(folder, "costs.csv"), csv_of(folder, "scores.csv")

    shown = {(r["workload"][0], r["contender"][0]): r for r in named_rows_of(page, "costs")}
    standings = {row["contender"][0]: row for row in named_rows_of(page, "overview")}

    assert len(rows) == len(shown) == 6
    reached = 0
    for row in rows:
        cells = shown[row["workload"], row["contender"]]
        for name in "given tuned", "including tuning":
            key = f"{name.replace(' ', '_')}_gradient_evaluations"
            is_missed = row[key] == MISSED
            reached += not is_missed
            sort = "" if is_missed else repr(float(row[key]))
            assert cells[name] == [shown_estimate(row, key, format_cost), sort]
        share = f"{row['reached']}/{row['reached_of']}"
        assert cells["reached"][0] == share
        assert [cells[name][0] for name in FACETS] == [row[name] for name in FACETS]
        own = standings[row["contender"]][row["workload"]][0].rstrip("‡")
        assert own == (share if is_missed else format_cost(float(row[key])))
    assert 0 < reached < 12  # else the campaign shows only one of the two
    assert len(scores) == len(standings) == 3
    for row in scores:
        own = standings[row["contender"]]
        assert own["score"][0] == shown_estimate(row, "score_including", score_text)
        assert own["given tuned"][0] == score_text(float(row["score_given"]))
        for name, view in ("score", "including"), ("given tuned", "given"):
            assert float(own[name][1]) == float(row[f"score_{view}"])
        assert own["verified"][0] == ("yes" if row["contender"] in RUN_AGAIN else "no")


def test_intervals_are_those_of_the_statistics_and_an_open_one_says_so(page, folder):
    shown = {(r["workload"][0], r["contender"][0]): r for r in named_rows_of(page, "costs")}
    standings = {row["contender"][0]: row for row in named_rows_of(page, "overview")}

    found = {"score": 0, "median_cost": 0}
    for row in csv_of(folder, "statistics.csv"):
        if row["statistic"] not in found:
            continue
        found[row["statistic"]] += 1
        row |= {"": row["value"], "_low": row["low"], "_high": row["high"]}
        if row["statistic"] == "score":
            if row["view"] == "including":
                text = standings[row["contender"]]["score"][0]
                assert text == shown_estimate(row, "", score_text)
        else:
            name = {"including": "including tuning", "given": "given tuned"}[row["view"]]
            text = shown[row["workload"], row["contender"]][name][0]
            assert text == shown_estimate(row, "", format_cost)
    assert found == {"score": 6, "median_cost": 12}


@pytest.mark.parametrize(
    "table, way", [("overview", "click"), ("costs", "keyboard"), ("spent", "click")]
)
def test_every_column_sorts(page, table, way):
    before = rows_of(page, table)

    for column in range(len(before[0])):
        button = heads_of(page, table)[column].find_element(By.TAG_NAME, "button")
        for descending in (False, True):
            if way == "click":
                button.click()
            else:
                button.send_keys(Keys.SPACE if descending else Keys.ENTER)

            states = page.execute_script(
                "return [...arguments[0].closest('tr').cells].map(one => one.ariaSort)", button
            )
            assert states[column] == ("descending" if descending else "ascending")
            assert set(states[:column] + states[column + 1 :]) <= {None}
            after = rows_of(page, table)
            assert sorted(after) == sorted(before)
            keys = [row[column] for row in after]
            known = [key for key in keys if key[1] != ""]
            assert keys[: len(known)] == known  # what was not reached is last, both ways
            if all(key[1] is not None for key in known):
                numbers = [float(key[1]) for key in known]
                assert numbers == sorted(numbers, reverse=descending)
            else:
                texts = [key[0].lower() for key in known]
                assert texts == sorted(texts, reverse=descending)


def test_a_reader_without_eyes_or_a_mouse_finds_the_way(page):
    count = page.execute_script(
        """
        const all = selector => [...document.querySelectorAll(selector)];
        const levels = all("h1, h2, h3").map(heading => Number(heading.tagName[1]));
        return {
          landmarks: all("header, nav, main").length,
          first: levels[0],
          jumps: levels.filter((level, i) => i > 0 && level > levels[i - 1] + 1).length,
          titles: levels.filter(level => level === 1).length,
          captions: all("table").filter(table => !table.caption?.textContent.trim()).length,
          scopes: all("th").filter(head => !head.scope).length,
          labels: all("input").filter(box => !box.labels.length).length,
          regions: all(".scroll").filter(one => one.tabIndex !== 0 || !one.ariaLabel).length,
          ids: all("[id]").length - new Set(all("[id]").map(element => element.id)).size,
          plots: all(".plot").filter(one => one.tabIndex !== 0 || !one.ariaLabel).length,
          parts: all("section").filter(one => !document.getElementById(
            one.getAttribute("aria-labelledby"))).length,
        };
        """
    )

    assert count == {
        "landmarks": 2, "first": 1, "jumps": 0, "titles": 1, "captions": 0, "scopes": 0,
        "labels": 0, "regions": 0, "ids": 0, "plots": 0, "parts": 0,
    }  # fmt: skip
    body = page.find_element(By.TAG_NAME, "body")
    body.send_keys(Keys.TAB)
    focused = page.switch_to.active_element
    assert focused.text == "To the results"
    assert focused.is_displayed()
    assert focused.rect["x"] >= 0
    assert focused.value_of_css_property("outline-style") == "solid"


def luminance(colour):
    numbers = [float(part) for part in colour.partition("(")[2].rstrip(")").split(",")[:3]]
    linear = [
        part / 12.92 if part <= 0.03928 else ((part + 0.055) / 1.055) ** 2.4
        for part in (number / 255 for number in numbers)
    ]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_texts_have_the_contrast_that_wcag_asks_for(page, scheme):
    with emulated(page, prefers_color_scheme=scheme):
        paper = luminance(page.find_element(By.TAG_NAME, "body").value_of_css_property(
            "background-color"
        ))  # fmt: skip
        for selector in ("h1", "#overview td", ".soft", "caption span", ".answer", ".missed"):
            text = page.find_element(By.CSS_SELECTOR, selector)
            dim, bright = sorted([paper, luminance(text.value_of_css_property("color"))])
            assert (bright + 0.05) / (dim + 0.05) >= 4.5, selector

    assert (paper > 0.5) == (scheme == "light")


def test_a_phone_shows_the_page_without_scrolling_sideways(page):
    with emulated(page, width=390):
        width = page.execute_script("return document.documentElement.scrollWidth")
        wide = page.find_element(By.CSS_SELECTOR, ".wide .plot").rect["width"]

    assert width == 390
    assert wide > 390  # a wide picture keeps a size at which it can be read, and scrolls by itself


def test_paper_shows_the_tables_and_not_the_controls(page):
    with emulated(page, media="print"):
        form = page.find_element(By.CSS_SELECTOR, ".filters").is_displayed()
        overflow = page.find_element(By.CSS_SELECTOR, ".scroll").value_of_css_property("overflow-x")

    assert not form
    assert overflow == "visible"


def test_the_campaign_behind_the_page_is_a_real_one(folder):
    logs = read_logs(folder / "runs")

    assert {trial.record.contender for trial in logs.trials} == set(CAMPAIGN["contenders"])
    assert all(trial.record.ledger.cost.seconds > 0 for trial in logs.trials)
