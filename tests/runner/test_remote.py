"""A repository's address leads to public hosts and to those that an administrator allows, in whatever spelling."""

from __future__ import annotations

import contextlib
import functools
import http.server
import ipaddress
import os
import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from djinn.runner.git import WorkspaceError
from djinn.runner.remote import is_public, public_addresses, read_remote
from djinn.runner.source import Source
from djinn.runner.usage import Usage, measure
from djinn.runner.workspace import Workspace


class Server:
    """A real HTTP server of a folder, by the protocol that needs nothing but files; it counts who connects."""

    def __init__(self, folder: Path, *, redirects_to: str = "", wants_login: bool = False) -> None:
        self.connections = 0
        self.requests: list[str] = []
        self.credentials: list[str] = []
        outer = self

        class Handler(http.server.SimpleHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.requests.append(self.path)
                outer.credentials += [self.headers["Authorization"]] if self.headers["Authorization"] else []
                if redirects_to:
                    self.send_response(302)
                    self.send_header("Location", redirects_to + self.path)
                    self.end_headers()
                elif wants_login and not self.headers["Authorization"]:
                    self.send_response(401)
                    self.send_header("WWW-Authenticate", 'Basic realm="x"')
                    self.end_headers()
                else:
                    super().do_GET()

            def log_message(self, *arguments: Any) -> None:
                return

        class Counting(http.server.ThreadingHTTPServer):
            def verify_request(self, request: Any, address: Any) -> bool:
                outer.connections += 1
                return True

        self._server = Counting(("127.0.0.1", 0), functools.partial(Handler, directory=str(folder)))
        self.port = int(self._server.server_address[1])
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02})
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with the bare repository `x.git`, whose only file says "one"."""
    work = tmp_path / "work"
    bare = tmp_path / "served" / "x.git"
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@a", "-c", "safe.directory=*"]
    subprocess.run([*git, "init", "-q", "-b", "main", str(work)], check=True, timeout=30)
    (work / "file").write_text("one")
    subprocess.run([*git, "-C", str(work), "add", "."], check=True, timeout=30)
    subprocess.run([*git, "-C", str(work), "commit", "-qm", "one"], check=True, timeout=30)
    subprocess.run([*git, "clone", "-q", "--bare", str(work), str(bare)], check=True, timeout=30)
    subprocess.run([*git, "-C", str(bare), "update-server-info"], check=True, timeout=30)
    return bare.parent


@pytest.fixture
def server(folder: Path) -> Iterator[Server]:
    server = Server(folder)
    yield server
    server.close()


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace(tmp_path / "run", owner=None)


SPELLINGS = [
    "http://127.0.0.1:{port}/x.git",
    "http://localhost:{port}/x.git",
    "http://LOCALHOST:{port}/x.git",
    "http://localhost.:{port}/x.git",
    "http://127.0.0.1.:{port}/x.git",
    "http://2130706433:{port}/x.git",
    "http://0x7f000001:{port}/x.git",
    "http://0x7f.1:{port}/x.git",
    "http://017700000001:{port}/x.git",
    "http://0177.0.0.1:{port}/x.git",
    "http://127.1:{port}/x.git",
    "http://0:{port}/x.git",
    "http://0.0.0.0:{port}/x.git",
    "http://[::1]:{port}/x.git",
    "http://[::]:{port}/x.git",
    "http://[::ffff:127.0.0.1]:{port}/x.git",
    "http://[::ffff:7f00:1]:{port}/x.git",
    "http://[::127.0.0.1]:{port}/x.git",
    "http://[64:ff9b::7f00:1]:{port}/x.git",
    "http://[2002:7f00:1::]:{port}/x.git",
    "http://user:secret@127.0.0.1:{port}/x.git",
    "http://github.com@127.0.0.1:{port}/x.git",
    "http://127.0.0.1:{port}@127.0.0.1:{port}/x.git",
    "http://127.0.0.1:{port}\\@github.com/x.git",
    "http://127.0.0.1:{port}#@github.com/x.git",
    "http://127.0.0.1:{port}?@github.com/x.git",
    "http://①②⑦.⓪.⓪.①:{port}/x.git",
    "http://127%2e0%2e0%2e1:{port}/x.git",
    "HTTP://127.0.0.1:{port}/x.git",
    "ssh://127.0.0.1:{port}/x.git",
    "ssh://git@localhost:{port}/x.git",
    "git://127.0.0.1:{port}/x.git",
    "http::http://127.0.0.1:{port}/x.git",
    "ext::curl http://127.0.0.1:{port}/x.git",
    "file://127.0.0.1:{port}/x.git",
    "ftp://127.0.0.1:{port}/x.git",
]


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_this_machine_is_never_asked_in_whatever_spelling(workspace: Workspace, server: Server, spelling: str) -> None:
    with pytest.raises(WorkspaceError) as caught:
        workspace.prepare(Source(spelling.format(port=server.port)))
    assert (caught.value.permanent, caught.value.reason, server.connections) == (True, "rejected", 0)
    assert "secret" not in str(caught.value)


def test_the_refusal_says_what_an_administrator_can_do(workspace: Workspace, server: Server) -> None:
    with pytest.raises(WorkspaceError, match="DJINN_REPOSITORY_HOSTS") as caught:
        workspace.prepare(Source(f"http://localhost:{server.port}/x.git"))
    assert "127.0.0.1" not in str(caught.value)


@pytest.mark.parametrize("scp", ["git@localhost:x.git", "localhost:x.git", "git@127.1:x.git", "git@2130706433:/x"])
def test_the_short_form_of_ssh_is_looked_at_as_well(workspace: Workspace, scp: str) -> None:
    with pytest.raises(WorkspaceError) as caught:
        workspace.prepare(Source(scp))
    assert (caught.value.permanent, caught.value.reason) == (True, "rejected")


@pytest.mark.parametrize("allowed", ["127.0.0.1", "localhost", "LocalHost.", "localhost:{port}"])
def test_a_host_that_an_administrator_allows_is_asked(workspace: Workspace, server: Server, allowed: str) -> None:
    host = "127.0.0.1" if allowed[0] == "1" else "localhost"
    allowed = allowed.format(port=server.port)
    workspace.prepare(Source(f"http://{host}:{server.port}/x.git"), allowed_hosts=[allowed])
    assert (workspace.tree / "file").read_text() == "one"


@pytest.mark.parametrize("allowed", ["localhost:1", "host", "calhost", "127.0.0.2", ""])
def test_another_host_or_port_is_not_allowed_by_that(workspace: Workspace, server: Server, allowed: str) -> None:
    with pytest.raises(WorkspaceError):
        workspace.prepare(Source(f"http://localhost:{server.port}/x.git"), allowed_hosts=[allowed])
    assert server.connections == 0


# --- Addresses --------------------------------------------------------------------------------------------------------
INNER = [
    *("10.0.0.1", "172.16.0.1", "192.168.1.1", "127.0.0.1", "127.255.255.254", "169.254.169.254", "100.64.0.1"),
    *("100.100.100.200", "0.0.0.0", "0.1.2.3", "224.0.0.1", "239.1.1.1", "240.0.0.1", "255.255.255.255", "192.0.0.192"),
    *("198.18.0.1", "192.0.2.1", "168.63.129.16", "192.88.99.1", "::1", "::", "fe80::1", "fec0::1", "fc00::1"),
    *("fd00:ec2::254", "ff02::1"),
    *("::ffff:10.0.0.1", "::ffff:169.254.169.254", "::10.0.0.1", "64:ff9b::a00:1", "64:ff9b:1::a00:1"),
    *("2002:a00:1::", "2001:0:a00:1::", "2001:db8::1", "100::1", "3fff::1", "4000::1"),
]  # fmt: skip
OUTER = ["1.1.1.1", "140.82.121.3", "8.8.8.8", "2606:4700:4700::1111", "2a00:1450::1", "64:ff9b::101:101"]


@pytest.mark.parametrize("address", INNER)
def test_an_inner_address_is_not_public(address: str) -> None:
    assert not is_public(ipaddress.ip_address(address))


@pytest.mark.parametrize("address", OUTER)
def test_an_address_of_the_internet_is_public(address: str) -> None:
    assert is_public(ipaddress.ip_address(address))


def test_an_address_that_this_machine_has_itself_is_not_public() -> None:
    shown = subprocess.run(["hostname", "-I"], capture_output=True, text=True, timeout=10, check=True).stdout.split()
    assert not any(is_public(ipaddress.ip_address(address)) for address in shown)


def test_a_public_address_in_digits_is_asked_in_its_usual_form() -> None:
    remote = read_remote("https://0x01010101/x.git")
    assert (remote.url, public_addresses(remote)) == ("https://1.1.1.1/x.git", ("1.1.1.1",))


# --- What git is bound to ---------------------------------------------------------------------------------------------
def clone(url: str, environment: dict[str, str], target: Path) -> subprocess.CompletedProcess[str]:
    """Git as the worker calls it."""
    base = {"PATH": os.environ["PATH"], "HOME": "/nonexistent", "GIT_TERMINAL_PROMPT": "0", "GIT_CONFIG_NOSYSTEM": "1"}
    return subprocess.run(
        ["git", "clone", "-q", url, str(target)],
        env={**base, **environment},
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_git_goes_to_the_addresses_that_were_looked_at_whatever_the_name_says_now(
    server: Server, tmp_path: Path
) -> None:
    remote = read_remote(f"http://rebound.invalid:{server.port}/x.git")
    done = clone(remote.url, remote.environment(["127.0.0.1"]), tmp_path / "a")
    assert (done.returncode, (tmp_path / "a" / "file").read_text()) == (0, "one"), done.stderr


def test_git_does_not_go_where_a_name_leads_that_was_looked_at_before(server: Server, tmp_path: Path) -> None:
    remote = read_remote(f"http://localhost:{server.port}/x.git")
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.2", 0))
        done = clone(remote.url, remote.environment(["127.0.0.2"]), tmp_path / "a")
    assert (done.returncode != 0, server.connections) == (True, 0)


def test_a_git_that_cannot_be_bound_to_an_address_is_not_used(
    workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = tmp_path / "old" / "git"
    old.parent.mkdir()
    old.write_text("#!/bin/sh\necho git version 2.30.2\n")
    old.chmod(0o755)
    monkeypatch.setenv("PATH", f"{old.parent}:{os.environ['PATH']}")
    with pytest.raises(WorkspaceError, match=r"git 2\.30 cannot be bound .* 2\.37 or newer") as caught:
        workspace.prepare(Source("https://1.1.1.1/x.git"))
    assert (caught.value.permanent, caught.value.reason) == (True, "rejected")


def test_a_redirect_is_not_followed(folder: Path, server: Server, workspace: Workspace) -> None:
    door = Server(folder, redirects_to=f"http://127.0.0.1:{server.port}")
    try:
        with pytest.raises(WorkspaceError):
            workspace.prepare(Source(f"http://localhost:{door.port}/x.git"), allowed_hosts=[f"localhost:{door.port}"])
    finally:
        door.close()
    assert (door.connections > 0, server.connections) == (True, 0)


@pytest.mark.parametrize("name", ["http-alternates", "alternates"])
def test_alternates_of_a_server_lead_nowhere(folder: Path, server: Server, tmp_path: Path, name: str) -> None:
    lure = tmp_path / "lure"
    info = lure / "x.git" / "objects" / "info"
    info.mkdir(parents=True)
    for path in ("HEAD", "info/refs"):
        (lure / "x.git" / path).parent.mkdir(exist_ok=True)
        (lure / "x.git" / path).write_bytes((folder / "x.git" / path).read_bytes())
    (info / name).write_text(f"http://127.0.0.1:{server.port}/x.git/objects\n")
    door = Server(lure)
    remote = read_remote(f"http://localhost:{door.port}/x.git")
    try:
        clone(remote.url, remote.environment(()), tmp_path / "a")
    finally:
        door.close()
    assert (door.connections > 0, server.connections) == (True, 0)


def test_a_proxy_is_for_allowed_hosts_alone(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{server.port}")
    remote = read_remote("http://nowhere.invalid/x.git")
    clone(remote.url, remote.environment(["127.0.0.2"]), tmp_path / "a")
    assert server.connections == 0
    clone(remote.url, remote.environment(()), tmp_path / "b")
    assert server.connections > 0


# --- Whose credentials ------------------------------------------------------------------------------------------------
def test_the_workers_logins_are_not_used(folder: Path, workspace: Workspace, tmp_path: Path, monkeypatch: Any) -> None:
    home = tmp_path / "home"
    home.mkdir()
    (home / ".netrc").write_text("machine localhost login worker password s3cret\n")
    (home / ".netrc").chmod(0o600)
    (home / ".gitconfig").write_text("[credential]\n helper = !echo username=worker; echo password=s3cret; true\n")
    (home / "ask").write_text("#!/bin/sh\necho s3cret\n")
    (home / "ask").chmod(0o700)
    for name, value in {"HOME": home, "GIT_ASKPASS": home / "ask", "SSH_ASKPASS": home / "ask"}.items():
        monkeypatch.setenv(name, str(value))
    server = Server(folder, wants_login=True)
    try:
        with pytest.raises(WorkspaceError):
            workspace.prepare(Source(f"http://localhost:{server.port}/x.git"), allowed_hosts=["localhost"])
    finally:
        server.close()
    assert (server.requests != [], server.credentials) == (True, [])


def test_a_login_in_the_address_is_used_and_stays_out_of_the_repository(folder: Path, workspace: Workspace) -> None:
    server = Server(folder, wants_login=True)
    try:
        source = Source(f"http://me:s3cret@localhost:{server.port}/x.git")
        workspace.prepare(source, allowed_hosts=["localhost"])
    finally:
        server.close()
    assert (workspace.tree / "file").read_text() == "one"
    assert "s3cret" not in (workspace.tree / ".git" / "config").read_text()


def test_ssh_has_no_key_no_agent_and_no_configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSH_AUTH_SOCK", str(tmp_path / "agent"))
    environment = read_remote("ssh://git@git.example:2222/x.git").environment(["192.0.2.7"])
    assert "SSH_AUTH_SOCK" not in environment
    command = f"{environment['GIT_SSH_COMMAND']} -G -p 2222 git@git.example"
    shown = subprocess.run(["sh", "-c", command], capture_output=True, text=True, timeout=20, check=True).stdout
    settings = [line.partition(" ")[::2] for line in shown.splitlines()]
    expected = {
        ("hostname", "192.0.2.7"),
        ("hostkeyalias", "[git.example]:2222"),
        ("identityagent", "none"),
        ("identityfile", "none"),
        ("identitiesonly", "yes"),
        ("batchmode", "yes"),
        ("forwardagent", "no"),
        ("preferredauthentications", "none"),
        ("gssapiauthentication", "no"),
    }
    assert expected <= set(settings)
    assert [value for name, value in settings if name == "identityfile"] == ["none"]
    assert {name for name, _ in settings}.isdisjoint({"proxycommand", "proxyjump", "localcommand"})


def test_ssh_goes_to_the_address_that_was_looked_at(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(20)
        port = listener.getsockname()[1]
        remote = read_remote(f"ssh://git@rebound.invalid:{port}/x.git")
        heard: list[bytes] = []

        def hear() -> None:
            connection, _ = listener.accept()
            with connection:
                heard.append(connection.recv(20))

        thread = threading.Thread(target=hear)
        thread.start()
        done = clone(remote.url, remote.environment(["127.0.0.1"]), tmp_path / "a")
        thread.join()
    assert (done.returncode != 0, heard[0][:4]) == (True, b"SSH-")


# --- Sizes ------------------------------------------------------------------------------------------------------------
COMMIT = "1" * 40


def packet(text: str) -> bytes:
    return f"{len(text) + 4:04x}{text}".encode()


@pytest.fixture
def endless() -> Iterator[int]:
    """The port of a server whose pack holds a file that never ends."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            refs = [f"{COMMIT} HEAD\0symref=HEAD:refs/heads/main\n", f"{COMMIT} refs/heads/main\n"]
            self.answer(
                "advertisement", packet("# service=git-upload-pack\n") + b"0000" + b"".join(map(packet, refs)) + b"0000"
            )

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            header = b"PACK" + (2).to_bytes(4, "big") + (1000).to_bytes(4, "big")
            blob = bytes([0xB0, 0xFF, 0xFF, 0xFF, 0xFF, 0x7F])  # a blob of many GB
            self.answer("result", packet("NAK\n") + header + blob + b"\x78\x01")
            stored = b"\x00\xff\xff\x00\x00" + bytes(0xFFFF)  # a block of deflate that is not the last one
            with contextlib.suppress(ConnectionError):
                while True:
                    self.wfile.write(stored * 16)

        def answer(self, kind: str, body: bytes) -> None:
            self.send_response(200)
            self.send_header("Content-Type", f"application/x-git-upload-pack-{kind}")
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *arguments: Any) -> None:
            return

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield int(server.server_address[1])
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_repository_without_end_is_given_up_when_it_is_too_large(workspace: Workspace, endless: int) -> None:
    def is_full() -> bool:
        return measure([workspace.tree], [], Usage(10**12, 10**6)).bytes > 20_000_000

    source = Source(f"http://localhost:{endless}/x.git")
    with pytest.raises(WorkspaceError, match="too much of the disk") as caught:
        workspace.prepare(source, allowed_hosts=["localhost"], is_full=is_full)
    assert (caught.value.permanent, caught.value.reason, workspace.tree.exists()) == (True, "disk", False)


# --- Tries ------------------------------------------------------------------------------------------------------------
def test_a_failure_that_may_pass_is_tried_twice(folder: Path, workspace: Workspace, server: Server) -> None:
    with pytest.raises(WorkspaceError, match="tried 2 times") as caught:
        workspace.prepare(Source(f"http://localhost:{server.port}/absent.git"), allowed_hosts=["localhost"])
    assert caught.value.permanent
    assert len([path for path in server.requests if "/info/refs" in path]) in (2, 4)


def test_a_name_that_cannot_be_found_is_a_failure_that_may_pass(workspace: Workspace) -> None:
    with pytest.raises(WorkspaceError, match="cannot be found") as caught:
        workspace.prepare(Source("https://nowhere.invalid/x.git"))
    assert (caught.value.permanent, caught.value.reason) == (True, "error")
    assert "tried 2 times" in str(caught.value)


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("https://github.com/a/b.git", "https://github.com/a/b.git"),
        ("https://GitHub.com./a/b", "https://github.com/a/b"),
        ("https://token@github.com:443/a", "https://github.com/a"),
        ("https://h:8443/a%20b", "https://h:8443/a%20b"),
        ("ssh://git@github.com:2222/a/b", "ssh://git@github.com:2222/a/b"),
        ("git@github.com:a/b.git", "git@github.com:a/b.git"),
        ("github.com:a/b", "github.com:a/b"),
        ("https://[2606:4700::1]:8443/a", "https://[2606:4700::1]:8443/a"),
    ],
)
def test_git_is_given_an_address_that_reads_in_one_way(text: str, url: str) -> None:
    assert read_remote(text).url == url
