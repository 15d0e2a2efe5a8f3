"""A program of its own: checks one value against one JSON Schema, and dies when that takes too long.

Reads `{"schema": ..., "value": ...}` and writes `[[path, message], ...]`; its argument is how many seconds of CPU time
the check may take. It is run by path, without Django: a pattern or a tangle of references can take for ever, and only a
process can be ended.
"""

from __future__ import annotations

import json
import resource
import signal
import sys
from collections.abc import Iterator
from itertools import islice
from typing import Any

from jsonschema.exceptions import ValidationError, best_match
from jsonschema.validators import Draft202012Validator, validator_for
from referencing import Registry

MOST_CPU_SECONDS = 10
"""The start of the program included, which the time of the check itself does not count."""
MEMORY_BYTES = 1024**3
MAX_PROBLEMS = 20
MAX_MESSAGE = 300


def main() -> None:
    """Check what stands on the standard input."""
    signal.signal(signal.SIGXCPU, signal.SIG_DFL)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CPU, (MOST_CPU_SECONDS, MOST_CPU_SECONDS + 1))
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    question = json.load(sys.stdin)
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_PROF, float(sys.argv[1]))
    json.dump(problems(question["value"], question["schema"]), sys.stdout)


def problems(value: Any, schema: Any) -> list[tuple[list[str | int], str]]:
    """The first problems, in the order in which they are found."""
    dialect = validator_for(schema, default=Draft202012Validator)
    try:
        found = list(islice(_found(dialect(schema, registry=Registry()), value), MAX_PROBLEMS))
    except Exception as exc:  # the edge: whatever a schema and a value can do to the library is told, not hidden
        return [([], f"it cannot be checked: {type(exc).__name__}: {str(exc)[:MAX_MESSAGE]}")]
    return found


def _found(validator: Any, value: Any) -> Iterator[tuple[list[str | int], str]]:
    for error in validator.iter_errors(value):
        yield list(error.absolute_path), _words(error)


def _words(error: ValidationError) -> str:
    """The error, and the closest of several choices where none fits."""
    closest = best_match([error])
    text = error.message[:MAX_MESSAGE]
    if closest is None or closest is error:
        return text
    place = "".join(f"/{part}" for part in closest.absolute_path)
    return f"{text} (closest: {place} {closest.message[:MAX_MESSAGE]})"


if __name__ == "__main__":
    main()
