"""What is taken out of a tree, what is left in it, and how much of it."""

from __future__ import annotations

import hashlib
import os
import threading
from pathlib import Path

import pytest
from runner_bench import nest

from djinn.runner.artifacts import CHUNK_BYTES, Artifact, check_glob, collect
from djinn.runner.git import WorkspaceError
from djinn.runner.walk import DEEPEST


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    path = tmp_path / "tree"
    path.mkdir()
    return path


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return tmp_path / "store"


def write(tree: Path, *names: str) -> None:
    for name in names:
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).write_text(name)


def paths(found: tuple[Artifact, ...]) -> list[str]:
    return [artifact.path for artifact in found]


NAMES = (
    "report.json", "a/report.json", "a/b/c/report.json", "dist/x.whl", "dist/x.tar", "dist/old/y.whl", "dist2/z.whl",
    ".hidden", ".github/report.json", "a/b/one.txt", "Dist/x.whl",
)  # fmt: skip
MATCHES = [
    ("report.json", ["report.json"]),
    ("*.json", ["report.json"]),
    ("**/report.json", [".github/report.json", "a/b/c/report.json", "a/report.json", "report.json"]),
    ("dist/*.whl", ["dist/x.whl"]),
    ("dist/**/*.whl", ["dist/old/y.whl", "dist/x.whl"]),
    ("dist/**", ["dist/old/y.whl", "dist/x.tar", "dist/x.whl"]),
    ("*/x.*", ["Dist/x.whl", "dist/x.tar", "dist/x.whl"]),
    ("a/**/b/*", ["a/b/one.txt"]),
    ("a/**/**/c/**", ["a/b/c/report.json"]),
    ("dist?/*.whl", ["dist2/z.whl"]),
    ("[dD]ist/x.whl", ["Dist/x.whl", "dist/x.whl"]),
    (".*", [".hidden"]),
    ("dist", []),
    ("report.json/**", []),
]


@pytest.mark.parametrize(("glob", "expected"), MATCHES)
def test_a_pattern_takes_what_it_says(tree: Path, store: Path, glob: str, expected: list[str]) -> None:
    write(tree, *NAMES)
    assert paths(collect(tree, [glob], store)) == expected


def test_everything_below_is_everything_below(tree: Path, store: Path) -> None:
    write(tree, *NAMES)
    assert paths(collect(tree, ["**"], store)) == sorted(NAMES)


def test_a_file_that_two_patterns_match_is_one_artifact(tree: Path, store: Path) -> None:
    write(tree, "a.txt", "b.txt")
    assert paths(collect(tree, ["*.txt", "a*"], store)) == ["a.txt", "b.txt"]


def test_an_artifact_is_stored_under_its_content(tree: Path, store: Path) -> None:
    content = os.urandom(3 * CHUNK_BYTES + 7)
    (tree / "big").write_bytes(content)
    (artifact,) = collect(tree, ["big"], store)
    assert artifact == Artifact("big", len(content), hashlib.sha256(content).hexdigest())
    assert (store / artifact.sha256).read_bytes() == content


def test_equal_contents_are_stored_once(tree: Path, store: Path) -> None:
    for name in ("a", "b"):
        (tree / name).write_text("same")
    found = collect(tree, ["*"], store)
    assert (len(found), len(list(store.iterdir()))) == (2, 1)


def test_collecting_again_gives_the_same(tree: Path, store: Path) -> None:
    write(tree, "a", "b/c")
    assert collect(tree, ["**"], store) == collect(tree, ["**"], store)


@pytest.mark.parametrize("name", [".git/config", "inner/.git/config", ".git"])
def test_a_repository_is_never_taken(tree: Path, store: Path, name: str) -> None:
    write(tree, name, "mine")
    assert paths(collect(tree, ["**", ".git/*", "**/.git", "**/.git/*"], store)) == ["mine"]


def test_links_are_not_followed(tree: Path, store: Path, tmp_path: Path) -> None:
    write(tmp_path, "outside/secret")
    (tree / "file").symlink_to(tmp_path / "outside" / "secret")
    (tree / "folder").symlink_to(tmp_path / "outside")
    assert collect(tree, ["**", "folder/*", "folder/secret", "file"], store) == ()


def test_a_tree_that_is_a_link_is_not_followed(store: Path, tmp_path: Path) -> None:
    write(tmp_path, "outside/secret")
    (tmp_path / "link").symlink_to(tmp_path / "outside")
    with pytest.raises(WorkspaceError):
        collect(tmp_path / "link", ["**"], store)


def swap(place: Path, outside: Path, done: threading.Event) -> None:
    """Let the name be what it is and a link to the outside by turns, as fast as it goes."""
    other, link = place.with_name("other"), place.with_name("link")
    link.symlink_to(outside)
    while not done.is_set():
        place.rename(other)
        link.rename(place)
        place.rename(link)
        other.rename(place)


@pytest.mark.parametrize("name", ["folder", "folder/file"])
def test_what_becomes_a_link_meanwhile_is_not_followed(tree: Path, store: Path, tmp_path: Path, name: str) -> None:
    write(tmp_path, "outside/folder/file")
    (tree / "folder").mkdir()
    (tree / "folder" / "file").write_text("inside")
    done = threading.Event()
    swapper = threading.Thread(target=swap, args=(tree / name, tmp_path / "outside" / name, done))
    swapper.start()
    try:
        found = {artifact.sha256 for _ in range(500) for artifact in collect(tree, ["folder/file"], store)}
    finally:
        done.set()
        swapper.join()
    assert found <= {hashlib.sha256(b"inside").hexdigest()}


def test_what_is_no_regular_file_is_left_out(tree: Path, store: Path) -> None:
    os.mkfifo(tree / "pipe")
    (tree / "folder.txt").mkdir()
    if os.getuid() == 0:
        os.mknod(tree / "null", 0o20666, os.makedev(1, 3))
    assert collect(tree, ["*"], store) == ()


def test_hard_names_are_told_as_text(tree: Path, store: Path) -> None:
    Path(os.fsdecode(os.fsencode(tree) + b"/n\xff\n-rf")).write_text("x")
    assert paths(collect(tree, ["*"], store)) == ["n\ufffd\n-rf"]


def test_more_files_than_allowed_name_the_pattern(tree: Path, store: Path) -> None:
    write(tree, "0.log", "a.txt", "b.txt", "c.txt")
    with pytest.raises(WorkspaceError, match=r"'\*\.txt'.*more than 3 files") as caught:
        collect(tree, ["*.log", "*.txt"], store, most_files=3)
    assert (caught.value.permanent, caught.value.reason) == (True, "output_limit")


def test_as_many_files_and_bytes_as_allowed_are_taken(tree: Path, store: Path) -> None:
    write(tree, "aa", "bb")
    assert len(collect(tree, ["*"], store, most_files=2, most_bytes=4)) == 2


def test_more_bytes_than_allowed_name_the_pattern(tree: Path, store: Path) -> None:
    write(tree, "aa", "bbb")
    with pytest.raises(WorkspaceError, match=r"'b\*'.*more than 4 bytes") as caught:
        collect(tree, ["a*", "b*"], store, most_bytes=4)
    assert (caught.value.permanent, caught.value.reason) == (True, "output_limit")


def test_a_file_of_a_terabyte_of_holes_is_refused_at_once(tree: Path, store: Path) -> None:
    with (tree / "sparse").open("wb") as file:
        file.truncate(2**40)
    with pytest.raises(WorkspaceError, match="more than"):
        collect(tree, ["*"], store)


def test_a_file_that_is_longer_than_it_said_is_bounded(store: Path) -> None:
    """As one is that grows while it is read; the kernel's own files say that they have 0 bytes."""
    with pytest.raises(WorkspaceError, match=r"'status'.*more than 100 bytes"):
        collect(Path("/proc", str(os.getpid())), ["status"], store, most_bytes=100)
    assert list(store.iterdir()) == []


def test_a_failed_collection_leaves_nothing_unfinished(tree: Path, store: Path) -> None:
    write(tree, "aa", "bbb")
    with pytest.raises(WorkspaceError):
        collect(tree, ["*"], store, most_bytes=2)
    assert [path.name for path in store.iterdir() if len(path.name) != 64] == []


def test_what_a_killed_process_left_is_removed_later(tree: Path, store: Path) -> None:
    store.mkdir()
    for name, moment in ((".unfinished-old", 0), (".unfinished-young", None)):
        (store / name).touch()
        if moment is not None:
            os.utime(store / name, (moment, moment))
    collect(tree, ["*"], store)
    assert [path.name for path in store.iterdir()] == [".unfinished-young"]


def test_a_tree_that_is_too_deep_names_the_pattern(tree: Path, store: Path) -> None:
    nest(tree, DEEPEST + 50)
    with pytest.raises(WorkspaceError, match=r"'\*\*/x'.*inside each other") as caught:
        collect(tree, ["**/x"], store)
    assert (caught.value.permanent, caught.value.reason) == (True, "output_limit")


def test_a_deep_directory_that_no_pattern_leads_to_does_not_matter(tree: Path, store: Path) -> None:
    nest(tree, DEEPEST + 50)
    write(tree, "dist/x")
    assert paths(collect(tree, ["dist/*"], store)) == ["dist/x"]


GOOD = ["a", "dist/*.whl", "**/report.json", "**", "a/**/b", ".coverage", "with space/x", "a..b", "...", "ä/*"]
BAD = [
    "",
    " ",
    "/etc/passwd",
    "..",
    "a/../b",
    "../x",
    "a/..",
    "a//b",
    "a/",
    "./a",
    "a/.",
    "a\0",
    "a\nb",
    "a**",
    "x" * 1001,
]


@pytest.mark.parametrize("glob", GOOD)
def test_a_good_pattern_has_no_problem(glob: str) -> None:
    assert check_glob(glob) == ""


@pytest.mark.parametrize("glob", BAD)
def test_a_bad_pattern_is_told_why(glob: str) -> None:
    assert check_glob(glob).strip() != ""


@pytest.mark.parametrize("glob", BAD)
def test_a_bad_pattern_takes_nothing(tree: Path, store: Path, glob: str) -> None:
    with pytest.raises(WorkspaceError) as caught:
        collect(tree, ["*", glob], store)
    assert (caught.value.permanent, caught.value.reason, store.exists()) == (True, "rejected", False)
