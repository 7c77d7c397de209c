"""``python -m metaopt.bench.rules FOLDER REPORT PROGRESS``: the process in which a check runs."""

import sys
from pathlib import Path

from metaopt.bench.rules.subprocess_check import write_report

if __name__ == "__main__":
    write_report(*map(Path, sys.argv[1:]))
