"""Aligned text and subwords: what is read, what is refused, and that nothing gets lost."""

import gzip
import json
import random
from pathlib import Path

import numpy as np
import pytest

from metaopt.workloads.data import subwords
from metaopt.workloads.data.subwords import END, PAD, Subwords, padded
from metaopt.workloads.data.text import AlignedText

ENGLISH = ["A dog runs.", "Two\u2028lines, one sentence\x85.", "", "  spaces  and\ttabs\r"]
GERMAN = ["Ein Hund läuft.", "Zwei Zeilen.", "", "Straße: 5 €"]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("METAOPT_DATA_DIR", str(tmp_path))
    (tmp_path / "texts").mkdir()
    return tmp_path / "texts"


def write(path, lines, end="\n"):
    content = ("\n".join(lines) + end).encode()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)


def text(stem="small"):
    return AlignedText("texts", stem, "ask")


@pytest.mark.parametrize("ending", ["", ".gz"], ids=["plain", "gzipped"])
@pytest.mark.parametrize("end", ["\n", ""], ids=["with a last line end", "without"])
def test_lines_end_at_line_feeds_only(folder, ending, end):
    write(folder / f"small.en{ending}", ENGLISH, end)
    write(folder / f"small.de{ending}", GERMAN, end)

    assert text().read() == (ENGLISH, GERMAN)


def test_a_pattern_reads_pair_after_pair_by_name(folder):
    for name, lines in (("news.de-en", ["1"]), ("europarl.de-en", ["2", "3"])):
        write(folder / f"{name}.en", lines)
        write(folder / f"{name}.de.gz", lines)

    assert text("*").read() == (["2", "3", "1"], ["2", "3", "1"])


def test_unequal_numbers_of_lines_are_refused(folder):
    write(folder / "small.en", ENGLISH)
    write(folder / "small.de", GERMAN[1:])

    with pytest.raises(ValueError, match=r"small.en and .*small.de: .* got 4 and 3"):
        text().read()


@pytest.mark.parametrize(
    "name, content, message",
    [
        ("small.de", "läuft".encode("latin1"), "the text must be UTF-8"),
        ("small.de", "läuft".encode("utf-16"), "the text must be UTF-8"),
        ("small.de", "läuft".encode()[:2], "the text must be UTF-8"),
        ("small.de", b"\xed\xa0\x80", "the text must be UTF-8"),  # half of a surrogate pair
        ("small.de.gz", gzip.compress("läuft".encode("latin1")), "the text must be UTF-8"),
        ("small.de.gz", gzip.compress(b"a line\n" * 99)[:-9], "not a whole gzip file"),
        ("small.de.gz", b"plain", "not a whole gzip file"),
    ],
    # Named, because a gzip file holds the time it was made at and the processes of one run of the
    # tests must collect the same names.
    ids=[
        "latin1",
        "utf-16",
        "half a character",
        "half of a surrogate pair",
        "latin1, gzipped",
        "gzip file cut short",
        "plain text named gzip",
    ],
)
def test_a_malformed_file_is_refused(folder, name, content, message):
    write(folder / "small.en", ["A dog runs."])
    (folder / name).write_bytes(content)

    with pytest.raises(ValueError, match=f"{name}: {message}"):
        text().read()


def test_a_folder_is_no_text(folder):
    write(folder / "small.en", ["A dog runs."])
    (folder / "small.de").mkdir()

    with pytest.raises(FileNotFoundError, match=r"small.de or small.de.gz"):
        text().read()


def test_empty_files_are_refused(folder):
    (folder / "small.en").write_bytes(b"")
    (folder / "small.de").write_bytes(b"")

    with pytest.raises(ValueError, match=r"small.en: the text must have a line, got none"):
        text().read()


def test_the_error_for_missing_files_states_folder_and_command(folder, monkeypatch):
    with pytest.raises(FileNotFoundError, match=f"small.en or small.en.gz: .*{folder}/; .*: ask"):
        text().locate()
    write(folder / "small.en", ENGLISH)
    with pytest.raises(FileNotFoundError, match=r"small.de or small.de.gz"):
        text("*").locate()
    monkeypatch.delenv("METAOPT_DATA_DIR")
    with pytest.raises(FileNotFoundError, match="METAOPT_DATA_DIR is not set"):
        text().locate()


def test_decoding_inverts_encoding():
    vocabulary = Subwords(["a dog runs", "a cat runs"] * 20, 300)
    generator = random.Random(0)
    lines = [*ENGLISH, *GERMAN, "</s> and <pad> are text", "猫 \U0001f408\x00"]
    lines += ["".join(chr(generator.randrange(1, 0xD800)) for _ in range(20)) for _ in range(20)]

    rows = vocabulary.encode(lines)

    assert all(row.count(END) == 1 and row[-1] == END and PAD not in row for row in rows)
    assert vocabulary.decode(padded(rows, 200)) == lines


def test_the_same_text_gives_the_same_vocabulary_of_the_size_asked_for():
    generator = random.Random(1)
    lines = ["".join(generator.choices("abcdefg ", k=60)) for _ in range(300)]

    one, two = Subwords(lines, 500), Subwords(lines, 500)

    assert one.size == two.size == 500
    assert one.encode(lines[:50]) == two.encode(lines[:50])
    assert sum(map(len, one.encode(lines))) < 0.7 * sum(map(len, lines))
    with pytest.raises(ValueError, match="`size` must be at least 258, every byte, got 257"):
        Subwords(lines, 257)


@pytest.fixture
def trainings(monkeypatch):
    """The sizes that vocabularies are trained for."""
    trainings, train = [], subwords._trained

    def record(lines, size):
        trainings.append(size)
        return train(lines, size)

    monkeypatch.setattr(subwords, "_trained", record)
    return trainings


LINES = ["a dog runs", "a cat runs", *ENGLISH] * 20


def test_a_vocabulary_is_trained_once_and_then_read(tmp_path, trainings):
    first = Subwords(LINES, 300, tmp_path / "kept")
    again = Subwords(LINES, 300, tmp_path / "kept")

    assert trainings == [300]
    assert len(list((tmp_path / "kept").iterdir())) == 1  # and no part of one
    lines = [*ENGLISH, *GERMAN, "</s> and <pad> are text"]
    assert again.encode(lines) == first.encode(lines) == Subwords(LINES, 300).encode(lines)
    assert again.decode(padded(again.encode(lines), 200)) == lines
    assert again.size == first.size


@pytest.mark.parametrize(
    "change",
    [
        lambda lines: (lines[:-1], 300),
        lambda lines: (lines[::-1], 300),
        lambda lines: (["".join(lines)], 300),
        lambda lines: ([lines[0] + lines[1], "", *lines[2:]], 300),
        lambda lines: (lines, 301),
    ],
    ids=["fewer lines", "another order", "one line", "a boundary that moved", "another size"],
)
def test_another_text_or_size_is_another_vocabulary(tmp_path, trainings, change):
    Subwords(LINES, 300, tmp_path)
    Subwords(*change(LINES), tmp_path)

    assert len(trainings) == 2
    assert len(list(tmp_path.iterdir())) == 2


def test_another_version_of_the_library_trains_its_own_vocabulary(tmp_path, trainings, monkeypatch):
    Subwords(LINES, 300, tmp_path)
    monkeypatch.setattr("tokenizers.__version__", "0.0.0")
    Subwords(LINES, 300, tmp_path)

    assert len(trainings) == 2


def exchanged(content):
    """A file of a vocabulary that can be read, with the numbers of two entries exchanged."""
    kept = json.loads(content)
    vocabulary = json.loads(kept["vocabulary"])
    entries = vocabulary["model"]["vocab"]
    entries["d"], entries["x"] = entries["x"], entries["d"]
    return json.dumps({**kept, "vocabulary": json.dumps(vocabulary)}).encode()


@pytest.mark.parametrize(
    "harm",
    [
        lambda content: b"",
        lambda content: content[:-20],
        exchanged,
        lambda content: content.replace(b"a", b"\xff"),
        lambda content: b"[]",
        lambda content: b'{"vocabulary": 1, "sha256": 2}',
    ],
    ids=["empty", "cut short", "changed", "no text", "a list", "numbers"],
)
def test_a_broken_vocabulary_file_is_replaced(tmp_path, trainings, harm):
    lines = ["dog d dog god"] * 9
    expected = Subwords(lines, 300, tmp_path).encode(lines)
    (path,) = tmp_path.iterdir()
    whole = path.read_bytes()
    path.write_bytes(harm(whole))
    assert path.read_bytes() != whole

    assert Subwords(lines, 300, tmp_path).encode(lines) == expected
    assert path.read_bytes() == whole
    assert len(trainings) == 2


def test_a_folder_that_cannot_be_written_keeps_nothing(tmp_path, trainings):
    (tmp_path / "file").write_text("")

    Subwords(LINES, 300, tmp_path / "file")
    Subwords(LINES, 300, tmp_path / "file")

    assert len(trainings) == 2


def test_vocabularies_lie_below_the_folder_that_is_set_or_the_users_cache(monkeypatch):
    monkeypatch.setenv("METAOPT_CACHE_DIR", "/set")
    assert subwords.cache_folder() == Path("/set/vocabularies")
    monkeypatch.delenv("METAOPT_CACHE_DIR")
    monkeypatch.setenv("XDG_CACHE_HOME", "/xdg")
    assert subwords.cache_folder() == Path("/xdg/metaopt/vocabularies")
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", "/home/someone")
    assert subwords.cache_folder() == Path("/home/someone/.cache/metaopt/vocabularies")


def test_rows_are_filled_up_and_cut():
    assert padded([[5, END], [5, 6, 7, END]], 3).tolist() == [[5, END, PAD], [5, 6, 7]]
    assert padded([], 3).shape == (0, 3)
    assert padded([[65_000]], 1).dtype == np.uint16
