"""Where on the network a repository may be, and how git reaches exactly that place and nothing else.

A repository's address is text that people and other systems send, and the worker that fetches it stands inside of the
operator's network. So its host must have public addresses alone, all that its name resolves to, or be one that an
administrator has allowed. Git is then bound to the addresses that were looked at, follows no redirect, and has no
credential of the worker: no key, no agent, no helper, no `.netrc`.
"""

from __future__ import annotations

import ipaddress
import os
import re
import shlex
import socket
import threading
from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass
from urllib.parse import unquote, urlsplit

from djinn.runner.git import PROXY_VARIABLES, TRUST_VARIABLES, WorkspaceError, scrub

PORTS = {"https": 443, "http": 80, "ssh": 22}
RESOLVE_SECONDS = 15.0
CONNECT_SECONDS = 20
_HOST = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_.-]{0,252}[A-Za-z0-9_])?")
_USER = re.compile(r"[A-Za-z0-9_][\w.+-]*")
_SCP = re.compile(r"(?:([^@/:\s]*)@)?([^@/:\s\[\]]+):(?!:)([^:\s][^\s]*)")

_Address = ipaddress.IPv4Address | ipaddress.IPv6Address
_INNER_4 = [ipaddress.IPv4Network(text) for text in ("100.64.0.0/10", "192.0.0.0/24", "192.88.99.0/24")]
"""Shared by carriers; protocol assignments (a cloud's metadata is among them); relays. `ipaddress` knows only some."""
_METADATA = [ipaddress.IPv4Address("168.63.129.16")]
"""Public by its number, answered by the host below a virtual machine (Azure)."""
_PUBLIC_6 = ipaddress.IPv6Network("2000::/3")
"""The only part of IPv6 that global addresses are given from (RFC 4291, IANA)."""
_INNER_6 = [ipaddress.IPv6Network(text) for text in ("2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20")]
"""Teredo and other protocols; documentation; 6to4, which leads to any IPv4 address."""
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")


@dataclass(frozen=True)
class Remote:
    """A repository on the network. Every part was read by us, and git is given nothing but these parts."""

    scheme: str
    host: str
    """In lower case, without the dot at its end; a numeric address has no brackets."""
    port: int
    path: str
    userinfo: str = ""
    """As it is written in a URL."""
    is_scp: bool = False
    """Written as `user@host:path`: the path begins at the user's home then."""

    @property
    def url(self) -> str:
        """For git, without a user's name and password where these could be a secret."""
        if self.is_scp:
            return f"{self.userinfo}@{self.host}:{self.path}".removeprefix("@")
        user = f"{self.userinfo}@" if self.scheme == "ssh" and self.userinfo else ""
        return f"{self.scheme}://{user}{self._place}{self.path}"

    @property
    def _place(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == PORTS[self.scheme] else f"{host}:{self.port}"

    def is_allowed(self, hosts: Collection[str]) -> bool:
        """Whether an administrator has named this host, with or without its port."""
        named = {host.strip().lower().removesuffix(".") for host in hosts}
        written = f"[{self.host}]" if ":" in self.host else self.host
        return not named.isdisjoint({self.host, written, f"{written}:{self.port}"})

    def environment(self, addresses: Collection[str]) -> dict[str, str]:
        """What makes git talk to these addresses of the host alone; to wherever the host is when there are none."""
        return _http_environment(self, addresses) if self.scheme != "ssh" else _ssh_environment(self, addresses)


def read_remote(text: str) -> Remote:
    """The repository that the text names: an https, http or ssh URL, or `user@host:path`.

    Raises a permanent `WorkspaceError`. Whatever could be read in two ways is refused.
    """
    if re.search(r"[\x00-\x20\x7f\\]", text) or not text.isascii():
        raise rejected(f"not a repository: {scrub(text)!r}")
    if "://" not in text:
        found = _SCP.fullmatch(text)
        if found is None:
            raise rejected(f"neither a URL nor an absolute path: {scrub(text)!r}")
        user, host, path = found.groups()
        return _checked(Remote("ssh", _host(host, text), PORTS["ssh"], path, user or "", is_scp=True), text)
    try:
        parts = urlsplit(text)
        host, port = parts.hostname or "", parts.port
    except ValueError as exc:
        raise rejected(f"not a URL: {scrub(text)!r}") from exc
    if parts.scheme not in PORTS or parts.query or parts.fragment:
        raise rejected(f"a repository is fetched by {', '.join(PORTS)} only: {scrub(text)!r}")
    userinfo = parts.netloc.rpartition("@")[0]
    return _checked(
        Remote(parts.scheme, _host(host, text), port or PORTS[parts.scheme], parts.path or "/", userinfo), text
    )


def public_addresses(remote: Remote) -> tuple[str, ...]:
    """Every address of the host. Raises `WorkspaceError`: permanent when one of them is not public, else it may pass.

    The addresses are not told: whoever may start a run could ask for names of the inner network that way.
    """
    found = _resolve(remote.host, remote.port)
    if not all(is_public(address) for address in found):
        raise rejected(
            f"The repository's host {remote.host!r} is not at a public address, so it is not asked. An administrator "
            f"can allow it in DJINN_REPOSITORY_HOSTS."
        )
    return tuple(map(str, found))


def is_public(address: _Address) -> bool:
    """Whether the address leads to somewhere on the internet that is not this machine or its neighbours."""
    if isinstance(address, ipaddress.IPv6Address):
        inner = address.ipv4_mapped
        if address in _NAT64:
            inner = ipaddress.IPv4Address(address.packed[-4:])
        if inner is not None:
            return is_public(inner)
        is_inner = address not in _PUBLIC_6 or any(address in network for network in _INNER_6)
    else:
        is_inner = address in _METADATA or any(address in network for network in _INNER_4)
    is_strange = address.is_multicast or address.is_reserved or address.is_unspecified
    return not is_inner and not is_strange and address.is_global and not _is_ours(address)


def rejected(text: str) -> WorkspaceError:
    return WorkspaceError(text, permanent=True, reason="rejected")


def _checked(remote: Remote, text: str) -> Remote:
    if remote.scheme == "ssh" and remote.userinfo and not _USER.fullmatch(remote.userinfo):
        raise rejected(f"not the name of a user: {scrub(text)!r}")
    if "@" in remote.userinfo or unquote(remote.path).removeprefix("/").startswith("-"):
        raise rejected(f"not a repository: {scrub(text)!r}")
    return remote


def _host(text: str, whole: str) -> str:
    """The host as one that is read in one way only: a name, or a numeric address in its usual form."""
    host = text.lower().removesuffix(".")
    if ":" in host and "%" not in host:
        with suppress(ValueError):
            return str(ipaddress.IPv6Address(host))
    with suppress(OSError):
        return socket.inet_ntoa(socket.inet_aton(host))  # 127.1, 0x7f000001, 017700000001, 2130706433
    if not _HOST.fullmatch(host):
        raise rejected(f"not the name of a host: {scrub(whole)!r}")
    return host


def _resolve(host: str, port: int) -> list[_Address]:
    """What the system's resolver says, within a time: it has no limit of its own."""
    answers: list[list[_Address] | OSError] = []

    def ask() -> None:
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
            answers.append([ipaddress.ip_address(str(item[4][0]).partition("%")[0]) for item in found])
        except OSError as exc:
            answers.append(exc)

    thread = threading.Thread(target=ask, name=f"resolve {host}", daemon=True)
    thread.start()
    thread.join(RESOLVE_SECONDS)
    answer = answers[0] if answers else TimeoutError(f"no answer in {RESOLVE_SECONDS} s")
    if isinstance(answer, OSError):
        text = f"The repository's host {host!r} cannot be found: {answer}"
        raise WorkspaceError(text, permanent=False, reason="error") from answer
    return list(dict.fromkeys(answer))


def _is_ours(address: _Address) -> bool:
    """Whether this machine itself has the address: a firewall before it would not be passed."""
    family = socket.AF_INET6 if address.version == 6 else socket.AF_INET
    with suppress(OSError), socket.socket(family, socket.SOCK_DGRAM) as probe:
        probe.connect((str(address), 9))  # chooses a source, and sends nothing
        return str(probe.getsockname()[0]) == str(address)
    return False


def _http_environment(remote: Remote, addresses: Collection[str]) -> dict[str, str]:
    """Git's configuration for one fetch; it comes after all files. A secret in it stays off the command line."""
    settings = {
        "http.followRedirects": "false",  # alternates of a server that speaks the dumb protocol, too
        "credential.helper": "",
        "core.askPass": "",
        "http.emptyAuth": "false",  # no ticket of Kerberos either
    }
    names: tuple[str, ...] = TRUST_VARIABLES
    if addresses:
        pinned = ",".join(f"[{address}]" if ":" in address else address for address in addresses)
        settings["http.curloptResolve"] = f"{remote.host}:{remote.port}:{pinned}"
        settings["http.proxy"] = ""  # a proxy would resolve the name once more
    else:
        names += PROXY_VARIABLES
    if remote.userinfo:
        place = remote.url.removesuffix(remote.path)
        inside = place.replace("://", f"://{remote.userinfo}@", 1)
        settings[f"url.{inside}/.insteadOf"] = f"{place}/"
    environment = {name: value for name, value in os.environ.items() if name in names}
    for number, (name, value) in enumerate(settings.items()):
        environment |= {f"GIT_CONFIG_KEY_{number}": name, f"GIT_CONFIG_VALUE_{number}": value}
    return environment | {"GIT_CONFIG_COUNT": str(len(settings)), "GIT_ALLOW_PROTOCOL": remote.scheme}


def _ssh_environment(remote: Remote, addresses: Collection[str]) -> dict[str, str]:
    """An ssh without configuration, keys and agent. Host keys are known by the host's name, as they were stored."""
    known_as = remote.host if remote.port == PORTS["ssh"] else f"[{remote.host}]:{remote.port}"
    options = [
        "BatchMode=yes",
        "IdentitiesOnly=yes",
        "IdentityFile=none",
        "IdentityAgent=none",
        "PreferredAuthentications=none",
        "GSSAPIAuthentication=no",
        "ForwardAgent=no",
        "ClearAllForwardings=yes",
        "PermitLocalCommand=no",
        "ProxyCommand=none",
        "CanonicalizeHostname=no",
        "CheckHostIP=no",
        "UpdateHostKeys=no",
        f"ConnectTimeout={CONNECT_SECONDS}",
        f"HostKeyAlias={known_as}",
    ]
    if addresses:
        options.append(f"HostName={next(iter(addresses))}")
    command = shlex.join(["ssh", "-F", "/dev/null", *(f"-o{option}" for option in options)])
    return {"GIT_SSH_COMMAND": command, "GIT_SSH_VARIANT": "ssh", "GIT_ALLOW_PROTOCOL": "ssh"}
