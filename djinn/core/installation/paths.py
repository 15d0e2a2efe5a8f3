"""Where an installation keeps its things: one folder, `var/` unless DJINN_HOME says otherwise."""

from __future__ import annotations

import hashlib
import os
import secrets
import tempfile
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from djinn.core.errors import AppError

PROJECT = Path(__file__).resolve().parents[3]
DEFAULT_URL = "http://127.0.0.1:8000"
LONGEST_SOCKET_PATH = 100
"""Bytes. Linux allows 107 in `sockaddr_un.sun_path`; some programs append to the name."""


@dataclass(frozen=True)
class Installation:
    """The folder of one installation and what is derived from its place; creates nothing by itself."""

    home: Path

    @property
    def name(self) -> str:
        """Tells this installation's containers from others on one Docker engine: 12 hexadecimal digits."""
        return hashlib.sha256(str(self.home).encode()).hexdigest()[:12]

    @property
    def sockets(self) -> Path:
        """The folder of the Unix sockets: in the home, or in the temporary directory when that path is too long."""
        inside = self.home / "run"
        longest = inside / "postgres" / ".s.PGSQL.5432.lock"
        if len(os.fsencode(longest)) <= LONGEST_SOCKET_PATH:
            return inside
        return Path(tempfile.gettempdir()) / f"djinn-{self.name}"

    @property
    def postgres_data(self) -> Path:
        return self.home / "postgres"

    @property
    def postgres_sockets(self) -> Path:
        return self.sockets / "postgres"

    @property
    def redis_socket(self) -> Path:
        return self.sockets / "redis.sock"

    @property
    def gateway_directory(self) -> Path:
        """Holds the gateway's own socket, and is mounted into containers of an earlier version."""
        return self.sockets / "gateway"

    @property
    def doors(self) -> Path:
        """A folder for each execution, mounted into its container: the gateway listens in it."""
        return self.sockets / "doors"

    @property
    def executions(self) -> Path:
        return self.home / "executions"

    @property
    def workspaces(self) -> Path:
        return self.home / "workspaces"

    @property
    def artifacts(self) -> Path:
        """Files that steps have left, each named by its SHA-256."""
        return self.home / "artifacts"

    @property
    def logs(self) -> Path:
        return self.home / "logs"

    @property
    def url_file(self) -> Path:
        """Holds the dashboard's address of the stack that was started last."""
        return self.home / "url"

    @property
    def url(self) -> str:
        """Where the dashboard is, or will be."""
        return self.url_file.read_text(encoding="ascii") if self.url_file.exists() else DEFAULT_URL

    @property
    def ready(self) -> Path:
        """A file for each process of the stack that is ready and cannot be asked over a socket."""
        return self.home / "ready"

    @property
    def providers_file(self) -> Path:
        """Holds the names of the providers whose keys the gateway of the stack that was started last has."""
        return self.home / "providers"

    @property
    def providers_with_keys(self) -> str:
        """Those names, separated by commas; empty when no stack was ever started."""
        return self.providers_file.read_text(encoding="utf-8") if self.providers_file.exists() else ""

    @property
    def database_url(self) -> str:
        return f"postgresql://postgres:@/djinn?host={quote(str(self.postgres_sockets), safe='')}"

    @property
    def redis_url(self) -> str:
        return f"unix://{self.redis_socket}"

    def make_directories(self) -> None:
        """Create the folders, and close those of an earlier version.

        The way to the sockets stays open to PostgreSQL's own user, and the gateway's folder, which containers mount,
        to their users. Everything else is for us alone: what Docker mounts out of it, it reaches as root.
        """
        self.home.mkdir(parents=True, exist_ok=True)
        self.sockets.mkdir(mode=0o711, parents=True, exist_ok=True)
        if self.sockets.lstat().st_uid != os.geteuid():
            raise AppError(f"{self.sockets} is not ours: somebody else could listen in our place")
        kept = (self.executions, self.workspaces, self.artifacts, self.logs, self.ready, self.home / "static")
        private = (self.doors, *kept)
        for directory, mode in [(self.gateway_directory, 0o711), *((directory, 0o700) for directory in private)]:
            directory.mkdir(parents=True, exist_ok=True)
            directory.chmod(mode)

    def secret_key(self) -> str:
        """The installation's secret, made at the first call and kept in a file that only its owner reads."""
        path = self.home / "secret_key"
        if not path.exists():
            self.home.mkdir(parents=True, exist_ok=True)
            fresh = path.with_suffix(f".{os.getpid()}")
            with open(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="ascii") as file:
                file.write(secrets.token_urlsafe(48))
            try:
                os.link(fresh, path)
            except FileExistsError:
                pass  # another process made it first: theirs is the installation's
            finally:
                fresh.unlink()
        return path.read_text(encoding="ascii")


def present_installation() -> Installation:
    """The installation that the environment names."""
    return Installation(home=Path(os.environ.get("DJINN_HOME") or PROJECT / "var").resolve())


if __name__ == "__main__":
    present_installation().make_directories()
