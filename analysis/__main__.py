"""``python -m analysis``."""

import gc
import os
import sys

from analysis.cli import app
from analysis.command_line import run_app

# Both save time when large logs are read, 3 % and 5 %: logs are many small objects without cycles,
# and NumPy, which is not imported yet, need not start threads for linear algebra.
gc.set_threshold(100_000, 50, 100)
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
sys.exit(run_app(app, "analysis"))
