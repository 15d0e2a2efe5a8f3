"""A step that takes too much of the disk ends as `disk`, in whatever way it hides it, and its neighbours end well."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.stack.live import Live, Row

pytestmark = [pytest.mark.docker, pytest.mark.xdist_group("stack"), pytest.mark.timeout(300)]

LIMIT_MB = 50
FILES = 3000
PIPELINE = """\
name: Work
defaults: {{retries: {{max: 0}}, timeout: 120, resources: {{disk: {limit}m}}}}
steps:
  - id: ONLY
    run: |
{script}
"""
GROWTH = {
    "its-directory": """
with open(os.path.join(os.path.dirname(os.environ["DJINN_OUTPUT"]), "big"), "wb") as file:
    grow(file)
""",
    "the-workspace": """
with open("big", "wb") as file:
    grow(file)
""",
    "the-git-folder": """
with open(".git/big", "wb") as file:
    grow(file)
""",
    "an-open-deleted-file": """
file = open("gone", "wb")
os.unlink("gone")
grow(file)
""",
    "many-small-open-deleted-files": """
held = []
for number in range(400):
    held.append(open("gone", "wb"))
    os.unlink("gone")
    held[-1].write(bytes(10**6))
    held[-1].flush()
""",
    "a-mapped-deleted-file": """
import mmap
with open("gone", "wb+") as file:
    grow(file)
    mapping = mmap.mmap(file.fileno(), 0)
os.unlink("gone")
""",
    "a-deleted-file-of-an-orphan": """
child = os.fork()
if child == 0:
    os.setsid()
    if os.fork() == 0:
        file = open("gone", "wb")
        os.unlink("gone")
        grow(file)
        time.sleep(600)
    os._exit(0)
""",
    "allocated-and-never-written": """
with open("big", "wb") as file:
    os.posix_fallocate(file.fileno(), 0, 400 * 10**6)
""",
    "deep-inside": """
for number in range(1500):
    os.mkdir("d")
    os.chdir("d")
with open("big", "wb") as file:
    grow(file)
""",
    "a-closed-folder": """
os.mkdir("closed")
with open("closed/big", "wb") as file:
    os.chmod("closed", 0)
    grow(file)
""",
}
SCRIPT = """\
import os, time

def grow(file):
    for _ in range(400):
        file.write(os.urandom(10**6))
    file.flush()

"""


@pytest.fixture(scope="module")
def stack(image: str) -> Iterator[Live]:
    """A stack whose executions may have 3,000 files."""
    stack = Live(image=image, environment={"DJINN_DISK_FILES": str(FILES)})
    try:
        stack.up()
        yield stack
    finally:
        stack.clean()


def start(stack: Live, name: str, code: str) -> int:
    """A run of a step that plays the Python code, then waits for ten minutes."""
    lines = ["python3 - <<'END'", *SCRIPT.splitlines(), *code.strip("\n").splitlines(), "time.sleep(600)", "END"]
    script = "\n".join(f"      {line}".rstrip() for line in lines)
    stack.add_pipeline(name, PIPELINE.format(limit=LIMIT_MB, script=script))
    return stack.start(name)


def ended(stack: Live, run: int) -> Row:
    """The run's only step, ended."""
    stack.await_end(run, seconds=120)
    (step,) = stack.steps(run)
    return step


@pytest.mark.parametrize("where", GROWTH)
def test_what_a_step_takes_of_the_disk_is_bounded(stack: Live, where: str) -> None:
    neighbour = start(stack, "neighbour", "for _ in range(60): time.sleep(0.1)\nexit()")
    step = ended(stack, start(stack, where, GROWTH[where]))
    assert (step["status"], step["reason"]) == ("failed", "disk"), step["message"]
    assert f"{LIMIT_MB} MiB" in step["message"]
    assert "resources: {disk:" in step["message"]
    assert ended(stack, neighbour)["status"] == "succeeded"


def test_the_number_of_files_is_bounded(stack: Live) -> None:
    step = ended(stack, start(stack, "many", f"for n in range({FILES + 100}): open(f'f{{n}}', 'w')"))
    assert (step["status"], step["reason"]) == ("failed", "disk"), step["message"]
    assert f"{FILES:,} files" in step["message"]


def test_a_step_that_has_ended_before_anybody_looked_fails_as_well(stack: Live) -> None:
    step = ended(stack, start(stack, "quick", GROWTH["the-workspace"] + "\nexit()"))
    assert (step["status"], step["reason"]) == ("failed", "disk"), step["message"]


def test_holes_do_not_count(stack: Live) -> None:
    code = "with open('sparse', 'wb') as file: file.truncate(2 * 10**9)\nfor _ in range(30): time.sleep(0.1)\nexit()"
    step = ended(stack, start(stack, "sparse", code))
    assert step["status"] == "succeeded", step["message"]


def test_what_a_step_has_filled_the_disk_with_does_not_stay(stack: Live) -> None:
    run = start(stack, "gone", GROWTH["the-git-folder"])
    ended(stack, run)
    assert list((stack.installation.workspaces / f"run-{run}").rglob("big")) == []
