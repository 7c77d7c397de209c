"""The tuners. Loop, meter, seeds and storage are the study's; a tuner only proposes."""

from tuning.tuners.grid import DefaultsTuner, GridTuner, StagewiseTuner
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
