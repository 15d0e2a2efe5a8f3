"""Executions as hardened containers of a Docker engine. The only module that starts or finds containers there.

The end of a stream or of `wait()` says nothing when the engine restarts, so neither is used: whoever wants to know asks
`inspect`, again and again. Every error of the docker package is translated in one place, `_translated`.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import docker
import requests
from docker.errors import APIError, DockerException, ImageNotFound
from docker.types import ContainerConfig
from docker.utils import parse_repository_tag

from djinn.core.faults import fault
from djinn.runner.base import (
    ContainerSpec,
    ContainerState,
    ImageMissing,
    InsidePaths,
    Phase,
    RunnerError,
    RunnerUnavailable,
    SpecificationRefused,
    StartRefused,
)
from djinn.runner.docker_options import API_VERSION, EXECUTION_LABEL, INSTALLATION_LABEL, container_options
from djinn.runner.memory import oom_kills
from djinn.runner.processes import Identity, control_group, identity_of
from runtime_image.djinn_runtime.protocol import (
    CONTAINER_EXECUTION,
    CONTAINER_GATEWAY,
    CONTAINER_WORKSPACE,
)

DEFAULT_URL = "unix:///var/run/docker.sock"
CONTAINER_OWNER = (10001, 10001)
START_TRIES = 3
POLL_SECONDS = 0.05
KILL_SECONDS = 10.0
NAME_SECONDS = 5.0

_PHASES = {
    "created": Phase.CREATED,
    "running": Phase.RUNNING,
    "paused": Phase.RUNNING,
    "restarting": Phase.RUNNING,
    "exited": Phase.EXITED,
    "dead": Phase.EXITED,
    "removing": Phase.EXITED,
}


class _NotFound(RunnerError):
    """The engine knows no container of that name."""


class _Conflict(RunnerError):
    """The container is not in the state that the verb needs, or its name is taken."""


class _StartFailed(RunnerError):
    """The engine or its runtime answered a start with an error that comes again."""


class DockerRunner:
    """Containers of one installation on one engine. Safe to share between threads, and across a fork."""

    name = "docker"
    isolates = True

    def __init__(
        self,
        installation: str,
        *,
        base_url: str | None = None,
        timeout_seconds: float = 10,
        pull_timeout_seconds: float = 300,
    ) -> None:
        self.installation = installation
        self._url = base_url or os.environ.get("DOCKER_HOST") or DEFAULT_URL
        self._timeout_seconds = timeout_seconds
        self._pull_timeout_seconds = pull_timeout_seconds
        self._client: tuple[int, docker.APIClient] | None = None

    def ping(self) -> str:
        with self._engine("ping") as engine:
            version = engine.version()
        return f"Docker {version['Version']} (API {version['ApiVersion']}) at {self._url}"

    def paths(self, spec: ContainerSpec) -> InsidePaths:
        return InsidePaths(CONTAINER_WORKSPACE, CONTAINER_EXECUTION, CONTAINER_GATEWAY)

    def owner(self) -> tuple[int, int] | None:
        return CONTAINER_OWNER if os.getuid() == 0 else None

    def resolve_image(self, reference: str) -> str:
        try:
            return str(self._image(reference)["Id"])
        except ImageMissing:
            if reference.startswith("sha256:"):
                raise
        self._pull(reference)
        return str(self._image(reference)["Id"])

    def start(self, spec: ContainerSpec) -> None:
        if self.inspect(spec.execution).phase is Phase.ABSENT:
            fault("container.before_create")
            self._create(spec)
            fault("container.created")
        for _ in range(START_TRIES):
            if self.inspect(spec.execution).phase in (Phase.RUNNING, Phase.EXITED):
                return
            try:
                with self._engine(f"start {spec.execution}") as engine:
                    engine.start(self._name(spec.execution))
                return
            except _NotFound as exc:
                raise RunnerUnavailable(f"the container of {spec.execution} vanished before its start") from exc
            except _StartFailed as exc:
                failure = exc
        raise StartRefused(f"{START_TRIES} starts failed: {failure}") from failure

    def inspect(self, execution: str) -> ContainerState:
        try:
            with self._engine(f"inspect {execution}") as engine:
                found = engine.inspect_container(self._name(execution))
        except _NotFound:
            return ContainerState(Phase.ABSENT)
        state = found["State"]
        phase = _PHASES[state["Status"]]
        exit_code = state["ExitCode"] if phase is Phase.EXITED else None
        is_short = bool(state["OOMKilled"]) or (phase is Phase.RUNNING and oom_kills(state["Pid"], found["Id"]) > 0)
        return ContainerState(phase, exit_code, out_of_memory=is_short)

    def process(self, execution: str) -> Identity | None:
        try:
            with self._engine(f"inspect {execution}") as engine:
                found = engine.inspect_container(self._name(execution))
        except _NotFound:
            return None
        pid = int(found["State"]["Pid"])
        # The number is another machine's, or another namespace's, unless the process itself says that it is the one.
        return identity_of(pid) if pid and found["Id"] in control_group(pid) else None

    def stop(self, execution: str, grace_seconds: float) -> None:
        if self._signal(execution, "SIGTERM") and not self._ended(execution, grace_seconds):
            self._signal(execution, "SIGKILL")
            if not self._ended(execution, KILL_SECONDS):
                raise RunnerUnavailable(f"the container of {execution} survives SIGKILL for {KILL_SECONDS} s")

    def remove(self, execution: str) -> None:
        try:
            with self._engine(f"remove {execution}") as engine:
                engine.remove_container(self._name(execution), force=True, v=True)
        except (_NotFound, _Conflict):
            return

    def executions(self) -> dict[str, Phase]:
        with self._engine("list") as engine:
            label = f"{INSTALLATION_LABEL}={self.installation}"
            found = engine.containers(all=True, filters={"label": label})
        return {item["Labels"][EXECUTION_LABEL]: _PHASES[item["State"]] for item in found}

    def _create(self, spec: ContainerSpec) -> None:
        labels = self._image(spec.image)["Config"].get("Labels") or {}
        options = container_options(
            spec, installation=self.installation, user=self.owner() or (os.getuid(), os.getgid()), image_labels=labels
        )
        deadline = time.monotonic() + NAME_SECONDS
        while not self._try_create(spec.execution, options):
            if self.inspect(spec.execution).phase is not Phase.ABSENT:
                return
            if time.monotonic() >= deadline:
                raise RunnerUnavailable(f"the name of {spec.execution} is taken, but there is no such container")
            time.sleep(POLL_SECONDS)

    def _try_create(self, execution: str, options: ContainerConfig) -> bool:
        """False when the name is taken; the engine also takes it while another create or remove is under way."""
        try:
            with self._engine(f"create {execution}", missing=ImageMissing) as engine:
                engine.create_container_from_config(options, self._name(execution))  # type: ignore[no-untyped-call]
        except _Conflict:
            return False
        return True

    def _image(self, reference: str) -> dict[str, Any]:
        with self._engine(f"image {reference}", missing=ImageMissing) as engine:
            image: dict[str, Any] = engine.inspect_image(reference)  # type: ignore[no-untyped-call]
        return image

    def _pull(self, reference: str) -> None:
        """Pull within the time allowed. The docker package pulls without any timeout, so a thread of its own waits."""
        failures: list[Exception] = []
        with self._translated(f"pull {reference}"):
            client = self._new_client()

        def work() -> None:
            try:
                repository, tag = parse_repository_tag(reference)
                client.pull(repository, tag=tag or "latest")
            except (DockerException, requests.RequestException) as exc:
                failures.append(exc)

        thread = threading.Thread(target=work, name=f"pull {reference}", daemon=True)
        thread.start()
        thread.join(self._pull_timeout_seconds)
        is_late = thread.is_alive()
        client.close()
        if is_late:
            raise ImageMissing(f"pulling {reference} took longer than {self._pull_timeout_seconds} s")
        if failures:
            raise ImageMissing(f"{reference} is not here and cannot be pulled: {failures[0]}") from failures[0]

    def _signal(self, execution: str, signal: str) -> bool:
        """Send the signal; False when there is nothing to send it to."""
        try:
            with self._engine(f"{signal} {execution}") as engine:
                engine.kill(self._name(execution), signal)
        except (_NotFound, _Conflict):
            return False
        return True

    def _ended(self, execution: str, seconds: float) -> bool:
        deadline = time.monotonic() + seconds
        while self.inspect(execution).phase is Phase.RUNNING:
            if time.monotonic() >= deadline:
                return False
            time.sleep(POLL_SECONDS)
        return True

    def _name(self, execution: str) -> str:
        return f"djinn-{self.installation}-{execution}"

    @contextmanager
    def _engine(self, verb: str, *, missing: type[RunnerError] = _NotFound) -> Iterator[docker.APIClient]:
        """The client, made anew after a fork and after the engine failed; its errors come out as ours."""
        with self._translated(verb, missing):
            if self._client is None or self._client[0] != os.getpid():
                self._client = (os.getpid(), self._new_client())
            yield self._client[1]

    def _forget_client(self) -> None:
        """Close the client. Another thread that was about to use it gets an error that it survives."""
        client, self._client = self._client, None
        if client is not None and client[0] == os.getpid():
            client[1].close()

    def _new_client(self) -> docker.APIClient:
        """A client that speaks the engine's own version. The package's "auto" leaks a socket when nobody answers."""
        self._check_socket()
        client = self._client_for(API_VERSION)
        try:
            version = str(client.version(api_version=False)["ApiVersion"])
        finally:
            client.close()
        return self._client_for(version)

    def _client_for(self, version: str) -> docker.APIClient:
        timeout: Any = self._timeout_seconds
        return docker.APIClient(base_url=self._url, version=version, timeout=timeout)

    def _check_socket(self) -> None:
        """Raise OSError when nobody listens on the engine's Unix socket; another kind of address is the client's."""
        if self._url.startswith("unix://"):
            with socket.socket(socket.AF_UNIX) as probe:
                probe.settimeout(self._timeout_seconds)
                probe.connect(self._url.removeprefix("unix://"))

    @contextmanager
    def _translated(self, verb: str, missing: type[RunnerError] = _NotFound) -> Iterator[None]:
        try:
            yield
        except ImageNotFound as exc:
            raise ImageMissing(f"{verb}: {exc.explanation}") from exc
        except APIError as exc:
            raise _answer(verb, exc, missing) from exc
        except (DockerException, requests.RequestException, OSError) as exc:
            self._forget_client()
            raise RunnerUnavailable(f"{verb}: the engine at {self._url} does not answer: {exc}") from exc


def _answer(verb: str, error: APIError, missing: type[RunnerError]) -> RunnerError:
    """What an HTTP answer of the engine means. https://docs.docker.com/reference/api/engine/ lists the codes."""
    text = f"{verb}: {error.explanation or error}"
    status = error.status_code or 500
    if status == 404:
        return missing(text)
    if status == 409:
        return _Conflict(text)
    if status < 500:
        return SpecificationRefused(text)
    if "already exists" in text or "OCI runtime" in text:
        return _StartFailed(text)
    return RunnerUnavailable(text)
