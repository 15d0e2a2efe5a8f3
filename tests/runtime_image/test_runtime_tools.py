"""The tools, each called by a scripted model through the real runtime."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from execution_double import Ended, Execution
from gateway_double import Gateway, calls, completes

Use = Callable[..., Ended]


@pytest.fixture
def use(execution: Execution, gateway: Callable[..., Gateway]) -> Use:
    """Call one tool and end: `use("read", path="f")`; settings of the brief in `brief`."""

    def one(name: str, *, brief: dict[str, Any] | None = None, **arguments: Any) -> Ended:
        gateway(calls((name, arguments)), completes())
        return execution.agent(**(brief or {}))

    return one


def _text(ended: Ended) -> str:
    return str(ended.result()["text"])


def _refused(ended: Ended) -> str:
    assert ended.result()["is_error"]
    return _text(ended)


def _put(execution: Execution, name: str, content: str | bytes) -> Path:
    path = execution.workspace / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def test_read_numbers_the_lines(execution: Execution, use: Use) -> None:
    _put(execution, "f", "one\r\ntwo")
    assert _text(use("read", path="f")) == "     1\tone\n     2\ttwo"


def test_read_takes_offset_and_limit(execution: Execution, use: Use) -> None:
    _put(execution, "f", "a\nb\nc\nd\n")
    assert _text(use("read", path="f", offset=2, limit=2)) == (
        "     2\tb\n     3\tc\n[the file goes on; read on with offset 4]"
    )


def test_read_of_a_large_file_is_cut_between_lines(execution: Execution, use: Use) -> None:
    _put(execution, "f", "x" * 99 + "\n" + "y" * 99 + "\n")
    text = _text(use("read", path="f", brief={"tool_output_bytes": 150}))
    assert text == "     1\t" + "x" * 99 + "\n[the file goes on; read on with offset 2]"


def test_read_cuts_a_line_without_end(execution: Execution, use: Use) -> None:
    _put(execution, "f", "x" * 5_000_000 + "\nend\n")
    text = _text(use("read", path="f"))
    assert (len(text) < 3000, text.endswith("     2\tend")) == (True, True)


def test_read_refuses_a_binary_file(execution: Execution, use: Use) -> None:
    _put(execution, "f", b"\x7fELF\0\0")
    assert "binary" in _refused(use("read", path="f"))


def test_read_shows_other_encodings_with_replacements(execution: Execution, use: Use) -> None:
    _put(execution, "f", b"caf\xe9")
    assert _text(use("read", path="f")) == "     1\tcaf\ufffd"


def test_read_of_an_empty_file_says_so(execution: Execution, use: Use) -> None:
    _put(execution, "f", "")
    assert _text(use("read", path="f")) == "[the file is empty]"


def test_read_behind_the_end_is_an_error(execution: Execution, use: Use) -> None:
    _put(execution, "f", "a\n")
    assert "1 lines" in _refused(use("read", path="f", offset=9))


def test_read_of_a_folder_is_an_error(use: Use) -> None:
    assert "ls" in _refused(use("read", path="."))


def test_read_of_a_named_pipe_does_not_hang(execution: Execution, use: Use) -> None:
    os.mkfifo(execution.workspace / "f")
    assert "regular" in _refused(use("read", path="f"))


ESCAPES = ["../secret", "/etc/passwd", "link", "folder/secret", "a/../../secret", "~/../secret\0"]


@pytest.fixture
def outside(execution: Execution) -> Path:
    """A file beside the workspace, with links to it from inside."""
    secret = execution.workspace.parent / "secret"
    secret.write_text("hidden")
    (execution.workspace / "link").symlink_to(secret)
    (execution.workspace / "folder").symlink_to(secret.parent)
    return secret


@pytest.mark.parametrize("path", ESCAPES)
@pytest.mark.usefixtures("outside")
def test_read_does_not_leave_the_workspace(use: Use, path: str) -> None:
    assert "hidden" not in _refused(use("read", path=path))


@pytest.mark.parametrize("path", ESCAPES[:1] + ESCAPES[2:])
def test_write_does_not_leave_the_workspace(use: Use, outside: Path, path: str) -> None:
    _refused(use("write", path=path, content="changed"))
    assert outside.read_text() == "hidden"


@pytest.mark.parametrize("path", ESCAPES[:1] + ESCAPES[2:])
def test_edit_does_not_leave_the_workspace(use: Use, outside: Path, path: str) -> None:
    _refused(use("edit", path=path, old="hidden", new="changed"))
    assert outside.read_text() == "hidden"


@pytest.mark.parametrize("tool", ["ls", "grep", "find"])
@pytest.mark.usefixtures("outside")
def test_searches_do_not_leave_the_workspace(use: Use, tool: str) -> None:
    pattern = {} if tool == "ls" else {"pattern": "."}
    assert "outside" in _refused(use(tool, path="folder", **pattern))


@pytest.mark.usefixtures("outside")
def test_grep_does_not_follow_links_out_of_the_workspace(use: Use) -> None:
    assert _text(use("grep", pattern="hidden")) == "[no match]"


def test_an_absolute_path_inside_the_workspace_is_fine(execution: Execution, use: Use) -> None:
    path = _put(execution, "f", "x")
    assert _text(use("read", path=str(path))) == "     1\tx"


def test_write_makes_a_file_and_its_folders(execution: Execution, use: Use) -> None:
    ended = use("write", path="a/b/f", content="x\ny\n")
    assert (execution.workspace / "a/b/f").read_text() == "x\ny\n"
    assert ended.of("file_changed") == [{"path": "a/b/f", "change": "created", "added": 2, "removed": 0}]


def test_write_keeps_the_mode(execution: Execution, use: Use) -> None:
    path = _put(execution, "f", "old\n")
    path.chmod(0o750)
    ended = use("write", path="f", content="new\n")
    assert (path.read_text(), path.stat().st_mode & 0o777) == ("new\n", 0o750)
    assert ended.of("file_changed") == [{"path": "f", "change": "modified", "added": 1, "removed": 1}]


def test_write_over_a_folder_is_an_error(execution: Execution, use: Use) -> None:
    (execution.workspace / "d").mkdir()
    assert "no regular file" in _refused(use("write", path="d", content="x"))


def test_write_below_a_file_is_an_error(execution: Execution, use: Use) -> None:
    _put(execution, "f", "x")
    _refused(use("write", path="f/g", content="x"))


def test_write_leaves_no_draft_behind(execution: Execution, use: Use) -> None:
    use("write", path="f", content="x")
    assert os.listdir(execution.workspace) == ["f"]


def test_edit_replaces_the_one_occurrence(execution: Execution, use: Use) -> None:
    path = _put(execution, "f", "a\nb\nc\n")
    ended = use("edit", path="f", old="b\n", new="x\ny\n")
    assert path.read_text() == "a\nx\ny\nc\n"
    assert ended.of("file_changed") == [{"path": "f", "change": "modified", "added": 2, "removed": 1}]


def test_edit_refuses_several_occurrences(execution: Execution, use: Use) -> None:
    path = _put(execution, "f", "a a")
    assert "2 times" in _refused(use("edit", path="f", old="a", new="b"))
    assert path.read_text() == "a a"


def test_edit_replaces_all_when_told(execution: Execution, use: Use) -> None:
    path = _put(execution, "f", "a a")
    use("edit", path="f", old="a", new="b", replace_all=True)
    assert path.read_text() == "b b"


def test_edit_hints_at_the_nearest_line(execution: Execution, use: Use) -> None:
    _put(execution, "f", "alpha = 1\nbeta = 2\n")
    assert "line is 2: beta = 2" in _refused(use("edit", path="f", old="beta  = 2", new="x"))


def test_edit_keeps_crlf(execution: Execution, use: Use) -> None:
    path = _put(execution, "f", b"a\r\nb\r\nc\r\n")
    use("edit", path="f", old="a\nb", new="x\ny\nz")
    assert path.read_bytes() == b"x\r\ny\r\nz\r\nc\r\n"


def test_edit_of_one_line_keeps_crlf(execution: Execution, use: Use) -> None:
    path = _put(execution, "f", b"a\r\nb\r\n")
    use("edit", path="f", old="b", new="x\ny")
    assert path.read_bytes() == b"a\r\nx\r\ny\r\n"


@pytest.mark.parametrize(("old", "new"), [("", "x"), ("a", "a")])
def test_edit_refuses_what_changes_nothing(execution: Execution, use: Use, old: str, new: str) -> None:
    _put(execution, "f", "a")
    _refused(use("edit", path="f", old=old, new=new))


def test_edit_refuses_a_file_that_is_no_utf8(execution: Execution, use: Use) -> None:
    path = _put(execution, "f", b"a\xff")
    assert "UTF-8" in _refused(use("edit", path="f", old="a", new="b"))
    assert path.read_bytes() == b"a\xff"


def test_edit_of_a_missing_file_is_an_error(use: Use) -> None:
    assert "does not exist" in _refused(use("edit", path="f", old="a", new="b"))


def test_bash_gives_output_and_exit_code(use: Use) -> None:
    assert _text(use("bash", command="echo out; echo err >&2; exit 3")) == "out\nerr\n\n[exit code 3]"


def test_bash_records_its_output(use: Use) -> None:
    assert use("bash", command="echo hi").text("output") == "hi\n"


def test_bash_has_no_input(use: Use) -> None:
    assert _text(use("bash", command="cat; echo end")) == "end\n\n[exit code 0]"


def test_bash_output_is_cut_in_the_middle(use: Use) -> None:
    text = _text(use("bash", command="seq 100000", brief={"tool_output_bytes": 1000}))
    assert (text.startswith("1\n2\n"), "bytes cut" in text, "100000\n\n[exit code 0]" in text) == (True, True, True)


def test_bash_output_is_no_larger_than_the_limit(use: Use) -> None:
    text = _text(use("bash", command="seq 100000", brief={"tool_output_bytes": 1000}))
    assert len(text) < 1100


def test_bash_that_runs_too_long_is_killed(use: Use) -> None:
    text = _refused(use("bash", command="echo begun; sleep 1000", timeout_seconds=1))
    assert ("begun" in text, "killed after 1 s" in text) == (True, True)


def test_bash_cannot_ask_for_more_time_than_the_brief_gives(use: Use) -> None:
    ended = use("bash", command="sleep 1000", timeout_seconds=500, brief={"command_timeout_seconds": 1})
    assert "killed after 1 s" in _refused(ended)


def test_bash_at_its_timeout_kills_what_ignores_sigterm(execution: Execution, use: Use) -> None:
    command = "sh -c 'trap \"\" TERM; echo $$ > pid; while :; do sleep 0.1; date >> beat; done'"
    use("bash", command=command, timeout_seconds=1)
    assert not Path(f"/proc/{(execution.workspace / 'pid').read_text().strip()}").exists()


def test_bash_does_not_wait_for_a_background_child_that_holds_the_output(use: Use) -> None:
    ended = use("bash", command="echo out; sleep 1000 &", timeout_seconds=15)
    assert ("out\n" in _text(ended), "background" in _text(ended)) == (True, True)


def test_a_background_child_lives_on_between_calls(execution: Execution, gateway: Callable[..., Gateway]) -> None:
    background = "(while [ ! -e go ]; do sleep 0.01; done; echo x; echo y; touch went) &"
    wait = "touch go; while [ ! -e went ]; do sleep 0.01; done; echo went"
    gateway(calls(("bash", {"command": background})), calls(("bash", {"command": wait})), completes())
    assert "went\n" in execution.agent().result(1)["text"]


def test_bash_survives_bytes_that_are_no_text(use: Use) -> None:
    assert _text(use("bash", command=r"printf 'a\377\0b'")) == "a\ufffd\ufffdb\n[exit code 0]"


def test_a_flood_of_bash_output_does_not_end_the_work(use: Use) -> None:
    ended = use("bash", command="yes | head -c 3000000", brief={"journal_bytes": 1_000_000})
    assert (ended.finished["status"], len(ended.journal) < 500_000) == ("succeeded", True)


def test_a_command_that_is_too_long_is_a_tool_error(use: Use) -> None:
    _refused(use("bash", command="#" + "x" * 200_000))


@pytest.fixture
def tree(execution: Execution) -> Execution:
    """Some files."""
    _put(execution, "src/a.py", "def alpha():\n    return 1\n")
    _put(execution, "src/deep/b.py", "ALPHA = 2\n")
    _put(execution, "notes.md", "alpha and beta\n")
    _put(execution, ".git/config", "alpha\n")
    _put(execution, "data.bin", b"alpha\0")
    return execution


@pytest.mark.usefixtures("tree")
def test_grep_gives_path_line_and_text(use: Use) -> None:
    assert _text(use("grep", pattern="al.ha")).splitlines() == ["notes.md:1:alpha and beta", "src/a.py:1:def alpha():"]


@pytest.mark.usefixtures("tree")
def test_grep_takes_glob_path_and_case(use: Use) -> None:
    text = _text(use("grep", pattern="alpha", path="src", glob="*.py", ignore_case=True))
    assert text.splitlines() == ["src/a.py:1:def alpha():", "src/deep/b.py:1:ALPHA = 2"]


@pytest.mark.usefixtures("tree")
def test_grep_searches_one_file(use: Use) -> None:
    assert _text(use("grep", pattern="beta", path="notes.md")) == "notes.md:1:alpha and beta"


@pytest.mark.usefixtures("tree")
def test_grep_tells_a_bad_pattern(use: Use) -> None:
    _refused(use("grep", pattern="("))


@pytest.mark.usefixtures("tree")
def test_grep_takes_a_pattern_that_looks_like_an_option(use: Use) -> None:
    assert _text(use("grep", pattern="--help")) == "[no match]"


@pytest.mark.skipif(shutil.which("rg") is not None, reason="ripgrep does not backtrack")
def test_grep_stops_a_pattern_without_end(execution: Execution, use: Use) -> None:
    _put(execution, "f", "a" * 60 + "\n")
    assert "too long" in _refused(use("grep", pattern="(a+)+$b", brief={"command_timeout_seconds": 1}))


@pytest.mark.usefixtures("tree")
def test_grep_uses_ripgrep_where_it_is(execution: Execution, gateway: Callable[..., Gateway]) -> None:
    programs = execution.workspace.parent / "programs"
    programs.mkdir()
    (programs / "rg").write_text('#!/bin/sh\necho "./ripgrep got $*"\n')
    (programs / "rg").chmod(0o755)
    gateway(calls(("grep", {"pattern": "-x", "glob": "*.py"})), completes())
    execution.give_agent()
    text = execution.run(PATH=f"{programs}:{os.environ['PATH']}").result()["text"]
    assert text.startswith("ripgrep got --no-config")
    assert text.endswith("--glob=*.py --regexp -x -- .")


GLOBS = [
    ("*.py", ["src/a.py", "src/deep/b.py"]),
    ("src/*.py", ["src/a.py"]),
    ("**/b.py", ["src/deep/b.py"]),
    ("src/**", ["src/a.py", "src/deep/b.py"]),
    ("**/notes.md", ["notes.md"]),
    ("src/**/*.py", ["src/a.py", "src/deep/b.py"]),
    ("config", ["[nothing found]"]),
]


@pytest.mark.usefixtures("tree")
@pytest.mark.parametrize(("pattern", "expected"), GLOBS)
def test_find_matches_globs(use: Use, pattern: str, expected: list[str]) -> None:
    assert _text(use("find", pattern=pattern)).splitlines() == expected


def test_find_is_capped(execution: Execution, use: Use) -> None:
    for number in range(600):
        (execution.workspace / f"f{number:03}").touch()
    lines = _text(use("find", pattern="f*")).splitlines()
    assert (len(lines), lines[-1]) == (501, "[only the first 500 are shown]")


def test_find_with_many_stars_ends(execution: Execution, use: Use) -> None:
    _put(execution, "a" * 200, "")
    assert _text(use("find", pattern="*a" * 90 + "b")) == "[nothing found]"


def test_ls_shows_folders_files_and_links(execution: Execution, use: Use) -> None:
    _put(execution, "d/f", "x")
    _put(execution, "g", "four")
    (execution.workspace / "l").symlink_to("g")
    assert _text(use("ls")).splitlines() == ["d/", "g  4 bytes", "l -> g"]


def test_ls_of_what_is_missing_is_an_error(use: Use) -> None:
    assert "does not exist" in _refused(use("ls", path="nowhere"))


def test_a_name_that_is_no_utf8_is_listed(execution: Execution, use: Use) -> None:
    Path(os.fsdecode(os.fsencode(execution.workspace) + b"/a\xff")).touch()
    assert _text(use("ls")) == "a?  0 bytes"


def test_the_result_of_any_tool_is_cut(execution: Execution, use: Use) -> None:
    for number in range(100):
        (execution.workspace / f"{number:0100}").touch()
    assert len(_text(use("find", pattern="*", brief={"tool_output_bytes": 1000}))) < 1600
