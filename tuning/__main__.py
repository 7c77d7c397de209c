"""``python -m tuning``."""

import sys

from metaopt.extras import one_line_hint


def run_command(program: str = "python -m tuning") -> int:
    """Run a command, whose usage names ``program``, and return its exit code."""
    with one_line_hint("tuning"):
        from analysis.command_line import run_app
        from tuning.cli import app
    return run_app(app, "tuning", program=program)


if __name__ == "__main__":  # worker processes import this module
    sys.exit(run_command())
