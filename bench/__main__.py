"""Measures Djinn's figures, prints them as one table, and writes them with --json. A missed promise exits 0 too."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from rich.console import Console

from bench import (
    adoption,
    cancel,
    containers,
    gateway_attack,
    history,
    hops,
    idle_containers,
    log,
    memory,
    throughput,
    viewers,
)
from bench.figures import Figure, print_table, write_json
from bench.installation import BenchFailed, Up, installed, stack

Measure = Callable[[Path, Up], list[Figure]]

NAMES: dict[str, tuple[str, Measure]] = {
    "memory": ("auto", memory.measure),
    "hops": ("stub", hops.measure),
    "history": ("stub", history.measure),
    "throughput": ("stub", throughput.measure),
    "log": ("stub", log.measure),
    "viewers": ("stub", viewers.measure),
    "containers": ("docker", containers.measure),
    "idle_containers": ("docker", idle_containers.measure),
    "cancel": ("docker", cancel.measure),
    "gateway_attack": ("docker", gateway_attack.measure),
    "adoption": ("docker", adoption.measure),
}
"""What can be measured: which runner its stack has, and what measures."""


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"{', '.join(NAMES)}; all without one")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there as well")
    options = parser.parse_args(arguments)
    unknown = [name for name in options.names if name not in NAMES]
    if unknown:
        parser.error(f"unknown: {', '.join(unknown)}")
    console = Console(width=None if sys.stdout.isatty() else 160)
    try:
        figures = measure(options.names or list(NAMES))
    except BenchFailed as exc:
        print(f"bench: {exc}", file=sys.stderr)
        return 1
    print_table(figures, console)
    if options.json:
        write_json(figures, options.json)
    return 0


def measure(names: Sequence[str]) -> list[Figure]:
    """The figures of the named benchmarks, in an installation of their own."""
    figures: list[Figure] = []
    with installed() as home:
        for runner in sorted({NAMES[name][0] for name in names}, reverse=True):
            if runner == "auto":
                with stack(runner):
                    pass  # makes database and image: the next start is one of a warm installation
            with stack(runner) as up:
                for name in names:
                    if NAMES[name][0] == runner:
                        print(f"measuring {name} ...", file=sys.stderr, flush=True)
                        figures += NAMES[name][1](home, up)
    return figures


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
