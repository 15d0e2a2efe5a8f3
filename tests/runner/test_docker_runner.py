"""How a container is locked in, and what the runner makes of an engine's troubles."""

from __future__ import annotations

import ast
import gc
import os
import shutil
import socket
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import docker
import pytest
from runner_bench import Bench, wait_until

from djinn.runner.base import (
    ImageMissing,
    Limits,
    Phase,
    RunnerUnavailable,
    SpecificationRefused,
    StartRefused,
)
from djinn.runner.docker import CONTAINER_OWNER, DockerRunner
from djinn.runner.docker_options import RUNTIME_LABEL, runtime_digest
from tests import needs

SLEEP = "import time\ntime.sleep(600)"
ANSWER = "open(directory + '/answer', 'w').write(repr({}))"


def describe(bench: Bench, execution: str) -> dict[str, Any]:
    """What the engine says about the container."""
    assert isinstance(bench.runner, DockerRunner)
    client = docker.from_env(timeout=10)  # the engine that DOCKER_HOST names
    found: dict[str, Any] = client.api.inspect_container(f"djinn-{bench.runner.installation}-{execution}")
    client.close()
    return found


@pytest.fixture
def described(docker_bench: Bench) -> dict[str, Any]:
    """The engine's view of a container that was started with the usual options."""
    spec = docker_bench.spec(SLEEP)
    docker_bench.runner.start(spec)
    return describe(docker_bench, spec.execution)


def test_the_container_carries_installation_and_execution(docker_bench: Bench) -> None:
    spec = docker_bench.spec()
    docker_bench.run(spec)
    labels = describe(docker_bench, spec.execution)["Config"]["Labels"]
    assert labels["djinn.execution"] == spec.execution
    assert labels["djinn.installation"] == docker_bench.runner.installation  # type: ignore[attr-defined]


def test_installations_do_not_see_each_other(docker_bench: Bench) -> None:
    docker_bench.run(docker_bench.spec())
    assert DockerRunner("another").executions() == {}


def test_the_host_shows_only_these_mounts_and_lets_three_be_written(described: dict[str, Any]) -> None:
    mounts = {mount["Destination"]: mount["RW"] for mount in described["Mounts"]}
    assert mounts == {
        "/workspace": True,
        "/run/djinn/execution": False,
        "/run/djinn/execution/journal.ndjson": True,
        "/run/djinn/execution/scratch": True,
        "/run/djinn/gateway": False,
        "/opt/djinn/djinn_runtime": False,
    }


def test_no_privilege_is_left(described: dict[str, Any]) -> None:
    host = described["HostConfig"]
    assert (host["CapDrop"], host["CapAdd"], host["Privileged"], host["Devices"]) == (["ALL"], None, False, None)
    assert "no-new-privileges:true" in host["SecurityOpt"]


def test_swap_is_no_way_around_the_memory_limit(described: dict[str, Any]) -> None:
    assert described["HostConfig"]["MemorySwap"] == described["HostConfig"]["Memory"] == Limits().memory_bytes


def test_the_engine_never_starts_a_container_by_itself(described: dict[str, Any]) -> None:
    assert described["HostConfig"]["RestartPolicy"]["Name"] == "no"


def test_the_engines_own_log_stays_small(described: dict[str, Any]) -> None:
    assert described["HostConfig"]["LogConfig"]["Config"] == {"max-size": "1m", "max-file": "1"}


def test_the_runtime_is_not_root(docker_bench: Bench) -> None:
    expected = CONTAINER_OWNER if os.getuid() == 0 else (os.getuid(), os.getgid())
    assert docker_bench.answer("import os\n" + ANSWER.format("(os.getuid(), os.getgid())")) == repr(expected)


def test_the_runtime_has_no_capability_and_cannot_gain_one(docker_bench: Bench) -> None:
    script = (
        "lines = dict(line.split(':', 1) for line in open('/proc/self/status') if ':' in line)\n"
        "found = [lines[name].strip() for name in ('CapEff', 'CapPrm', 'CapBnd', 'NoNewPrivs', 'Seccomp')]\n"
    )
    assert docker_bench.answer(script + ANSWER.format("found")) == repr(["0" * 16] * 3 + ["1", "2"])


@pytest.mark.parametrize(
    "path", ["/x", "/usr/bin/x", "/opt/djinn/x", "/opt/djinn/djinn_runtime/x", "/run/djinn/gateway/x"]
)
def test_nothing_outside_of_workspace_execution_and_tmp_can_be_written(docker_bench: Bench, path: str) -> None:
    script = f"import os\ntry:\n    open({path!r}, 'w')\n    said = 0\nexcept OSError as exc:\n    said = exc.errno\n"
    assert docker_bench.answer(script + ANSWER.format("said")) in ("30", "13")


def test_tmp_is_small(docker_bench: Bench) -> None:
    write = "open('/tmp/x', 'wb').write(b'x' * 2_000_000)"
    script = f"try:\n    {write}\n    said = 0\nexcept OSError as exc:\n    said = exc.errno\n"
    assert docker_bench.answer(script + ANSWER.format("said"), limits=Limits(tmp_bytes=1_000_000)) == "28"


def test_there_is_no_network(docker_bench: Bench) -> None:
    assert docker_bench.answer("import os\n" + ANSWER.format("os.listdir('/sys/class/net')")) == "['lo']"


def test_a_step_that_asks_for_a_network_gets_one(docker_bench: Bench) -> None:
    spec = docker_bench.spec("import os\n" + ANSWER.format("len(os.listdir('/sys/class/net'))"), network="bridge")
    docker_bench.run(spec)
    assert (spec.execution_directory / "scratch" / "answer").read_text() == "2"


def test_too_much_memory_ends_the_container_and_is_told(docker_bench: Bench) -> None:
    spec = docker_bench.spec("x = bytearray(300 * 1024**2)", limits=Limits(memory_bytes=64 * 1024**2))
    docker_bench.run(spec)
    wait_until(lambda: docker_bench.runner.inspect(spec.execution).out_of_memory, "out of memory is reported")
    assert docker_bench.runner.inspect(spec.execution).exit_code == 137


def test_a_fork_bomb_hits_its_limit(docker_bench: Bench) -> None:
    script = """
import os, signal, time
count = 0
try:
    while count < 200:
        if os.fork() == 0:
            time.sleep(600)
        count += 1
except BlockingIOError:
    pass
"""
    count = int(docker_bench.answer(script + ANSWER.format("count"), limits=Limits(pids=20)))
    assert 0 < count < 20


PROBE = """
import ctypes
libc = ctypes.CDLL(None, use_errno=True)
answers = {}
for name, number, *arguments in CALLS:
    answers[name] = 0 if libc.syscall(number, *arguments) != -1 else ctypes.get_errno()
"""
# https://git.kernel.org/pub/scm/linux/kernel/git/torvalds/linux.git/tree/arch/x86/entry/syscalls/syscall_64.tbl
DENIED = [
    ("ptrace", 101, 0, 0, 0, 0),
    ("process_vm_readv", 310, 1, 0, 0, 0, 0, 0),
    ("process_vm_writev", 311, 1, 0, 0, 0, 0, 0),
    ("unshare", 272, 0x10000000),
    ("setns", 308, 0, 0),
    ("clone with a user namespace", 56, 0x10000011, 0, 0, 0, 0),
    ("mount", 165, 0, 0, 0, 0, 0),
    ("umount2", 166, 0, 0),
    ("pivot_root", 155, 0, 0),
    ("open_tree", 428, -100, 0, 0),
    ("fsopen", 430, 0, 0),
    ("keyctl", 250, 0, 0),
    ("add_key", 248, 0, 0, 0, 0, 0),
    ("request_key", 249, 0, 0, 0, 0),
    ("bpf", 321, 0, 0, 0),
    ("perf_event_open", 298, 0, 0, -1, -1, 0),
    ("userfaultfd", 323, 1),
    ("io_uring_setup", 425, 1, 0),
    ("io_uring_enter", 426, 0, 0, 0, 0, 0, 0),
    ("io_uring_register", 427, 0, 0, 0, 0),
    ("kexec_load", 246, 0, 0, 0, 0),
    ("init_module", 175, 0, 0, 0),
    ("open_by_handle_at", 304, 0, 0, 0),
    ("pidfd_getfd", 438, 0, 0, 0),
    ("chroot", 161, 0),
    ("vsock", 41, 40, 1, 0),
    ("packet socket", 41, 17, 3, 0),
    ("crypto socket", 41, 38, 5, 0),
]


def test_the_seccomp_profile_refuses_what_escapes_are_made_of(docker_bench: Bench) -> None:
    answer = docker_bench.answer(f"CALLS = {DENIED!r}\n" + PROBE + ANSWER.format("answers"))
    assert ast.literal_eval(answer) == {name: 1 for name, *_ in DENIED}


def test_clone3_does_not_exist_so_that_libraries_use_clone(docker_bench: Bench) -> None:
    answer = docker_bench.answer("CALLS = [('clone3', 435, 0, 0)]\n" + PROBE + ANSWER.format("answers"))
    assert answer == "{'clone3': 38}"


TOOLS = """
set -eu
export GIT_AUTHOR_NAME=a GIT_AUTHOR_EMAIL=a@a GIT_COMMITTER_NAME=a GIT_COMMITTER_EMAIL=a@a
git init -q r && cd r
echo 'int main(void) { return 0; }' > main.c
cc -o main main.c && ./main
git add . && git commit -qm one && git log --oneline | cat > /dev/null
printf 'def test_x():\\n    assert True\\n' > test_x.py
python3 -m pytest -q -p no:cacheprovider test_x.py
python3 -m venv --without-pip env && env/bin/python -c 'import threading, ssl, sqlite3'
echo '{"a": 1}' | jq -e .a
rg -q main main.c
curl --version > /dev/null
bash -c 'exec 3<>/dev/null; mkfifo f; (echo x > f &); cat f'
"""


def test_the_tools_of_an_agent_work_inside(docker_bench: Bench) -> None:
    script = f"import subprocess\nresult = subprocess.run(['bash', '-c', {TOOLS!r}], capture_output=True, text=True)\n"
    assert docker_bench.answer(script + ANSWER.format("(result.returncode, result.stderr)")) == "(0, '')"


def test_the_runtime_is_mounted_when_the_image_holds_another_one(
    docker_bench: Bench, described: dict[str, Any]
) -> None:
    assert "/opt/djinn/djinn_runtime" in {mount["Destination"] for mount in described["Mounts"]}


def test_the_runtime_in_the_image_is_used_when_it_is_the_same(docker_bench: Bench, tmp_path: Path) -> None:
    context = tmp_path / "context"
    context.mkdir()
    (context / "Dockerfile").write_text(f"FROM {docker_bench.image}\nCOPY djinn_runtime /opt/djinn/djinn_runtime\n")
    subprocess.run(["cp", "-r", str(docker_bench.runtime_directory / "djinn_runtime"), str(context)], check=True)
    client = docker.from_env()
    labels = {RUNTIME_LABEL: runtime_digest(docker_bench.runtime_directory)}
    image, _ = client.images.build(path=str(context), labels=labels, rm=True)
    try:
        spec = docker_bench.spec("raise SystemExit(11)", image=str(image.id))
        assert docker_bench.run(spec).exit_code == 11
        mounts = {mount["Destination"] for mount in describe(docker_bench, spec.execution)["Mounts"]}
        assert "/opt/djinn/djinn_runtime" not in mounts
        docker_bench.runner.remove(spec.execution)
    finally:
        client.images.remove(str(image.id), force=True)
        client.close()


def test_a_local_image_resolves_to_its_id(docker_bench: Bench) -> None:
    assert docker_bench.runner.resolve_image("djinn-runtime:test") == docker_bench.image


@pytest.mark.parametrize("reference", ["djinn-no-such-image:1", "sha256:" + "0" * 64])
def test_an_image_that_cannot_be_had_is_missing(docker_bench: Bench, reference: str) -> None:
    with pytest.raises(ImageMissing):
        docker_bench.runner.resolve_image(reference)


def test_a_start_without_its_image_says_so(docker_bench: Bench) -> None:
    with pytest.raises(ImageMissing):
        docker_bench.runner.start(docker_bench.spec(image="djinn-no-such-image:1"))


def test_a_workspace_that_does_not_exist_is_refused_for_good(docker_bench: Bench, tmp_path: Path) -> None:
    with pytest.raises(SpecificationRefused):
        docker_bench.runner.start(replace(docker_bench.spec(), workspace=tmp_path / "gone"))


def test_an_image_without_python_exits_with_127_and_never_begins(docker_bench: Bench) -> None:
    spec = docker_bench.spec(image="debian:bookworm-slim")
    assert docker_bench.run(spec).exit_code == 127
    assert not (spec.execution_directory / "scratch" / "started").exists()


def test_a_container_that_was_created_but_not_started_is_started(docker_bench: Bench) -> None:
    spec = docker_bench.spec("raise SystemExit(6)")
    docker_bench.runner._create(spec)  # type: ignore[attr-defined]
    assert docker_bench.phase(spec) is Phase.CREATED
    assert docker_bench.run(spec).exit_code == 6


def test_an_engine_that_is_not_there_is_unavailable(tmp_path: Path) -> None:
    with pytest.raises(RunnerUnavailable):
        DockerRunner("x", base_url=f"unix://{tmp_path}/nobody.sock").ping()


def test_an_engine_that_does_not_answer_is_unavailable(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(str(tmp_path / "s"))
        silent.listen()
        runner = DockerRunner("x", base_url=f"unix://{tmp_path}/s", timeout_seconds=0.5)
        with pytest.raises(RunnerUnavailable):
            runner.inspect("e")


class FaultyEngine:
    """A server that speaks enough of the engine's API to hold one created container and to refuse its start."""

    def __init__(self, path: Path, words: str) -> None:
        self.words = words.encode()
        self.starts = 0
        self.server = socket.socket(socket.AF_UNIX)
        self.server.bind(str(path))
        self.server.listen()
        self.thread = threading.Thread(target=self._serve, daemon=True)
        self.thread.start()

    def close(self) -> None:
        self.server.shutdown(socket.SHUT_RDWR)
        self.thread.join()
        self.server.close()

    def _serve(self) -> None:
        while True:
            try:
                client, _ = self.server.accept()
            except OSError:
                return
            with client:
                self._answer(client)

    def _answer(self, client: socket.socket) -> None:
        request = client.recv(65536).split(b"\r\n")[0]
        if not request:
            return
        if b"/version" in request:
            status, body = b"200 OK", b'{"ApiVersion": "1.41", "Version": "0"}'
        elif b"/start" in request:
            self.starts += 1
            status, body = b"500 Internal Server Error", b'{"message": "' + self.words + b'"}'
        else:
            status, body = b"200 OK", b'{"State": {"Status": "created", "ExitCode": 128, "OOMKilled": false}}'
        head = b"HTTP/1.1 %s\r\nContent-Type: application/json\r\nConnection: close\r\nContent-Length: %d\r\n\r\n"
        client.sendall(head % (status, len(body)) + body)


@pytest.fixture
def engine_that_refuses(tmp_path: Path) -> Iterator[tuple[FaultyEngine, Bench]]:
    engine = FaultyEngine(tmp_path / "e", "task abc: already exists")
    runner = DockerRunner("x", base_url=f"unix://{tmp_path}/e")
    yield engine, Bench(runner, tmp_path / "places", tmp_path, "none")
    engine.close()


Refusing = tuple[FaultyEngine, Bench]


def test_a_container_that_the_engine_lost_half_made_is_given_up_after_three_starts(
    engine_that_refuses: Refusing,
) -> None:
    engine, bench = engine_that_refuses
    with pytest.raises(StartRefused, match="already exists"):
        bench.runner.start(bench.spec())
    assert engine.starts == 3


def test_an_engine_with_a_passing_trouble_is_unavailable(engine_that_refuses: Refusing) -> None:
    engine, bench = engine_that_refuses
    engine.words = b"containerd is not running"
    with pytest.raises(RunnerUnavailable, match="containerd"):
        bench.runner.start(bench.spec())
    assert engine.starts == 1


class PrivateEngine:
    """A Docker engine of the test's own, which may be killed.

    It has a network namespace of its own: an engine that starts without a bridge deletes its neighbour's `docker0`.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.url = f"unix://{directory}/docker.sock"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, also after a kill: a pid file whose number was given again would keep it from starting."""
        for name in ("docker.pid", "docker.sock", "exec/containerd/containerd.pid"):
            (self.directory / name).unlink(missing_ok=True)
        configuration = self.directory / "daemon.json"
        configuration.write_text("{}")
        options = {"data-root": "data", "exec-root": "exec", "pidfile": "docker.pid"}
        command = [
            "unshare",
            "--net",
            "--",
            "dockerd",
            *(f"--{name}={self.directory / value}" for name, value in options.items()),
        ]
        with (self.directory / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [
                    *command,
                    "--host",
                    self.url,
                    "--bridge=none",
                    "--iptables=false",
                    "--live-restore",
                    f"--config-file={configuration}",
                ],
                stdout=log,
                stderr=log,
            )
        wait_until(self._answers, f"dockerd answers, see {self.directory / 'log'}")

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def stop(self) -> None:
        if self.process is not None:
            self.process.terminate()
            self.process.wait(30)
        subprocess.run(["umount", "--quiet", str(self.directory / "data")], check=False)
        shutil.rmtree(self.directory)

    def _answers(self) -> bool:
        try:
            DockerRunner("probe", base_url=self.url).ping()
        except RunnerUnavailable:
            return False
        return True


@pytest.fixture
def private_engine(docker_engine: str) -> Iterator[PrivateEngine]:
    needs.root()
    needs.dockerd()
    directory = Path(tempfile.mkdtemp(prefix="djinn-engine-"))
    engine = PrivateEngine(directory)
    try:
        engine.start()
        yield engine
    finally:
        engine.stop()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # docker-py's, of a refused connection
def test_a_runner_goes_on_when_the_engine_is_back(private_engine: PrivateEngine) -> None:
    runner = DockerRunner("x", base_url=private_engine.url, timeout_seconds=5)
    assert runner.executions() == {}
    private_engine.kill()
    with pytest.raises(RunnerUnavailable):
        runner.inspect("e")
    private_engine.start()
    assert runner.executions() == {}
    gc.collect()
