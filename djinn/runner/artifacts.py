"""Files that a step leaves behind, taken out of its tree into a store where each is named by its content."""

from __future__ import annotations

import errno
import fnmatch
import hashlib
import os
import re
import stat
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from djinn.runner.git import WorkspaceError
from djinn.runner.walk import Entry, TooDeep, walk

MOST_ENTRIES = 1_000_000
LONGEST_GLOB = 1000
CHUNK_BYTES = 1024 * 1024
LEFTOVER_SECONDS = 3600.0
_PREFIX = ".unfinished-"
_ANY_DEPTH = "**"
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_GONE = (errno.ENOENT, errno.ELOOP, errno.ENXIO)
_FULL = (errno.ENOSPC, errno.EDQUOT)


@dataclass(frozen=True)
class Artifact:
    """One file as it was: its path in the tree with `/` between the parts, its size in bytes, its content's name."""

    path: str
    size: int
    sha256: str


def check_glob(text: str) -> str:
    """What is wrong with a pattern of artifacts; empty when nothing is."""
    parts = text.split("/")
    if not text.strip():
        return "a pattern of artifacts must not be empty"
    if len(text) > LONGEST_GLOB:
        return f"a pattern of artifacts has at most {LONGEST_GLOB} characters"
    if re.search(r"[\x00-\x1f\x7f]", text):
        return f"a pattern of artifacts has no control characters: {text!r}"
    if text.startswith("/"):
        return f"a pattern of artifacts is relative to the workspace: {text!r}"
    if ".." in parts:
        return f"a pattern of artifacts stays in the workspace, without '..': {text!r}"
    if any(part in ("", ".") for part in parts):
        return f"a pattern of artifacts names files, without '.' and empty parts: {text!r}"
    if any(_ANY_DEPTH in part and part != _ANY_DEPTH for part in parts):
        return f"'**' stands for whole directories only: {text!r}"
    return ""


def collect(
    tree: Path,
    globs: Sequence[str],
    into: Path,
    *,
    most_files: int = 1000,
    most_bytes: int = 200 * 1024**2,
) -> tuple[Artifact, ...]:
    """Copy the files of the tree that match to `into/<sha256>`, sorted by path.

    `*` stays in one directory and takes hidden names too, `**` is any number of directories. What is no regular file,
    reached through real directories, is left out, and so is every `.git`. Each copy is whole and on the disk when this
    returns; it may be repeated. Raises `WorkspaceError`, permanent with the reason "output_limit" above a bound.
    """
    for glob in globs:
        if problem := check_glob(glob):
            raise WorkspaceError(problem, permanent=True, reason="rejected")
    try:
        into.mkdir(parents=True, exist_ok=True)
        _remove_leftovers(into)
        found = tuple(_Collection(globs, into, most_files, most_bytes).of(tree))
        _sync(into)
        return tuple(sorted(found, key=lambda artifact: artifact.path))
    except OSError as exc:
        reason = "disk" if exc.errno in _FULL else "error"
        raise WorkspaceError(f"the artifacts: {exc}", permanent=False, reason=reason) from exc


class _Collection:
    """One look through a tree; the bounds hold for all patterns together."""

    def __init__(self, globs: Sequence[str], into: Path, most_files: int, most_bytes: int) -> None:
        self._globs = globs
        self._patterns = [_parts(glob) for glob in globs]
        self._into = into
        self._most_files, self._most_bytes = most_files, most_bytes
        self._files = self._bytes = 0

    def of(self, tree: Path) -> Iterator[Artifact]:
        try:
            for number, entry in enumerate(walk(tree, self._enters)):
                if number >= MOST_ENTRIES:
                    raise _above(", ".join(self._globs), f"looks through more than {MOST_ENTRIES} files")
                glob = self._match(entry)
                if glob and (artifact := self._take(entry, glob)) is not None:
                    yield artifact
        except TooDeep as exc:
            raise _above(", ".join(self._globs), f"finds {exc}") from exc

    def _enters(self, entry: Entry) -> bool:
        return entry.name != ".git" and any(_may_lead(pattern, entry.path) for pattern in self._patterns)

    def _match(self, entry: Entry) -> str:
        """The first pattern that the file matches."""
        if not stat.S_ISREG(entry.status.st_mode) or entry.name == ".git":
            return ""
        pairs = zip(self._globs, self._patterns, strict=True)
        return next((glob for glob, pattern in pairs if _matches(pattern, entry.path)), "")

    def _take(self, entry: Entry, glob: str) -> Artifact | None:
        """The file's copy; None when it is gone meanwhile, or is no regular file any more."""
        path = os.fsencode("/".join(entry.path)).decode("utf-8", "replace")
        try:
            file = os.open(entry.name, _FILE, dir_fd=entry.directory)
        except PermissionError as exc:
            raise WorkspaceError(f"the artifact {path!r} cannot be read", permanent=True, reason="error") from exc
        except OSError as exc:
            if exc.errno in _GONE:
                return None
            raise
        try:
            status = os.fstat(file)
            if not stat.S_ISREG(status.st_mode):
                return None
            self._files += 1
            if self._files > self._most_files:
                raise _above(glob, f"has more than {self._most_files} files")
            if status.st_size > self._most_bytes - self._bytes:
                raise self._too_big(glob)
            size, sha256 = self._copy(file, glob)
        finally:
            os.close(file)
        return Artifact(path, size, sha256)

    def _copy(self, file: int, glob: str) -> tuple[int, str]:
        """What is read is what is counted and hashed, however the file changes meanwhile."""
        digest, size = hashlib.sha256(), 0
        with tempfile.NamedTemporaryFile(dir=self._into, prefix=_PREFIX, delete=False) as copy:
            try:
                while chunk := os.read(file, CHUNK_BYTES):
                    size += len(chunk)
                    if size > self._most_bytes - self._bytes:
                        raise self._too_big(glob)
                    digest.update(chunk)
                    copy.write(chunk)
                copy.flush()
                os.fsync(copy.fileno())
                os.replace(copy.name, self._into / digest.hexdigest())
            except BaseException:
                Path(copy.name).unlink()
                raise
        self._bytes += size
        return size, digest.hexdigest()

    def _too_big(self, glob: str) -> WorkspaceError:
        return _above(glob, f"has more than {self._most_bytes} bytes")


def _parts(glob: str) -> tuple[str, ...]:
    """The pattern part by part; `**` at its end stands for everything below."""
    parts = tuple(glob.split("/"))
    return (*parts, "*") if parts[-1] == _ANY_DEPTH else parts


def _matches(pattern: tuple[str, ...], path: tuple[str, ...]) -> bool:
    """Whether the pattern is over when the path is."""
    return () in _rests(pattern, path)


def _may_lead(pattern: tuple[str, ...], directory: tuple[str, ...]) -> bool:
    """Whether something below the directory may match."""
    return any(_rests(pattern, directory))


def _rests(pattern: tuple[str, ...], path: tuple[str, ...]) -> set[tuple[str, ...]]:
    """What is left of the pattern, in every way in which it can begin with the path."""
    rests = _skipped(pattern)
    for part in path:
        further = set[tuple[str, ...]]()
        for rest in rests:
            if rest and rest[0] == _ANY_DEPTH:
                further |= _skipped(rest)
            elif rest and fnmatch.fnmatchcase(part, rest[0]):
                further |= _skipped(rest[1:])
        rests = further
    return rests


def _skipped(pattern: tuple[str, ...]) -> set[tuple[str, ...]]:
    """The pattern, and what it is when the `**` at its beginning stand for no directory."""
    found = {pattern}
    while pattern and pattern[0] == _ANY_DEPTH:
        pattern = pattern[1:]
        found.add(pattern)
    return found


def _above(pattern: str, what: str) -> WorkspaceError:
    return WorkspaceError(f"the artifacts {pattern!r}: it {what}", permanent=True, reason="output_limit")


def _remove_leftovers(into: Path) -> None:
    """What a process that was killed has left; younger ones may be another process's."""
    for path in into.glob(f"{_PREFIX}*"):
        try:
            if time.time() - path.stat().st_mtime > LEFTOVER_SECONDS:
                path.unlink()
        except FileNotFoundError:
            continue


def _sync(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
