"""The image is built once, again when what it is made of changes, and trusts the certificates it is given."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import docker
import pytest

from djinn.runner.base import ImageMissing
from djinn.runner.base_image import DEFAULT_MIRROR, bootstrap_base_image, find_mirror
from djinn.runner.docker_options import runtime_digest
from djinn.runner.image import BuildFailed, ensure_image, image_digest

BASE = "debian:bookworm-slim"
WORKER = os.environ.get("PYTEST_XDIST_WORKER", "alone")
TAG = f"djinn-image-test:{WORKER}"
pytestmark = pytest.mark.xdist_group("image")


@pytest.fixture
def context(tmp_path: Path, docker_engine: str) -> Iterator[Path]:
    """A build context of the usual shape that takes a moment to build."""
    place = tmp_path / "context"
    for folder in ("certificates", "djinn_runtime"):
        (place / folder).mkdir(parents=True)
    (place / "djinn_runtime" / "whose").write_text(WORKER)  # no two workers make, and remove, the same image
    (place / "Dockerfile").write_text(
        "ARG BASE_IMAGE=scratch\nFROM ${BASE_IMAGE}\n"
        "COPY certificates/ /certificates/\nCOPY djinn_runtime /djinn_runtime\n"
    )
    (place / "packages.txt").write_text("")
    (place / "certificates" / "README.md").write_text("")
    (place / "djinn_runtime" / "__init__.py").write_text("")
    yield place
    client = docker.from_env()
    for image in client.images.list(name="djinn-image-test"):
        client.images.remove(image.id, force=True)
    client.close()


def ensure(context: Path, certificates: Path | None = None) -> tuple[str, list[str]]:
    said: list[str] = []
    return ensure_image(context=context, tag=TAG, base=BASE, extra_certificates=certificates, log=said.append), said


def test_an_image_that_is_there_is_not_built_again(context: Path) -> None:
    first, _ = ensure(context)
    assert ensure(context) == (first, [])


def test_a_change_of_the_runtime_alone_builds_nothing(context: Path) -> None:
    first, _ = ensure(context)
    (context / "djinn_runtime" / "new.py").write_text("x = 1\n")
    assert ensure(context) == (first, [])


@pytest.mark.parametrize("name", ["Dockerfile", "packages.txt", "certificates/ours.crt"])
def test_a_change_of_what_it_is_made_of_builds_it_again(context: Path, name: str) -> None:
    first, _ = ensure(context)
    with (context / name).open("a") as file:
        file.write("# changed\n")
    again, said = ensure(context)
    assert (bool(said), again) != (False, first)


def test_extra_certificates_reach_the_image(context: Path, tmp_path: Path) -> None:
    (tmp_path / "ours.crt").write_text("certificate")
    image, _ = ensure(context, tmp_path / "ours.crt")
    command = ["docker", "run", "--rm", "--network", "none", image, "cat", "/certificates/extra-ours.crt"]
    assert subprocess.run(command, check=True, capture_output=True, timeout=60).stdout == b"certificate"


def test_a_build_that_fails_says_why(context: Path) -> None:
    (context / "Dockerfile").write_text("ARG BASE_IMAGE=scratch\nFROM ${BASE_IMAGE}\nRUN exit 3\n")
    with pytest.raises(BuildFailed, match="3"):
        ensure(context)


def test_a_base_that_cannot_be_had_is_missing(context: Path) -> None:
    with pytest.raises(ImageMissing):
        ensure_image(context=context, tag=TAG, base="djinn-no-such-base:1", log=print)


def test_the_digest_of_the_runtime_tells_names_and_contents(context: Path) -> None:
    digests = {runtime_digest(context)}
    (context / "djinn_runtime" / "a.py").write_text("x")
    digests.add(runtime_digest(context))
    (context / "djinn_runtime" / "a.py").rename(context / "djinn_runtime" / "b.py")
    digests.add(runtime_digest(context))
    assert len(digests) == 3


def test_the_digest_of_the_image_tells_its_base(context: Path) -> None:
    assert image_digest(context, "a", None) != image_digest(context, "b", None)


SOURCES = {
    "Types: deb\nURIs: http://mirror.example/debian\nSuites: bookworm\n": "http://mirror.example/debian",
    "deb [signed-by=/x] https://mirror.example/debian bookworm main\n": "https://mirror.example/debian",
    "deb http://mirror.example/ubuntu noble main\n": DEFAULT_MIRROR,
}


@pytest.mark.parametrize(("text", "mirror"), SOURCES.items(), ids=["deb822", "one line", "none of Debian"])
def test_the_mirror_is_the_one_that_apt_uses(tmp_path: Path, text: str, mirror: str) -> None:
    (tmp_path / "sources.list").write_text(text)
    assert find_mirror(tmp_path) == mirror


def test_only_a_debian_is_made_from_debians_packages(tmp_path: Path) -> None:
    assert bootstrap_base_image("alpine:3", tmp_path / "x.tar", print) is False
