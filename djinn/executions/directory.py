"""An execution's directory on this host: what is put there for the container, and what it has left there.

The directory and the brief in it are the host's: the container may read them and change nothing. It writes its journal,
a file that is there before it starts and that it cannot replace, and what lies in `scratch`.
"""

from __future__ import annotations

import os
from pathlib import Path

from djinn.runner import beneath
from djinn.runner.beneath import Owner
from djinn.runner.files import remove_tree
from runtime_image.djinn_runtime.protocol import BRIEF_NAME, JOURNAL_NAME, SCRATCH_NAME

OWN_TREE = "workspace"
"""The tree of an execution that shares none."""


def lay_out(directory: Path, brief: bytes, *, owner: Owner | None, has_own_tree: bool) -> None:
    """Make the directory ready for a start; may be repeated, a journal that was begun stays. Raises OSError.

    `owner` is the container's user and group, or None when that is our own.
    """
    _take_back(directory)
    ours = None if owner is None else (os.geteuid(), owner[1])
    group = 0 if owner is None else 0o040
    beneath.ensure_directory(directory.parent, directory.name, mode=0o700 | group | (group >> 2), owner=ours)
    beneath.replace_file(directory, BRIEF_NAME, brief, mode=0o400 | group, owner=ours)
    beneath.ensure_file(directory, JOURNAL_NAME, mode=0o600, owner=owner)
    for name in (SCRATCH_NAME, OWN_TREE) if has_own_tree else (SCRATCH_NAME,):
        beneath.ensure_directory(directory, name, mode=0o700, owner=owner)


def has_journal(directory: Path) -> bool:
    """Whether anything stands at the journal's name but an empty file, as we make it."""
    try:
        journal = beneath.open_file(directory, JOURNAL_NAME)
    except FileNotFoundError:
        return False
    except OSError:
        return True
    try:
        return os.fstat(journal).st_size > 0
    finally:
        os.close(journal)


def _take_back(directory: Path) -> None:
    """Remove a directory that belongs to a container's user: before it was the host's, the container could fill it."""
    try:
        owner = os.lstat(directory).st_uid
    except FileNotFoundError:
        return
    if owner != os.geteuid():
        remove_tree(directory)
