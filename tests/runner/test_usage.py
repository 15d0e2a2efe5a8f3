"""What an execution takes of the disk, whatever it does to its trees and its processes to hide it."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from runner_bench import Bench, nest

from djinn.runner.files import remove_tree
from djinn.runner.processes import family, identity_of
from djinn.runner.usage import OPEN_LEVELS, Usage, measure

PR_SET_DUMPABLE = 4
NO_BOUND = Usage(10**12, 10**9)


@pytest.fixture
def tree(tmp_path: Path) -> Iterator[Path]:
    tree = tmp_path / "tree"
    tree.mkdir()
    yield tree
    remove_tree(tree)  # pytest cannot remove one that is thousands of directories deep


def usage_of(*places: Path, pids: list[int] | None = None, bound: Usage = NO_BOUND) -> Usage:
    return measure(places, pids or [], bound)


def test_bytes_are_what_the_disk_has_of_files(tree: Path) -> None:
    (tree / "a").mkdir()
    (tree / "a" / "big").write_bytes(os.urandom(1_000_000))
    found = usage_of(tree)
    assert 1_000_000 <= found.bytes <= 1_050_000
    assert found.files == 3


def test_places_count_together(tree: Path, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    for place in (tree, tmp_path / "other"):
        (place / "big").write_bytes(os.urandom(1_000_000))
    assert 2_000_000 <= usage_of(tree, tmp_path / "other", tmp_path / "absent").bytes <= 2_100_000


def test_holes_take_nothing_of_the_disk(tree: Path) -> None:
    with (tree / "sparse").open("wb") as file:
        file.truncate(2**40)
    assert usage_of(tree).bytes < 10_000


def test_what_is_allocated_and_not_written_takes_the_disk(tree: Path) -> None:
    with (tree / "allocated").open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, 10_000_000)
    assert usage_of(tree).bytes >= 10_000_000


def test_a_file_with_many_names_is_counted_once(tree: Path) -> None:
    (tree / "a").write_bytes(os.urandom(1_000_000))
    for number in range(20):
        (tree / f"link{number}").hardlink_to(tree / "a")
    found = usage_of(tree)
    assert (found.bytes <= 1_050_000, found.files) == (True, 2)


def test_too_many_names_of_one_file_are_too_many_files(tree: Path) -> None:
    (tree / "a").touch()
    for number in range(100):
        (tree / f"link{number}").hardlink_to(tree / "a")
    bound = Usage(10**9, 20)
    assert usage_of(tree, bound=bound).exceeds(bound)


def test_what_a_link_leads_to_is_not_counted(tree: Path, tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "big").write_bytes(os.urandom(1_000_000))
    (tree / "folder").symlink_to(tmp_path / "outside")
    (tree / "file").symlink_to(tmp_path / "outside" / "big")
    assert usage_of(tree).bytes < 20_000


def test_a_place_that_is_a_link_takes_nothing(tree: Path, tmp_path: Path) -> None:
    (tree / "big").write_bytes(os.urandom(1_000_000))
    (tmp_path / "link").symlink_to(tree)
    assert usage_of(tmp_path / "link") == Usage()


def test_counting_stops_soon_above_the_bound(tree: Path) -> None:
    for number in range(2000):
        (tree / f"{number}").touch()
    assert 100 < usage_of(tree, bound=Usage(10**9, 100)).files <= 500


def test_a_tree_of_any_depth_is_counted_with_few_descriptors(tree: Path) -> None:
    nest(tree, 3000)
    seen = set[int]()

    def watch() -> None:
        while not has_ended.is_set():
            seen.add(len(os.listdir("/proc/self/fd")))

    before = len(os.listdir("/proc/self/fd"))
    has_ended = threading.Event()
    watcher = threading.Thread(target=watch)
    watcher.start()
    found = usage_of(tree)
    has_ended.set()
    watcher.join()
    assert found.files == 3001
    assert max(seen) <= before + OPEN_LEVELS + 10
    assert len(os.listdir("/proc/self/fd")) <= before + 1


def test_a_wide_tree_is_counted_behind_its_deepest_part(tree: Path) -> None:
    nest(tree, OPEN_LEVELS * 2)
    for name in ("a", "z"):
        (tree / name).mkdir()
        (tree / name / "file").touch()
    (tree / "d" / "e").mkdir()
    assert usage_of(tree).files == 1 + OPEN_LEVELS * 2 + 4 + 1


def test_a_tree_that_is_moved_about_meanwhile_ends(tree: Path) -> None:
    nest(tree, OPEN_LEVELS * 3)
    has_ended = threading.Event()

    def move() -> None:
        while not has_ended.is_set():
            (tree / "d" / "d").rename(tree / "e")
            (tree / "e").rename(tree / "d" / "d")

    mover = threading.Thread(target=move)
    mover.start()
    try:
        found = [usage_of(tree) for _ in range(30)]
    finally:
        has_ended.set()
        mover.join()
    assert all(one.files > 0 for one in found)


def test_a_tree_that_vanishes_meanwhile_is_no_error(tree: Path) -> None:
    has_ended = threading.Event()

    def churn() -> None:
        while not has_ended.is_set():
            (tree / "a").mkdir()
            (tree / "a" / "b").touch()
            (tree / "a" / "b").unlink()
            (tree / "a").rmdir()

    churner = threading.Thread(target=churn)
    churner.start()
    try:
        assert all(usage_of(tree).files >= 1 for _ in range(500))
    finally:
        has_ended.set()
        churner.join()


@pytest.fixture
def open_tree() -> Iterator[Path]:
    """A tree that any user can reach."""
    with tempfile.TemporaryDirectory(dir="/var/tmp", prefix="dj-") as name:
        Path(name).chmod(0o755)
        (Path(name) / "tree").mkdir()
        yield Path(name) / "tree"


def test_a_directory_that_its_owner_has_closed_is_counted(open_tree: Path) -> None:
    closed = open_tree / "closed"
    closed.mkdir()
    (closed / "big").write_bytes(os.urandom(1_000_000))
    user = os.getuid() or 65534
    for place in (open_tree, closed, closed / "big"):
        os.chown(place, user, -1)
    closed.chmod(0)
    reading, writing = os.pipe()
    if (child := os.fork()) == 0:
        try:
            os.setuid(user)
            ctypes.CDLL(None).prctl(PR_SET_DUMPABLE, 1, 0, 0, 0)  # a change of user closes /proc/self
            os.write(writing, str(usage_of(open_tree).bytes).encode())
        finally:
            os._exit(0)
    os.close(writing)
    os.waitpid(child, 0)
    with open(reading) as answer:
        assert int(answer.read()) >= 1_000_000


# --- Deleted files ----------------------------------------------------------------------------------------------------
HOLDERS = {
    "open": "file = grown(); wait()",
    "temporary": "f = os.open('.', os.O_TMPFILE | os.O_RDWR); os.write(f, os.urandom(SIZE)); wait()",
    "mapped": "f = grown(); m = mmap.mmap(f.fileno(), SIZE); f.close(); wait()",
    "of a child": "f = grown()\nif os.fork() == 0: wait()\nf.close()\nwait()",
    "of an orphan": "f = grown()\nif os.fork() == 0:\n  if os.fork() == 0: wait()\n  os._exit(0)\nf.close()\nwait()",
}
HOLDING = """
import ctypes, mmap, os, sys, time
SIZE = 1_000_000
ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)
def grown():
    file = open("gone", "wb+")
    os.unlink("gone")
    file.write(os.urandom(SIZE))
    file.flush()
    return file
def wait():
    os.write(1, b"up\\n")
    time.sleep(600)
"""


@contextmanager
def holder(tree: Path, code: str) -> Iterator[int]:
    """A process that has done this and waits; its number."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDING + code],
        cwd=tree,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,  # pytest's own is a deleted file
        text=True,
    )
    identity = identity_of(process.pid)
    assert process.stdout is not None
    assert identity is not None
    try:
        expected = 2 if "fork" in code else 1
        assert [process.stdout.readline() for _ in range(expected)] == ["up\n"] * expected
        yield process.pid
    finally:
        for pid in reversed(family(identity)):
            os.kill(pid, 9)
        process.wait(30)
        process.stdout.close()


@pytest.mark.skipif(os.getuid() != 0, reason="only root sees what is mapped")
@pytest.mark.parametrize("way", HOLDERS)
def test_a_deleted_file_counts_as_long_as_a_process_holds_it(tree: Path, way: str) -> None:
    with holder(tree, HOLDERS[way]) as pid:
        identity = identity_of(pid)
        assert identity is not None
        found = usage_of(tree, pids=family(identity))
    assert 1_000_000 <= found.bytes <= 1_100_000
    assert found.files == 2


def test_a_deleted_file_on_another_file_system_does_not_count(tree: Path) -> None:
    with holder(tree, "os.chdir('/dev/shm'); f = grown(); wait()") as pid:
        assert usage_of(tree, pids=[pid]).bytes < 20_000


def test_a_process_that_is_gone_holds_nothing(tree: Path) -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait(30)
    assert usage_of(tree, pids=[gone.pid]).files == 1


def test_every_runner_tells_which_process_is_the_first_of_an_execution(bench: Bench) -> None:
    spec = bench.spec("import subprocess, sys\nchild = subprocess.Popen([sys.executable, '-c', 'open(\"%s/up\", \"w\")"
                      ".write(\"up\"); import time; time.sleep(600)' % directory])\nchild.wait()")  # fmt: skip
    assert bench.runner.process(spec.execution) is None
    bench.runner.start(spec)
    bench.wait_for_file(spec, "up")
    process = bench.runner.process(spec.execution)
    assert process is not None
    assert len(family(process)) >= 3
    bench.runner.stop(spec.execution, 0)
    bench.ended(spec)
    assert bench.runner.process(spec.execution) is None
