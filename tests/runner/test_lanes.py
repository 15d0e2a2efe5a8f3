"""Parallel steps: a tree each, merged by what they changed; and a run that begins with another one's snapshots."""

from __future__ import annotations

import json
import multiprocessing
import os
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from djinn.runner.git import WorkspaceError
from djinn.runner.source import Source
from djinn.runner.workspace import Workspace

Files = dict[str, str | None]
OWNER = (10001, 10001)
needs_root = pytest.mark.root


def lane(root: Path, name: str) -> Workspace:
    return Workspace(root, owner=None, lane=name)


def write(tree: Path, files: Files) -> None:
    for name, text in files.items():
        if text is None:
            (tree / name).unlink()
        else:
            (tree / name).parent.mkdir(parents=True, exist_ok=True)
            (tree / name).write_text(text)


def texts(tree: Path) -> Files:
    """Every file below the tree, `.git` left out."""
    found = (path for path in tree.rglob("*") if path.is_file() and ".git" not in path.relative_to(tree).parts)
    return {path.relative_to(tree).as_posix(): path.read_text() for path in found}


def after(workspace: Workspace, base: str, files: Files) -> str:
    """The snapshot of a step that began with `base` and changed these files."""
    workspace.restore(base)
    write(workspace.tree, files)
    return workspace.snapshot("step", parent=base)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "run"


@pytest.fixture
def base(root: Path, tmp_path: Path) -> str:
    """A run whose first snapshot holds three files."""
    source = tmp_path / "plain"
    write(source, {"a": "1\n2\n3\n4\n5\n6\n7\n8\n9\n", "b": "b\n", "d/c": "c\n"})
    return Workspace(root, owner=None).prepare(Source(str(source)))


def git(directory: Path, *arguments: str) -> str:
    command = ["git", "-c", "safe.directory=*", "-c", "user.name=a", "-c", "user.email=a@a", *arguments]
    return subprocess.run(command, cwd=directory, check=True, capture_output=True, text=True, timeout=60).stdout.strip()


@pytest.mark.parametrize("name", ["..", ".", "a/b", "a..b", ".a", "a.", "a b", "a\n", "ä", "x" * 201, "a\0"])
def test_a_name_that_could_lead_elsewhere_is_no_lane(root: Path, name: str) -> None:
    with pytest.raises(WorkspaceError) as caught:
        lane(root, name)
    assert (caught.value.permanent, caught.value.reason) == (True, "rejected")


@pytest.mark.parametrize("name", ["TEST", "ITEM.3", "a.2.0", "x.lock", "-x", "a_b-c", "HEAD", "x" * 200])
def test_a_lane_has_a_tree_of_its_own(root: Path, base: str, name: str) -> None:
    after(lane(root, name), base, {"b": "other\n"})
    assert (lane(root, name).tree, texts(root / "tree")["b"]) == (root / "lanes" / name / "tree", "b\n")


def test_what_one_lane_changes_no_other_lane_sees(root: Path, base: str) -> None:
    one, other = lane(root, "one"), lane(root, "other")
    other.restore(base)
    after(one, base, {"b": "one\n", "new": "x\n"})
    assert other.snapshot("nothing happened", parent=base) == base


def test_a_lane_can_be_prepared_first(root: Path) -> None:
    first = lane(root, "one").prepare(Source())
    assert (lane(root, "two").prepare(Source()), Workspace(root, owner=None).prepare(Source())) == (first, first)


def test_preparing_one_lane_leaves_another_ones_work(root: Path, base: str) -> None:
    one = lane(root, "one")
    one.restore(base)
    write(one.tree, {"mine": "x"})
    lane(root, "two").prepare(Source())
    assert (one.tree / "mine").read_text() == "x"


def test_ignored_files_stay_in_their_lane(root: Path, base: str) -> None:
    one, other = lane(root, "one"), lane(root, "other")
    snapshot = after(one, base, {".gitignore": "cache\n", "cache": "x"})
    other.restore(snapshot)
    one.restore(snapshot)
    assert ((one.tree / "cache").exists(), (other.tree / "cache").exists()) == (True, False)


def test_a_lane_of_a_cloned_run_has_its_history(root: Path, tmp_path: Path) -> None:
    origin = tmp_path / "origin"
    origin.mkdir()
    git(origin, "init", "-q")
    for text in ("one", "two"):
        write(origin, {"file": text})
        git(origin, "add", ".")
        git(origin, "commit", "-qm", text)
    base = Workspace(root, owner=None).prepare(Source(str(origin)))
    workspace = lane(root, "one")
    workspace.restore(base)
    assert git(workspace.tree, "log", "--format=%s") == "two\none"
    assert git(workspace.tree, "status", "--porcelain") == ""


def test_an_agents_repository_in_one_lane_is_not_the_next_lanes(root: Path, base: str) -> None:
    write(root / "tree", {"x": "x"})
    git(root / "tree", "add", ".")
    git(root / "tree", "commit", "-qm", "by the agent")
    one = lane(root, "one")
    one.restore(base)
    assert git(one.tree, "rev-list", "--count", "HEAD") == "1"


@needs_root
def test_a_lane_belongs_to_the_owner_and_the_shared_history_to_the_host(root: Path, base: str) -> None:
    workspace = Workspace(root, owner=OWNER, lane="one")
    workspace.restore(base)
    write(workspace.tree / ".git", {"mine": "x"})
    workspace.restore(base)
    objects = [path for path in (workspace.tree / ".git" / "objects").rglob("*") if path.is_file()]
    places = [workspace.tree, workspace.tree / "b", workspace.tree / ".git" / "objects", workspace.tree / ".git/mine"]
    assert {path.stat().st_uid for path in objects} == {0}
    assert {path.stat().st_uid for path in places} == {OWNER[0]}


@pytest.fixture
def open_root() -> Iterator[Path]:
    """A place that other users can reach, which pytest's own is not."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name, "run")


@needs_root
def test_an_agent_works_with_a_repository_whose_old_objects_are_the_hosts(open_root: Path) -> None:
    """The commit writes objects that exist already, and the clean-up removes them; the other lane keeps its own."""
    base = Workspace(open_root, owner=OWNER).prepare(Source())
    lanes = [Workspace(open_root, owner=OWNER, lane=name) for name in ("one", "two")]
    for workspace in lanes:
        workspace.restore(base)
    tree = lanes[0].tree
    for arguments in (["commit", "-qm", "x", "--allow-empty"], ["gc", "-q", "--prune=now"], ["fsck"]):
        command = ["git", "-c", "user.name=a", "-c", "user.email=a@a", *arguments]
        environment = {"PATH": os.environ["PATH"], "HOME": str(tree)}
        subprocess.run(command, cwd=tree, check=True, timeout=60, user=OWNER[0], group=OWNER[1], env=environment)
    assert git(lanes[1].tree, "fsck", "--full", "--strict") == ""


def test_a_snapshot_is_made_on_the_base_that_its_step_began_with(root: Path, base: str) -> None:
    workspace = lane(root, "one")
    after(workspace, base, {"b": "failed\n"})
    second = after(workspace, base, {"b": "good\n"})
    assert git(root / "snapshots.git", "rev-list", second) == f"{second}\n{base}"


def test_a_snapshot_that_is_taken_again_is_the_same(root: Path, base: str) -> None:
    workspace = lane(root, "one")
    first = after(workspace, base, {"b": "x\n"})
    assert lane(root, "one").snapshot("again", parent=base) == first


def test_a_snapshot_without_a_base_is_made_on_what_was_put_back(root: Path, base: str) -> None:
    workspace = lane(root, "one")
    after(workspace, base, {"b": "failed\n"})
    workspace.restore(base)
    write(workspace.tree, {"b": "good\n"})
    assert git(root / "snapshots.git", "rev-list", workspace.snapshot("x")).split()[1:] == [base]


def test_the_same_files_on_another_base_are_another_snapshot(root: Path, base: str) -> None:
    workspace = lane(root, "one")
    other = after(lane(root, "other"), base, {"d/c": "other\n"})
    first = after(workspace, base, {"b": "x\n"})
    second = workspace.snapshot("again", parent=other)
    assert (second != first, git(root / "snapshots.git", "rev-list", second).split()[1]) == (True, other)


def test_a_lane_does_not_disturb_the_index_of_another(root: Path, base: str) -> None:
    index = root / "snapshots.git" / "index"
    before = index.read_bytes()
    after(lane(root, "one"), base, {"b": "x\n"})
    assert index.read_bytes() == before


def test_an_unchanged_tree_gives_the_base_again(root: Path, base: str) -> None:
    assert after(lane(root, "one"), base, {}) == base


def test_a_step_that_takes_everything_back_gives_a_snapshot_of_its_own(root: Path, base: str) -> None:
    workspace = lane(root, "one")
    first = after(workspace, base, {"b": "x\n"})
    back = after(workspace, first, {"b": "b\n"})
    assert back not in (base, first)


MISSING = "1234567890" * 4


@pytest.mark.parametrize("verb", ["restore", "snapshot", "merge"])
def test_a_snapshot_that_is_not_here_is_rejected_for_good(root: Path, base: str, verb: str) -> None:
    workspace = Workspace(root, owner=None)
    verbs = {
        "restore": lambda: workspace.restore(MISSING),
        "snapshot": lambda: workspace.snapshot("x", parent=MISSING),
        "merge": lambda: workspace.merge([base, MISSING], "x"),
    }
    with pytest.raises(WorkspaceError) as caught:
        verbs[verb]()
    assert (caught.value.permanent, caught.value.reason) == (True, "rejected")


def test_a_merge_has_what_each_one_changed(root: Path, base: str) -> None:
    one = after(lane(root, "one"), base, {"a": "one\n2\n3\n4\n5\n6\n7\n8\n9\n", "b": None})
    two = after(lane(root, "two"), base, {"a": "1\n2\n3\n4\n5\n6\n7\n8\ntwo\n", "e/f": "f\n"})
    three = after(lane(root, "three"), base, {"d/c": "three\n"})
    joined = lane(root, "join")
    joined.restore(joined.merge([one, two, three], "join"))
    assert texts(joined.tree) == {"a": "one\n2\n3\n4\n5\n6\n7\n8\ntwo\n", "d/c": "three\n", "e/f": "f\n"}


def test_a_merge_is_built_on_all_that_it_merged(root: Path, base: str) -> None:
    heads = [after(lane(root, name), base, {name: "x\n"}) for name in ("one", "two", "three")]
    merged = Workspace(root, owner=None).merge(heads, "join")
    assert git(root / "snapshots.git", "show", "-s", "--format=%P", merged).split() == heads


def test_a_merge_that_is_done_again_gives_the_same_snapshot(root: Path, base: str) -> None:
    heads = [after(lane(root, name), base, {name: "x\n"}) for name in ("one", "two")]
    workspace = Workspace(root, owner=None)
    assert workspace.merge(heads, "join") == workspace.merge(heads, "join")


def test_one_snapshot_is_its_own_merge(root: Path, base: str) -> None:
    one = after(lane(root, "one"), base, {"b": "x\n"})
    assert Workspace(root, owner=None).merge([one, one], "join") == one


def test_a_snapshot_that_another_one_is_built_on_adds_nothing(root: Path, base: str) -> None:
    one = after(lane(root, "one"), base, {"b": "x\n"})
    two = after(lane(root, "two"), one, {"b": "y\n"})
    assert Workspace(root, owner=None).merge([base, two, one], "join") == two


def test_a_merge_of_a_merge_takes_its_sides_into_account(root: Path, base: str) -> None:
    workspace = Workspace(root, owner=None)
    one, two = (after(lane(root, name), base, {"b": text}) for name, text in (("one", "1\n"), ("two", "1\n")))
    middle = workspace.merge([one, two], "middle")
    later = after(lane(root, "later"), one, {"b": "2\n"})
    joined = lane(root, "join")
    joined.restore(workspace.merge([middle, later], "join"))
    assert texts(joined.tree)["b"] == "2\n"


def test_nothing_cannot_be_merged(root: Path, base: str) -> None:
    with pytest.raises(WorkspaceError, match="nothing to merge"):
        Workspace(root, owner=None).merge([], "join")


CONFLICTS: dict[str, tuple[Files, Files, tuple[str, ...]]] = {
    "both changed a line": ({"b": "1\n"}, {"b": "2\n"}, ("b",)),
    "one changed, one deleted": ({"b": "1\n"}, {"b": None}, ("b",)),
    "both added": ({"new": "1\n"}, {"new": "2\n"}, ("new",)),
    "file and directory": ({"x": "1\n"}, {"x/y": "2\n"}, ("x",)),
    "binary": ({"z": "\0\1\n"}, {"z": "\0\2\n"}, ("z",)),
    "names": ({"a\nb": "1\n", "~": "1\n", "-x": "1\n"}, {"a\nb": "2\n", "~": "2\n", "-x": "2\n"}, ("-x", "a\nb", "~")),
}


@pytest.mark.parametrize("kind", CONFLICTS)
def test_a_true_conflict_names_its_files(root: Path, base: str, kind: str) -> None:
    one, two, files = CONFLICTS[kind]
    heads = [after(lane(root, "one"), base, one), after(lane(root, "two"), base, two)]
    with pytest.raises(WorkspaceError) as caught:
        Workspace(root, owner=None).merge(heads, "join")
    assert (caught.value.permanent, caught.value.reason, caught.value.files) == (True, "conflict", files)


def test_a_conflict_of_links_is_a_conflict(root: Path, base: str) -> None:
    heads = []
    for name in ("one", "two"):
        workspace = lane(root, name)
        workspace.restore(base)
        (workspace.tree / "link").symlink_to(f"/{name}")
        heads.append(workspace.snapshot("link", parent=base))
    with pytest.raises(WorkspaceError) as caught:
        Workspace(root, owner=None).merge(heads, "join")
    assert caught.value.files == ("link",)


def test_the_conflicts_of_all_steps_are_told_at_once(root: Path, base: str) -> None:
    changes: list[Files] = [{"b": "1\n"}, {"b": "2\n"}, {"x": "3\n"}, {"x": "4\n"}]
    heads = [after(lane(root, f"s.{number}"), base, files) for number, files in enumerate(changes)]
    with pytest.raises(WorkspaceError) as caught:
        Workspace(root, owner=None).merge(heads, "join")
    assert caught.value.files == ("b", "x")


def test_a_message_shows_fifty_files_and_counts_the_others(root: Path, base: str) -> None:
    names = [f"n{number:02}" for number in range(60)]
    heads = [after(lane(root, text), base, dict.fromkeys(names, f"{text}\n")) for text in ("one", "two")]
    with pytest.raises(WorkspaceError, match=r"n49, and 10 more$") as caught:
        Workspace(root, owner=None).merge(heads, "join")
    assert caught.value.files == tuple(names)


def test_a_file_stays_where_it_was_put_when_the_other_side_moved_its_directory(root: Path, base: str) -> None:
    base = after(lane(root, "zero"), base, {f"d/{n}": f"{n} and more\n" for n in range(9)})
    moved: Files = {f"d/{n}": None for n in range(9)} | {f"e/{n}": f"{n} and more\n" for n in range(9)}
    one = after(lane(root, "one"), base, moved | {"d/c": None, "e/c": "c\n"})
    two = after(lane(root, "two"), base, {"d/new": "new\n"})
    joined = lane(root, "join")
    joined.restore(joined.merge([one, two], "join"))
    assert (joined.tree / "d" / "new").read_text() == "new\n"


def test_a_git_that_cannot_merge_is_told_by_its_version(
    root: Path, base: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    heads = [after(lane(root, name), base, {name: "x\n"}) for name in ("one", "two")]
    script = f"""#!/bin/sh
case "$*" in *version) echo git version 2.30.2; exit;; esac
PATH={os.environ["PATH"]} exec git "$@"
"""
    old = tmp_path / "old"
    write(old, {"git": script})
    (old / "git").chmod(0o755)
    monkeypatch.setenv("PATH", f"{old}:{os.environ['PATH']}")
    with pytest.raises(WorkspaceError, match=r"2\.38 or newer, this is 2\.30$") as caught:
        Workspace(root, owner=None).merge(heads, "join")
    assert caught.value.permanent


def test_a_removed_lane_keeps_its_snapshots_and_the_other_lanes(root: Path, base: str) -> None:
    one, other = lane(root, "one"), lane(root, "other")
    snapshot = after(one, base, {"b": "x\n"})
    other.restore(snapshot)
    one.remove_lane()
    one.remove_lane()
    assert (one.tree.parent.exists(), texts(other.tree)["b"]) == (False, "x\n")


def test_a_removed_lane_can_be_made_again(root: Path, base: str) -> None:
    one = lane(root, "one")
    snapshot = after(one, base, {"b": "x\n"})
    one.remove_lane()
    one.restore(snapshot)
    assert texts(one.tree)["b"] == "x\n"


def test_the_first_lane_is_not_removed_before_the_workspace(root: Path, base: str) -> None:
    workspace = Workspace(root, owner=None)
    workspace.remove_lane()
    assert workspace.tree.is_dir()


def test_a_removed_workspace_has_no_lanes(root: Path, base: str) -> None:
    lane(root, "one").restore(base)
    lane(root, "one").remove()
    assert not root.exists()


def work(root: Path, name: str, base: str, heads: multiprocessing.queues.Queue[str]) -> None:
    workspace = lane(root, name)
    for number in range(10):
        base = after(workspace, base, {f"{name}.{number}": f"{number}\n"})
    heads.put(base)


def test_two_lanes_work_at_once_in_two_processes(root: Path, base: str) -> None:
    context = multiprocessing.get_context("spawn")
    heads: multiprocessing.queues.Queue[str] = context.Queue()
    workers = [context.Process(target=work, args=(root, name, base, heads)) for name in ("one", "two")]
    for worker in workers:
        worker.start()
    found = [heads.get(timeout=120) for _ in workers]
    for worker in workers:
        worker.join()
    joined = lane(root, "join")
    joined.restore(joined.merge(found, "join"))
    assert len([name for name in texts(joined.tree) if name[:3] in ("one", "two")]) == 20


def test_a_fork_restores_what_the_other_run_had(root: Path, base: str, tmp_path: Path) -> None:
    snapshot = after(lane(root, "one"), base, {"b": "x\n"})
    fork = Workspace(tmp_path / "fork", owner=None)
    fork.fork(root)
    fork.restore(snapshot)
    assert texts(fork.tree)["b"] == "x\n"


def test_a_forks_preparation_is_the_other_runs_and_fetches_nothing(root: Path, base: str, tmp_path: Path) -> None:
    fork = Workspace(tmp_path / "fork", owner=None)
    fork.fork(root)
    assert fork.prepare(Source(str(tmp_path / "never there"))) == base


def test_a_fork_does_not_change_the_run_that_it_came_from(root: Path, base: str, tmp_path: Path) -> None:
    fork = Workspace(tmp_path / "fork", owner=None)
    fork.fork(root)
    later = after(fork, base, {"b": "later\n"})
    with pytest.raises(WorkspaceError, match="no such snapshot"):
        Workspace(root, owner=None).restore(later)


def test_a_fork_lives_on_when_the_other_run_is_gone(root: Path, base: str, tmp_path: Path) -> None:
    snapshot = after(lane(root, "one"), base, {"b": "x\n"})
    fork = Workspace(tmp_path / "fork", owner=None)
    fork.fork(root)
    Workspace(root, owner=None).remove()
    fork.fork(root)
    fork.restore(snapshot)
    assert git(fork.tree, "fsck", "--full") == ""
    assert git(tmp_path / "fork" / "snapshots.git", "fsck", "--full", "--no-dangling") == ""


def test_forking_again_leaves_the_work(root: Path, base: str, tmp_path: Path) -> None:
    fork = Workspace(tmp_path / "fork", owner=None)
    fork.fork(root)
    later = after(fork, base, {"b": "later\n"})
    fork.fork(root)
    assert fork.snapshot("again", parent=base) == later


def test_a_run_that_is_gone_cannot_be_forked(root: Path, tmp_path: Path) -> None:
    with pytest.raises(WorkspaceError, match="is gone") as caught:
        Workspace(tmp_path / "fork", owner=None).fork(root)
    assert (caught.value.permanent, caught.value.reason, root.exists()) == (True, "rejected", False)


def test_a_run_that_was_never_prepared_cannot_be_forked(root: Path, tmp_path: Path) -> None:
    with Workspace(root, owner=None).lock():
        pass
    with pytest.raises(WorkspaceError, match="is gone"):
        Workspace(tmp_path / "fork", owner=None).fork(root)


def test_every_snapshot_outlives_a_collection_of_garbage(root: Path, base: str) -> None:
    failed = after(lane(root, "one"), base, {"b": "failed\n"})
    after(lane(root, "one"), base, {"b": "good\n"})
    for path in (root / "snapshots.git" / "objects").glob("??/*"):
        os.utime(path, (10**9, 10**9))
    git(root / "snapshots.git", "gc", "-q")
    other = lane(root, "other")
    other.restore(failed)
    assert texts(other.tree)["b"] == "failed\n"


def test_a_tree_that_is_known_to_be_still_is_not_restored_again_until_it_stirs(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path / "run-1", owner=None)
    workspace.restore(workspace.prepare(Source()))
    (workspace.tree / "a.txt").write_text("a")
    snapshot = workspace.snapshot("after A", is_still=True)
    (workspace.tree / "a.txt").write_text("changed behind our back")
    workspace.restore(snapshot)
    assert (workspace.tree / "a.txt").read_text() == "changed behind our back"
    workspace.stir()
    workspace.restore(snapshot)
    assert (workspace.tree / "a.txt").read_text() == "a"


def test_what_was_still_before_the_machine_was_started_again_is_restored(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path / "run-1", owner=None)
    (first := workspace.prepare(Source()))
    (tmp_path / "run-1" / "still.json").write_text(json.dumps([first, "another boot"]))
    (workspace.tree / "late.txt").write_text("late")
    workspace.restore(first)
    assert not (workspace.tree / "late.txt").exists()
