"""The tuners. A tuner only proposes: the study has the loop, the meter and the seeds."""

from tuning.tuners.defaults import DefaultsTuner
from tuning.tuners.grid import GridTuner, StagewiseTuner
from tuning.tuners.registry import TUNERS, MakeTuner, TunerKind, get_tuner, list_plugin_tuners
from tuning.tuners.samplers import OptunaTuner

__all__ = [
    "TUNERS",
    "DefaultsTuner",
    "GridTuner",
    "MakeTuner",
    "OptunaTuner",
    "StagewiseTuner",
    "TunerKind",
    "get_tuner",
    "list_plugin_tuners",
]
