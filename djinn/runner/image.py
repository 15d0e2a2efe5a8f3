"""Building the image in which executions run."""

from __future__ import annotations

import hashlib
import io
import os
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import docker
import requests
from docker.errors import APIError, DockerException, ImageNotFound

from djinn.runner.base import ImageMissing, RunnerError, RunnerUnavailable
from djinn.runner.base_image import bootstrap_base_image
from djinn.runner.docker_options import RUNTIME_LABEL, RUNTIME_PACKAGE, runtime_digest

IMAGE_LABEL = "djinn.image"
BASE_IMAGE = "debian:bookworm-slim"
BUILD_SECONDS = 1800
ENGINE_SECONDS = 30
DEFAULT_URL = "unix:///var/run/docker.sock"

Log = Callable[[str], None]


class BuildFailed(RunnerError):
    """The image cannot be built; the log says why."""

    permanent = True
    reason = "image"


def ensure_image(
    *,
    context: Path,
    tag: str,
    base: str = BASE_IMAGE,
    extra_certificates: Path | None = None,
    log: Log,
    network: str | None = None,
) -> str:
    """The id of the image `tag`, built first when it is missing or when what it is made of has changed.

    A change of the runtime alone builds nothing: a newer runtime is mounted over the one in the image.
    """
    with _errors("look for the image"), _engine(ENGINE_SECONDS) as engine:
        try:
            image = engine.images.get(tag)
        except ImageNotFound:
            image = None
        if image is not None and image.labels.get(IMAGE_LABEL) == image_digest(context, base, extra_certificates):
            return str(image.id)
    return build_image(
        context=context, tag=tag, base=base, extra_certificates=extra_certificates, log=log, network=network
    )


def build_image(
    *,
    context: Path,
    tag: str,
    base: str = BASE_IMAGE,
    extra_certificates: Path | None = None,
    log: Log,
    network: str | None = None,
) -> str:
    """Build the image and return its id; raises `BuildFailed`, `ImageMissing` (the base) or `RunnerUnavailable`.

    `context` is `runtime_image/`. `extra_certificates` is a PEM file or a folder of `*.crt` that the image trusts
    beside those in `context/certificates`. `network` is what the build's commands use: the engine's default, or "host".
    """
    ensure_base(base, log)
    labels = {
        RUNTIME_LABEL: runtime_digest(context),
        IMAGE_LABEL: image_digest(context, base, extra_certificates),
    }
    with _errors(f"build {tag}"), _engine(BUILD_SECONDS) as engine:
        for line in engine.api.build(
            fileobj=io.BytesIO(_archive(context, extra_certificates)),
            custom_context=True,
            tag=tag,
            buildargs={"BASE_IMAGE": base},
            labels=labels,
            network_mode=network,
            rm=True,
            forcerm=True,
            decode=True,
        ):
            _report(line, tag, log)
        return str(engine.images.get(tag).id)


def ensure_base(base: str, log: Log) -> None:
    """See that the base image is here: local, pulled, or made from Debian's packages where no registry is reached."""
    with _errors(f"fetch {base}"), _engine(BUILD_SECONDS) as engine:
        try:
            engine.images.get(base)
            return
        except ImageNotFound:
            log(f"pulling {base}")
        try:
            _pull(engine, base, log)
        except APIError as exc:
            log(f"{base} cannot be pulled: {exc.explanation or exc}")
            if not _import_base(engine, base, log):
                raise ImageMissing(f"{base} is not here and cannot be pulled: {exc.explanation or exc}") from exc


def _pull(engine: docker.DockerClient, base: str, log: Log) -> None:
    """Pull it, and tell of each layer as it comes; raises `APIError`."""
    for line in engine.api.pull(base, stream=True, decode=True):
        if "error" in line:
            raise APIError(str(line["error"]))
        detail = line.get("progressDetail") or {}
        if total := detail.get("total"):
            megabytes = f"{detail.get('current', 0) / 1e6:.0f} of {total / 1e6:.0f} MB"
            log(f"pulling {base}: layer {line.get('id')}, {megabytes} {str(line.get('status')).lower()}")


def _import_base(engine: docker.DockerClient, base: str, log: Log) -> bool:
    repository, _, tag = base.partition(":")
    with tempfile.TemporaryDirectory(prefix="djinn-base-") as directory:
        archive = Path(directory) / "root.tar"
        if not bootstrap_base_image(base, archive, log):
            return False
        engine.api.import_image_from_file(str(archive), repository=repository, tag=tag or "latest")
    return True


def image_digest(context: Path, base: str, extra_certificates: Path | None) -> str:
    """A digest of what the image is made of, the runtime left out."""
    digest = hashlib.sha256(base.encode())
    for name, content in _files(context, extra_certificates):
        if not name.startswith(f"{RUNTIME_PACKAGE}/"):
            digest.update(f"\0{name}\0{len(content)}\0".encode())
            digest.update(content)
    return f"sha256:{digest.hexdigest()}"


def _archive(context: Path, extra_certificates: Path | None) -> bytes:
    """The build context as a tar file that depends on names and bytes only, so that the engine's cache knows it."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, content in _files(context, extra_certificates):
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


def _files(context: Path, extra_certificates: Path | None) -> Iterator[tuple[str, bytes]]:
    for name in ("Dockerfile", "packages.txt", "certificates/README.md"):
        yield name, (context / name).read_bytes()
    for path in sorted((context / "certificates").glob("*.crt")):
        yield f"certificates/{path.name}", path.read_bytes()
    for path in _certificates(extra_certificates):
        yield f"certificates/extra-{path.stem}.crt", path.read_bytes()
    for path in sorted((context / RUNTIME_PACKAGE).rglob("*.py")):
        yield str(path.relative_to(context)), path.read_bytes()


def _certificates(extra: Path | None) -> list[Path]:
    if extra is None:
        return []
    return sorted(extra.glob("*.crt")) if extra.is_dir() else [extra]


def _report(line: dict[str, object], tag: str, log: Log) -> None:
    if "error" in line:
        raise BuildFailed(f"{tag}: {str(line['error']).strip()}")
    if text := str(line.get("stream", "")).strip():
        log(text)


@contextmanager
def _engine(timeout_seconds: int) -> Iterator[docker.DockerClient]:
    client = docker.DockerClient.from_env(timeout=timeout_seconds)
    try:
        yield client
    finally:
        client.close()


@contextmanager
def _errors(verb: str) -> Iterator[None]:
    try:
        yield
    except APIError as exc:
        raise BuildFailed(f"{verb}: {exc.explanation or exc}") from exc
    except (DockerException, requests.RequestException) as exc:
        url = os.environ.get("DOCKER_HOST") or DEFAULT_URL
        raise RunnerUnavailable(f"{verb}: the engine at {url} does not answer: {_cause(exc)}") from exc


def _cause(exc: BaseException) -> BaseException:
    """What lies at the bottom of an error that several libraries have wrapped, each in its own way."""
    while inner := next((part for part in exc.args if isinstance(part, BaseException)), None) or exc.__context__:
        exc = inner
    return exc
