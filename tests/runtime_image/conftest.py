"""What every test of the runtime starts from."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from execution_double import Execution
from gateway_double import Gateway, serving


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory with a short path, as a Unix socket needs one."""
    path = Path(tempfile.mkdtemp(prefix="djinn-"))
    yield path
    shutil.rmtree(path)


@pytest.fixture
def execution(place: Path) -> Iterator[Execution]:
    """An empty execution; whatever still runs of it afterwards is killed."""
    for name in ("execution/scratch", "workspace"):
        (place / name).mkdir(parents=True)
    each = Execution(place / "execution", place / "workspace", place / "gateway.sock")
    yield each
    for process in each.processes:
        if process.poll() is None:
            process.kill()
        process.communicate()


@pytest.fixture
def gateway(place: Path) -> Iterator[Callable[..., Gateway]]:
    """Starts the gateway with its replies; the last one repeats."""
    with ExitStack() as stack:
        yield lambda *replies: stack.enter_context(serving(place / "gateway.sock", list(replies)))


@pytest.fixture
def small_disk(place: Path) -> Iterator[Path]:
    """A file system of 1 MiB."""
    if os.geteuid() != 0:
        pytest.skip("only root can mount")
    path = place / "disk"
    path.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(path)], check=True, timeout=20)
    (path / "scratch").mkdir()
    yield path
    subprocess.run(["umount", "-l", str(path)], check=True, timeout=20)
