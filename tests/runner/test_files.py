"""Trees that others have made are removed whole, and small files are replaced in one step."""

from __future__ import annotations

import os
import resource
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from runner_bench import nest

from djinn.runner.files import link_repository, read_json, remove_tree, write_json
from djinn.runner.source import Source
from djinn.runner.workspace import Workspace

DEEP = 1200
MOST_OPEN = 256


@pytest.fixture
def deep(tmp_path: Path) -> Iterator[Path]:
    """A place for what pytest itself could not remove, should the test fail."""
    place = tmp_path / "deep"
    place.mkdir()
    yield place
    subprocess.run(["rm", "-rf", str(place)], check=True, timeout=60)


def remove_as(user: int, tree: Path) -> int:
    """How a process of that user ended that removed the tree; 0 is well."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (MOST_OPEN, MOST_OPEN))
            if user != os.getuid():
                os.setuid(user)
            remove_tree(tree)
            code = 0
        finally:
            os._exit(code)
    return os.waitpid(child, 0)[1]


def test_a_tree_is_removed_however_deep_it_is(deep: Path) -> None:
    """By a process that may open fewer files than there are levels."""
    (deep / "tree").mkdir()
    nest(deep / "tree", DEEP)
    assert (remove_as(os.getuid(), deep / "tree"), list(deep.iterdir())) == (0, [])


def test_a_run_goes_on_and_ends_after_a_step_that_nested_directories(deep: Path) -> None:
    """The next step gets its workspace, and the workspace can be removed."""
    owner = (10001, 10001) if os.getuid() == 0 else None
    workspace = Workspace(deep / "run", owner=owner)
    base = workspace.prepare(Source())
    nest(workspace.tree, DEEP)
    workspace.restore(workspace.snapshot("deep", parent=base))
    workspace.remove()
    assert not workspace.root.exists()


def test_what_a_link_leads_to_is_not_removed(tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "file").touch()
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "link").symlink_to(tmp_path / "outside")
    remove_tree(tmp_path / "tree")
    assert [path.name for path in tmp_path.rglob("*")] == ["outside", "file"]


def test_removing_what_is_absent_is_no_error(tmp_path: Path) -> None:
    remove_tree(tmp_path / "gone")
    assert not (tmp_path / "gone").exists()


@pytest.mark.parametrize("mode", [0o000, 0o500, 0o200])
def test_what_its_owner_made_read_only_is_removed(mode: int) -> None:
    """By that owner, who is not root: root is never refused."""
    with tempfile.TemporaryDirectory() as name:
        tree = Path(name, "tree")
        (tree / "a" / "b").mkdir(parents=True)
        (tree / "a" / "b" / "file").touch()
        user = os.getuid() or 10001
        for path in (Path(name), tree, tree / "a", tree / "a" / "b", tree / "a" / "b" / "file"):
            os.chown(path, user, -1)
        for path in (tree / "a" / "b", tree / "a", tree):
            path.chmod(mode)
        assert (remove_as(user, tree), tree.exists()) == (0, False)


def test_a_small_file_comes_back_as_it_was_written(tmp_path: Path) -> None:
    write_json(tmp_path / "file", {"a": [1, None]})
    assert (read_json(tmp_path / "file"), read_json(tmp_path / "gone")) == ({"a": [1, None]}, None)


def test_objects_that_repositories_share_are_readable_by_the_containers_user(tmp_path: Path) -> None:
    """The stack's processes close what they make to others."""
    objects = tmp_path / "history" / "objects" / "7a"
    objects.mkdir(parents=True)
    (objects / "60b85e").write_bytes(b"x")
    (objects / "60b85e").chmod(0o400)
    link_repository(tmp_path / "history", tmp_path / "tree")
    status = (tmp_path / "tree" / "objects" / "7a" / "60b85e").stat()
    assert (status.st_mode & 0o777, status.st_nlink) == (0o444, 2)
