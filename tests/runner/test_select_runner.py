"""Which runner a machine gets."""

from __future__ import annotations

from pathlib import Path

import pytest

from djinn.runner.select import Kind, choose_runner


@pytest.mark.parametrize("kind", ["process", "stub", "docker"])
def test_a_runner_that_is_asked_for_is_given(kind: Kind, tmp_path: Path) -> None:
    assert choose_runner(kind, installation="x", root=tmp_path).name == kind


def test_auto_is_docker_when_its_engine_answers(docker_engine: str, tmp_path: Path) -> None:
    assert choose_runner("auto", installation="x", root=tmp_path).name == "docker"


def test_auto_is_processes_when_no_engine_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/nobody.sock")
    assert choose_runner("auto", installation="x", root=tmp_path).name == "process"
