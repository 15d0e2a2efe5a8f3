"""A process is killed in the middle of a verb, at every step that it takes; whoever repeats the verb gets the same.

The steps are what Python itself reports to an audit hook: each file that is opened, linked, renamed or removed, each
process that is started.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from djinn.runner.artifacts import collect
from djinn.runner.source import Source
from djinn.runner.workspace import Workspace

Verb = Callable[[Path], object]
STEPS = ("open", "subprocess.Popen", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.link", "os.chown")
KILLS = 10
OWNER = (10001, 10001) if os.getuid() == 0 else None


def die_at(step: int) -> None:
    """Kill this process as it is about to take the step with that number, counted from 1."""
    left = step

    def count(event: str, arguments: object) -> None:
        nonlocal left
        if event in STEPS:
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(count)


def run_until(step: int, verb: Verb, place: Path) -> bool:
    """Whether a process was killed at that step of the verb; False when the verb was over before."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            die_at(step)
            verb(place)
            code = 0
        finally:
            os._exit(code)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        return True
    assert os.WEXITSTATUS(status) == 0, "the verb failed by itself"
    return False


def steps_of(verb: Verb, place: Path) -> int:
    """How many steps the verb takes, found by doing it in a process that counts."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        taken: list[str] = []
        sys.addaudithook(lambda event, arguments: taken.append(event) if event in STEPS else None)
        try:
            verb(place)
            os.write(writer, str(len(taken)).encode())
        finally:
            os._exit(0)
    os.close(writer)
    os.waitpid(child, 0)
    with open(reader) as file:
        return int(file.read())


def texts(tree: Path) -> dict[str, str]:
    found = (path for path in tree.rglob("*") if path.is_file() and ".git" not in path.relative_to(tree).parts)
    return {path.relative_to(tree).as_posix(): path.read_text() for path in found}


def git(directory: Path, *arguments: str) -> str:
    command = ["git", "-c", "safe.directory=*", *arguments]
    return subprocess.run(command, cwd=directory, check=True, capture_output=True, text=True, timeout=60).stdout


def owners(tree: Path) -> set[int]:
    """Of everything but the shared objects, which stay the host's."""
    return {path.lstat().st_uid for path in tree.rglob("*") if path.is_dir() or path.lstat().st_nlink == 1}


def at(place: Path, lane: str = "") -> Workspace:
    return Workspace(place, owner=OWNER, lane=lane)


FILES = {"a": "a\n", "b": "b\n", "d/c": "c\n"}


@pytest.fixture
def source(tmp_path: Path) -> Source:
    for name, text in FILES.items():
        path = tmp_path / "plain" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return Source(str(tmp_path / "plain"))


@pytest.fixture
def cloned(source: Source) -> Source:
    git(Path(source.repository), "init", "-q")
    git(Path(source.repository), "add", ".")
    git(Path(source.repository), "-c", "user.name=a", "-c", "user.email=a@a", "commit", "-qm", "x")
    return source


def killed_everywhere(
    verb: Verb, before: Callable[[Path], None], check: Callable[[Path], None], tmp_path: Path
) -> None:
    """Kill the verb at about `KILLS` of its steps, each time in a copy of what `before` makes, then check the copy."""
    first = tmp_path / "first"
    before(first)
    steps = steps_of(verb, copied(first, tmp_path / "counted"))
    kills = 0
    for step in range(1, steps + 1, max(1, steps // KILLS)):
        trial = copied(first, tmp_path / f"trial{step}")
        kills += run_until(step, verb, trial)
        check(trial)
    assert kills >= min(steps, KILLS)


def copied(place: Path, to: Path) -> Path:
    subprocess.run(["cp", "-a", str(place), str(to)], check=True, timeout=60)
    return to


def make_nothing(place: Path) -> None:
    place.mkdir()


@pytest.mark.parametrize(("kind", "lane"), [("source", ""), ("cloned", "one")])
def test_a_preparation_survives_a_kill_at_every_step(
    kind: str, lane: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    source: Source = request.getfixturevalue(kind)

    def check(place: Path) -> None:
        base = at(place, lane).prepare(source)
        at(place, "other").restore(base)
        assert (texts(at(place, lane).tree), texts(at(place, "other").tree)) == (FILES, FILES)
        assert git(at(place, "other").tree, "status", "--porcelain") == ""
        git(place / "snapshots.git", "fsck", "--full", "--strict")

    killed_everywhere(lambda place: at(place, lane).prepare(source), make_nothing, check, tmp_path)


@pytest.mark.parametrize("lane", ["", "one"])
def test_putting_back_survives_a_kill_at_every_step(lane: str, tmp_path: Path, source: Source) -> None:
    """The tree lacks what the snapshot has, and has what it lacks; the lane "one" has to be made first."""
    ids: dict[str, str] = {}

    def before(place: Path) -> None:
        workspace = at(place)
        workspace.prepare(source)
        (workspace.tree / "b").unlink()
        (workspace.tree / "e").mkdir()
        (workspace.tree / "e" / "f").write_text("f\n")
        ids["wanted"] = workspace.snapshot("wanted")
        (workspace.tree / "e" / "f").write_text("changed\n")
        (workspace.tree / "later").write_text("x")

    def check(place: Path) -> None:
        workspace = at(place, lane)
        workspace.restore(ids["wanted"])
        assert texts(workspace.tree) == {"a": "a\n", "d/c": "c\n", "e/f": "f\n"}
        assert workspace.snapshot("again", parent=ids["wanted"]) == ids["wanted"]
        assert OWNER is None or owners(workspace.tree) == {OWNER[0]}
        assert git(workspace.tree, "rev-list", "--count", "HEAD") == "1\n"

    killed_everywhere(lambda place: at(place, lane).restore(ids["wanted"]), before, check, tmp_path)


def make_heads(place: Path, source: Source) -> list[str]:
    base = at(place).prepare(source)
    heads = []
    for lane in ("one", "two", "three"):
        at(place, lane).restore(base)
        (at(place, lane).tree / lane).write_text(lane)
        heads.append(at(place, lane).snapshot(lane, parent=base))
    return heads


def test_a_snapshot_survives_a_kill_at_every_step(tmp_path: Path, source: Source) -> None:
    ids: dict[str, str] = {}

    def before(place: Path) -> None:
        ids["base"] = at(place).prepare(source)
        (place / "tree" / "new").write_text("new\n")

    def check(place: Path) -> None:
        found = at(place).snapshot("x", parent=ids["base"])
        assert git(place / "snapshots.git", "ls-tree", "-r", "--name-only", found).split() == ["a", "b", "d/c", "new"]
        assert git(place / "snapshots.git", "rev-list", found).split() == [found, ids["base"]]

    killed_everywhere(lambda place: at(place).snapshot("x", parent=ids["base"]), before, check, tmp_path)


def test_a_merge_survives_a_kill_at_every_step(tmp_path: Path, source: Source) -> None:
    heads: list[str] = []

    def before(place: Path) -> None:
        heads[:] = make_heads(place, source)

    def check(place: Path) -> None:
        merged = at(place).merge(heads, "join")
        assert merged == at(place).merge(heads, "join")
        at(place, "join").restore(merged)
        assert texts(at(place, "join").tree) == FILES | {name: name for name in ("one", "two", "three")}

    killed_everywhere(lambda place: at(place).merge(heads, "join"), before, check, tmp_path)


def test_a_fork_survives_a_kill_at_every_step(tmp_path: Path, source: Source) -> None:
    old = tmp_path / "old"
    heads = make_heads(old, source)

    def check(place: Path) -> None:
        at(place).fork(old)
        assert at(place).prepare(source) == at(old).prepare(source)
        for lane, head in zip(("one", "two", "three"), heads, strict=True):
            at(place, lane).restore(head)
            assert texts(at(place, lane).tree) == FILES | {lane: lane}
        git(place / "snapshots.git", "fsck", "--full", "--strict")

    killed_everywhere(lambda place: at(place).fork(old), make_nothing, check, tmp_path)


def test_a_lanes_removal_survives_a_kill_at_every_step(tmp_path: Path, source: Source) -> None:
    heads: list[str] = []

    def before(place: Path) -> None:
        heads[:] = make_heads(place, source)

    def check(place: Path) -> None:
        at(place, "one").restore(heads[1])
        assert texts(at(place, "one").tree) == FILES | {"two": "two"}
        git(at(place, "one").tree, "fsck", "--full", "--strict")
        at(place, "one").remove_lane()
        assert not (place / "lanes" / "one").exists()

    killed_everywhere(lambda place: at(place, "one").remove_lane(), before, check, tmp_path)


def test_a_collection_survives_a_kill_at_every_step(tmp_path: Path, source: Source) -> None:
    tree = Path(source.repository)

    def check(place: Path) -> None:
        found = collect(tree, ["**"], place)
        assert {artifact.path: (place / artifact.sha256).read_text() for artifact in found} == FILES

    killed_everywhere(lambda place: collect(tree, ["**"], place), make_nothing, check, tmp_path)
