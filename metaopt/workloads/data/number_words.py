"""Numbers as digits and as English words, packed several to a row.

Letters: n rows, t places of a row. Tokens of both languages share one vocabulary.
"""

from collections.abc import Sequence

import numpy as np

from metaopt.workloads.data.arrays import Arrays

PAD, END = 0, 2  # AlgoPerf's
LENGTH = 16  # places of a row
LIMIT = 10_000  # numbers are below it
HELD_OUT = 200  # numbers that validate, and as many that test
_ONES = [
    "zero",
    "one",
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "nine",
    "ten",
    "eleven",
    "twelve",
    "thirteen",
    "fourteen",
    "fifteen",
    "sixteen",
    "seventeen",
    "eighteen",
    "nineteen",
]
_TENS = ["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]
VOCABULARY = ("<pad>", "<unknown>", "<end>", *map(str, range(10)), *_ONES, *_TENS, "hundred",
              "thousand", "and")  # fmt: skip
_TOKENS = {word: token for token, word in enumerate(VOCABULARY)}


def words_of(number: int) -> list[str]:
    """Return the words of a number below 10,000 in British English.

    Examples:
        >>> " ".join(words_of(7042))
        'seven thousand and forty two'
    """
    if number < 20:
        return [_ONES[number]]
    if number < 100:
        return [_TENS[number // 10 - 2], *(words_of(number % 10) if number % 10 else [])]
    unit, word = (100, "hundred") if number < 1000 else (1000, "thousand")
    rest = number % unit
    joined = ["and"] if 0 < rest < 100 else []
    return [*words_of(number // unit), word, *joined, *(words_of(rest) if rest else [])]


def load_numbers() -> Arrays:
    """Return all numbers once, in an order that is always the same; 200 validate and 200 test.

    Training rows are packed and say so in the four keys of :func:`pack`. Rows of the other splits
    hold one number. All arrays are (n, 16), int32.
    """
    order = np.random.default_rng(0).permutation(LIMIT)
    parts = np.split(order, [HELD_OUT, 2 * HELD_OUT])
    test, validation, train = ([_pair(int(number)) for number in part] for part in parts)
    return Arrays(pack(train), _alone(validation), _alone(test))


def _alone(pairs: list[tuple[list[int], list[int]]]) -> dict[str, np.ndarray]:
    """Return rows of one pair each."""
    rows = [pack([pair]) for pair in pairs]
    return {key: np.concatenate([row[key] for row in rows]) for key in ("inputs", "targets")}


def _pair(number: int) -> tuple[list[int], list[int]]:
    """Return the tokens of a number as digits and as words, both with their end."""
    digits, words = (
        [*(_TOKENS[word] for word in sentence), END] for sentence in (str(number), words_of(number))
    )
    return digits, words


def pack(pairs: Sequence[tuple[list[int], list[int]]]) -> dict[str, np.ndarray]:
    """Put pairs into rows, in order; a row ends before the pair that does not fit.

    Returns:
        Arrays (n, 16) of int32: ``inputs`` and ``targets``, 0 where no token is; for each of them
        ``..._segmentation``, the number of the pair in its row from 1, and ``..._position``, the
        place in the sentence from 0; both are 0 where no token is.
    """
    rows: list[list[tuple[list[int], list[int]]]] = []
    room = [0, 0]
    for pair in pairs:
        sizes = [len(side) for side in pair]
        if any(size > left for size, left in zip(sizes, room, strict=True)):
            rows.append([])
            room = [LENGTH, LENGTH]
        rows[-1].append(pair)
        room = [left - size for size, left in zip(sizes, room, strict=True)]
    packed = {}
    for side, key in enumerate(("inputs", "targets")):
        tokens, segments, places = (np.zeros((len(rows), LENGTH), np.int32) for _ in range(3))
        for row, members in enumerate(rows):
            start = 0
            for number, pair in enumerate(members, 1):
                end = start + len(pair[side])
                tokens[row, start:end] = pair[side]
                segments[row, start:end] = number
                places[row, start:end] = range(end - start)
                start = end
        packed |= {key: tokens, f"{key}_segmentation": segments, f"{key}_position": places}
    return packed
