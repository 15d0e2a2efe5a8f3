"""What several snapshots changed, in one: git's three-way merge in the repository alone, no tree is looked at.

The repository is bare and its own attributes win, so no merge driver and no attribute that a tree asks for is used.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from pathlib import Path

from djinn.runner.git import WorkspaceError, git_version, run_git
from djinn.runner.snapshots import GIT_SECONDS, check_snapshot

MOST_SHOWN = 50
FIRST_VERSION = (2, 38)
_MERGE = ["merge-tree", "--write-tree", "-z", "--name-only", "--allow-unrelated-histories"]
_CLEAN, _CONFLICT = 0, 1


def merge_snapshots(git_dir: Path, snapshots: Sequence[str], message: str, *, lock: int) -> str:
    """The snapshot that has what all of them changed; see `Workspace.merge`."""
    if not snapshots:
        raise WorkspaceError("nothing to merge", permanent=True, reason="rejected")
    for snapshot in snapshots:
        check_snapshot(snapshot)
    heads = list(dict.fromkeys(snapshots))
    if len(heads) > 1:
        heads = _independent(git_dir, heads, lock)
    if len(heads) == 1:
        return heads[0]
    _check_version(lock)
    return _Merge(git_dir, lock, _moment(git_dir, heads, lock)).all(heads, message)


def _independent(git_dir: Path, snapshots: list[str], lock: int) -> list[str]:
    """Those that no other one is built on, in the order given."""
    command = ["rev-list", "--parents", "--stdin"]
    try:
        words = run_git(
            command, lock=lock, timeout_seconds=GIT_SECONDS, git_dir=git_dir, stdin="\n".join(snapshots).encode()
        )
    except WorkspaceError as exc:
        if exc.reason != "error":
            raise
        raise WorkspaceError(f"not all snapshots are here: {exc}", permanent=True, reason="rejected") from exc
    below = {parent for line in words.decode().splitlines() for parent in line.split()[1:]}
    return [snapshot for snapshot in snapshots if snapshot not in below]


def _moment(git_dir: Path, snapshots: list[str], lock: int) -> str:
    """The time of the youngest: a merge that is done again gives the same id."""
    command = ["rev-list", "--no-walk", "--timestamp", "--stdin"]
    words = run_git(
        command, lock=lock, timeout_seconds=GIT_SECONDS, git_dir=git_dir, stdin="\n".join(snapshots).encode()
    )
    return f"@{max(int(line.split()[0]) for line in words.decode().splitlines())} +0000"


class _Merge:
    """One merge of many: each snapshot in turn is merged into what the ones before gave.

    One that conflicts is passed over, so that the conflicts of all are told at once.
    """

    def __init__(self, git_dir: Path, lock: int, moment: str) -> None:
        self._git_dir = git_dir
        self._lock = lock
        self._moment = moment

    def all(self, heads: list[str], message: str) -> str:
        merged, conflicts = heads[0], list[set[bytes]]()
        for head in heads[1:]:
            tree, conflict = self._two(merged, head)
            if conflict is not None:
                conflicts.append(conflict)
            else:
                merged = self._commit(tree, heads if head == heads[-1] else [merged, head], message)
        if conflicts:
            raise _conflict(set().union(*conflicts))
        return merged

    def _two(self, one: str, other: str) -> tuple[str, set[bytes] | None]:
        """The tree, and the names of the files that both have changed differently; None after a clean merge.

        Git writes the tree, and after a conflict the names, an empty field and messages.
        """
        tree, *rest = self._git([*_MERGE, one, other]).rstrip(b"\0").split(b"\0")
        # What is a file on one side and a directory on the other is named NAME~SNAPSHOT.
        side = re.compile(rb"~(?:%b|%b)(?:_\d+)?$" % (one.encode(), other.encode()))
        names = {side.sub(b"", name) for name in itertools.takewhile(bool, rest)}
        return tree.decode(), names if rest else None

    def _commit(self, tree: str, parents: list[str], message: str) -> str:
        below = [word for parent in parents for word in ("-p", parent)]
        return self._git(["commit-tree", *below, tree], stdin=message.encode()).decode().strip()

    def _git(self, arguments: list[str], *, stdin: bytes = b"") -> bytes:
        return run_git(
            arguments,
            lock=self._lock,
            timeout_seconds=GIT_SECONDS,
            git_dir=self._git_dir,
            stdin=stdin,
            environment={"GIT_AUTHOR_DATE": self._moment, "GIT_COMMITTER_DATE": self._moment},
            accepted=(_CLEAN, _CONFLICT) if arguments[0] == "merge-tree" else (0,),
        )


def _conflict(names: set[bytes]) -> WorkspaceError:
    files = tuple(sorted(name.decode("utf-8", "replace") for name in names))
    shown = [name if name.isprintable() else repr(name) for name in files[:MOST_SHOWN]]
    more = [f"and {len(files) - MOST_SHOWN} more"] if len(files) > MOST_SHOWN else []
    text = f"parallel steps changed the same places: {', '.join([*shown, *more])}"
    return WorkspaceError(text, permanent=True, reason="conflict", files=files)


def _check_version(lock: int) -> None:
    """Raise a permanent `WorkspaceError` unless git can merge without a tree."""
    found = git_version(lock=lock)
    if found < FIRST_VERSION:
        needed, this = (".".join(map(str, version)) for version in (FIRST_VERSION, found))
        text = f"parallel steps are merged by git {needed} or newer, this is {this}"
        raise WorkspaceError(text, permanent=True, reason="error")
