"""The page of a real campaign in a browser: filters, highlighting, hovering, zoom, downloads."""

import json
import time
import xml.etree.ElementTree

import pytest

from tests.analysis.browser.conftest import CAMPAIGN, ELSEWHERE

pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from tests.analysis.browser.page_tools import (
    choose,
    csv_of,
    heads_of,
    place_of,
    plot_named,
    rows_of,
    said,
    tip_of,
)
from tests.analysis.browsing import NEEDS_BROWSER

pytestmark = NEEDS_BROWSER


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

    x, y, _ = place_of(page, plot, "dog", 3)
    ActionChains(page).move_to_element_with_offset(plot, x, y).perform()
    ring = plot.find_element(By.CSS_SELECTOR, "circle[r='6']")
    assert ring.is_displayed()

    ActionChains(page).click_and_hold().move_by_offset(90, 70).release().perform()

    assert not ring.is_displayed()  # the point that it marked has moved
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
