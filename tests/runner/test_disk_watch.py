"""The watch over what executions take of the disk: who is stopped, when, and who is left alone."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from runner_bench import wait_until

from djinn.runner.disk_watch import DiskWatch
from djinn.runner.processes import Identity, identity_of
from djinn.runner.room import Drain, Room, has_project_quotas, room_at
from djinn.runner.usage import Usage
from djinn.runner.watched import Overuse, Watched

MB = 1024**2
Begin = Callable[..., Watched]


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 100 MiB of its own."""
    if os.getuid() != 0:
        pytest.skip("needs to mount a tmpfs")
    place = tmp_path / "disk"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=100m", "tmpfs", str(place)], check=True, timeout=10)
    try:
        yield place
    finally:
        subprocess.run(["umount", "--lazy", str(place)], check=True, timeout=10)


@pytest.fixture
def begin(tmp_path: Path) -> Iterator[Begin]:
    """Watches a directory as an execution; the same watch for all of a test."""
    watch = DiskWatch()
    with ExitStack() as ends:

        def begin(name: str, *, on: Path = tmp_path, bound: Usage | None = None, process: int = 0) -> Watched:
            place = on / name
            place.mkdir()
            told = threading.Event()
            watched = Watched([place], [on], bound or Usage(10**9, 10**6), lambda: identity(process), told.set)
            end = ends.enter_context(ExitStack())
            end.enter_context(watch.watching(watched, reserve_bytes=10**9))
            watched.leave = end.close  # type: ignore[attr-defined]
            return watched

        yield begin


def identity(pid: int) -> Identity | None:
    return identity_of(pid) if pid else None


def counted(watched: Watched) -> None:
    """Wait until it was counted for the first time."""
    wait_until(lambda: watched.usage is not None, "it is counted")


def grow(watched: Watched, megabytes: int, name: str = "big") -> None:
    with (watched.places[0] / name).open("ab") as file:
        file.write(os.urandom(megabytes * MB))


def test_who_grows_above_its_bound_is_stopped_and_its_neighbour_is_not(begin: Begin) -> None:
    greedy = begin("greedy", bound=Usage(20 * MB, 1000))
    modest = begin("modest", bound=Usage(20 * MB, 1000))
    grow(modest, 10)
    grow(greedy, 30)
    wait_until(lambda: greedy.overuse is Overuse.BYTES, "the greedy one is stopped")
    assert modest.overuse is None


def test_who_makes_too_many_files_is_stopped(begin: Begin) -> None:
    watched = begin("many", bound=Usage(10**9, 100))
    for number in range(200):
        (watched.places[0] / str(number)).touch()
    wait_until(lambda: watched.overuse is Overuse.FILES, "it is stopped")


def test_the_largest_grower_is_stopped_first_when_the_disk_is_nearly_full(disk: Path, begin: Begin) -> None:
    watched = [begin(name, on=disk, bound=Usage(60 * MB, 1000)) for name in ("still", "small", "large")]
    still, small, large = watched
    grow(still, 40, "old")
    for one in watched:
        counted(one)
    grow(small, 10)
    grow(large, 47)
    wait_until(lambda: large.overuse is Overuse.HOST, "the largest grower is stopped")
    (large.places[0] / "big").unlink()
    large.leave()  # type: ignore[attr-defined]

    def grows_on() -> bool:
        if (small.places[0] / "big").stat().st_size < 40 * MB:
            grow(small, 1)
        return (small.usage or Usage()).bytes >= 20 * MB

    wait_until(grows_on, "it is counted again")
    assert (small.overuse, still.overuse) == (None, None)


def test_the_next_grower_is_stopped_when_the_first_gave_nothing_back(disk: Path, begin: Begin) -> None:
    small, large = begin("small", on=disk), begin("large", on=disk)
    counted(small)
    counted(large)
    grow(small, 30)
    grow(large, 67)
    wait_until(lambda: large.overuse is Overuse.HOST, "the largest grower is stopped")
    assert small.overuse is None
    large.leave()  # type: ignore[attr-defined]
    wait_until(lambda: small.overuse is Overuse.HOST, "the next one is stopped")


def test_nobody_is_stopped_when_somebody_else_fills_the_disk(disk: Path, begin: Begin) -> None:
    watched = begin("still", on=disk)
    counted(watched)
    first = watched.looked_at
    (disk / "others").write_bytes(os.urandom(97 * MB))
    wait_until(lambda: watched.looked_at > first, "it is looked at because the disk is short")
    wait_until(lambda: room_at(disk, 10**9).is_short, "the disk is short")
    assert watched.overuse is None


def test_who_has_ended_is_counted_once_more_when_it_may_have_grown(tmp_path: Path) -> None:
    watch = DiskWatch()
    place = tmp_path / "quick"
    place.mkdir()
    watched = Watched([place], [tmp_path], Usage(20 * MB, 1000), lambda: None, lambda: None)
    with watch.watching(watched, reserve_bytes=0):
        with (place / "big").open("wb") as file:
            file.write(os.urandom(30 * MB))
            os.fsync(file.fileno())
        assert watch.last_look(watched) is Overuse.BYTES


def test_a_disk_that_cannot_be_asked_ends_the_watch_of_nobody(tmp_path: Path, begin: Begin) -> None:
    watched = begin("greedy", bound=Usage(20 * MB, 1000))
    unreadable = Watched([tmp_path / "a file" / "x"], [tmp_path], Usage(1, 1), lambda: None, lambda: None)
    (tmp_path / "a file").touch()
    with DiskWatch().watching(unreadable, reserve_bytes=0):
        grow(watched, 30)
        wait_until(lambda: watched.overuse is not None, "it is stopped")


def test_processes_that_have_not_run_are_known_to_have_done_nothing() -> None:
    code = "import sys\nfor line in sys.stdin: print(sum(range(10**6)), flush=True)"
    process = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        watched = Watched([], [], Usage(), lambda: identity_of(process.pid), lambda: None)

        def ask() -> None:
            process.stdin.write(b"go\n")  # type: ignore[union-attr]
            process.stdin.flush()  # type: ignore[union-attr]
            process.stdout.readline()  # type: ignore[union-attr]

        ask()
        wait_until(lambda: watched.look().is_nothing_since(watched.look()), "it waits")
        idle = watched.look()
        ask()
        assert not watched.look().is_nothing_since(idle)
    finally:
        process.kill()
        process.communicate()


def test_without_processes_to_see_nobody_is_known_to_be_idle() -> None:
    watched = Watched([], [], Usage(), lambda: None, lambda: None)
    assert not watched.look().is_nothing_since(watched.look())


# --- Room -------------------------------------------------------------------------------------------------------------
def room(free_bytes: int, free_files: int = 0) -> Room:
    return Room(Usage(free_bytes, free_files), Usage())


def test_what_a_disk_gets_back_makes_up_for_nothing_that_it_has_lost() -> None:
    drain, place = Drain(), Path("/")
    for free in (100, 60, 90, 80):
        drain.look(place, room(free, free))
    assert drain.lost(place) == Usage(50, 50)


def test_a_disk_that_was_looked_at_once_has_lost_nothing() -> None:
    drain = Drain()
    drain.look(Path("/"), room(100))
    assert drain.lost(Path("/")) == Usage()


def test_a_reserve_is_a_small_part_of_a_small_disk(disk: Path) -> None:
    found = room_at(disk, 10**12)
    assert found.reserve.bytes == 5 * MB
    assert not found.is_short


def test_without_a_reserve_no_disk_is_short(disk: Path) -> None:
    (disk / "big").write_bytes(bytes(99 * MB))
    assert not room_at(disk, 0).is_short


def test_a_file_system_in_memory_has_no_project_quotas(disk: Path) -> None:
    assert has_project_quotas(disk) is False


def test_one_counting_above_the_bound_is_doubted_since_a_renamed_file_may_be_seen_twice() -> None:
    told: list[bool] = []
    watched = Watched([], [], Usage(100, 100), lambda: None, lambda: told.append(True))
    for count in (150, 90, 150):
        watched.note(Usage(count, 1), 0.0)
    assert (watched.overuse, told) == (None, [])
    watched.note(Usage(150, 1), 0.0)
    watched.note(Usage(150, 1), 0.0)
    assert (watched.overuse, told) == (Overuse.BYTES, [True])
