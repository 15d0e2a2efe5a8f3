"""What `make lint` checks beside style, types and layers: `.venv/bin/python tests/lint.py`, exit code 1 with a list.

Starts a PostgreSQL and a Redis of its own, because migrations and the API's schema are asked of Django itself.
"""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

PROJECT = Path(__file__).resolve().parents[1]
FILE_STOP, TEST_FILE_STOP, FUNCTION_STOP = 400, 800, 60
FOLDERS = ("djinn", "runtime_image", "tests", "bench")
SCHEMA = PROJECT / "docs" / "api-schema.yaml"
REQUIREMENT = re.compile(r"^([A-Za-z0-9][A-Za-z0-9._-]*)")


def main() -> int:
    """Print every problem; the exit code."""
    sys.path.insert(0, str(PROJECT))
    problems = [*sizes(), *requirements(), *_with_django()]
    for problem in problems:
        sys.stdout.write(f"{problem}\n")
    return 1 if problems else 0


def sizes() -> Iterator[str]:
    """Files and functions past their limit; migrations are as long as they are."""
    for path in _sources():
        text = path.read_text(encoding="utf-8")
        name, lines = path.relative_to(PROJECT), text.count("\n")
        limit = TEST_FILE_STOP if name.parts[0] in {"tests", "bench"} else FILE_STOP
        if lines > limit:
            yield f"{name} has {lines} lines, {limit} are allowed"
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                length = (node.end_lineno or node.lineno) - node.lineno + 1
                if length > FUNCTION_STOP:
                    yield f"{name}:{node.lineno} {node.name}() has {length} lines, {FUNCTION_STOP} are allowed"


def requirements() -> Iterator[str]:
    """What a `.in` file asks for and its locked `.txt` does not hold, or holds in a version that it does not allow."""
    for source in sorted(PROJECT.glob("requirements*.in")):
        locked = source.with_suffix(".txt")
        pins = dict(re.findall(r"^([A-Za-z0-9._-]+)==([^\s;\\]+)", locked.read_text(encoding="utf-8"), re.MULTILINE))
        versions = {canonicalize_name(name): version for name, version in pins.items()}
        for line in source.read_text(encoding="utf-8").splitlines():
            if not REQUIREMENT.match(line):
                continue
            wanted = Requirement(line.partition(" #")[0])
            version = versions.get(canonicalize_name(wanted.name))
            if version is None:
                yield f"{locked.name} does not hold {wanted.name} of {source.name}: run `make lock`"
            elif not wanted.specifier.contains(version, prereleases=True):
                yield f"{locked.name} holds {wanted.name} {version}, not {wanted.specifier}: run `make lock`"


def migrations() -> Iterator[str]:
    """Changes of models that no migration makes."""
    result = _manage("makemigrations", "--check", "--dry-run")
    if result.returncode:
        yield f"migrations are missing: {result.stdout.strip() or result.stderr.strip()}"


def schema() -> Iterator[str]:
    """The committed API schema, when it is not what the code says."""
    with tempfile.TemporaryDirectory() as folder:
        fresh = Path(folder) / "schema.yaml"
        result = _manage("spectacular", "--validate", "--fail-on-warn", "--file", str(fresh))
        if result.returncode:
            yield f"the API's schema cannot be made: {result.stderr.strip()}"
        elif not SCHEMA.exists() or SCHEMA.read_bytes() != fresh.read_bytes():
            yield f"{SCHEMA.relative_to(PROJECT)} is not current: run `make schema`"


def models_in_admin() -> Iterator[str]:
    """Models of ours that no page of the admin shows."""
    import django

    django.setup()
    from django.apps import apps
    from django.contrib import admin

    for model in apps.get_models():
        if model.__module__.startswith("djinn.") and not admin.site.is_registered(model):
            yield f"{model.__module__}.{model.__name__} is not registered in the admin"


def _with_django() -> list[str]:
    import tests.services  # noqa: F401  starts the servers

    os.environ["DJANGO_SETTINGS_MODULE"] = "djinn.settings"
    return [*migrations(), *schema(), *models_in_admin()]


def _manage(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "manage.py", *arguments]
    return subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, timeout=120, check=False)


def _sources() -> list[Path]:
    found = [PROJECT / "manage.py", *(path for folder in FOLDERS for path in sorted((PROJECT / folder).rglob("*.py")))]
    return [path for path in found if path.parent.name != "migrations"]


if __name__ == "__main__":
    sys.exit(main())
