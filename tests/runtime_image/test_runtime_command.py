"""Mode "command"."""

from __future__ import annotations

import sys

import pytest
from execution_double import Execution


def test_a_script_that_succeeds_finishes_as_succeeded(execution: Execution) -> None:
    ended = execution.command("echo hello")
    assert (ended.exit_code, ended.finished["status"], ended.finished["exit_code"]) == (0, "succeeded", 0)


def test_the_first_record_is_ready_with_the_mode(execution: Execution) -> None:
    first = execution.command("true").records[0]
    assert (first.n, first.type, first.data["mode"]) == (1, "ready", "command")


def test_stdout_and_stderr_are_recorded_in_the_order_of_writing(execution: Execution) -> None:
    script = "for i in $(seq 300); do echo out $i; echo err $i >&2; done"
    lines = [f"{name} {number}" for number in range(1, 301) for name in ("out", "err")]
    assert execution.command(script).text("output").splitlines() == lines


def test_output_carries_no_name_of_a_stream(execution: Execution) -> None:
    ended = execution.command("echo out; echo err >&2")
    assert [set(data) for data in ended.of("output")] == [{"text"}]


@pytest.mark.parametrize("name", ["stdout", "stderr"])
def test_a_script_may_open_its_output_again(execution: Execution, name: str) -> None:
    assert execution.command(f"echo a; echo b > /dev/{name}; echo c").text("output") == "a\nb\nc\n"


def test_python_writes_its_output_when_it_prints(execution: Execution) -> None:
    execution.give(mode="command", script=f"{sys.executable} -c \"print('before'); raise ValueError('bad')\"")
    ended = execution.run()
    assert ended.text("output").startswith("before\nTraceback")
    assert ended.message == "exit code 1: ValueError: bad"


def test_the_script_runs_in_the_workspace(execution: Execution) -> None:
    execution.command("touch here")
    assert (execution.workspace / "here").exists()


def test_a_failing_line_ends_the_script(execution: Execution) -> None:
    ended = execution.command("echo before; false; echo after")
    assert ended.text("output") == "before\n"


def test_a_failing_pipe_ends_the_script(execution: Execution) -> None:
    assert execution.command("false | cat").finished["status"] == "failed"


def test_a_failure_tells_exit_code_and_last_line(execution: Execution) -> None:
    ended = execution.command("seq 100; echo out; echo boom >&2; echo; exit 7")
    assert (ended.reason, ended.message, ended.finished["exit_code"]) == ("error", "exit code 7: boom", 7)


def test_a_failure_without_output_is_its_exit_code(execution: Execution) -> None:
    assert execution.command("exit 7").message == "exit code 7"


@pytest.mark.parametrize(
    ("script", "message"),
    [
        (r"printf '\033[31mred\033[0m\n'", "red"),
        (r"printf '10%%\ra\tb\r\n'", "a b"),
        (r"printf '\033]0;title\007x\n'", "]0;title x"),
        ("head -c 100000 /dev/zero | tr '\\0' x", "x" * 199 + "…"),
    ],
)
def test_the_last_line_is_short_and_plain(execution: Execution, script: str, message: str) -> None:
    assert execution.command(f"{script}; exit 3").message == f"exit code 3: {message}"


def test_a_script_killed_by_a_signal_names_it(execution: Execution) -> None:
    ended = execution.command("kill -KILL $$")
    assert (ended.message, ended.finished["exit_code"]) == ("killed by SIGKILL", 137)


def test_outputs_come_from_the_output_file(execution: Execution) -> None:
    script = 'printf "A=1=2\\nB<<END\\nx\\ny=z\\nEND\\n" >> "$DJINN_OUTPUT"'
    assert execution.command(script, outputs=["A", "B"]).finished["outputs"] == {"A": "1=2", "B": "x\ny=z"}


def test_a_missing_output_fails_the_step_and_is_named(execution: Execution) -> None:
    ended = execution.command("echo A=1 >> $DJINN_OUTPUT", outputs=["A", "B"])
    assert (ended.reason, ended.message) == ("error", "the script did not set its outputs: B")


def test_an_undeclared_output_is_left_out_with_a_warning(execution: Execution) -> None:
    ended = execution.command("echo C=1 >> $DJINN_OUTPUT")
    assert (ended.finished["outputs"], "'C'" in ended.of("log")[0]["message"]) == ({}, True)


@pytest.mark.parametrize("line", ["nonsense", "=value", "A<<", "A<<END"])
def test_a_malformed_output_file_fails_the_step(execution: Execution, line: str) -> None:
    ended = execution.command(f"echo '{line}' >> $DJINN_OUTPUT")
    assert (ended.reason, "line 1" in ended.message) == ("error", True)


def test_an_output_file_replaced_by_a_pipe_fails_the_step(execution: Execution) -> None:
    ended = execution.command("rm $DJINN_OUTPUT; mkfifo $DJINN_OUTPUT")
    assert "regular file" in ended.message


def test_an_output_file_replaced_by_a_link_is_not_followed(execution: Execution) -> None:
    ended = execution.command("ln -sf /etc/passwd $DJINN_OUTPUT")
    assert "cannot be read" in ended.message


def test_outputs_that_do_not_fit_a_record_fail_the_step(execution: Execution) -> None:
    script = "(echo -n A=; head -c 70000 /dev/zero | tr '\\0' x) >> $DJINN_OUTPUT"
    assert "70" in execution.command(script, outputs=["A"]).message


def test_the_environment_is_clean_but_for_the_brief(execution: Execution) -> None:
    execution.give(mode="command", script="env", environment={"MINE": "yes"})
    names = {line.split("=")[0] for line in execution.run(SECRET="x").text("output").splitlines()}
    allowed = {
        "PATH",
        "HOME",
        "LANG",
        "TERM",
        "MINE",
        "DJINN_OUTPUT",
        "PYTHONUNBUFFERED",
        "PWD",
        "SHLVL",
        "_",
        "OLDPWD",
    }
    assert ("MINE" in names, names - allowed) == (True, set())


def test_the_script_has_no_input(execution: Execution) -> None:
    assert execution.command("cat; echo end").text("output") == "end\n"


def test_bytes_that_are_no_utf8_are_replaced(execution: Execution) -> None:
    assert execution.command(r"printf 'a\377b\303'").text("output") == "a\ufffdb\ufffd"


def test_a_character_split_over_writes_is_whole(execution: Execution) -> None:
    script = r"printf '\303'; touch a; while [ ! -e b ]; do sleep 0.01; done; printf '\244'"
    execution.give(mode="command", script=script)
    process = execution.start()
    execution.until((execution.workspace / "a").exists)
    (execution.workspace / "b").touch()
    assert execution.wait(process).text("output") == "ä"


def test_a_nul_in_the_output_is_recorded(execution: Execution) -> None:
    assert execution.command(r"printf 'a\0b'").text("output") == "a\ufffdb"


def test_a_background_child_that_holds_the_pipe_does_not_hold_up_the_end(execution: Execution) -> None:
    ended = execution.command("sleep 1000 & echo out", deadline_seconds=40)
    assert (ended.finished["status"], ended.text("output")) == ("succeeded", "out\n")


def test_a_large_script_runs(execution: Execution) -> None:
    script = "\n".join([*[f"# {'x' * 1000}"] * 300, "echo end"])
    assert execution.command(script).text("output") == "end\n"


def test_all_output_arrives_in_order(execution: Execution) -> None:
    expected = "".join(f"{number}\n" for number in range(1, 50001))
    assert execution.command("seq 50000").text("output") == expected
