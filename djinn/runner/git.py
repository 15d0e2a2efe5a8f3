"""Running git on the host so that nothing in a tree, a repository or a name can make it run something else."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from collections.abc import Callable, Collection, Mapping
from pathlib import Path

from djinn.runner.base import RunnerError

CONFIGURATION = Path(__file__).with_name("gitconfig")
STRONGEST = ("core.hooksPath=/dev/null", "core.fsmonitor=false", "submodule.recurse=false", "protocol.ext.allow=never")
TRUST_VARIABLES = ("SSL_CERT_FILE", "SSL_CERT_DIR", "GIT_SSL_CAINFO", "CURL_CA_BUNDLE")
PROXY_VARIABLES = ("http_proxy", "https_proxy", "no_proxy", "all_proxy", "HTTPS_PROXY", "NO_PROXY", "ALL_PROXY")
WORDS_BYTES = 4000
FULL_SECONDS = 0.25
"""How often a git that may fill the disk is looked after."""


class WorkspaceError(RunnerError):
    """A workspace could not be made, kept, merged or put back. `reason` is one of the closed list of failures.

    `files` are the paths that a conflict is about, sorted; empty for every other reason.
    """

    def __init__(self, text: str, *, permanent: bool, reason: str, files: tuple[str, ...] = ()) -> None:
        super().__init__(text)
        self.permanent = permanent
        self.reason = reason
        self.files = files


def run_git(
    arguments: list[str],
    *,
    lock: int,
    timeout_seconds: float,
    git_dir: Path | None = None,
    tree: Path | None = None,
    stdin: bytes = b"",
    environment: Mapping[str, str] | None = None,
    accepted: Collection[int] = (0,),
    is_full: Callable[[], bool] | None = None,
) -> bytes:
    """What git wrote to stdout. Git and its children hold a copy of `lock`, so the lock lasts as long as they do.

    Raises `WorkspaceError` when it ends with a code that is not among the `accepted`, or was killed because `is_full`
    said that it has written too much.
    """
    with start_git(arguments, lock=lock, git_dir=git_dir, tree=tree, environment=environment) as process:
        try:
            output, words = _communicate(process, stdin, timeout_seconds, is_full)
        except subprocess.TimeoutExpired as exc:
            raise WorkspaceError(
                f"git {arguments[0]} took longer than {timeout_seconds} s", permanent=False, reason="timeout"
            ) from exc
        finally:
            end_group(process)
    if process.returncode not in accepted:
        raise failure(arguments[0], words)
    return output


def _communicate(
    process: subprocess.Popen[bytes], stdin: bytes, seconds: float, is_full: Callable[[], bool] | None
) -> tuple[bytes, bytes]:
    """What it wrote to stdout and stderr. Raises `TimeoutExpired`, or `WorkspaceError` when the disk is full."""
    give_up = time.monotonic() + seconds
    while True:
        left = give_up - time.monotonic()
        try:
            return process.communicate(stdin, timeout=left if is_full is None else min(left, FULL_SECONDS))
        except subprocess.TimeoutExpired:
            if is_full is not None and is_full():
                raise WorkspaceError("it takes too much of the disk", permanent=True, reason="disk") from None
            if time.monotonic() >= give_up:
                raise


def git_version(*, lock: int) -> tuple[int, int]:
    """Of the git that this machine has."""
    words = run_git(["version"], lock=lock, timeout_seconds=60).decode()
    found = re.search(r"(\d+)\.(\d+)", words)
    if found is None:
        raise WorkspaceError(f"git does not tell its version: {words.strip()!r}", permanent=True, reason="error")
    return int(found[1]), int(found[2])


def start_git(
    arguments: list[str],
    *,
    lock: int,
    git_dir: Path | None = None,
    tree: Path | None = None,
    environment: Mapping[str, str] | None = None,
) -> subprocess.Popen[bytes]:
    """A git process, the leader of a session of its own."""
    variables = _environment(git_dir, tree) | dict(environment or {})
    strongest = [word for setting in STRONGEST for word in ("-c", setting)]
    try:
        return subprocess.Popen(
            ["git", "--no-pager", *strongest, *arguments],
            env=variables,
            cwd=tree if tree is not None else "/",
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            pass_fds=(lock,),
            start_new_session=True,
        )
    except OSError as exc:
        raise WorkspaceError(f"git cannot be started: {exc}", permanent=False, reason="error") from exc


def end_group(process: subprocess.Popen[bytes]) -> None:
    """Kill git with all that it started, unless it has ended by itself."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def failure(verb: str, words: bytes) -> WorkspaceError:
    """Git's own words, without secrets, as our error."""
    text = scrub(words.decode("utf-8", "replace").strip()[-WORDS_BYTES:])
    is_full = "No space left on device" in text or "Disk quota exceeded" in text
    return WorkspaceError(f"git {verb}: {text}", permanent=False, reason="disk" if is_full else "error")


def scrub(text: str) -> str:
    """The text without user names and passwords in URLs."""
    return re.sub(r"(?<=://)[^/\s'\"]*@", "", text)


def _environment(git_dir: Path | None, tree: Path | None) -> dict[str, str]:
    environment = {
        "PATH": os.environ.get("PATH", os.defpath),
        "HOME": "/nonexistent",
        "LC_ALL": "C.UTF-8",
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CONFIG_GLOBAL": str(CONFIGURATION),
        "GIT_ATTR_NOSYSTEM": "1",
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_ALLOW_PROTOCOL": "none",
        "GIT_NO_REPLACE_OBJECTS": "1",
        "GIT_OPTIONAL_LOCKS": "0",
    }
    if git_dir is not None:
        environment["GIT_DIR"] = str(git_dir)
    if tree is not None:
        environment["GIT_WORK_TREE"] = str(tree)
    return environment
