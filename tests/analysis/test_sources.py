"""Folders and tars as streams: the same either way, and nothing that leads out of them."""

import bz2
import gzip
import io
import lzma
import os
import tarfile
from pathlib import Path

import pytest

from analysis.logs import reader, sources
from analysis.logs.competition import read_official_targets
from analysis.logs.oddities import Oddities
from analysis.logs.reader import read_logs
from analysis.logs.trial_files import read_document, read_evaluations
from analysis.scoring.scores import score_logs


def read_all(path, within=None):
    return read_logs(path, within, uncounted=True)


def all_trials(logs):
    return [*logs.trials, *logs.unrecorded]


def rules_of(logs):
    return {oddity.rule for oddity in logs.oddities}


def contents(path, within=None):
    entries = sources.walk_files(path, within, lambda name: 10**6, Oddities())
    return {entry.path: entry.content for entry in entries if not entry.is_folder}


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:xz", "w:bz2"])
def test_a_tar_and_its_folder_have_the_same_files(tmp_path, official, pack, mode):
    root = official(tmp_path / "logs").good()
    tar = pack(root, tmp_path / f"l.tar{mode[1:].replace(':', '.')}", mode)

    expected = {p.relative_to(root).as_posix(): p.read_bytes() for p in root.rglob("*.*")}

    assert contents(root) == contents(tar, "logs") == expected


def test_trials_do_not_depend_on_where_they_come_from(tmp_path, official, pack):
    root = official(tmp_path / "deep" / "logs").good()
    (root / "fast" / "study_1" / "trial_1").mkdir()
    tar = pack(root.parent, tmp_path / "l.tar.xz")

    one, other = read_all(root), read_all(tar, "deep/logs")

    assert [t.where for t in one.trials] == [t.where for t in other.trials]
    assert one.oddities == other.oddities
    assert len(one.trials) == 16
    # Without --within the submissions are found below whatever is above them.
    assert [t.key for t in read_all(tar).trials] == [t.key for t in one.trials]


def test_our_campaign_scores_the_same_out_of_a_tar(tmp_path, hand_made, pack):
    out = hand_made(tmp_path / "out")
    tar = pack(out, tmp_path / "out.tar.gz", "w:gz")

    one, other = read_logs(out), read_logs(tar)

    assert score_logs(other) == score_logs(one)
    assert other.campaign == one.campaign
    assert other.notes == one.notes
    assert score_logs(read_logs(tar, "out/logs")).scores == score_logs(one).scores


def add_file(tar, name, content=b"x"):
    info = tarfile.TarInfo(name)
    info.size = len(content)
    tar.addfile(info, io.BytesIO(content))


TRIAL = "s/study_1/w_jax/trial_1"


def test_members_that_lead_out_links_and_devices_are_refused(tmp_path):
    path = tmp_path / "l.tar"
    with tarfile.open(path, "w") as tar:
        add_file(tar, f"{TRIAL}/flags_0.json", b"{}")
        add_file(tar, f"../{TRIAL}/hparams.json")
        add_file(tar, f"/{TRIAL}/hparams.json")
        kinds = {"hparams": tarfile.SYMTYPE, "run": tarfile.LNKTYPE}
        kinds |= {"meta_data_0": tarfile.CHRTYPE, "flags_1": tarfile.FIFOTYPE}
        for name, kind in kinds.items():
            info = tarfile.TarInfo(f"{TRIAL}/{name}.json")
            info.type, info.linkname = kind, "/etc/passwd"
            tar.addfile(info)

    logs = read_all(path)

    found = [(o.rule, o.where) for o in logs.oddities if o.rule in ("files-links", "files-outside")]
    assert found == [
        ("files-links", f"{TRIAL}/flags_1.json"),
        ("files-links", f"{TRIAL}/hparams.json"),
        ("files-links", f"{TRIAL}/meta_data_0.json"),
        ("files-links", f"{TRIAL}/run.json"),
        ("files-outside", f"../{TRIAL}/hparams.json"),
        ("files-outside", f"/{TRIAL}/hparams.json"),
    ]
    assert [dict(t.documents) for t in all_trials(logs)] == [{"flags": {}}]


def test_links_and_pipes_in_a_folder_are_not_followed(tmp_path):
    trial = tmp_path / "logs" / TRIAL
    trial.mkdir(parents=True)
    (tmp_path / "secret.json").write_text('{"learning_rate": 1}')
    (trial / "hparams.json").symlink_to(tmp_path / "secret.json")
    os.mkfifo(trial / "flags_0.json")
    (tmp_path / "logs" / "loop").symlink_to(tmp_path / "logs")

    logs = read_all(tmp_path / "logs")

    assert "files-links" in rules_of(logs)
    assert [dict(t.documents) for t in all_trials(logs)] == [{}]


def test_a_file_beyond_its_limit_is_named_and_not_read(tmp_path, official, pack, monkeypatch):
    root = official(tmp_path / "logs").good()
    big = root / "fast" / "study_1" / "easy_jax" / "trial_1" / "eval_measurements.csv"
    with big.open("r+b") as file:
        file.truncate(10 * 2**30)  # sparse: it has this size and takes no room

    logs = read_all(root)

    (oddity,) = logs.oddities
    assert oddity.rule == "files-size"
    assert oddity.what == ("10,737,418,240 bytes, not read: the limit of such a file is 67,108,864")
    assert sum(trial.evaluations is None for trial in logs.trials) == 1


def test_more_trials_or_files_than_the_limit_are_refused(tmp_path, official, monkeypatch):
    root = official(tmp_path / "logs").good()

    monkeypatch.setattr(reader, "MAX_TRIALS", 15)
    with pytest.raises(ValueError, match="more than 15 trials, which is the limit"):
        read_all(root)
    monkeypatch.setattr(sources, "MAX_ENTRIES", 10)
    with pytest.raises(ValueError, match="more than 10 files and folders, which is the limit"):
        read_all(root)


@pytest.mark.parametrize(("kind", "mode"), [("tar", "w"), ("tar.gz", "w:gz"), ("tar.xz", "w:xz")])
def test_a_tar_that_is_cut_anywhere_is_refused(kind, mode, tmp_path, official, pack):
    tar = pack(official(tmp_path / "logs").good(), tmp_path / f"whole.{kind}", mode)
    whole, cut = tar.read_bytes(), tmp_path / f"cut.{kind}"

    for share in (0.05, 0.3, 0.5, 0.7, 0.9):
        for end in (int(share * len(whole)), int(share * len(whole)) // 512 * 512):
            cut.write_bytes(whole[:end])
            with pytest.raises(ValueError, match="not a whole tar file"):
                read_all(cut)


def test_a_tar_with_a_damaged_header_is_refused(tmp_path, official, pack):
    tar = pack(official(tmp_path / "logs").good(), tmp_path / "l.tar", "w")
    content = bytearray(tar.read_bytes())
    second = content.index(b"ustar", 1024 + 512)
    content[second - 250] ^= 1  # of its name: the sum is another
    tar.write_bytes(content)

    with pytest.raises(ValueError, match="cut off or damaged at byte"):
        read_all(tar)


def test_a_cut_tar_is_one_error(tmp_path, official, pack):
    tar = pack(official(tmp_path / "logs").good(), tmp_path / "l.tar.xz")
    tar.write_bytes(tar.read_bytes()[:-200])

    with pytest.raises(ValueError, match=r"l\.tar\.xz: not a whole tar file"):
        read_all(tar)


@pytest.mark.parametrize(
    "within, message",
    [("../other", "must lead into"), ("/etc", "must lead into"), ("nowhere", "No folder"),
     ("out", "a link out of it")],
)  # fmt: skip
def test_within_stays_within(tmp_path, within, message):
    (tmp_path / "logs").mkdir()
    (tmp_path / "other").mkdir()
    (tmp_path / "logs" / "out").symlink_to(tmp_path / "other")

    with pytest.raises(ValueError, match=message):
        contents(tmp_path / "logs", within)


def test_a_file_that_is_no_tar_is_refused(tmp_path):
    (tmp_path / "logs.zip").write_bytes(b"PK")

    with pytest.raises(ValueError, match="neither a folder nor a tar"):
        contents(tmp_path / "logs.zip")


def test_submissions_under_two_folders_are_not_mixed(tmp_path, official):
    for ruleset in ("external_tuning", "self_tuning"):
        official(tmp_path / "logs" / ruleset).trial("same", 1, "w", 1, [(0.9, 1.0)])

    with pytest.raises(ValueError, match=r"under 2 folders, .*Choose one with --within"):
        read_all(tmp_path / "logs")
    assert len(read_all(tmp_path / "logs", "self_tuning").trials) == 1


CSV = {
    "quotes": (b'"global_step",score\n"1",2\n', [1.0], [2.0]),
    "windows lines": (b"global_step,score\r\n1,2\r\n", [1.0], [2.0]),
    "blank lines": (b"global_step,score\n\n1,2\n\n", [1.0], [2.0]),
    "blank cell": (b"global_step,score\n1,\n", [1.0], [None]),
    "nan and inf": (b"global_step,score\nnan,-inf\n", [None], [-float("inf")]),
}


@pytest.mark.parametrize("text, steps, scores", CSV.values(), ids=CSV)
def test_rows_become_numbers(text, steps, scores):
    found = read_evaluations(text)

    assert found.column("global_step") == pytest.approx([s or float("nan") for s in steps],
                                                        nan_ok=True)  # fmt: skip
    assert found.column("score") == pytest.approx([s or float("nan") for s in scores], nan_ok=True)
    assert found.faults == ()


def test_cells_that_are_not_numbers_are_named_and_count_as_nan():
    found = read_evaluations(b"score\n1\n__import__('os')\n1_0\n")

    assert found.column("score") == pytest.approx([1.0, float("nan"), float("nan")], nan_ok=True)
    assert found.faults == (
        ("types-numbers",
         "score: 2 cells are no numbers, the first is \"__import__('os')\", row 2"),
    )  # fmt: skip


def test_documents_are_objects_or_a_reason():
    assert read_document(b'{"a": 1}') == ({"a": 1}, "")
    assert read_document(b"") == (None, "empty")
    assert read_document(b"[1]") == (None, "no JSON object but list")
    assert read_document(b"[" * 10**6)[0] is None


def test_an_unreadable_folder_is_noted(tmp_path, official, monkeypatch):
    root = official(tmp_path / "logs").good()
    scandir = os.scandir

    def refuse(path):
        if Path(path).name == "slow":
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    logs = read_all(root)

    assert logs.oddities == (("files-unreadable", "slow", "cannot be listed: Permission denied"),)
    assert logs.contenders == ["fast"]


@pytest.mark.parametrize("kind", ["link", "pipe"])
def test_a_replacement_of_a_listed_file_is_not_opened(tmp_path, kind):
    (tmp_path / "secret").write_text("x")
    if kind == "link":
        (tmp_path / "a.json").symlink_to(tmp_path / "secret")
    else:
        os.mkfifo(tmp_path / "a.json")
    oddities = Oddities()

    assert sources._read(tmp_path, "a.json", 100, oddities) is None
    assert [oddity.rule for oddity in oddities.seen] == ["files-unreadable"]


# Damage. The right values are those of the undamaged part.


def test_a_last_line_without_a_newline_does_not_count():
    found = read_evaluations(b"score,validation/wer\n1,0.9\n2,0.1")

    assert found.column("validation/wer").tolist() == [0.9]
    assert [fault.rule for fault in found.faults] == ["types-rows"]


def test_nothing_of_a_row_that_was_cut_elsewhere_counts():
    found = read_evaluations(b"score,validation/wer,train/wer\n1,0.9,0.8\n2,0.1\n3,0.5,0.4\n")

    assert found.column("score") == pytest.approx([1, float("nan"), 3], nan_ok=True)
    assert found.column("validation/wer") == pytest.approx([0.9, float("nan"), 0.5], nan_ok=True)
    assert [fault.rule for fault in found.faults] == ["types-rows"]


def test_byte_order_marks_are_read():
    mark = b"\xef\xbb\xbf"

    assert read_evaluations(mark + b"score\n1\n").column("score").tolist() == [1.0]
    assert read_document(mark + b'{"a": 1}') == ({"a": 1}, "")


def test_a_targets_file_may_begin_with_a_byte_order_mark(tmp_path, official):
    path = official(tmp_path / "logs").targets(tmp_path / "targets.json")
    before = read_official_targets(path)
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())

    assert read_official_targets(path) == before


@pytest.mark.parametrize(
    "kind, squeeze", [("gz", gzip.compress), ("xz", lzma.compress), ("bz2", bz2.compress)]
)
def test_a_flipped_bit_under_an_intact_checksum_is_refused(tmp_path, official, pack, kind, squeeze):
    whole = pack(official(tmp_path / "logs").good(), tmp_path / "l.tar", "w").read_bytes()
    at = whole.index(b"global_step") + 200
    changed = whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :]
    # The bytes of the changed tar with the checksum of the original.
    packed, original = bytearray(squeeze(changed)), squeeze(whole)
    path = tmp_path / f"l.tar.{kind}"
    if kind == "gz":
        packed[-8:] = original[-8:]
    else:
        packed[len(packed) // 2] ^= 1
    path.write_bytes(packed)

    with pytest.raises(ValueError, match=rf"l\.tar\.{kind}: not a whole tar file"):
        read_all(path)


def test_a_tar_that_decompresses_beyond_the_limit_ends_there(tmp_path, monkeypatch):
    monkeypatch.setattr(sources, "MAX_BYTES", 2**24)
    path = tmp_path / "bomb.tar.gz"
    with tarfile.open(path, "w:gz") as tar:
        add_file(tar, f"{TRIAL}/checkpoint", bytes(2**25))
    assert path.stat().st_size < 2**16

    with pytest.raises(ValueError, match=r"bomb\.tar\.gz: more than 16,777,216 bytes"):
        read_all(path)
