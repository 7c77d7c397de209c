"""A byte-pair vocabulary trained on the training data; every text can be encoded."""

import contextlib
import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from metaopt.bench.records import write_json

PAD = 0  # fills rows up, and starts a translation
END = 1
_SPECIAL = ["<pad>", "</s>"]


class Subwords:
    """Byte-level byte-pair encoding, so that decoding what was encoded gives the text back.

    A vocabulary is trained once and kept on disk, under the SHA-256 of the text, the settings and
    the version of the library; a broken file is replaced.

    Args:
        lines: Text to train on; the same text gives the same vocabulary.
        size: Entries of the vocabulary; little text may have fewer.
        cache: Folder of vocabularies; ``None``: none is kept.

    References:
        Sennrich, Haddow and Birch, `Neural Machine Translation of Rare Words with Subword Units
        <https://arxiv.org/abs/1508.07909>`_, 2016.
    """

    def __init__(self, lines: Sequence[str], size: int, cache: Path | None = None) -> None:
        smallest = len(_SPECIAL) + 256
        if size < smallest:
            raise ValueError(f"`size` must be at least {smallest}, every byte, got {size}.")
        path = None if cache is None else cache / f"{_key(lines, size)}.json"
        tokenizer = None if path is None else _kept(path)
        if tokenizer is None:
            tokenizer = _trained(lines, size)
            if path is not None:
                _keep(tokenizer, path)
        tokenizer.encode_special_tokens = True  # text that looks like one is text
        self._tokenizer = tokenizer

    @property
    def size(self) -> int:
        """The number of entries."""
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


def cache_folder() -> Path:
    """Return the folder of vocabularies, in ``METAOPT_CACHE_DIR`` or the user's cache."""
    root = os.environ.get("METAOPT_CACHE_DIR")
    if not root:
        base = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
        root = os.path.join(base, "metaopt")
    return Path(root) / "vocabularies"


def _trained(lines: Sequence[str], size: int) -> Any:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

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
    return tokenizer


def _key(lines: Sequence[str], size: int) -> str:
    """Return the digest of all that a vocabulary depends on."""
    import tokenizers

    settings = ["byte-level byte pairs", _SPECIAL, size, len(lines), tokenizers.__version__]
    digest = hashlib.sha256(json.dumps(settings).encode())
    for line in lines:
        content = line.encode()
        digest.update(len(content).to_bytes(8, "little") + content)
    return digest.hexdigest()


def _kept(path: Path) -> Any:
    """Return the vocabulary of a file; ``None`` if there is none that is whole."""
    from tokenizers import Tokenizer

    try:
        kept = json.loads(path.read_bytes())
        vocabulary = kept["vocabulary"]
        if kept["sha256"] == hashlib.sha256(vocabulary.encode()).hexdigest():
            return Tokenizer.from_str(vocabulary)
    except Exception:  # the library raises plain exceptions; whatever it was, the file is no use
        return None
    return None


def _keep(tokenizer: Any, path: Path) -> None:
    """Write a vocabulary whole or not at all; a folder that cannot be written keeps nothing."""
    vocabulary = tokenizer.to_str()
    kept = {"sha256": hashlib.sha256(vocabulary.encode()).hexdigest(), "vocabulary": vocabulary}
    with contextlib.suppress(OSError):  # what is not kept is trained again
        write_json(path, kept)
