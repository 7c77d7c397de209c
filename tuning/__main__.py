"""``python -m tuning``."""

import sys

from analysis.command_line import run_app
from tuning.cli import app

if __name__ == "__main__":  # worker processes import this module
    sys.exit(run_app(app, "tuning"))
