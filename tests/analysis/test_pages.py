"""Files of pages: written where they are asked for, and nowhere else."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from analysis.cli import app
from analysis.command_line import run_app
from analysis.logs.reader import read_logs
from analysis.report import report
from analysis.report.publish import publish
from tests.analysis.conftest import OfficialBuilder, write_hand_made


@pytest.fixture
def logs(tmp_path):
    return OfficialBuilder(tmp_path / "logs").good()


def run(*arguments):
    return run_app(app, "analysis", [str(argument) for argument in arguments])


@pytest.mark.parametrize("there", [True, False], ids=["to a file", "to nothing"])
def test_a_link_is_neither_replaced_nor_followed(logs, tmp_path, capsys, there):
    link, aim = tmp_path / "link.csv", tmp_path / "precious.txt"
    if there:
        aim.write_text("precious")
    link.symlink_to(aim)

    with pytest.raises(ValueError, match=r"link\.csv"):
        publish(link, "x")
    assert run("table", logs, "--out", link) == 2

    assert "link.csv" in capsys.readouterr().err
    assert link.is_symlink() and aim.exists() == there
    assert not there or aim.read_text() == "precious"


def test_pictures_of_a_report_follow_no_links_either(tmp_path):
    logs = read_logs(write_hand_made(tmp_path / "runs"))
    aim = tmp_path / "precious.txt"
    aim.write_text("precious")
    (tmp_path / "report").mkdir()
    (tmp_path / "report" / "costs-1-easy.svg").symlink_to(aim)

    with pytest.raises(ValueError, match="costs-1-easy"):
        report.write_report(logs, tmp_path / "report")

    assert aim.read_text() == "precious"


def test_a_pipe_is_written_to_and_stays_a_pipe(logs, tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    end = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    try:
        publish(pipe, "hello")
        assert os.read(end, 100) == b"hello"
    finally:
        os.close(end)
    command = [sys.executable, "-m", "analysis", "table", str(logs), "--out", str(pipe)]
    with subprocess.Popen(command) as process, pipe.open(encoding="utf-8") as reader:
        text = reader.read()
    assert process.returncode == 0 and text.count("\n") > 16
    assert pipe.is_fifo()


def test_devices_and_sockets_stay_what_they_are(logs, tmp_path):
    assert run("table", logs, "--out", "/dev/null") == 0
    with socket.socket(socket.AF_UNIX) as one:
        one.bind(str(tmp_path / "socket"))
        with pytest.raises(ValueError, match="socket"):
            publish(tmp_path / "socket", "x")
        assert (tmp_path / "socket").is_socket()
    with pytest.raises(ValueError, match="folder"):
        (tmp_path / "folder").mkdir()
        publish(tmp_path / "folder", "x")


def test_the_standard_output_may_be_named_as_a_file(logs):
    command = [sys.executable, "-m", "analysis", "table", str(logs)]
    named, plain = (
        subprocess.run([*command, *more], capture_output=True, text=True, check=True).stdout
        for more in (["--out", "/dev/stdout"], [])
    )

    assert named == plain and plain.count("\n") > 16


def test_a_report_replaces_no_link_and_no_pipe(tmp_path):
    target, link, dangling, pipe = (tmp_path / name for name in ("t", "link", "dangling", "pipe"))
    target.write_text("keep")
    link.symlink_to(target)
    dangling.symlink_to(tmp_path / "none")
    os.mkfifo(pipe)

    for path in (link, dangling, tmp_path):
        with pytest.raises(ValueError, match=path.name):
            publish(path, "text")
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    publish(pipe, "through")
    publish(Path("/dev/null"), "gone")

    assert os.read(reader, 100) == b"through"
    os.close(reader)
    assert target.read_text() == "keep" and link.is_symlink() and pipe.is_fifo()
    assert not (tmp_path / "none").exists() and Path("/dev/null").is_char_device()
