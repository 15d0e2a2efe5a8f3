"""Where a workspace comes from, what its snapshots keep, and what they put back."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import threading
from pathlib import Path

import pytest
from runner_bench import wait_until

from djinn.runner.git import WorkspaceError, scrub
from djinn.runner.source import Source
from djinn.runner.workspace import Workspace

IDENTITY = ["-c", "user.name=a", "-c", "user.email=a@a"]


def git(directory: Path, *arguments: str) -> str:
    command = ["git", "-c", "safe.directory=*", *IDENTITY, *arguments]
    result = subprocess.run(command, cwd=directory, check=True, capture_output=True, text=True, timeout=60)
    return result.stdout.strip()


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace(tmp_path / "run", owner=None)


@pytest.fixture
def fresh(workspace: Workspace) -> Workspace:
    workspace.prepare(Source())
    return workspace


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """Two branches and a tag: main says "two", old and v1 say "one"."""
    path = tmp_path / "origin"
    path.mkdir()
    git(path, "init", "-q", "-b", "main")
    for text in ("one", "two"):
        (path / "file").write_text(text)
        git(path, "add", ".")
        git(path, "commit", "-qm", text)
    git(path, "branch", "old", "HEAD~")
    git(path, "tag", "v1", "HEAD~")
    return path


def contents(tree: Path) -> dict[str, bytes | str]:
    """Every file and link below the tree, `.git` left out."""
    found: dict[str, bytes | str] = {}
    for directory, names, files in os.walk(os.fsencode(tree)):
        names[:] = [name for name in names if name != b".git"]
        for name in (*files, *(n for n in names if os.path.islink(os.path.join(directory, n)))):
            path = os.path.join(directory, name)
            key = os.fsdecode(os.path.relpath(path, os.fsencode(tree)))
            found[key] = os.readlink(path).decode() if os.path.islink(path) else Path(os.fsdecode(path)).read_bytes()
    return found


def test_an_empty_source_is_a_fresh_repository(fresh: Workspace) -> None:
    assert git(fresh.tree, "rev-list", "--count", "HEAD") == "1"


def test_a_plain_directory_is_copied_without_its_repositories(workspace: Workspace, tmp_path: Path) -> None:
    source = tmp_path / "plain"
    (source / "inner" / ".git").mkdir(parents=True)
    (source / "inner" / "file").write_text("x")
    (source / "link").symlink_to("/etc/passwd")
    os.mkfifo(source / "pipe")
    workspace.prepare(Source(str(source)))
    assert contents(workspace.tree) == {"inner/file": b"x", "link": "/etc/passwd"}
    assert git(workspace.tree, "status", "--porcelain") == ""


@pytest.mark.parametrize(("ref", "text"), [("", "two"), ("old", "one"), ("v1", "one"), ("main", "two")])
def test_a_local_repository_is_cloned_at_its_ref(workspace: Workspace, repository: Path, ref: str, text: str) -> None:
    workspace.prepare(Source(str(repository), ref))
    assert (workspace.tree / "file").read_text() == text


def test_a_commit_is_a_ref_too(workspace: Workspace, repository: Path) -> None:
    workspace.prepare(Source(str(repository), git(repository, "rev-parse", "HEAD~")))
    assert (workspace.tree / "file").read_text() == "one"


def test_a_bundle_is_cloned(workspace: Workspace, repository: Path, tmp_path: Path) -> None:
    git(repository, "bundle", "create", "-q", str(tmp_path / "b.bundle"), "--all", "HEAD")
    workspace.prepare(Source(str(tmp_path / "b.bundle")))
    assert (workspace.tree / "file").read_text() == "two"


def test_an_empty_repository_is_cloned(workspace: Workspace, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    git(tmp_path / "empty", "init", "-q")
    workspace.prepare(Source(str(tmp_path / "empty")))
    assert contents(workspace.tree) == {}


def test_preparing_again_changes_nothing(workspace: Workspace, repository: Path) -> None:
    first = workspace.prepare(Source(str(repository)))
    (workspace.tree / "mine").write_text("x")
    assert (workspace.prepare(Source(str(repository))), (workspace.tree / "mine").exists()) == (first, True)


def test_a_preparation_that_died_half_way_starts_over(workspace: Workspace, repository: Path) -> None:
    workspace.prepare(Source(str(repository)))
    (workspace.root / "prepared.json").unlink()
    (workspace.tree / "leftover").write_text("x")
    workspace.prepare(Source(str(repository)))
    assert contents(workspace.tree) == {"file": b"two"}


REFUSED = [
    "--upload-pack=touch x", "-x", "ext::sh -c 'touch x'", "fd::17", "file:///etc", "ftp://h/x", "https://",
    "relative/path",
    "ssh://-oProxyCommand=x/y", "http://h/a b", "https://h/\nx", "transport::address", "-oProxyCommand=x:y",
]  # fmt: skip


@pytest.mark.parametrize("repository", REFUSED)
def test_an_address_that_could_do_harm_is_rejected(workspace: Workspace, repository: str) -> None:
    with pytest.raises(WorkspaceError) as caught:
        workspace.prepare(Source(repository))
    assert (caught.value.permanent, caught.value.reason) == (True, "rejected")


@pytest.mark.parametrize("ref", ["-x", "--upload-pack=x", "a b", "a..b", "a\nb", "a^{/x}", "no-such-ref"])
def test_a_ref_that_cannot_be_checked_out_is_rejected(workspace: Workspace, repository: Path, ref: str) -> None:
    with pytest.raises(WorkspaceError) as caught:
        workspace.prepare(Source(str(repository), ref))
    assert (caught.value.permanent, caught.value.reason) == (True, "rejected")


def test_a_path_that_is_not_there_is_rejected(workspace: Workspace, tmp_path: Path) -> None:
    with pytest.raises(WorkspaceError, match="no such path"):
        workspace.prepare(Source(str(tmp_path / "gone")))


def test_a_failed_clone_tells_gits_words_without_the_secret(workspace: Workspace) -> None:
    with pytest.raises(WorkspaceError) as caught:
        workspace.prepare(Source("http://user:s3cret@127.0.0.1:9/x.git"), allowed_hosts=["127.0.0.1"])
    assert "127.0.0.1" in str(caught.value)
    assert "s3cret" not in str(caught.value)


def test_a_url_is_shown_without_its_user(workspace: Workspace) -> None:
    assert scrub("at 'https://a:b@h/x' and ssh://c@h/y") == "at 'https://h/x' and ssh://h/y"


def hard_names(tree: Path) -> None:
    root = os.fsencode(tree)
    names = [
        b"-rf",
        b"--upload-pack=x",
        b"a\nb",
        b"n\xff",
        b" ",
        b"tab\t",
        b'"quote"',
        b"git~1",
        b"back\\slash",
        b"caf\xc3\xa9",
    ]
    for name in names:
        with open(os.path.join(root, name), "wb") as file:
            file.write(name)
    (tree / "crlf").write_bytes(b"a\r\nb\n")
    (tree / "empty").touch()
    (tree / "binary").write_bytes(bytes(range(256)))
    (tree / "run").write_text("#!/bin/sh\n")
    (tree / "run").chmod(0o755)
    (tree / "out").symlink_to("/etc/passwd")
    (tree / "nowhere").symlink_to("gone")
    (tree / "deep" / "er").mkdir(parents=True)
    (tree / "deep" / "er" / "file").write_text("x")
    (tree / ".gitattributes").write_text("* text eol=crlf ident working-tree-encoding=UTF-16 filter=x\n")


def test_hard_names_and_contents_come_back_byte_for_byte(fresh: Workspace) -> None:
    hard_names(fresh.tree)
    before = contents(fresh.tree)
    snapshot = fresh.snapshot("hard")
    for name in os.listdir(os.fsencode(fresh.tree)):
        if name not in (b".git", b"deep"):
            os.unlink(os.path.join(os.fsencode(fresh.tree), name))
    fresh.restore(snapshot)
    assert contents(fresh.tree) == before
    assert os.access(fresh.tree / "run", os.X_OK)


def test_what_came_after_the_snapshot_goes(fresh: Workspace) -> None:
    snapshot = fresh.snapshot("before")
    (fresh.tree / "later").mkdir()
    (fresh.tree / "later" / "file").write_text("x")
    fresh.restore(snapshot)
    assert contents(fresh.tree) == {}


def test_an_unchanged_tree_gives_the_same_snapshot(fresh: Workspace) -> None:
    assert fresh.snapshot("one") == fresh.snapshot("two")


def to_link(tree: Path) -> None:
    (tree / "d").rename(tree / "elsewhere")
    (tree / "d").symlink_to("elsewhere")


def to_file(tree: Path) -> None:
    (tree / "d" / "f").unlink()
    (tree / "d").rmdir()
    (tree / "d").write_text("file")


def to_directory(tree: Path) -> None:
    (tree / "d" / "f").unlink()
    (tree / "d" / "f").mkdir()
    (tree / "d" / "f" / "g").write_text("g")


@pytest.mark.parametrize("change", [to_link, to_file, to_directory])
def test_a_change_of_kind_is_kept_and_put_back(fresh: Workspace, change: object) -> None:
    assert callable(change)
    (fresh.tree / "d").mkdir()
    (fresh.tree / "d" / "f").write_text("x")
    before, first = contents(fresh.tree), fresh.snapshot("one")
    change(fresh.tree)
    after, second = contents(fresh.tree), fresh.snapshot("two")
    fresh.restore(first)
    assert contents(fresh.tree) == before
    fresh.restore(second)
    assert contents(fresh.tree) == after


def test_restore_does_not_write_through_a_link(fresh: Workspace, tmp_path: Path) -> None:
    (fresh.tree / "d").mkdir()
    (fresh.tree / "d" / "f").write_text("x")
    snapshot = fresh.snapshot("one")
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "f").write_text("mine")
    (fresh.tree / "d" / "f").unlink()
    (fresh.tree / "d").rmdir()
    (fresh.tree / "d").symlink_to(outside)
    fresh.restore(snapshot)
    assert ((outside / "f").read_text(), (fresh.tree / "d" / "f").read_text()) == ("mine", "x")


def test_ignored_files_are_left_alone(fresh: Workspace) -> None:
    (fresh.tree / ".gitignore").write_text("cache/\n")
    snapshot = fresh.snapshot("one")
    (fresh.tree / "cache").mkdir()
    (fresh.tree / "cache" / "x").write_text("x")
    assert fresh.snapshot("two") == snapshot
    fresh.restore(snapshot)
    assert (fresh.tree / "cache" / "x").exists()


def test_five_thousand_files_are_kept_and_put_back(fresh: Workspace) -> None:
    for number in range(5000):
        (fresh.tree / f"{number:04}").write_text(str(number))
    snapshot = fresh.snapshot("many")
    for number in range(0, 5000, 2):
        (fresh.tree / f"{number:04}").unlink()
    fresh.restore(snapshot)
    assert len(contents(fresh.tree)) == 5000


@pytest.mark.parametrize("snapshot", ["HEAD", "--output=x", "0" * 39, "", "main"])
def test_only_an_id_is_a_snapshot(fresh: Workspace, snapshot: str) -> None:
    with pytest.raises(WorkspaceError, match="not a snapshot"):
        fresh.restore(snapshot)


def test_a_diff_tells_files_lines_and_text(fresh: Workspace) -> None:
    (fresh.tree / "gone").write_text("1\n2\n")
    (fresh.tree / "kept").write_text("1\n2\n")
    before = fresh.snapshot("before")
    (fresh.tree / "gone").unlink()
    (fresh.tree / "kept").write_text("1\n3\n4\n")
    (fresh.tree / "new\nname").write_bytes(b"\x00\x01")
    diff = fresh.diff(before, fresh.snapshot("after"))
    changes = {file.path: (file.added, file.removed, file.change) for file in diff.files}
    assert changes == {
        "gone": (0, 2, "deleted"),
        "kept": (2, 1, "modified"),
        "new\nname": (None, None, "added"),
    }
    assert ("+3\n+4\n" in diff.text, diff.is_cut) == (True, False)


def test_a_long_diff_is_cut_but_names_all_files(fresh: Workspace) -> None:
    before = fresh.snapshot("before")
    for name in ("a", "b"):
        (fresh.tree / name).write_text("line\n" * 100_000)
    diff = fresh.diff(before, fresh.snapshot("after"), max_bytes=1000)
    assert (len(diff.text), diff.is_cut, len(diff.files)) == (1000, True, 2)


def test_a_diff_of_nothing_is_empty(fresh: Workspace) -> None:
    snapshot = fresh.snapshot("one")
    assert (fresh.diff(snapshot, snapshot).files, fresh.diff(snapshot, snapshot).text) == ((), "")


def test_a_lock_file_that_a_dead_git_left_is_no_obstacle(fresh: Workspace) -> None:
    (fresh.root / "snapshots.git" / "index.lock").touch()
    (fresh.tree / "x").write_text("x")
    snapshot = fresh.snapshot("after a crash")
    assert len(snapshot) == 40


def hold(root: Path, ready: multiprocessing.synchronize.Event, done: multiprocessing.synchronize.Event) -> None:
    with Workspace(root, owner=None).lock():
        ready.set()
        done.wait(60)


def test_another_process_is_kept_out(fresh: Workspace) -> None:
    context = multiprocessing.get_context("spawn")
    ready, done = context.Event(), context.Event()
    holder = context.Process(target=hold, args=(fresh.root, ready, done))
    holder.start()
    assert ready.wait(60)
    with pytest.raises(WorkspaceError) as caught, fresh.lock(timeout_seconds=0.1):
        pass
    done.set()
    holder.join()
    assert not caught.value.permanent


def open_locks(root: Path) -> int:
    """How many descriptors of this process are the workspace's lock."""
    names = [f"/proc/self/fd/{number}" for number in os.listdir("/proc/self/fd")]
    return sum(os.path.realpath(name) == str(root / "lock") for name in names)


def test_who_waited_for_a_workspace_that_was_removed_locks_the_new_one(fresh: Workspace) -> None:
    found: list[bool] = []

    def wait() -> None:
        with Workspace(fresh.root, owner=None).lock():
            found.append((fresh.root / "lock").exists())

    waiter = threading.Thread(target=wait)
    with fresh.lock():
        waiter.start()
        wait_until(lambda: open_locks(fresh.root) == 2, "the other one waits")
        fresh.remove()
    waiter.join()
    assert found == [True]


def test_a_running_git_keeps_the_lock_of_its_dead_worker(fresh: Workspace) -> None:
    from djinn.runner.git import end_group, start_git

    with fresh.lock() as lock:
        orphan = start_git(["cat-file", "--batch"], lock=lock, git_dir=fresh.root / "snapshots.git")
    with pytest.raises(WorkspaceError, match="in use"), fresh.lock(timeout_seconds=0.1):
        pass
    end_group(orphan)
    with orphan, fresh.lock(timeout_seconds=10):
        pass


@pytest.mark.root
def test_the_tree_belongs_to_the_owner_and_links_are_not_followed(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.write_text("x")
    source = tmp_path / "plain"
    source.mkdir()
    (source / "link").symlink_to(outside)
    workspace = Workspace(tmp_path / "run", owner=(10001, 10001))
    workspace.prepare(Source(str(source)))
    uids = [
        os.lstat(path).st_uid for path in (workspace.tree, workspace.tree / "link", workspace.tree / ".git", outside)
    ]
    assert uids == [10001, 10001, 10001, 0]


@pytest.mark.root
def test_a_full_disk_is_told_as_such(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(disk)], check=True)
    try:
        workspace = Workspace(disk / "run", owner=None)
        workspace.prepare(Source())
        (workspace.tree / "big").write_bytes(os.urandom(1_500_000))
        with pytest.raises(WorkspaceError) as caught:
            workspace.snapshot("too big")
        assert caught.value.reason == "disk"
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_a_removed_workspace_is_gone(fresh: Workspace) -> None:
    fresh.remove()
    fresh.remove()
    assert not fresh.root.exists()
