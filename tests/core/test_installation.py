"""The installation's folder: where things are, who may read them, one secret."""

from __future__ import annotations

import os
import socket
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from djinn.core.errors import AppError
from djinn.core.installation.paths import LONGEST_SOCKET_PATH, PROJECT, Installation, present_installation
from djinn.core.installation.stack import AlreadyRunning, PortTaken, Stack, free_port, is_running, wanted_port


def _mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.parametrize("letters", [1, 40, 60, 100, 300, 1000])
def test_every_socket_has_a_path_that_the_kernel_takes(letters: int) -> None:
    parts = ["d" * min(100, letters)] * max(1, letters // 100)
    installation = Installation(Path("/", *parts))
    sockets = [
        installation.redis_socket,
        installation.gateway_directory / "gateway.sock",
        installation.postgres_sockets / ".s.PGSQL.5432.lock",
    ]
    assert max(len(os.fsencode(path)) for path in sockets) <= LONGEST_SOCKET_PATH


def test_a_path_is_measured_in_bytes() -> None:
    short, long = (Installation(Path("/", letter * 60)) for letter in ("d", "ü"))
    assert short.sockets == short.home / "run"
    assert long.sockets != long.home / "run"


def test_two_installations_share_nothing() -> None:
    one, two = Installation(Path("/a" * 100)), Installation(Path("/b" * 100))
    assert one.name != two.name
    assert one.sockets != two.sockets


def test_a_folder_of_sockets_that_is_somebody_elses_is_refused(tmp_path: Path) -> None:
    installation = Installation(tmp_path)
    installation.sockets.mkdir()
    os.chown(installation.sockets, 12345, 12345)
    with pytest.raises(AppError, match="not ours"):
        installation.make_directories()


def test_the_folders_are_made_once_and_kept(tmp_path: Path) -> None:
    installation = Installation(tmp_path / "home")
    for _ in range(2):
        installation.make_directories()
        (installation.workspaces / "kept").touch()
    assert installation.gateway_directory.is_dir()
    made = {path.name for path in installation.home.iterdir()}
    assert made - {"run"} == {"executions", "workspaces", "artifacts", "logs", "ready", "static"}
    assert [path.name for path in installation.workspaces.iterdir()] == ["kept"]


def test_other_accounts_read_no_source_and_no_log_and_reach_the_sockets(tmp_path: Path) -> None:
    installation = Installation(tmp_path / "home")
    for directory in (installation.workspaces, installation.logs):
        directory.mkdir(mode=0o755, parents=True)  # as an earlier version has left them
    installation.make_directories()
    private = (installation.workspaces, installation.executions, installation.artifacts, installation.logs)
    assert {_mode(directory) for directory in private} == {0o700}
    assert (_mode(installation.sockets), _mode(installation.gateway_directory)) == (0o711, 0o711)


def test_a_port_that_was_asked_for_and_is_taken_is_told_in_a_sentence() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(PortTaken, match=rf"^Port {port} of 127.0.0.1 is taken by another program. Choose another"):
            wanted_port(port)
    assert wanted_port(port) == port


def test_the_secret_is_made_once_by_many_at_once_and_read_by_its_owner_only(tmp_path: Path) -> None:
    installation = Installation(tmp_path / "home")
    script = (
        f"from {Installation.__module__} import *; print(Installation(Path({str(installation.home)!r})).secret_key())"
    )
    command = [sys.executable, "-c", script]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=PROJECT) for _ in range(6)]
    secrets = {process.communicate(timeout=60)[0].strip() for process in processes}
    assert len(secrets) == 1
    assert len(secrets.pop()) >= 50
    assert _mode(installation.home / "secret_key") == 0o600
    assert [path.name for path in installation.home.iterdir()] == ["secret_key"]


def test_the_environment_names_the_present_installation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DJINN_HOME", str(tmp_path / "a" / ".." / "b"))
    assert present_installation().home == tmp_path / "b"


def test_a_stack_runs_once_in_an_installation(tmp_path: Path) -> None:
    installation = Installation(tmp_path)
    assert not is_running(installation)
    with Stack(installation, port=0, host_name="here"):
        assert is_running(installation)
        with pytest.raises(AlreadyRunning), Stack(installation, port=0, host_name="here"):
            raise AssertionError("it was let in")
    assert not is_running(installation)


def test_a_taken_port_is_replaced_by_a_free_one() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert free_port(port) not in {port, 0}
    assert free_port(port) == port
