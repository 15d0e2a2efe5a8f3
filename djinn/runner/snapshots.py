"""Snapshots of a tree in a repository outside of it, made by git's plumbing alone."""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path

from djinn.runner.git import WorkspaceError, run_git

GIT_SECONDS = 300.0
LAST = "refs/djinn/last"
# Nobody collects garbage here (`gitconfig`); even an operator's own `git gc` keeps every snapshot, for none has a name.
CONFIGURATION = "[gc]\n\tpruneExpire = never\n\treflogExpire = never\n"
# Stronger than any .gitattributes of the tree: bytes stay as they are, and no driver is ever looked up.
ATTRIBUTES = "* -text !eol -ident -filter -working-tree-encoding !diff !merge !export-subst\n"
_SNAPSHOT = re.compile(r"[0-9a-f]{40}")
_GITLINK = b"160000"


class Snapshots:
    """The repository `git_dir` and the tree that it pictures. The caller holds the workspace's lock.

    `reference` names the snapshot that the tree was last known to be; `index` is the file that git keeps of the tree's
    state, `git_dir`'s own unless it is given.
    """

    def __init__(self, git_dir: Path, tree: Path, *, reference: str = LAST, index: Path | None = None) -> None:
        self.git_dir = git_dir
        self.tree = tree
        self.skipped: tuple[str, ...] = ()
        self._reference = reference
        self._index_file = index or git_dir / "index"

    def create(self, lock: int) -> None:
        run_git(["init", "--quiet", "--bare", "--template=", str(self.git_dir)], lock=lock, timeout_seconds=GIT_SECONDS)
        (self.git_dir / "info").mkdir(exist_ok=True)
        (self.git_dir / "info" / "attributes").write_text(ATTRIBUTES)
        with (self.git_dir / "config").open("a") as file:
            file.write(CONFIGURATION)

    def take(self, message: str, lock: int, *, parent: str = "") -> str:
        """The commit of the tree as it is now, on top of `parent` or else of the last one.

        The parent itself when nothing changed since, and the last one when it says the same already.
        """
        self._index(lock)
        tree = self._git(["write-tree"], lock).decode().strip()
        last, last_tree, *last_parents = self._last(lock)
        if parent and self.tree_of(parent, lock) == tree:
            return parent
        if last and last_tree == tree and (not parent or last_parents == [parent]):
            return last
        below = ["-p", parent or last] if parent or last else []
        commit = self._git(["commit-tree", *below, tree], lock, stdin=message.encode()).decode().strip()
        self._git(["update-ref", self._reference, commit], lock)
        return commit

    def restore(self, snapshot: str, lock: int) -> None:
        """Make the tree what it was; the state of now is indexed first, so that what came later is removed."""
        tree = self.tree_of(snapshot, lock)
        self._index(lock)
        self._git(["read-tree", "--reset", "-u", tree], lock)
        self._git(["update-ref", self._reference, snapshot], lock)

    def tree_of(self, snapshot: str, lock: int) -> str:
        """The id of the snapshot's tree. Raises a permanent `WorkspaceError` when there is no such snapshot."""
        check_snapshot(snapshot)
        command = ["rev-parse", "--quiet", "--verify", f"{snapshot}^{{tree}}"]
        try:
            return self._git(command, lock).decode().strip()
        except WorkspaceError as exc:
            if exc.reason != "error":
                raise
            raise WorkspaceError(f"no such snapshot: {snapshot}", permanent=True, reason="rejected") from exc

    def _last(self, lock: int) -> list[str]:
        """The last snapshot with its tree and its parents; two empty texts when there is none."""
        command = ["for-each-ref", "--format=%(objectname) %(tree) %(parent)", self._reference]
        return self._git(command, lock).decode().split() or ["", ""]

    def _index(self, lock: int) -> None:
        """Bring the index to the tree's state. `git add` and `git status` would open repositories inside the tree."""
        self._remove_stale_locks()
        cached = _names(self._git(["ls-files", "-z", "--cached"], lock))
        others = _names(self._git(["ls-files", "-z", "--others", "--exclude-standard"], lock))
        gone = [name for name in cached if not self._is_file(name)]
        if gone:
            self._git(["update-index", "-z", "--force-remove", "--stdin"], lock, stdin=_joined(gone))
        self.skipped = tuple(name.decode("utf-8", "replace") for name in others if name.endswith(b"/"))
        present = [name for name in (*cached, *others) if not name.endswith(b"/") and self._is_file(name)]
        self._git(["update-index", "-z", "--add", "--remove", "--replace", "--stdin"], lock, stdin=_joined(present))
        self._drop_gitlinks(lock)

    def _drop_gitlinks(self, lock: int) -> None:
        """A file that became a repository while it was indexed is left out like any other repository."""
        staged = _names(self._git(["ls-files", "-z", "--stage"], lock))
        links = [line.partition(b"\t")[2] for line in staged if line.startswith(_GITLINK)]
        if links:
            self._git(["update-index", "-z", "--force-remove", "--stdin"], lock, stdin=_joined(links))
            self.skipped += tuple(name.decode("utf-8", "replace") for name in links)

    def _is_file(self, name: bytes) -> bool:
        """Whether the name is a file or a link now, reached through real directories only."""
        path = os.fsencode(self.tree)
        *directories, last = name.split(b"/")
        try:
            for directory in directories:
                path = os.path.join(path, directory)
                if not stat.S_ISDIR(os.lstat(path).st_mode):
                    return False
            mode = os.lstat(os.path.join(path, last)).st_mode
        except (FileNotFoundError, NotADirectoryError):
            return False
        return stat.S_ISREG(mode) or stat.S_ISLNK(mode)

    def _remove_stale_locks(self) -> None:
        """Whoever made them is dead: git holds the workspace's lock as long as it lives."""
        index = self._index_file.with_name(f"{self._index_file.name}.lock")
        for path in (index, *self.git_dir.glob("refs/**/*.lock"), self.git_dir / "HEAD.lock"):
            path.unlink(missing_ok=True)

    def _git(self, arguments: list[str], lock: int, *, stdin: bytes = b"") -> bytes:
        return run_git(
            arguments,
            lock=lock,
            timeout_seconds=GIT_SECONDS,
            git_dir=self.git_dir,
            tree=self.tree,
            stdin=stdin,
            environment={"GIT_INDEX_FILE": str(self._index_file)},
        )


def check_snapshot(snapshot: str) -> None:
    """Raise a permanent `WorkspaceError` unless the text is a snapshot's id."""
    if not _SNAPSHOT.fullmatch(snapshot):
        raise WorkspaceError(f"not a snapshot: {snapshot!r}", permanent=True, reason="rejected")


def _names(output: bytes) -> list[bytes]:
    return [name for name in output.split(b"\0") if name]


def _joined(names: list[bytes]) -> bytes:
    return b"".join(name + b"\0" for name in names)
