"""A Docker engine of the storm's own, so that the machine's is never touched.

It has a network namespace of its own: an engine that starts without a bridge deletes its neighbour's `docker0`. And
containerd namespaces of its own: on a machine where containerd is a service, both engines would share it.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path

from tests.stack.live import wait_for

NAMESPACE = "djinn-storm"


def is_possible() -> bool:
    """Whether this machine lets us run an engine of our own."""
    return os.geteuid() == 0 and all(shutil.which(program) for program in ("dockerd", "unshare", "docker"))


class Engine:
    """A private dockerd without network."""

    def __init__(self, *, log: Path) -> None:
        self.root = Path(tempfile.mkdtemp(prefix="dk-"))
        self.url = f"unix://{self.root}/s"
        self.is_away = True
        self._log = log
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, *, keeps_containers: bool = True, seconds: float = 60.0) -> None:
        """Start it and wait until it answers; `keeps_containers` is its option --live-restore."""
        self.spawn(keeps_containers=keeps_containers)
        wait_for(self.answers, seconds=seconds, why="the engine")

    def spawn(self, *, keeps_containers: bool = True) -> None:
        """Start it; `answers` tells when it can be used."""
        places = ("--data-root", f"{self.root}/d", "--exec-root", f"{self.root}/e", "--pidfile", f"{self.root}/p")
        options = ("--host", self.url, "--bridge", "none", "--iptables=false", "--log-level", "error")
        names = ("--containerd-namespace", NAMESPACE, "--containerd-plugins-namespace", f"{NAMESPACE}-plugins")
        live = ("--live-restore",) if keeps_containers else ()
        (self.root / "p").unlink(missing_ok=True)  # of one that was killed; its number may be somebody else's now
        command = ["unshare", "--net", "--", "dockerd", *places, *options, *names, *live]
        with self._log.open("ab") as file:
            self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=file, stderr=file)

    def answers(self) -> bool:
        """Whether it can be used; noted in `is_away`."""
        command = ["docker", "--host", self.url, "version"]
        try:
            done = subprocess.run(command, capture_output=True, timeout=5, check=False)
            self.is_away = done.returncode != 0
        except subprocess.TimeoutExpired:
            self.is_away = True
        return not self.is_away

    def load(self, image: str) -> None:
        """Take over an image of the machine's engine."""
        with subprocess.Popen(["docker", "save", image], stdout=subprocess.PIPE) as saved:
            command = ["docker", "--host", self.url, "load"]
            subprocess.run(command, stdin=saved.stdout, capture_output=True, timeout=300, check=True)

    def kill(self) -> None:
        """SIGKILL: its containers run on, and nobody watches them."""
        self.is_away = True
        if self._process is not None:
            self._process.kill()
            self._process.wait(20)
            self._process = None

    def stop(self) -> None:
        """SIGTERM: without --live-restore it stops its containers first."""
        self.is_away = True
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(60)
            except subprocess.TimeoutExpired:
                self.kill()
            self._process = None

    def suspend(self) -> None:
        """SIGSTOP: it takes connections and answers nothing."""
        self.is_away = True
        if self._process is not None:
            self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        if self._process is not None:
            self._process.send_signal(signal.SIGCONT)

    def has_died(self) -> bool:
        """Whether it ended by itself, or never came up."""
        return self._process is not None and self._process.poll() is not None

    def clean(self) -> None:
        """End it, whatever it has started, and remove its data."""
        self.resume()
        try:
            if self.answers():
                command = ["docker", "--host", self.url]
                listed = subprocess.run([*command, "ps", "-aq"], capture_output=True, text=True, timeout=60, check=True)
                for name in listed.stdout.split():
                    subprocess.run([*command, "rm", "-f", name], capture_output=True, timeout=60, check=False)
        finally:
            self.stop()
            self._end_leftovers()
            # An engine that keeps containers alive leaves its data mounted over itself.
            subprocess.run(["umount", "--lazy", f"{self.root}/d"], capture_output=True, timeout=20, check=False)
            shutil.rmtree(self.root, ignore_errors=True)

    def _end_leftovers(self) -> None:
        """SIGKILL for containerd and its shims, told by our folder in their command lines."""
        deadline = time.monotonic() + 20
        while (left := self._leftovers()) and time.monotonic() < deadline:
            for pid in left:
                os.kill(pid, signal.SIGKILL)
            time.sleep(0.05)

    def _leftovers(self) -> list[int]:
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit() and int(entry.name) != os.getpid():
                try:
                    line = (entry / "cmdline").read_bytes().decode(errors="replace")
                    state = (entry / "stat").read_text().rpartition(")")[2].split()[0]
                except OSError:
                    continue  # it ended while we looked
                if f"{self.root}/" in line and "containerd" in line and state != "Z":
                    found.append(int(entry.name))
        return found
