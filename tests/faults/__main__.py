"""`python -m tests.faults`: a storm. `make chaos` calls it; exit code 1 when anything did not hold."""

from __future__ import annotations

import argparse
import itertools
import random
import sys
import tempfile
import time
from pathlib import Path

from tests.faults.engine_lever import Engine, is_possible
from tests.faults.load import install
from tests.faults.plan import KINDS, faults
from tests.faults.stage import Stage
from tests.faults.storm import Length, Report, Settings, Storm, skipped_kinds
from tests.faults.table import as_text

STANDARD_FAULTS = 1500
WIDTH = 4


def main(arguments: list[str]) -> int:
    options = _options(arguments)
    seed = options.seed if options.seed is not None else random.SystemRandom().randrange(2**32)
    if options.plan:
        kinds = [kind for kind in options.kinds or KINDS if kind not in skipped_kinds(has_engine=_has_engine(options))]
        for fault in itertools.islice(faults(seed, kinds=kinds), options.faults or STANDARD_FAULTS):
            sys.stdout.write(f"{fault}\n")
        return 0
    _say(f"seed {seed}")
    return _storm(options, seed)


def _options(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("--seed", type=int, help="the same seed replays the same plan; random without it")
    parser.add_argument("--faults", type=int, help=f"at least so many injected faults (standard: {STANDARD_FAULTS})")
    parser.add_argument("--steps", type=int, help="at least so many step runs")
    parser.add_argument("--hours", type=float, help="at least so long")
    parser.add_argument("--width", type=int, default=WIDTH, help="how many runs are open at once")
    parser.add_argument("--image", default="djinn-agent:latest", help="the agents' image")
    parser.add_argument("--only", nargs="+", metavar="PIPELINE", help="only these pipelines, to narrow a finding down")
    parser.add_argument("--kinds", nargs="+", metavar="KIND", choices=sorted(KINDS), help="only these kinds of faults")
    parser.add_argument("--calmer", type=float, default=1.0, help="make each pause so many times longer")
    parser.add_argument("--shared-engine", action="store_true", help="leave engines alone and use the machine's")
    parser.add_argument("--plan", action="store_true", help="print the plan and do nothing")
    return parser.parse_args(arguments)


def _has_engine(options: argparse.Namespace) -> bool:
    return not options.shared_engine and is_possible()


def _length(options: argparse.Namespace) -> Length:
    """What was asked for, or the standard length."""
    hours = None if options.hours is None else options.hours * 3600
    if options.faults is None and options.steps is None and hours is None:
        return Length(injected=STANDARD_FAULTS)
    return Length(injected=options.faults, steps=options.steps, seconds=hours)


def _storm(options: argparse.Namespace, seed: int) -> int:
    log = Path(tempfile.gettempdir()) / f"djinn-storm-engine-{seed}.log"
    engine = Engine(log=log) if _has_engine(options) else None
    stage = Stage(image=options.image, engine=engine)
    has_failed = True
    try:
        if engine is not None:
            _say("starting a Docker engine of the storm's own, and giving it the image")
            engine.start()
            engine.load(options.image)
        stage.up()
        _say(f"the stack is up: {stage.home}")
        install(stage.add_pipeline, only=options.only)
        settings = Settings(seed, _length(options), options.width, options.kinds, options.calmer)
        report = Storm(stage, settings, say=_say).blow()
        _tell(report)
        has_failed = bool(report.violations)
    finally:
        stage.close(keep=has_failed)
        if engine is not None:
            engine.clean()
        if has_failed:
            _say(f"the seed is {seed}; kept: {stage.home} (logs in var/logs; unmount var/workspaces to remove it)")
            _say(f"the private engine's log, if there was one: {log}")
        else:
            log.unlink(missing_ok=True)
    return int(has_failed)


def _tell(report: Report) -> None:
    sys.stdout.write(f"\n{as_text(report.lines, skipped=report.skipped)}\n")
    for note in report.notes:
        _say(note)
    _say(f"{report.runs} runs, {report.steps} step runs, {report.seconds:.0f} s")
    for violation in report.violations:
        _say(f"VIOLATION {violation}")
    _say("nothing was violated" if not report.violations else f"{len(report.violations)} violations")


def _say(text: str) -> None:
    sys.stdout.write(f"{time.strftime('%H:%M:%S')} {text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
