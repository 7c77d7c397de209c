"""Pickles: plain data is read from every protocol, and nothing else is, whatever it tries."""

import os
import pickle
import struct

import numpy as np
import pytest

from metaopt.workloads.data.plain_pickle import plain_pickle

ARRAY = np.arange(12, dtype=np.uint8).reshape(3, 4)
COMMAND = "touch was_here"
# The array of two bytes as protocol 2 writes it, with the shape left out.
HEAD = b"\x80\x02cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R(K\x01"
TAIL = b"cnumpy\ndtype\nU\x02u1\x85R\x89U\x02\x07\xfftb."


def shared(count, first, again):
    """A list in which every list holds the one before it ten times: 10 ** count entries."""
    lists = b"".join(b"]q%c(" % (index + 1) + again % index * 10 + b"e" for index in range(count))
    return b"\x80\x02" + first + lists + b"."


class Call:
    """What unpickling this calls."""

    def __init__(self, *call):
        self.call = call

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("protocol", range(6))
def test_plain_data_is_read_from_every_protocol(protocol):
    data = {
        "array": ARRAY, "numbers": [0, -1, 255, 70_000, 2**40, -(2**70), 1.5, True, None],
        "strings": ["é", b"\xff\x00", b"long" * 100], b"key": {"nested": [[], (), (1, "two")]},
        "same": ["shared string"] * 3, "tuples": ((1,), (1, 2), (1, 2, 3), (1, 2, 3, (4,))),
    }  # fmt: skip

    read = plain_pickle(pickle.dumps(data, protocol), "file")

    np.testing.assert_array_equal(read.pop("array"), data.pop("array"))
    assert read == data
    assert type(read["numbers"][7]) is bool


def test_a_batch_as_python_2_wrote_it_is_read():
    # Written by hand after the original files: byte strings, `numpy.core`, a tuple for the shape.
    content = (
        b"\x80\x02}q\x01(U\x04dataq\x02cnumpy.core.multiarray\n_reconstruct\nq\x03cnumpy\nndarray\n"
        b"q\x04K\x00\x85U\x01b\x87Rq\x05(K\x01K\x02K\x01\x86cnumpy\ndtype\nq\x06U\x02u1K\x00K\x01"
        b"\x87Rq\x07(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89U\x02\x07\xfftb"
        b"U\x06labelsq\x08]q\x09(K\x06K\x09eu."
    )

    batch = plain_pickle(content, "data_batch_1")

    np.testing.assert_array_equal(batch[b"data"], np.array([[7], [255]], np.uint8))
    assert batch[b"labels"] == [6, 9]


def test_strings_of_protocol_0_as_python_2_wrote_them_are_read():
    assert plain_pickle(b"(dp0\nS'a\\xff'\np1\nS\"it's\"\np2\ns.", "file") == {b"a\xff": b"it's"}


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize(
    "place",
    [
        lambda call: call,
        lambda call: {"data": [{"deep": (call,)}]},
        lambda call: Call(list, (), None, iter([call])),
        lambda call: Call(np.dtype, ("u1",), (call,)),
    ],
    ids=["alone", "nested", "as an entry", "in a state"],
)
@pytest.mark.parametrize("function", [os.system, eval, np.load], ids=lambda f: f.__name__)
def test_nothing_is_called(tmp_path, monkeypatch, protocol, place, function):
    monkeypatch.chdir(tmp_path)
    content = pickle.dumps(place(Call(function, (COMMAND,))), protocol)

    with pytest.raises(ValueError, match=r"^file: refused: the pickle wants "):
        plain_pickle(content, "file")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "content, message",
    [
        (b"(S'%s'\nios\nsystem\n." % COMMAND.encode(), "the operation INST"),
        (b"(cos\nsystem\nS'x'\no.", "the pickle wants os.system"),
        (b"\x80\x04\x8c\x02os\x8c\x06system\x93\x8c\x01x\x85R.", "the pickle wants os.system"),
        (b"\x80\x02cnumpy\ndtype\nU\x02f8\x85\x81.", "the operation NEWOBJ"),
        (b"Poutside\n.", "the operation PERSID"),
        (b"\x80\x02\x82\x01.", "the operation EXT1"),
        (pickle.dumps({1, 2}), "the operation EMPTY_SET"),
        (pickle.dumps(print), "the pickle wants builtins.print"),
        (pickle.dumps(np.float64(1)), "the pickle wants numpy.*scalar"),
        (pickle.dumps(np.zeros(3)), "arrays must be of u1, got 'f8'"),
        (pickle.dumps(np.array([None])), "arrays must be of u1, got 'O8'"),
        (pickle.dumps(np.asfortranarray(ARRAY), 4), "in C order"),
        (pickle.dumps({"a": np.dtype("u1")}, 2), "dtype is not plain data"),
        (pickle.dumps((1, np.dtype("u1")), 2), "dtype is not plain data"),
        (pickle.dumps({1: 2}), "a key must be a string, got int"),
        (b"cnumpy\nndarray\n.", "name is not plain data"),
        (b"cnumpy\nndarray\n(tR.", "its type cannot be called"),
        (b"c_codecs\nencode\n(N(dV__defaults__\n(Vlatin1\ntstb.", "name has no state"),
        (b"\x80\x02U\x01ac_codecs\nencode\nX\x01\x00\x00\x00aU\x04utf8\x86R.", "as latin1, got"),
        (HEAD + b"\x8a\x08" + struct.pack("<q", 2**60) + b"\x85" + TAIL, "of 2 bytes cannot have"),
        (HEAD + b"J\xff\xff\xff\xffJ\xfe\xff\xff\xff\x86" + TAIL, "of 2 bytes cannot have"),
        (HEAD + b"K\x03\x85" + TAIL, "of 2 bytes cannot have"),
        (b"\x80\x02]q\x00h\x00a.", "a list may stand in one place only"),
        (b"\x80\x02}q\x00U\x01ah\x00s.", "a dict may stand in one place only"),
        (shared(30, b"]q\x00", b"h%c"), "a list may stand in one place only"),
        (b"\x80\x02)q\x00h\x00\x86.", "a tuple may stand in one place only"),
    ],
)  # fmt: skip
def test_what_is_no_plain_data_is_refused(content, message):
    with pytest.raises(ValueError, match=f"^file: refused: .*{message}"):
        plain_pickle(content, "file")


@pytest.mark.parametrize(
    "content",
    [
        b"", b"N", b"NN.", b"(N.", b".", b"\x80\x02h\x07.", b"\x80\x02}(U\x01au.", b"a.", b"\xff.",
        b"S'open\n.", b"L" + b"9" * 10_000 + b"L\n.", b")" + b"\x85" * 100_000 + b".",
        b"\x80\x03B\xff\xff\xff\x7fabc.", b"\x80\x04\x8e" + struct.pack("<Q", 2**62) + b"abc.",
        b"\x80\x05\x96" + struct.pack("<Q", 2**63 - 1) + b"abc.",
        *(pickle.dumps({"data": ARRAY, "labels": [1, 2]}, protocol)[:-9] for protocol in range(6)),
    ],
)  # fmt: skip
def test_what_is_cut_short_or_no_pickle_is_refused(content):
    with pytest.raises(ValueError, match=r"^file: not a whole pickle of plain data: "):
        plain_pickle(content, "file")


def test_a_huge_index_of_the_memo_takes_no_memory():
    # Python's unpickler makes a table of twice the index.
    assert plain_pickle(b"\x80\x02K\x01r\xff\xff\xff\xff.", "file") == 1
    assert plain_pickle(b"I1\np99999999999999\n.", "file") == 1


def test_bytes_that_change_are_read_or_refused_but_raise_nothing_else():
    content = pickle.dumps({"data": ARRAY, "labels": [1, 2, 3]}, 2)
    generator = np.random.default_rng(0)

    read = 0
    for _ in range(2_000):
        changed = bytearray(content)
        for place in generator.integers(0, len(content), generator.integers(1, 4)):
            changed[place] = generator.integers(256)
        try:
            plain_pickle(bytes(changed), "file")
            read += 1
        except ValueError as error:
            assert str(error).startswith("file: ")

    assert 0 < read < 2_000
