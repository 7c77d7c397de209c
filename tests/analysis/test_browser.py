"""The page of a real campaign in a browser; over 400 lines: all tests share campaign and page."""

import contextlib
import csv
import json
import time
import xml.etree.ElementTree

import pytest
from filelock import FileLock

from analysis.logs.reader import read_logs
from analysis.report.report import write_report
from analysis.report.table import format_cost
from analysis.wording import MISSED
from metaopt.bench.records import RUN_FILE, read_trial, write_json
from tuning.campaign import make_campaign
from tuning.executor import run_campaign

pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from tests.analysis.browsing import NEEDS_BROWSER, offline_browser

pytestmark = NEEDS_BROWSER

CAMPAIGN = {
    "name": "tiny",
    "seed": 1,
    "studies": 2,
    "budget": "1x",
    "trial_budget": "0.25x",
    "workloads": ["breast_cancer_logistic", "breast_cancer_logistic_fixed"],
    "contenders": ["dog", "momentum+random", "sgd+random"],
    # Some studies meet it and some do not.
    "targets": {
        "breast_cancer_logistic_fixed": {
            "metric": "validation/loss",
            "value": 0.1,
            "better": "lower",
        }
    },
}
ELSEWHERE = "another machine"
FACETS = ("ruleset", "hardware")
RUN_AGAIN = ["momentum+random"]


@pytest.fixture(scope="session")
def folder(tmp_path_factory, worker_id):
    """A campaign that ran, and its report; made once, also for several processes."""
    own = tmp_path_factory.getbasetemp()
    shared = own / "browser" if worker_id == "master" else own.parent / "browser"
    shared.mkdir(exist_ok=True)
    with FileLock(shared / "lock"):
        if not (shared / "done").exists():
            run_campaign(make_campaign(CAMPAIGN, "tiny"), shared / "runs")
            for path in (shared / "runs" / "logs" / "sgd+random").rglob(RUN_FILE):
                record = read_trial(path)  # as if it had run elsewhere, for the filter
                record.environment["hardware"]["cpu"] = ELSEWHERE
                write_json(path, record)
            command = "python -m tuning compare tiny"
            again = make_campaign(CAMPAIGN | {"contenders": RUN_AGAIN}, "tiny")
            run_campaign(again, shared / "rerun")
            logs, rerun = (read_logs(shared / name) for name in ("runs", "rerun"))
            write_report(logs, shared / "report", command=command, rerun=rerun)
            (shared / "done").touch()
    return shared


@pytest.fixture(scope="module")
def browser():
    with offline_browser() as driver:
        yield driver


@pytest.fixture
def page(browser, folder):
    """The page, freshly opened; what it writes to the console fails the test."""
    for log in ("browser", "performance"):
        browser.get_log(log)
    browser.get((folder / "report" / "report.html").as_uri())
    unfold(browser)
    yield browser
    assert browser.get_log("browser") == []


def unfold(page):
    page.execute_script(
        "document.querySelectorAll('section > details').forEach(d => d.open = true)"
    )


def rows_of(page, table):
    """The shown rows of a table as ``[(text, sort key or None), ...]``."""
    script = """
      const shown = element => element.checkVisibility();
      return [...document.querySelectorAll(`#${arguments[0]} tbody tr`)].filter(shown).map(row =>
        [...row.cells].filter(shown).map(cell => [cell.textContent, cell.dataset.sort ?? null]));
    """
    return page.execute_script(script, table)


def named_rows_of(page, table):
    """The shown rows of a table by the names of its columns."""
    names = [head.text.split("\n")[0] for head in heads_of(page, table) if head.is_displayed()]
    return [dict(zip(names, row, strict=True)) for row in rows_of(page, table)]


def heads_of(page, table):
    return page.find_elements(By.CSS_SELECTOR, f"#{table} thead th")


def csv_of(folder, name):
    with (folder / "report" / name).open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def choose(page, facet, value):
    """Leave one choice of a filter ticked."""
    box = page.find_element(By.CSS_SELECTOR, f"[data-facet={facet}]")
    page.execute_script("arguments[0].open = true", box)
    for choice in box.find_elements(By.TAG_NAME, "input"):
        if choice.is_selected() != (choice.get_attribute("value") == value):
            choice.click()
    page.execute_script("arguments[0].open = false", box)


def said(page):
    return page.find_element(By.CSS_SELECTOR, ".filters output").text


def plot_named(page, start):
    return page.find_element(By.CSS_SELECTOR, f".plot[data-name^='{start}']")


def place_of(page, plot, contender, index=0):
    """Where a point of a contender is, in pixels from the middle of the plot, and its values."""
    script = """
      const [plot, name, index] = arguments;
      const group = [...plot.querySelectorAll("[data-values]")]
        .find(one => one.dataset.contender === name);
      const axes = axesOf(group.closest("[data-box]"));
      const values = group.dataset.values.split(";").map(row => row.split(","));
      const row = values[(index + values.length) % values.length];
      const at = new DOMPoint(...axes.at(Number(row[0]), Number(row[1])))
        .matrixTransform(plot.querySelector("svg").getScreenCTM());
      const box = plot.getBoundingClientRect();
      return [at.x - box.x - box.width / 2, at.y - box.y - box.height / 2, row];
    """
    page.execute_script("arguments[0].scrollIntoView({block: 'center'})", plot)
    return page.execute_script(script, plot, contender, index)


def tip_of(page):
    return page.find_element(By.CSS_SELECTOR, ".tip").text.split("\n")


@contextlib.contextmanager
def emulated(page, width=1200, media="", **features):
    found = [{"name": name.replace("_", "-"), "value": value} for name, value in features.items()]
    page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": media, "features": found})
    sizes = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500}
    page.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", sizes)
    yield
    page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "", "features": []})
    page.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


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


def test_filters_leave_what_was_chosen_and_scores_follow(page, folder):
    whole = {row[0][0].split()[0]: float(row[1][1]) for row in rows_of(page, "overview")}
    choose(page, "workload", "breast_cancer_logistic")

    assert {row[0][0] for row in rows_of(page, "costs")} == {"breast_cancer_logistic"}
    heads = [head.text for head in heads_of(page, "overview") if head.is_displayed()]
    assert heads[-1] == "breast_cancer_logistic"
    assert len(heads) == len(rows_of(page, "overview")[0])
    for figure in page.find_elements(By.CSS_SELECTOR, "figure[data-workload]"):
        mine = json.loads(figure.get_attribute("data-workload")) == ["breast_cancer_logistic"]
        assert figure.is_displayed() == mine
    one = {row[0][0].split()[0]: float(row[1][1]) for row in rows_of(page, "overview")}
    choose(page, "workload", "breast_cancer_logistic_fixed")
    other = {row[0][0].split()[0]: float(row[1][1]) for row in rows_of(page, "overview")}
    assert one != other
    for name, score in whole.items():  # a score is the mean over workloads
        assert score == pytest.approx((one[name] + other[name]) / 2, abs=1e-5)

    page.find_element(By.CSS_SELECTOR, ".filters button[type=reset]").click()
    choose(page, "ruleset", "self-tuning")

    assert [row[0][0] for row in rows_of(page, "overview")] == ["dog"]
    assert said(page) == "1 of 3 contenders shown"

    page.find_element(By.CSS_SELECTOR, ".filters button[type=reset]").click()

    assert len(rows_of(page, "costs")) == 6
    assert said(page) == "3 of 3 contenders shown"
    assert {row[0][0].split()[0]: float(row[1][1]) for row in rows_of(page, "overview")} == whole


def test_filters_work_with_the_keyboard(page):
    choice = page.find_element(By.CSS_SELECTOR, "[data-facet=hardware]")
    choice.find_element(By.TAG_NAME, "summary").send_keys(Keys.ENTER)
    for box in choice.find_elements(By.TAG_NAME, "input"):
        if not box.get_attribute("value").startswith(ELSEWHERE):
            box.send_keys(Keys.SPACE)

    assert [row[0][0] for row in rows_of(page, "overview")] == ["sgd+random"]
    assert {row[1][0] for row in rows_of(page, "costs")} == {"sgd+random"}
    choice.find_element(By.TAG_NAME, "summary").send_keys(Keys.ESCAPE)
    assert choice.get_attribute("open") is None


def test_a_contender_is_highlighted_and_hidden_everywhere(page):
    plot = plot_named(page, "anytime-1")
    line = "[data-contender='sgd+random'] > path"
    others = "[data-contender='dog'] > path"
    shine = "return getComputedStyle(arguments[0].closest('[data-contender]')).opacity"

    row = page.find_element(By.XPATH, "//table[@id='overview']//th[starts-with(., 'sgd+random')]")
    row.click()

    mine, theirs = (plot.find_element(By.CSS_SELECTOR, one) for one in (line, others))
    assert float(page.execute_script(shine, mine)) == 1
    assert float(page.execute_script(shine, theirs)) < 0.5
    assert "hot" in row.find_element(By.XPATH, "..").get_attribute("class")
    board = page.find_element(By.ID, "contenders")
    assert board.find_element(By.CSS_SELECTOR, "summary span").text == "all, 1 highlighted"

    row.click()
    assert float(page.execute_script(shine, theirs)) == 1

    page.execute_script("arguments[0].open = true", board)
    board.find_element(By.CSS_SELECTOR, "input[value='sgd+random']").click()

    assert said(page) == "2 of 3 contenders shown"
    for plot in page.find_elements(By.CSS_SELECTOR, ".plot"):
        for one in plot.find_elements(By.CSS_SELECTOR, "[data-contender='sgd+random']"):
            assert not one.is_displayed()
    assert "sgd+random" not in {row[1][0].split()[0] for row in rows_of(page, "costs")}


def test_hovering_and_arrow_keys_tell_the_values_of_the_csv(page, folder):
    plot = plot_named(page, "anytime-1")
    workload = plot.find_element(By.XPATH, "ancestor::figure").get_attribute("data-workload")
    rows = csv_of(folder, "anytime.csv")
    rows = [row for row in rows if [row["workload"]] == json.loads(workload)]
    rows = [row for row in rows if row["contender"] == "sgd+random"]
    last = [f"{float(rows[-1][name]):.4g}" for name in ("spent", "median", "low", "high")]

    x, y, _ = place_of(page, plot, "sgd+random", -1)
    ActionChains(page).move_to_element_with_offset(plot, round(x) - 1, round(y)).perform()

    told = tip_of(page)
    assert told[0] in CAMPAIGN["contenders"]  # another may lie on top of it
    assert [line.split()[0] for line in told[1:]] == ["spent", "value", "low", "high"]

    plot.send_keys(Keys.ESCAPE)
    for _ in range(9):
        plot.send_keys(Keys.ARROW_DOWN)
        if tip_of(page)[0] == "sgd+random":
            break
    for _ in range(len(rows)):
        plot.send_keys(Keys.ARROW_RIGHT)
    names = ("spent", "value", "low", "high")
    values = [f"{name} {value}" for name, value in zip(names, last, strict=True)]
    assert tip_of(page) == ["sgd+random", *values]
    plot.send_keys(Keys.ENTER)
    assert page.find_element(By.CSS_SELECTOR, "#overview tr.hot th").text == "sgd+random"


def test_dragging_zooms_into_curves_and_escape_goes_back(page):
    plot = plot_named(page, "anytime-1")
    page.execute_script("arguments[0].scrollIntoView({block: 'center'})", plot)
    path = "[data-contender='sgd+random'][data-kind=line] > path"
    before = plot.find_element(By.CSS_SELECTOR, path).get_attribute("d")
    labels = len(plot.find_elements(By.CSS_SELECTOR, ".tick:not(.away)"))

    ActionChains(page).move_to_element_with_offset(plot, -20, -60).click_and_hold().move_by_offset(
        90, 70
    ).release().perform()

    after = plot.find_element(By.CSS_SELECTOR, path).get_attribute("d")
    assert after != before
    assert labels and not plot.find_elements(By.CSS_SELECTOR, ".tick:not(.away)")
    reset = plot.find_element(By.XPATH, "following-sibling::*//button[.='Reset zoom']")
    assert reset.is_displayed()
    plot.send_keys(Keys.ESCAPE)
    assert plot.find_element(By.CSS_SELECTOR, path).get_attribute("d") == before
    assert not reset.is_displayed()


def test_downloads_are_the_files_beside_the_page(page, folder, tmp_path):
    page.execute_cdp_cmd(
        "Browser.setDownloadBehavior", {"behavior": "allow", "downloadPath": str(tmp_path)}
    )

    page.find_element(By.CSS_SELECTOR, "button[aria-label='Download costs.csv']").click()
    for kind in ("svg", "png"):
        name = plot_named(page, "anytime-1").get_attribute("data-name")
        page.find_element(By.CSS_SELECTOR, f"button[aria-label='Download {name}.{kind}']").click()
    wanted = {"costs.csv", f"{name}.svg", f"{name}.png"}
    deadline = time.monotonic() + 20
    while {path.name for path in tmp_path.iterdir()} != wanted and time.monotonic() < deadline:
        time.sleep(0.05)

    assert {path.name for path in tmp_path.iterdir()} == wanted
    assert (tmp_path / "costs.csv").read_bytes() == (folder / "report/costs.csv").read_bytes()
    drawn = xml.etree.ElementTree.parse(tmp_path / f"{name}.svg")
    assert [one for one in drawn.iter() if one.get("data-contender") == "sgd+random"]
    assert (tmp_path / f"{name}.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"


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
