"""Several devices give the numbers of one, and share the gradient history."""

import json
import subprocess
import sys

import pytest

pytestmark = pytest.mark.slow  # it compiles everything again for one and for eight devices


@pytest.fixture(scope="module")
def runs(root):
    results = {}
    for devices in (1, 8):
        script = ["tests/performance/bench_devices.py", "--json", f"--devices={devices}"]
        done = subprocess.run(
            [sys.executable, *script], cwd=root, capture_output=True, text=True, timeout=300
        )
        assert done.returncode == 0, done.stderr[-3000:]
        results[devices] = json.loads(done.stdout)
    assert [results[devices]["devices"] for devices in (1, 8)] == [1, 8]
    return results


def test_eight_devices_give_the_numbers_of_one(runs):
    assert runs[8]["losses"] == pytest.approx(runs[1]["losses"], rel=1e-4)
    assert runs[8]["weights"] == pytest.approx(runs[1]["weights"], rel=1e-4, abs=1e-6)
    assert runs[8]["replicated"]


def test_each_device_holds_its_share_of_the_history(runs):
    # All but the ten biases of the output divide by eight.
    whole = runs[8]["whole"]
    rows = whole // 4 // 8_970

    assert runs[8]["held"] == [4 * rows * ((8_970 - 10) // 8 + 10)] * 8
    assert runs[1]["held"] == [whole]
