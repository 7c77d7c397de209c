"""A process may be restricted to some cores, and slots on one machine have cores of their own."""

import subprocess
import sys

from tuning.cores import available_cores, kept_to

TAKE = """
import os, sys, time
from pathlib import Path
from tuning.slot import take_cores
lock = take_cores(1, Path(sys.argv[1]))
print(*sorted(os.sched_getaffinity(0)), flush=True)
sys.stdin.read()
"""


def test_a_process_that_was_kept_to_a_core_has_all_of_them_again():
    before = available_cores()

    with kept_to(before[:1]):
        assert available_cores() == before[:1]

    assert available_cores() == before


def test_slots_take_turns_at_the_cores_and_a_killed_one_frees_its_own(root, tmp_path):
    def start():
        return subprocess.Popen(
            [sys.executable, "-c", TAKE, str(tmp_path)], cwd=root, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )  # fmt: skip

    cores = available_cores()
    slots, taken = [], []
    for _ in range(len(cores) + 1):  # one more than there are cores
        slots.append(start())
        taken.append(int(slots[-1].stdout.readline()))
    slots[0].kill()
    slots[0].wait()
    slots.append(start())
    taken.append(int(slots[-1].stdout.readline()))
    for slot in slots:
        slot.communicate()

    assert taken == [*cores, cores[0], cores[0]]
