"""A real campaign, the page of its report, and a browser; made once for all tests of the page."""

import pytest
from filelock import FileLock

from analysis.logs.reader import read_logs
from analysis.report.report import write_report
from metaopt.bench.records import RUN_FILE, read_trial, write_json
from tuning.campaign import make_campaign
from tuning.executor import run_campaign

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
    from tests.analysis.browsing import offline_browser  # selenium may not be installed

    with offline_browser() as driver:
        yield driver


@pytest.fixture
def page(browser, folder):
    """The page, freshly opened; what it writes to the console fails the test."""
    for log in ("browser", "performance"):
        browser.get_log(log)
    browser.get((folder / "report" / "report.html").as_uri())
    browser.execute_script(
        "document.querySelectorAll('section > details').forEach(d => d.open = true)"
    )
    yield browser
    assert browser.get_log("browser") == []
