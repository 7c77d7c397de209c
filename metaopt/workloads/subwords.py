"""A subword vocabulary that is trained on the training data: byte pairs, nothing is unknown."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

PAD = 0  # fills rows up, and starts a translation
END = 1
_SPECIAL = ["<pad>", "</s>"]


class Subwords:
    """Byte-level byte-pair encoding, so that decoding what was encoded gives the text back.

    Args:
        lines: Text to train on; the same text gives the same vocabulary.
        size: Entries of the vocabulary; little text may have fewer.

    References:
        Sennrich, Haddow and Birch, `Neural Machine Translation of Rare Words with Subword Units
        <https://arxiv.org/abs/1508.07909>`_, 2016.
    """

    def __init__(self, lines: Iterable[str], size: int) -> None:
        from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

        smallest = len(_SPECIAL) + 256
        if size < smallest:
            raise ValueError(f"`size` must be at least {smallest}, every byte, got {size}.")
        tokenizer: Any = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        trainer: Any = trainers.BpeTrainer(
            vocab_size=size,
            special_tokens=_SPECIAL,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        )
        tokenizer.train_from_iterator(lines, trainer)
        tokenizer.encode_special_tokens = True  # text that looks like one is text
        self._tokenizer = tokenizer

    @property
    def size(self) -> int:
        """How many entries there are."""
        return self._tokenizer.get_vocab_size()

    def encode(self, lines: Sequence[str]) -> list[list[int]]:
        """Return each line's subwords and END."""
        return [[*line.ids, END] for line in self._tokenizer.encode_batch(lines)]

    def decode(self, rows: np.ndarray) -> list[str]:
        """Return the text of each row up to its END, or all of it."""
        lines = []
        for row in rows.tolist():
            ids = row[: row.index(END)] if END in row else row
            lines.append([index for index in ids if index != PAD])
        return self._tokenizer.decode_batch(lines)


def padded(rows: Sequence[Sequence[int]], length: int) -> np.ndarray:
    """Return rows, cut or filled up with PAD to ``length``, as (n, length) of uint16."""
    table = np.full((len(rows), length), PAD, np.uint16)
    for target, row in zip(table, rows, strict=True):
        target[: len(row)] = row[:length]
    return table
