"""Files that others can replace are opened by descriptor, and nothing of the host's code goes past that."""

from __future__ import annotations

import ast
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from djinn.runner import artifacts, beneath, files, walk

DJINN = Path(__file__).parents[2] / "djinn"


@pytest.fixture
def victim(tmp_path: Path) -> Path:
    path = tmp_path / "victim"
    path.write_text("precious")
    return path


@pytest.fixture
def root(tmp_path: Path) -> Path:
    path = tmp_path / "root"
    path.mkdir()
    return path


# --- What a name may be -----------------------------------------------------------------------------------------------
def link(path: Path, victim: Path) -> None:
    path.symlink_to(victim)


def dangling_link(path: Path, victim: Path) -> None:
    path.symlink_to(victim.with_name("not-there-yet"))


def pipe(path: Path, victim: Path) -> None:
    os.mkfifo(path)


def directory(path: Path, victim: Path) -> None:
    path.mkdir()


TRAPS = [link, dangling_link, pipe, directory]
Trap = Callable[[Path, Path], None]


@pytest.mark.parametrize("flags", [os.O_RDONLY, os.O_WRONLY, os.O_WRONLY | os.O_APPEND])
@pytest.mark.parametrize("trap", TRAPS)
def test_only_a_regular_file_is_opened_and_nothing_waits(root: Path, victim: Path, trap: Trap, flags: int) -> None:
    trap(root / "name", victim)
    with pytest.raises(beneath.NotRegular):
        beneath.open_file(root, "name", flags)


@pytest.mark.parametrize("trap", TRAPS)
def test_a_file_that_must_be_there_is_made_through_no_link(root: Path, victim: Path, trap: Trap) -> None:
    trap(root / "name", victim)
    with pytest.raises(OSError, match="regular"):
        beneath.ensure_file(root, "name", mode=0o600, owner=(10001, 10001) if os.getuid() == 0 else None)
    assert (victim.read_text(), victim.stat().st_uid) == ("precious", os.getuid())
    assert not victim.with_name("not-there-yet").exists()


@pytest.mark.parametrize("trap", [link, dangling_link, pipe])
def test_a_file_that_is_replaced_takes_the_place_of_whatever_was_there(root: Path, victim: Path, trap: Trap) -> None:
    trap(root / "name", victim)
    beneath.replace_file(root, "name", b"new", mode=0o440)
    assert (victim.read_text(), (root / "name").read_bytes()) == ("precious", b"new")
    assert [path.name for path in root.iterdir()] == ["name"]
    assert (root / "name").lstat().st_mode & 0o777 == 0o440


def test_a_file_that_cannot_be_replaced_leaves_nothing_behind(root: Path) -> None:
    (root / "name").mkdir()
    with pytest.raises(OSError, match="directory"):
        beneath.replace_file(root, "name", b"new", mode=0o600)
    assert [path.name for path in root.iterdir()] == ["name"]


@pytest.mark.parametrize("trap", [link, dangling_link, pipe])
def test_no_directory_is_made_or_given_away_through_a_link(root: Path, victim: Path, trap: Trap) -> None:
    trap(root / "name", victim)
    with pytest.raises(OSError):
        beneath.ensure_directory(root, "name", mode=0o777)
    with pytest.raises(OSError):
        beneath.give_directory(root / "name", (os.getuid(), os.getgid()))


def test_a_link_on_the_way_is_not_followed(root: Path, victim: Path) -> None:
    (root / "way").symlink_to(victim.parent)
    for act in (beneath.open_file, beneath.make_directory):
        with pytest.raises(OSError, match="way"):
            act(root, f"way/{victim.name}")


@pytest.mark.parametrize("name", ["../victim", "/etc/passwd", "a/../../victim", ".", "", "a//b"])
def test_no_name_leads_out_of_the_directory(root: Path, victim: Path, name: str) -> None:
    with pytest.raises(ValueError, match="not a path below"):
        beneath.open_file(root, name)


def test_what_is_there_keeps_its_content(root: Path) -> None:
    beneath.ensure_file(root, "name", mode=0o600)
    (root / "name").write_text("kept")
    beneath.ensure_file(root, "name", mode=0o640)
    assert beneath.read_file(root, "name", most_bytes=100) == b"kept"
    assert (root / "name").stat().st_mode & 0o777 == 0o640


# --- The whole house --------------------------------------------------------------------------------------------------
HOME = "the host's own: no container can write where it lies"
BEFORE = "the tree is filled before anything has run in it"
UNISOLATED = "the state of plain processes and of the stub, which isolate nothing"
ALLOWED = {
    "executions/disk.py:_disks": HOME,
    "executions/places.py:open_door": HOME,
    "executions/places.py:close_door": HOME,
    "executions/directory.py:_take_back": "asks whom the directory belongs to; what is not ours is removed",
    "runner/artifacts.py:collect": HOME,
    "runner/artifacts.py:_copy": HOME,
    "runner/artifacts.py:_remove_leftovers": HOME,
    "runner/artifacts.py:_sync": HOME,
    "runner/base_image.py": "makes an image of packages",
    "runner/beneath.py:give_directory": "by a descriptor that follows no link",
    "runner/beneath.py:_parent": "the directory that is given lies in one of the host's own",
    "runner/docker_options.py": "reads what Djinn ships",
    "runner/files.py:write_json": HOME,
    "runner/files.py:read_json": HOME,
    "runner/files.py:link_or_copy": HOME,
    "runner/files.py:link_repository": HOME,
    "runner/files.py:remove_tree": "the top lies in a directory of the host's own, and is opened without following it",
    "runner/files.py:_permit": "by a descriptor, of which this is the only name",
    "runner/held.py": "reads /proc, and asks what its links lead to; nothing of it is opened",
    "runner/image.py": "reads what Djinn ships",
    "runner/lock.py": HOME,
    "runner/memory.py": "reads /proc and /sys",
    "runner/process.py": UNISOLATED,
    "runner/process_supervisor.py": UNISOLATED,
    "runner/processes.py": "reads /proc",
    "runner/room.py:has_project_quotas": HOME,
    "runner/snapshots.py:create": HOME,
    "runner/snapshots.py:_remove_stale_locks": HOME,
    "runner/snapshots.py:_is_file": "asks and opens nothing, in a tree whose container has ended; git looks again",
    "runner/source.py": BEFORE,
    "runner/stub.py": UNISOLATED,
    "runner/usage.py:measuring": "the place lies in a directory of the host's own, and is opened without following it",
    "runner/usage.py:_directory": "asks entries of an open directory, links themselves",
    "runner/usage.py:_forced_open": "by a descriptor that follows no link",
    "runner/walk.py:walk": "the tree itself lies in a directory of the host's own, and is opened without following it",
    "runner/workspace.py": HOME,
    "runs/retention.py": HOME,
}
"""What may name files by their paths, and why; a module, or one function of it."""

FUNCTIONS = {
    "access", "chmod", "chown", "lchown", "link", "listdir", "lstat", "makedirs", "mkdir", "mkfifo", "open", "readlink",
    "remove", "rename", "renames", "replace", "rmdir", "scandir", "stat", "symlink", "truncate", "unlink", "utime",
    "walk",
}  # fmt: skip
METHODS = {
    "chmod", "exists", "glob", "hardlink_to", "is_dir", "is_file", "is_symlink", "iterdir", "lchmod", "lstat", "mkdir",
    "open", "read_bytes", "read_text", "rename", "resolve", "rglob", "rmdir", "stat", "symlink_to", "touch", "unlink",
    "write_bytes", "write_text",
}  # fmt: skip
FOLLOWS_UNLESS_TOLD = {"chown", "link", "stat", "utime"}
FLAGS = {"_DIRECTORY", "_FILE", "_SAFE", "O_NOFOLLOW"}
PLACES = {"execution_directory", "workspace_of", "Workspace"}
"""Whoever uses one of these has to do with such files, in whatever app it lies."""


def calls(path: Path) -> Iterator[tuple[str, ast.Call]]:
    """Every call in a module, with the innermost function that it stands in."""

    def look(node: ast.AST, function: str) -> Iterator[tuple[str, ast.Call]]:
        for child in ast.iter_child_nodes(node):
            inner = child.name if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef) else function
            if isinstance(child, ast.Call):
                yield inner, child
            yield from look(child, inner)

    return look(ast.parse(path.read_text()), "")


def problem(call: ast.Call) -> str:
    """What is dangerous about the call in a directory that others can write; empty when nothing is."""
    target = call.func
    if isinstance(target, ast.Name):
        return "open" if target.id == "open" else ""
    if not isinstance(target, ast.Attribute):
        return ""
    base = target.value.id if isinstance(target.value, ast.Name) else ""
    if base in {"shutil", "tempfile"}:
        return f"{base}.{target.attr}"
    if base == "os":
        return f"os.{target.attr}" if target.attr in FUNCTIONS and not is_by_descriptor(call, target.attr) else ""
    is_path = target.attr in METHODS and base not in {"beneath", "objects"}
    return f".{target.attr}()" if is_path and not is_query(target) else ""


def is_query(target: ast.Attribute) -> bool:
    """A queryset's `exists`, called on a call's or a queryset's result, and not on a path."""
    return target.attr == "exists" and isinstance(target.value, ast.Name) and target.value.id in {"rows", "runs"}


def is_by_descriptor(call: ast.Call, name: str) -> bool:
    """Whether it names one part in an open directory, and does not follow it."""
    words = {keyword.arg: keyword.value for keyword in call.keywords}
    if name == "listdir":
        return isinstance(call.args[0], ast.Name) and call.args[0].id == "directory"
    if not {"dir_fd", "src_dir_fd"} & set(words):
        return False
    if name == "open":
        used = {node.id for node in ast.walk(call.args[1]) if isinstance(node, ast.Name)}
        used |= {node.attr for node in ast.walk(call.args[1]) if isinstance(node, ast.Attribute)}
        return bool(used & FLAGS)
    follows = words.get("follow_symlinks")
    return name not in FOLLOWS_UNLESS_TOLD or (isinstance(follows, ast.Constant) and follows.value is False)


def concerned(path: Path) -> bool:
    """Whether the module deals with the directories that containers write to."""
    module = path.relative_to(DJINN)
    if module.parts[0] in {"executions", "runner"}:
        return "migrations" not in module.parts
    names = {getattr(node, "id", getattr(node, "attr", "")) for node in ast.walk(ast.parse(path.read_text()))}
    return bool(PLACES & names) or ("INSTALLATION" in names and bool({"executions", "workspaces"} & names))


def found() -> dict[str, list[str]]:
    """Every such call in the host's code, by module and function."""
    by_place: dict[str, list[str]] = {}
    for path in sorted(DJINN.rglob("*.py")):
        if concerned(path):
            for function, call in calls(path):
                if what := problem(call):
                    place = f"{path.relative_to(DJINN)}:{function}"
                    by_place.setdefault(place, []).append(f"{what} in line {call.lineno}")
    return by_place


def test_nothing_on_the_host_opens_what_containers_write_but_by_descriptor() -> None:
    wrong = {
        place: problems
        for place, problems in found().items()
        if place not in ALLOWED and place.partition(":")[0] not in ALLOWED
    }
    assert wrong == {}


def test_what_is_allowed_to_go_past_it_is_still_there() -> None:
    places = set(found())
    modules = {place.partition(":")[0] for place in places}
    assert not set(ALLOWED) - places - modules


@pytest.mark.parametrize(
    "text",
    [
        "open(path)",
        "os.open(path, os.O_RDONLY)",
        "os.open(name, os.O_RDONLY, dir_fd=directory)",
        "os.chown(name, 1, 1, dir_fd=directory)",
        "os.chown(path, 1, 1, follow_symlinks=False)",
        "os.replace(a, b)",
        "path.write_text('x')",
        "shutil.rmtree(path)",
    ],
)
def test_the_search_finds_what_it_looks_for(text: str) -> None:
    (statement,) = ast.parse(text).body
    assert isinstance(statement, ast.Expr)
    assert isinstance(statement.value, ast.Call)
    assert problem(statement.value)


@pytest.mark.parametrize(
    "flags", [beneath._DIRECTORY, beneath._SAFE, files._DIRECTORY, walk._DIRECTORY, artifacts._FILE]
)
def test_the_flags_that_it_trusts_follow_no_link(flags: int) -> None:
    assert flags & os.O_NOFOLLOW
    assert flags & os.O_CLOEXEC
