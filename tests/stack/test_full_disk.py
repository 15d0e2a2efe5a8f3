"""A full disk fails the steps that need it, tells why, and harms nothing else."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator

import pytest

from tests.stack.live import Live, Row, wait_for

pytestmark = [
    pytest.mark.docker,
    pytest.mark.xdist_group("stack"),
    pytest.mark.timeout(300),
    pytest.mark.root,
]

NOISY = """\
name: Noisy
defaults: {retries: {max: 0}}
steps:
  - id: ONLY
    run: head -c 30000000 /dev/zero | tr '\\0' 'x' | fold -w 100
"""
QUIET = """\
name: Quiet
defaults: {retries: {max: 0}}
steps:
  - id: ONLY
    run: echo fine
"""


@pytest.fixture
def tight(image: str) -> Iterator[Live]:
    """A stack whose executions have a disk of 4 MiB."""
    stack = Live(image=image)
    stack.installation.make_directories()
    place = str(stack.installation.executions)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m,mode=711", "tmpfs", place], check=True, timeout=10)
    try:
        stack.add_pipeline("noisy", NOISY)
        stack.add_pipeline("quiet", QUIET)
        stack.up()
        yield stack
    finally:
        if stack.process is not None and stack.process.poll() is None:
            stack.down()
        subprocess.run(["umount", "--lazy", place], check=True, timeout=10)
        stack.clean()


def ended(stack: Live, pipeline: str) -> Row:
    """The only step of a run of the pipeline, ended."""
    run = stack.start(pipeline)
    stack.await_end(run, seconds=120)
    (step,) = stack.steps(run)
    return step


def test_a_journal_that_fills_the_disk_fails_its_step_as_disk_and_gives_the_room_back(tight: Live) -> None:
    noisy = ended(tight, "noisy")
    assert (noisy["status"], noisy["reason"]) == ("failed", "disk"), noisy["message"]
    directory = tight.installation.executions / str(noisy["execution_id"])
    wait_for(lambda: not directory.exists(), seconds=90, why="the end of its directory")
    assert ended(tight, "quiet")["status"] == "succeeded"


def test_a_step_waits_for_room_while_somebody_else_fills_the_disk(tight: Live) -> None:
    filler = tight.installation.executions / "filler"
    with pytest.raises(OSError, match="No space left"):
        filler.write_bytes(bytes(8 * 1024 * 1024))
    run = tight.start("quiet")
    tight.await_event(run, "notice", step="ONLY")
    filler.unlink()
    tight.await_end(run, seconds=120)
    assert [step["status"] for step in tight.steps(run)] == ["succeeded"]
