from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys

import pytest

from cartoseq.controller.simulating import load_rack
from cartoseq.streaming.errors import InputError

RACK = """\
[[device]]
name = "stage"
kind = "asi"
tcp = 0

[[device]]
name = "xy"
kind = "zaber"
pty = ""

[[device]]
name = "z"
kind = "zaber"
shares = "xy"
settings = {address = 2}
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_command_prints_addresses_serves_them_and_ends_cleanly(number, tmp_path):
    (tmp_path / "rack.toml").write_text(RACK)
    with subprocess.Popen(
        [sys.executable, "-m", "cartoseq.controller.cli", "simulate", "rack.toml"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as running:
        lines = [running.stdout.readline().split() for _ in range(3)]
        assert [line[0] for line in lines] == ["stage", "xy", "control"]
        assert lines[1][1].startswith("/dev/")
        assert lines[1][2:] == ["(with", "z)"]
        for line, sent, got in ((lines[0], b"W X\r", b":A 0 \r\n"), (lines[2], b'{"do": "list"}\n', b"{")):
            host, port = line[1].removeprefix("tcp://").split(":")
            with socket.create_connection((host, int(port)), timeout=20) as talk:
                talk.sendall(sent)
                assert talk.makefile("rb").readline().startswith(got)
        running.send_signal(number)
        said, complaint = running.communicate(timeout=20)
    assert (running.returncode, said, complaint) == (0, "", "")


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        (RACK.replace('"asi"', '"lamp"'), "rack.toml: line 3, key device[0].kind: no kind of device 'lamp'"),
        (RACK + "speed = 1\n", "rack.toml: line 16, key device[2].speed: no such key 'speed'"),
        (RACK.replace("address = 2", "address = 200"), "key device[2].settings: address is 1 to 99, found 200"),
        ("", "rack.toml: key device: expected at least one table [[device]]"),
        ("=", "not valid TOML"),
    ],
)
def test_what_is_wrong_with_a_rack_file_is_said_with_its_line(text, complaint, tmp_path):
    (tmp_path / "rack.toml").write_text(text)
    with pytest.raises(InputError) as refused:
        load_rack(tmp_path / "rack.toml")
    assert complaint in str(refused.value)


def test_a_file_that_is_not_there_is_one_message(tmp_path):
    with pytest.raises(InputError, match="there is no such rack file"):
        load_rack(tmp_path / "rack.toml")


def test_a_taken_port_is_one_message(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        (tmp_path / "rack.toml").write_text(RACK.replace("tcp = 0", f"tcp = {port}"))
        done = subprocess.run(
            [sys.executable, "-m", "cartoseq.controller.cli", "simulate", "rack.toml"],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )
    assert done.returncode == 3
    assert f"stage: port {port} cannot be opened" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_sum_of_requests_is_json(tmp_path):
    (tmp_path / "rack.toml").write_text(RACK)
    rack = load_rack(tmp_path / "rack.toml")
    for request in ({"do": "list"}, {"do": "inspect", "device": "xy"}):
        assert json.loads(json.dumps(rack.request(request, 0.0)))["ok"] is True
