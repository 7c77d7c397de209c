"""What a reader sees and does on the page of a report: rows, filters, plots, devices."""

import contextlib
import csv

from selenium.webdriver.common.by import By


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
