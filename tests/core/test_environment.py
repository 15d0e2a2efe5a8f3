"""What the environment of a process holds, and who can read it."""

from __future__ import annotations

import subprocess
import sys

import pytest

from djinn.core.installation.environment import PROVIDERS_WITH_KEYS, keys_in, shared_environment
from djinn.core.installation.paths import PROJECT, Installation
from djinn.providers.catalogue import has_key

NOBODY = 65534
PR_GET_DUMPABLE = 3
CANARY = "canary-51c0de"
SHELL = {
    "PATH": "/usr/bin",
    "LANG": "C.UTF-8",
    "DATABASE_URL": "postgresql://there/djinn",
    "DJINN_LEASE_SECONDS": "2",
    "DOCKER_HOST": "unix:///run/docker.sock",
    "OPENAI_API_KEY": CANARY,
    "DJINN_PROVIDER_HOUSE_KEY": CANARY,
    "DJINN_PROVIDER_HOUSE_URL": "http://house/v1",
    "DJINN_PROVIDER_ANTHROPIC_KEY": CANARY,
    "DJINN_PROVIDER_OPEN_HOUSE_URL": "http://127.0.0.1:11434/v1",
    "AWS_SECRET_ACCESS_KEY": CANARY,
    "GITHUB_TOKEN": CANARY,
    "SSH_AUTH_SOCK": "/run/agent",
}


def test_a_process_gets_what_it_needs_and_no_key() -> None:
    assert set(shared_environment(SHELL)) == {
        "PATH", "LANG", "DATABASE_URL", "DJINN_LEASE_SECONDS", "DOCKER_HOST", "DJINN_PROVIDER_HOUSE_URL",
        "DJINN_PROVIDER_OPEN_HOUSE_URL",
    }  # fmt: skip


def test_the_gateway_gets_the_providers_keys_and_others_their_names() -> None:
    keys = keys_in(SHELL)
    assert set(keys.values) == {"OPENAI_API_KEY", "DJINN_PROVIDER_HOUSE_KEY", "DJINN_PROVIDER_ANTHROPIC_KEY"}
    assert keys.providers == ("anthropic", "house", "open-house", "openai")


@pytest.mark.parametrize("variable", ["OPENAI_API_KEY", "DJINN_PROVIDER_OPENAI_KEY"])
def test_a_provider_has_a_key_when_it_is_here(variable: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    assert not has_key("openai")
    monkeypatch.setenv(variable, CANARY)
    assert has_key("openai")


def test_a_provider_has_a_key_when_the_one_who_started_us_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(PROVIDERS_WITH_KEYS, "mistral, open-house")
    assert [has_key(name) for name in ("mistral", "open-house", "open_house", "groq", "scripted", "")] == [
        True, True, True, False, True, False,
    ]  # fmt: skip


def test_a_command_beside_a_stack_knows_whom_the_stack_can_call(
    home: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(PROVIDERS_WITH_KEYS, raising=False)
    assert not has_key("mistral")
    home.providers_file.write_text("mistral,xai")
    assert has_key("mistral")
    monkeypatch.setenv(PROVIDERS_WITH_KEYS, "xai")
    assert not has_key("mistral")


@pytest.mark.root
@pytest.mark.parametrize("is_hidden", [True, False])
def test_another_process_of_the_same_user_cannot_read_a_hidden_environment(is_hidden: bool) -> None:
    script = f"""
import ctypes, os
from djinn.core.installation.environment import PR_SET_DUMPABLE, hide_environment
os.setgid({NOBODY}), os.setuid({NOBODY})
ctypes.CDLL(None).prctl(PR_SET_DUMPABLE, 1, 0, 0, 0)  # as after a start by that user
{"hide_environment()" if is_hidden else "pass"}
print("here", flush=True)
input()
"""
    with subprocess.Popen(
        [sys.executable, "-c", script], cwd=PROJECT, env={"KEY": CANARY}, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"here\n"
        look = ["cat", f"/proc/{holder.pid}/environ"]
        thief = subprocess.run(look, capture_output=True, user=NOBODY, group=NOBODY, timeout=30, check=False)
        holder.communicate(b"\n", timeout=30)
    assert (thief.returncode != 0, CANARY in thief.stdout.decode()) == (is_hidden, not is_hidden)


def test_the_gateway_hides_its_environment(home: Installation) -> None:
    script = f"import ctypes, djinn.gateway.asgi; print(ctypes.CDLL(None).prctl({PR_GET_DUMPABLE}, 0, 0, 0, 0))"
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=PROJECT, capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout == "0\n"
