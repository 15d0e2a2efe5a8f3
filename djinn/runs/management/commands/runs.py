from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django.conf import settings
from django.core.management.base import CommandError, CommandParser

from djinn.core.errors import UserError
from djinn.runs.bulk import Outcome, cancel_runs, retry_runs
from djinn.runs.continuing import rerun_from, restart_run
from djinn.runs.explanation import explain
from djinn.runs.management.commands.run import pair
from djinn.runs.management.operating import OperatingCommand, add_person, find_run, operator_of
from djinn.runs.management.reading import MOST_LINES, follow_to_the_end, list_runs, print_log, recent, show_run
from djinn.runs.models import Run
from djinn.runs.states import RunStatus
from djinn.runs.steering import inject, pause_run, resume_run

VERBS = {
    "cancel": "stop the runs",
    "pause": "start nothing new in the runs; what runs goes on",
    "resume": "let things start again",
    "retry": "new runs that do what failed again; what succeeded is reused",
}


class Command(OperatingCommand):
    help = (
        "Shows runs (list, show, logs, follow, explain) and steers them (cancel, pause, resume, retry, rerun, restart, "
        "inject). Exit code 0: done; with follow, the run succeeded. 1: refused; with follow, the run did not succeed. "
        "130: Ctrl-C, which stops the showing and not the run."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
        _add_reading(verbs)
        for verb, text in VERBS.items():
            some = verbs.add_parser(verb, help=text)
            some.add_argument("ids", type=int, nargs="+", metavar="RUN")
            add_person(some)
        again = _one(verbs, "rerun", "a new run that begins at a step that ran; an open run is cancelled by it")
        again.add_argument("--from", dest="step", required=True, metavar="STEP")
        again.add_argument("--item", default="", help="of a step that ran for several")
        again.add_argument("--visit", type=int, help="1 for the first; else the last one")
        anew = _one(verbs, "restart", "a new run from the beginning, of the pipeline as it is now")
        anew.add_argument(
            "--input", action="append", default=[], metavar="NAME=VALUE", help="an input that changes; may be repeated"
        )
        anew.add_argument("--model", help="provider/model for all agents, instead of the old run's")
        context = _one(verbs, "inject", "add text to the next prompt of a step or an agent")
        context.add_argument("text")
        context.add_argument("--step", default="")
        context.add_argument("--agent", default="")
        _one(verbs, "explain", "why it does not go on, and what would let it")

    def act(self, options: dict[str, Any]) -> None:
        getattr(self, f"_{options['verb']}")(options)

    def _list(self, options: dict[str, Any]) -> None:
        found = list(list_runs(status=options["status"], pipeline=options["pipeline"], limit=options["limit"]))
        for line in found or ["No runs."]:
            self.say(line)

    def _show(self, options: dict[str, Any]) -> None:
        show_run(find_run(options["id"]), has_diff=options["diff"])

    def _logs(self, options: dict[str, Any]) -> None:
        run = find_run(options["id"])
        print_log(run, step=options["step"], tail=options["tail"], is_followed=options["follow"])

    def _follow(self, options: dict[str, Any]) -> None:
        run = find_run(options["id"])
        follow_to_the_end(run, after=recent(run))

    def _cancel(self, options: dict[str, Any]) -> None:
        self._tell_each(cancel_runs(ids=options["ids"], user=operator_of(options)), "is being cancelled")

    def _retry(self, options: dict[str, Any]) -> None:
        self._tell_each(retry_runs(ids=options["ids"], user=operator_of(options)), "is retried")

    def _pause(self, options: dict[str, Any]) -> None:
        self._each(options, pause_run, "is paused")

    def _resume(self, options: dict[str, Any]) -> None:
        self._each(options, resume_run, "goes on")

    def _rerun(self, options: dict[str, Any]) -> None:
        run, user = find_run(options["id"]), operator_of(options)
        where = {name: options[name] for name in ("step", "item", "visit")}
        self._tell_new(rerun_from(run=run, user=user, **where))

    def _restart(self, options: dict[str, Any]) -> None:
        inputs = dict(pair(text) for text in options["input"])
        run, user = find_run(options["id"]), operator_of(options)
        self._tell_new(restart_run(run=run, inputs=inputs, model=options["model"], user=user))

    def _inject(self, options: dict[str, Any]) -> None:
        given = {name: options[name] for name in ("text", "step", "agent")}
        note = inject(run=find_run(options["id"]), user=operator_of(options), **given)
        self.say(f"It will stand in the next prompt of {note.step or note.agent}.")

    def _explain(self, options: dict[str, Any]) -> None:
        run = find_run(options["id"])
        found = explain(run)
        self.say(f"Run {run.pk} of {run.pipeline}: {run.get_status_display().lower()}.")
        for one in found:
            name = (f"{one.step}[{one.item}]" if one.item else one.step) or "the run"
            name = f"run {one.run}, {name}" if one.run else name
            self.say(f"{name} ({one.state}): {one.because}")
            self.say("".join(f"    {line}\n" for line in one.chain) + f"    until {one.unblocks}")
        if not found:
            self.say("Nothing is blocked.")

    def _each(self, options: dict[str, Any], act: Callable[..., Run], done: str) -> None:
        user, refused = operator_of(options), 0
        for number in dict.fromkeys(options["ids"]):
            try:
                act(run=find_run(number), user=user)
                self.say(f"Run {number} {done}.")
            except (UserError, CommandError) as exc:
                refused += 1
                self.stderr.write(str(exc))
        _fail_when(refused)

    def _tell_each(self, outcomes: list[Outcome], done: str) -> None:
        for one in outcomes:
            if one.run is None:
                self.stderr.write(one.error)
            else:
                self.say(f"Run {one.id} {done}" + ("." if one.run == one.id else f": {_address(one.run)}"))
        _fail_when(sum(one.run is None for one in outcomes))

    def _tell_new(self, run: Run) -> None:
        self.say(f"Run {run.pk}: {_address(run.pk)}")


def _add_reading(verbs: Any) -> None:
    listed = verbs.add_parser("list", help="the newest runs, a line each")
    listed.add_argument("--status", choices=RunStatus.values, default="", metavar="STATUS")
    listed.add_argument("--pipeline", default="")
    listed.add_argument("--limit", type=at_least(1), default=20, metavar="N", help="at most N; 20")
    shown = verbs.add_parser("show", help="status, steps, what waits for people, and where the log is")
    shown.add_argument("id", type=int, metavar="RUN")
    shown.add_argument("--diff", action="store_true", help="what it changed, too")
    logs = verbs.add_parser("logs", help="the log of a run or of a step")
    logs.add_argument("id", type=int, metavar="RUN")
    logs.add_argument("--step", default="", metavar="STEP", help="only this one's; STEP[ITEM] for an item")
    logs.add_argument("--tail", type=at_least(0), default=MOST_LINES, metavar="N", help="the last N lines; 0 for all")
    logs.add_argument("--follow", "-f", action="store_true", help="print what comes, until the run ends")
    followed = verbs.add_parser("follow", help="show the run until it ends; exit code 0 when it succeeded")
    followed.add_argument("id", type=int, metavar="RUN")


def at_least(least: int) -> Callable[[str], int]:
    """A type of arguments: whole numbers from `least` on."""

    def number(text: str) -> int:
        value = int(text)
        if value < least:
            raise ValueError(text)
        return value

    number.__name__ = f"number from {least} on"
    return number


def _one(verbs: Any, name: str, text: str) -> CommandParser:
    parser: CommandParser = verbs.add_parser(name, help=text)
    parser.add_argument("id", type=int, metavar="RUN")
    add_person(parser)
    return parser


def _fail_when(refused: int) -> None:
    if refused:
        raise CommandError(f"{refused} refused.")


def _address(number: int) -> str:
    return f"{settings.BASE_URL}/runs/{number}/"
