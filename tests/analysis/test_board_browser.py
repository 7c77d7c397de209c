"""The leaderboard's pages in a real browser, opened from disk with the network off."""

import shutil

import pytest

from analysis.leaderboard.submitting import submit
from tests.analysis.conftest import ENVIRONMENT, build_runs

pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
from selenium.webdriver.common.by import By

from tests.analysis.browsing import NEEDS_BROWSER, offline_browser

pytestmark = NEEDS_BROWSER

SLOW = ENVIRONMENT | {"hardware": {"cpu": "slide rule", "cpu_count": 1}}


@pytest.fixture(scope="module")
def site(build, built_once, tmp_path_factory):
    """A leaderboard of one protocol on two kinds of hardware."""
    folder = tmp_path_factory.mktemp("site")
    shutil.copytree(built_once / "board", folder / "board")
    submit(build_runs(build, folder / "slow", environment=SLOW), folder / "board")
    return folder / "board"


@pytest.fixture(scope="module")
def browser():
    with offline_browser() as driver:
        yield driver


@pytest.fixture
def protocol(browser, site):
    browser.get((site / "protocols/made.html").as_uri())
    yield browser
    assert browser.get_log("browser") == []


def choose_only(page, facet, start):
    box = page.find_element(By.CSS_SELECTOR, f"[data-facet={facet}]")
    page.execute_script("arguments[0].open = true", box)
    for choice in box.find_elements(By.TAG_NAME, "input"):
        if choice.is_selected() != choice.get_attribute("value").startswith(start):
            choice.click()


def sections(page):
    return [part for part in page.find_elements(By.CSS_SELECTOR, "section[data-hardware]")
            if part.is_displayed()]  # fmt: skip


@pytest.mark.parametrize("width", [390, 1400])
def test_no_page_is_wider_than_the_window_or_writes_to_the_console(browser, site, width):
    sizes = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", sizes)
    for path in site.rglob("*.html"):
        browser.get(path.as_uri())
        browser.execute_script(
            "document.querySelectorAll('section > details').forEach(d => d.open = true)"
        )
        wide = "return document.documentElement.scrollWidth"
        assert browser.execute_script(wide) <= width, path.name
        assert browser.get_log("browser") == []
    browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_pages_from_disk_have_the_style_and_the_script_that_they_share(browser, site):
    for path in (site / "index.html", site / "contenders/a+halton.html"):
        browser.get(path.as_uri())

        position = "return getComputedStyle(document.querySelector('tbody th')).position"
        assert browser.execute_script(position) == "sticky"
        assert browser.find_elements(By.CSS_SELECTOR, "thead th button")


def test_a_reader_goes_from_the_first_page_to_a_contender_and_to_its_csv(browser, site):
    browser.get((site / "index.html").as_uri())

    browser.find_element(By.LINK_TEXT, "made").click()
    browser.find_element(By.PARTIAL_LINK_TEXT, "a+halton").click()

    assert browser.current_url == (site / "contenders/a+halton.html").as_uri()
    assert browser.find_element(By.TAG_NAME, "h1").text == "a+halton"


def test_the_hardware_filter_leaves_one_part_and_counts_contenders_once(protocol):
    said = protocol.find_element(By.CSS_SELECTOR, ".filters output")
    assert len(sections(protocol)) == 2
    assert said.text == "2 of 2 contenders shown"

    choose_only(protocol, "hardware", "slide rule")

    (left,) = sections(protocol)
    assert "slide rule" in left.find_element(By.TAG_NAME, "h2").text
    assert said.text == "2 of 2 contenders shown"


def test_scores_follow_the_workload_filter_on_every_hardware(protocol):
    cells = (
        "return [...document.querySelectorAll('[data-shares]')].map(c => Number(c.dataset.sort))"
    )
    whole = protocol.execute_script(cells)
    found = []
    for workload in ("breast_cancer_logistic", "digits_mlp"):
        choose_only(protocol, "workload", workload)
        found.append(protocol.execute_script(cells))

    assert whole == pytest.approx([(x + y) / 2 for x, y in zip(*found, strict=True)], abs=1e-5)
    assert found[0] != found[1]
