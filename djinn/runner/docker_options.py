"""How a container is locked in: the one place that says what an execution may do to its host, which is nothing."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

from docker.types import ContainerConfig, Healthcheck, HostConfig, LogConfig, Mount, Ulimit

from djinn.runner.base import ContainerSpec, Limits
from runtime_image.djinn_runtime.protocol import (
    CONTAINER_EXECUTION,
    CONTAINER_GATEWAY,
    CONTAINER_RUNTIME,
    CONTAINER_WORKSPACE,
    JOURNAL_NAME,
    SCRATCH_NAME,
)

INSTALLATION_LABEL = "djinn.installation"
EXECUTION_LABEL = "djinn.execution"
RUNTIME_LABEL = "djinn.runtime"
RUNTIME_PACKAGE = "djinn_runtime"
TEMPORARY = "/tmp"  # noqa: S108 (the container's own)

# The engine takes requests of this version and later; everything used here is in it.
API_VERSION = "1.41"
SECCOMP_PROFILE = Path(__file__).with_name("seccomp.json").read_text()


def runtime_digest(directory: Path) -> str:
    """A digest of the runtime's source in the host folder that holds `djinn_runtime`: names and bytes, nothing else."""
    package = directory / RUNTIME_PACKAGE
    digest = hashlib.sha256()
    for path in sorted(package.rglob("*.py")):
        content = path.read_bytes()
        digest.update(f"{path.relative_to(package)}\0{len(content)}\0".encode())
        digest.update(content)
    return f"sha256:{digest.hexdigest()}"


def container_options(
    spec: ContainerSpec, *, installation: str, user: tuple[int, int], image_labels: Mapping[str, str]
) -> ContainerConfig:
    """The body of the engine's create request."""
    is_baked_in = image_labels.get(RUNTIME_LABEL) == runtime_digest(spec.runtime_directory)
    environment = {"HOME": TEMPORARY, "LANG": "C.UTF-8", "PYTHONPATH": CONTAINER_RUNTIME, **spec.environment}
    return ContainerConfig(
        API_VERSION,
        image=spec.image,
        command=[],
        entrypoint=["python3", "-m", RUNTIME_PACKAGE, CONTAINER_EXECUTION],
        user=f"{user[0]}:{user[1]}",
        environment=environment,
        working_dir=CONTAINER_WORKSPACE,
        hostname="djinn",
        labels={INSTALLATION_LABEL: installation, EXECUTION_LABEL: spec.execution},
        healthcheck=Healthcheck(test=["NONE"]),
        host_config=_host_config(spec, mounts=_mounts(spec, is_baked_in=is_baked_in)),
    )


def _host_config(spec: ContainerSpec, *, mounts: list[Mount]) -> HostConfig:
    limits = spec.limits
    return HostConfig(
        API_VERSION,
        mounts=mounts,
        network_mode=spec.network,
        read_only=True,
        tmpfs={TEMPORARY: f"rw,nosuid,nodev,size={limits.tmp_bytes},mode=1777"},
        cap_drop=["ALL"],
        security_opt=["no-new-privileges:true", f"seccomp={SECCOMP_PROFILE}"],
        mem_limit=limits.memory_bytes,
        memswap_limit=limits.memory_bytes,
        nano_cpus=int(limits.cpus * 1_000_000_000),
        pids_limit=limits.pids,
        ulimits=_ulimits(limits),
        init=True,
        ipc_mode="private",
        log_config=LogConfig(type=LogConfig.types.JSON, config={"max-size": "1m", "max-file": "1"}),
        restart_policy={"Name": "no"},
    )


def _ulimits(limits: Limits) -> list[Ulimit]:
    return [
        Ulimit(name="nofile", soft=limits.open_files, hard=limits.open_files),
        Ulimit(name="core", soft=0, hard=0),
        Ulimit(name="fsize", soft=limits.file_bytes, hard=limits.file_bytes),
    ]


def _mounts(spec: ContainerSpec, *, is_baked_in: bool) -> list[Mount]:
    """What the container may write: its workspace, and two names in its own directory, of which the rest is the host's.

    The journal is mounted as a file: it can be appended to, but nobody inside can put another one in its place. The
    gateway's directory, not its socket, is mounted: a gateway that starts again makes a new socket in it.
    """
    own = {name: spec.execution_directory / name for name in (JOURNAL_NAME, SCRATCH_NAME)}
    mounts = [
        _bind(CONTAINER_WORKSPACE, spec.workspace, read_only=False),
        _bind(CONTAINER_EXECUTION, spec.execution_directory, read_only=True),
        *(_bind(f"{CONTAINER_EXECUTION}/{name}", path, read_only=False) for name, path in own.items()),
        _bind(CONTAINER_GATEWAY, spec.gateway_directory, read_only=True),
    ]
    if not is_baked_in:
        package = spec.runtime_directory / RUNTIME_PACKAGE
        mounts.append(_bind(f"{CONTAINER_RUNTIME}/{RUNTIME_PACKAGE}", package, read_only=True))
    return mounts


def _bind(target: str, source: Path, *, read_only: bool) -> Mount:
    return Mount(target, str(source.absolute()), type="bind", read_only=read_only, propagation="rprivate")
