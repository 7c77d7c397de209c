"""The part of AlgoPerf's interface that submissions and workloads need, without needing torch.

AlgoPerf's workloads compare ``mode == spec.ForwardPassMode.TRAIN``, and a member of a copied enum
is not equal to it: a submission with its own copy would silently train in evaluation mode. So where
AlgoPerf is installed its members are used, and this is the one file that decides it.
"""

import contextlib
import enum
from typing import TYPE_CHECKING

__all__ = ["ForwardPassMode", "LossType", "ParameterType", "ShapeTuple", "TrainingCompleteError"]


class ForwardPassMode(enum.Enum):
    """Whether the model trains or is evaluated."""

    TRAIN = 0
    EVAL = 1


class LossType(enum.Enum):
    """What :meth:`loss_fn` computes."""

    SOFTMAX_CROSS_ENTROPY = 0
    SIGMOID_CROSS_ENTROPY = 1
    MEAN_SQUARED_ERROR = 2
    CTC_LOSS = 3
    MEAN_ABSOLUTE_ERROR = 4


class ParameterType(enum.Enum):
    """What an array of parameters is for."""

    WEIGHT = 0
    BIAS = 1
    CONV_WEIGHT = 2
    BATCH_NORM_SCALE = 3
    BATCH_NORM_BIAS = 4
    LAYER_NORM_SCALE = 5
    LAYER_NORM_BIAS = 6
    EMBEDDING = 7
    ATTENTION_Q = 8
    ATTENTION_K = 9
    ATTENTION_V = 10
    ATTENTION_OUT = 11
    ATTENTION_QKV = 12
    ATTENTION_KV = 13
    ATTENTION_BIAS = 14


class ShapeTuple:
    """The shape of an array as a leaf of a tree; AlgoPerf's submissions read ``shape_tuple``."""

    def __init__(self, shape_tuple: tuple[int, ...]) -> None:
        self.shape_tuple = shape_tuple

    def __repr__(self) -> str:
        return f"ShapeTuple({self.shape_tuple})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ShapeTuple) and self.shape_tuple == other.shape_tuple

    __hash__ = None  # type: ignore[assignment]  # as AlgoPerf's


class TrainingCompleteError(Exception):
    """Raised by ``update_params`` when the submission has nothing left to do."""


if not TYPE_CHECKING:  # for a type checker the copies will do
    with contextlib.suppress(ImportError):
        from algoperf.spec import (
            ForwardPassMode,
            LossType,
            ParameterType,
            ShapeTuple,
            TrainingCompleteError,
        )
