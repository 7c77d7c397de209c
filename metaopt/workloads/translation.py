"""English to German: the Transformer at the paper's size on WMT, and small on Multi30k.

Metrics are the loss and the accuracy of a token, given those before it, and BLEU: sacrebleu's, of
greedy translations against the text as it is.
"""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from metaopt.bench.contract.spec import LossType
from metaopt.workloads.data.queues import Batch
from metaopt.workloads.data.subwords import PAD, Subwords, cache_folder, padded
from metaopt.workloads.data.text import AlignedText
from metaopt.workloads.models.transformer import Transformer, greedy
from metaopt.workloads.supervised import Arrays, SupervisedWorkload

_LINES = 50_000  # encoded at a time


@dataclasses.dataclass(frozen=True)
class Corpus:
    """Aligned texts as rows of subwords.

    Training pairs with an empty side, or longer than a row, are left out; the others are cut.

    Attributes:
        train: The training text, on which the vocabulary is trained too.
        validation: The validation text.
        test: The test text.
        vocabulary: The largest number of entries of the vocabulary.
        length: The number of subwords in a row, END included.
        vocabulary_pairs: The number of first pairs on which the vocabulary is trained.
    """

    train: AlignedText
    validation: AlignedText
    test: AlignedText
    vocabulary: int
    length: int
    vocabulary_pairs: int = 500_000

    @functools.cached_property
    def texts(self) -> dict[str, tuple[list[str], list[str]]]:
        """The lines of both languages, by split."""
        return {split: getattr(self, split).read() for split in ("train", "validation", "test")}

    @functools.cached_property
    def subwords(self) -> Subwords:
        """The vocabulary of both languages, kept on disk."""
        english, german = self.texts["train"]
        pairs = self.vocabulary_pairs
        lines = [*english[:pairs], *german[:pairs]]
        return Subwords(lines, self.vocabulary, cache_folder())

    def load(self) -> Arrays:
        """Return the rows of each split, as uint16."""
        return Arrays(*(self._rows(split) for split in ("train", "validation", "test")))

    def _rows(self, split: str) -> dict[str, np.ndarray]:
        lines = self.texts[split]
        parts = []
        for start in range(0, len(lines[0]), _LINES):  # as lists, all of WMT would take 10 GB
            sides = [self.subwords.encode(side[start : start + _LINES]) for side in lines]
            pairs = list(zip(*sides, strict=True))
            if split == "train":
                pairs = [p for p in pairs if all(1 < len(row) <= self.length for row in p)]
            parts.append([padded([p[side] for p in pairs], self.length) for side in (0, 1)])
        inputs, targets = (np.concatenate(side) for side in zip(*parts, strict=True))
        return {"inputs": inputs, "targets": targets}


@dataclasses.dataclass(frozen=True)
class GreedyBleu:
    """BLEU of the first ``sentences`` of validation and test text; ``None``: of all."""

    corpus: Corpus
    sentences: int | None
    batch_size: int

    names = ("validation/bleu", "test/bleu")

    def __call__(
        self, workload: SupervisedWorkload, params: Any, model_state: Any
    ) -> dict[str, float]:
        """Return ``validation/bleu`` and ``test/bleu``."""
        del model_state
        found = {}
        for split in ("validation", "test"):
            inputs = workload.arrays[split]["inputs"][: self.sentences].astype(jnp.int32)
            references = self.corpus.texts[split][1][: self.sentences]
            found[f"{split}/bleu"] = bleu(self.translate(workload, params, inputs), references)
        return found

    def translate(self, workload: SupervisedWorkload, params: Any, inputs: jax.Array) -> list[str]:
        """Return the translations of rows of subwords."""
        assert isinstance(workload.model, Transformer)
        lines = []
        for start in range(0, len(inputs), self.batch_size):
            rows = inputs[start : start + self.batch_size]
            lacking = self.batch_size - len(rows)  # one shape, compiled once
            full = jnp.pad(rows, ((0, lacking), (0, 0)), constant_values=PAD)
            tokens = greedy(workload.model, params, full, self.corpus.length)
            lines += self.corpus.subwords.decode(np.asarray(tokens)[: len(rows)])
        return lines


def bleu(translations: Sequence[str], references: Sequence[str]) -> float:
    """Return sacrebleu's corpus score, from 0 to 100, with one reference each."""
    import sacrebleu

    return sacrebleu.corpus_bleu(list(translations), [list(references)]).score


def as_tokens(batch: Batch) -> Batch:
    """Return the batch as int32, with weights that are 0 where the target is padding."""
    targets = batch["targets"].astype(jnp.int32)
    return {
        "inputs": batch["inputs"].astype(jnp.int32),
        "targets": targets,
        "weights": (targets != PAD).astype(jnp.float32),
    }


_MULTI30K = "put the Multi30k files there: https://github.com/multi30k/dataset"
_WMT = "put the texts of https://www.statmt.org/wmt14/translation-task.html there"

WMT14 = Corpus(
    train=AlignedText("wmt14", "*", _WMT),
    validation=AlignedText("newstest", "newstest2013", _WMT),
    test=AlignedText("newstest", "newstest2014", _WMT),
    vocabulary=37_000,
    length=128,
)
MULTI30K = Corpus(
    train=AlignedText("multi30k", "train", _MULTI30K),
    validation=AlignedText("multi30k", "val", _MULTI30K),
    test=AlignedText("multi30k", "test_2016_flickr", _MULTI30K),
    vocabulary=4_096,
    length=32,
)

_translation = functools.partial(
    SupervisedWorkload,
    loss_type=LossType.SOFTMAX_CROSS_ENTROPY,
    complete=as_tokens,
    model_inputs=("inputs", "targets"),
    has_modes=True,
    dropout_rate=0.1,
)

ENDE_TRANSFORMER = _translation(
    name="ende_transformer",
    summary="WMT14 English-German, Transformer base (63,047,680 parameters), the paper's",
    load=WMT14.load,
    whole={"validation": 3_000, "test": 3_003},  # of training, what is short enough
    files=(WMT14.train, WMT14.validation, WMT14.test),
    model=Transformer(vocabulary=WMT14.vocabulary),
    reference_batch_size=16,
    step_hint=100_000,
    eval_period=5000,
    eval_train_size=3_000,
    max_eval_batch_size=32,
    more_metrics=GreedyBleu(WMT14, sentences=None, batch_size=128),
    max_allowed_runtime_sec=20_000.0,
    eval_period_time_sec=600.0,
)

ENDE_TRANSFORMER_SMALL = _translation(
    name="ende_transformer_small",
    summary="Multi30k English-German, Transformer of 2 + 2 layers (1,447,424 parameters)",
    load=MULTI30K.load,
    whole={"train": 28_156, "validation": 1_014, "test": 1_000},
    files=(MULTI30K.train, MULTI30K.validation, MULTI30K.test),
    model=Transformer(MULTI30K.vocabulary, width=128, inner=512, heads=4, layers=2),
    reference_batch_size=32,
    step_hint=1_000,
    eval_period=50,
    eval_train_size=512,
    max_eval_batch_size=128,
    more_metrics=GreedyBleu(MULTI30K, sentences=200, batch_size=200),
    max_allowed_runtime_sec=600.0,
    eval_period_time_sec=30.0,
)
