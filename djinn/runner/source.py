"""Where a workspace comes from, and how its first content is fetched."""

from __future__ import annotations

import os
import re
import shutil
import stat
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from djinn.runner.files import remove_tree
from djinn.runner.git import WorkspaceError, git_version, run_git
from djinn.runner.remote import public_addresses, read_remote, rejected

CLONE_SECONDS = 900.0
CHECKOUT_SECONDS = 300.0
TRIES, PAUSE_SECONDS = 2, 1.0
PINNING_GIT = (2, 37)
"""The first version that has `http.curloptResolve`."""
_BAD_REF = re.compile(r"[\x00-\x20\x7f~^:?*\[\\]|\.\.|@\{|//|^[-/]|[./]$|\.lock$")


@dataclass(frozen=True)
class Source:
    """A repository (https, http or ssh URL) or an absolute local path that the caller has allowed, and a ref.

    A local path may be a repository or a bundle, which is cloned, or a plain directory, which is copied. An empty
    repository means a fresh one; an empty ref means the default branch.
    """

    repository: str = ""
    ref: str = ""


def check_source(source: Source) -> None:
    """Raise a permanent `WorkspaceError` unless the source is one that git may be asked for."""
    if source.ref and _BAD_REF.search(source.ref):
        raise rejected(f"not a ref that can be checked out: {source.ref!r}")
    if source.repository and not _is_local(source.repository):
        read_remote(source.repository)


def fetch(
    source: Source,
    tree: Path,
    *,
    lock: int,
    allowed_hosts: Collection[str] = (),
    is_full: Callable[[], bool] | None = None,
) -> None:
    """Fill `tree`, which does not exist yet, with the source. It may hold a `.git` of its own then.

    On the network it is looked for at public addresses, and wherever one of the `allowed_hosts` (`host` or `host:port`)
    is. It ends when `is_full` says so. Raises `WorkspaceError`, permanent when a second try has failed as well.
    """
    check_source(source)
    path = Path(source.repository)
    if not source.repository:
        tree.mkdir()
    elif not _is_local(source.repository):
        _clone_remote(source, tree, lock=lock, allowed_hosts=allowed_hosts, is_full=is_full)
    elif not path.exists():
        raise rejected(f"no such path: {path}")
    elif path.is_dir() and not _is_repository(path):
        if source.ref:
            raise rejected(f"a plain directory has no refs: {source.ref!r}")
        _copy(path, tree)
    else:
        _clone(source, str(path), tree, lock=lock, environment={"GIT_ALLOW_PROTOCOL": "file"}, is_full=is_full)


def _clone_remote(
    source: Source, tree: Path, *, lock: int, allowed_hosts: Collection[str], is_full: Callable[[], bool] | None
) -> None:
    """Clone over the network, and once more after a failure that may pass."""
    remote = read_remote(source.repository)
    for tries_left in reversed(range(TRIES)):
        try:
            addresses = () if remote.is_allowed(allowed_hosts) else public_addresses(remote)
            if addresses and remote.scheme != "ssh":
                _require_pinning(lock=lock)
            _clone(source, remote.url, tree, lock=lock, environment=remote.environment(addresses), is_full=is_full)
            return
        except WorkspaceError as exc:
            remove_tree(tree)
            if exc.permanent:
                raise
            if not tries_left:
                text = f"The repository could not be cloned, tried {TRIES} times: {exc}"
                raise WorkspaceError(text, permanent=True, reason=exc.reason) from exc
            time.sleep(PAUSE_SECONDS)


def _require_pinning(*, lock: int) -> None:
    """An older git asks for the name's address a second time, and may be told another one."""
    major, minor = git_version(lock=lock)
    if (major, minor) < PINNING_GIT:
        raise rejected(
            f"This worker's git {major}.{minor} cannot be bound to an address. Update it to 2.37 or newer, or have an "
            f"administrator allow the host in DJINN_REPOSITORY_HOSTS."
        )


def _clone(
    source: Source,
    url: str,
    tree: Path,
    *,
    lock: int,
    environment: Mapping[str, str],
    is_full: Callable[[], bool] | None,
) -> None:
    """Clone, then check the ref out."""
    arguments = ["clone", "--quiet", "--no-checkout", "--no-local", "--template=", "--", url, str(tree)]
    run_git(arguments, lock=lock, timeout_seconds=CLONE_SECONDS, environment=environment, is_full=is_full)
    if source.ref or _has_commits(tree, lock=lock):
        _check_out(source.ref or "HEAD", tree, lock=lock, is_full=is_full)


def _check_out(ref: str, tree: Path, *, lock: int, is_full: Callable[[], bool] | None) -> None:
    """The configuration beside the tree was written by the clone just now, so there is no driver that could run."""
    try:
        _git_in(tree, ["checkout", "--quiet", ref, "--"], lock=lock, is_full=is_full)
    except WorkspaceError as exc:
        if exc.reason != "error":
            raise
        raise rejected(str(exc)) from exc


def _has_commits(tree: Path, *, lock: int) -> bool:
    return bool(_git_in(tree, ["for-each-ref", "--count=1"], lock=lock).strip())


def _git_in(tree: Path, arguments: list[str], *, lock: int, is_full: Callable[[], bool] | None = None) -> bytes:
    return run_git(
        arguments, lock=lock, timeout_seconds=CHECKOUT_SECONDS, git_dir=tree / ".git", tree=tree, is_full=is_full
    )


def _copy(source: Path, tree: Path) -> None:
    """Copy files, directories and symbolic links as they are. What is special is left out, and so is every `.git`."""

    def left_out(directory: str, names: list[str]) -> list[str]:
        return [name for name in names if name == ".git" or not _is_ordinary(Path(directory, name))]

    try:
        shutil.copytree(source, tree, symlinks=True, ignore=left_out)
    except (OSError, shutil.Error) as exc:
        raise WorkspaceError(f"{source} cannot be copied: {exc}", permanent=False, reason=_disk_or_error(exc)) from exc


def _disk_or_error(error: Exception) -> str:
    return "disk" if "No space left on device" in str(error) else "error"


def _is_ordinary(path: Path) -> bool:
    mode = os.lstat(path).st_mode
    return stat.S_ISREG(mode) or stat.S_ISDIR(mode) or stat.S_ISLNK(mode)


def _is_local(text: str) -> bool:
    return text.startswith("/") and "\x00" not in text


def _is_repository(path: Path) -> bool:
    return (path / ".git").exists() or ((path / "HEAD").is_file() and (path / "objects").is_dir())
