"""Where a workspace comes from, and how its first content is fetched."""

from __future__ import annotations

import os
import re
import shutil
import stat
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from djinn.runner.git import REMOTE_PROTOCOLS, WorkspaceError, remote_environment, run_git, scrub

CLONE_SECONDS = 900.0
CHECKOUT_SECONDS = 300.0
_SCHEMES = ("https", "http", "ssh", "git")
_SCP = re.compile(r"(?:[A-Za-z0-9_][\w.+-]*@)?[A-Za-z0-9][\w.-]*:(?!:)[^:\s][^\s]*")
_BAD_REF = re.compile(r"[\x00-\x20\x7f~^:?*\[\\]|\.\.|@\{|//|^[-/]|[./]$|\.lock$")


@dataclass(frozen=True)
class Source:
    """A repository (https, ssh or git URL) or an absolute local path that the caller has allowed, and a ref.

    A local path may be a repository or a bundle, which is cloned, or a plain directory, which is copied. An empty
    repository means a fresh one; an empty ref means the default branch.
    """

    repository: str = ""
    ref: str = ""


def check_source(source: Source) -> None:
    """Raise a permanent `WorkspaceError` unless the source is one that git may be asked for."""
    text = source.repository
    if source.ref and _BAD_REF.search(source.ref):
        raise _rejected(f"not a ref that can be checked out: {source.ref!r}")
    if not text or _is_local(text):
        return
    if re.search(r"[\x00-\x20\x7f]", text) or text.startswith("-") or re.match(r"[\w+.-]*::", text):
        raise _rejected(f"not a repository: {scrub(text)!r}")
    if "://" not in text:
        if not _SCP.fullmatch(text):
            raise _rejected(f"neither a URL nor an absolute path: {scrub(text)!r}")
        return
    try:
        parts = urlsplit(text)
        is_host_good = bool(parts.hostname) and not str(parts.hostname).startswith("-")
    except ValueError as exc:
        raise _rejected(f"not a URL: {scrub(text)!r}") from exc
    if parts.scheme not in _SCHEMES or not is_host_good:
        raise _rejected(f"a repository is fetched by {', '.join(_SCHEMES)} only: {scrub(text)!r}")


def fetch(source: Source, tree: Path, *, lock: int) -> None:
    """Fill `tree`, which does not exist yet, with the source. It may hold a `.git` of its own then."""
    check_source(source)
    path = Path(source.repository)
    if not source.repository:
        tree.mkdir()
    elif _is_local(source.repository) and not path.exists():
        raise _rejected(f"no such path: {path}")
    elif _is_local(source.repository) and path.is_dir() and not _is_repository(path):
        if source.ref:
            raise _rejected(f"a plain directory has no refs: {source.ref!r}")
        _copy(path, tree)
    else:
        _clone(source, tree, lock=lock)


def _clone(source: Source, tree: Path, *, lock: int) -> None:
    """Clone, then check the ref out. A secret in the URL reaches neither the command line nor the repository."""
    url, environment = _without_secret(source.repository)
    environment |= remote_environment("file" if _is_local(source.repository) else REMOTE_PROTOCOLS)
    arguments = ["clone", "--quiet", "--no-checkout", "--no-local", "--template=", "--", url, str(tree)]
    run_git(arguments, lock=lock, timeout_seconds=CLONE_SECONDS, environment=environment)
    if source.ref or _has_commits(tree, lock=lock):
        _check_out(source.ref or "HEAD", tree, lock=lock)


def _check_out(ref: str, tree: Path, *, lock: int) -> None:
    """The configuration beside the tree was written by the clone just now, so there is no driver that could run."""
    try:
        _git_in(tree, ["checkout", "--quiet", ref, "--"], lock=lock)
    except WorkspaceError as exc:
        if exc.reason != "error":
            raise
        raise _rejected(str(exc)) from exc


def _has_commits(tree: Path, *, lock: int) -> bool:
    return bool(_git_in(tree, ["for-each-ref", "--count=1"], lock=lock).strip())


def _git_in(tree: Path, arguments: list[str], *, lock: int) -> bytes:
    return run_git(arguments, lock=lock, timeout_seconds=CHECKOUT_SECONDS, git_dir=tree / ".git", tree=tree)


def _without_secret(url: str) -> tuple[str, dict[str, str]]:
    """The URL to write down, and variables that make git put the user and password back while it talks."""
    if "://" not in url or "@" not in urlsplit(url).netloc or urlsplit(url).scheme not in ("http", "https"):
        return url, {}
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    variables = {
        "GIT_CONFIG_COUNT": "1",
        "GIT_CONFIG_KEY_0": f"url.{parts.scheme}://{parts.netloc}/.insteadOf",
        "GIT_CONFIG_VALUE_0": f"{parts.scheme}://{host}/",
    }
    return parts._replace(netloc=host).geturl(), variables


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


def _rejected(text: str) -> WorkspaceError:
    return WorkspaceError(text, permanent=True, reason="rejected")
