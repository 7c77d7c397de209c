"""``python -m tuning.rehearsal FOLDER MINIATURE RESULT PROGRESS SHARED``: one miniature's process.

SHARED is a folder of all processes: each takes a core that no other has, and they share compiled
programs.
"""

import sys
from pathlib import Path

from metaopt.bench.records import write_json, write_text
from tuning.rehearsal.miniature import rehearse_miniature
from tuning.slot import keep_compiled, take_cores


def write_miniature_result(folder: str, name: str, result: str, progress: str, shared: str) -> None:
    """Rehearse one miniature and write its result."""
    lock = take_cores(1, Path(shared))
    keep_compiled(Path(shared))
    found = rehearse_miniature(
        Path(folder), name, lambda description: write_text(Path(progress), description)
    )
    write_json(Path(result), found)
    del lock  # of the core, until now


if __name__ == "__main__":
    write_miniature_result(*sys.argv[1:])
