"""Silence is noticed, and only silence."""

import threading
import time

import pytest

from metaopt.bench.trial.stalls import StallWatch


def test_silence_is_reported_with_the_place_where_the_work_stands():
    said, heard = [], threading.Event()

    def on_stall(trace):
        said.append(trace)
        heard.set()

    with StallWatch(0.05, on_stall):
        assert heard.wait(30)  # the line that does not come back

    assert "assert heard.wait(30)" in [frame.line.split("  ")[0] for frame in said[0]]
    assert len(said) == 1


def test_work_that_goes_on_is_left_alone_however_long_it_takes():
    said = []

    with StallWatch(5.0, said.append) as stalls:
        for _ in range(20):
            time.sleep(0.01)
            stalls.beat()

    assert not said


def test_nothing_is_reported_once_the_work_is_done():
    said = []

    with StallWatch(0.2, said.append):
        pass
    time.sleep(0.4)

    assert not said


def test_a_beat_that_comes_after_all_waits_for_ever():
    speaking, passed = threading.Event(), threading.Event()

    def on_stall(trace):
        speaking.set()
        time.sleep(30)

    def work():
        stalls.beat()
        passed.set()

    stalls = StallWatch(0.05, on_stall)
    stalls.__enter__()
    assert speaking.wait(30)
    threading.Thread(target=work, daemon=True).start()

    assert not passed.wait(0.2)


@pytest.mark.parametrize("seconds", [0.0, -1.0, float("nan"), float("inf")])
def test_a_limit_that_is_none_is_refused(seconds):
    with pytest.raises(ValueError, match=f"must be positive and finite, got {seconds}"):
        StallWatch(seconds, print)
