"""``python -m metaopt.bench.rules FOLDER REPORT DOING``: the process that a check runs in."""

import sys
from pathlib import Path

from metaopt.bench.rules.check import write_findings

if __name__ == "__main__":
    write_findings(*map(Path, sys.argv[1:]))
