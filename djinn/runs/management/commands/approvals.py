from __future__ import annotations

import json
from typing import Any

from django.core.management.base import CommandError, CommandParser

from djinn.accounts.models import Role, User
from djinn.runs.approvals import decide
from djinn.runs.management.operating import OperatingCommand, add_person, person_of
from djinn.runs.models import Approval
from djinn.runs.states import ApprovalStatus


class Command(OperatingCommand):
    help = "Shows what is waiting for approval, and approves or rejects it."

    def add_arguments(self, parser: CommandParser) -> None:
        verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
        listed = verbs.add_parser("list", help="the open ones")
        listed.add_argument("--all", action="store_true", help="those too that were decided, the newest first")
        shown = verbs.add_parser("show", help="one with the outputs and the diff that it is about")
        shown.add_argument("id", type=int)
        for verb in ("approve", "reject"):
            decided = verbs.add_parser(verb, help=f"{verb} what `show` shows")
            decided.add_argument("id", type=int)
            decided.add_argument("--comment", default="")
            add_person(decided)

    def act(self, options: dict[str, Any]) -> None:
        if options["verb"] == "list":
            self._list(is_all=options["all"])
        elif options["verb"] == "show":
            self._show(_find(options["id"]))
        else:
            self._decide(_find(options["id"]), options)

    def _list(self, *, is_all: bool) -> None:
        rows = Approval.objects.select_related("step_run").prefetch_related("decisions")
        found = rows if is_all else rows.filter(status=ApprovalStatus.OPEN)
        for approval in found[:200]:
            self.say(_line(approval))
        if not found:
            self.say("Nothing is waiting for approval.")

    def _show(self, approval: Approval) -> None:
        self.say(_line(approval))
        for name, value in approval.shown.get("outputs", {}).items():
            text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, indent=2)
            self.say(f"{name} = {text}")
        self.say(str(approval.shown.get("diff", "")))
        for decision in approval.decisions.select_related("user"):
            said = f": {decision.comment}" if decision.comment else ""
            self.say(f"{decision.user.get_username()} {decision.verdict}{said}")

    def _decide(self, approval: Approval, options: dict[str, Any]) -> None:
        """The digest is that of the question with this number, which never changes: a new question has a new one."""
        decided = decide(
            approval_id=approval.pk,
            user=person_of(options) or _only_administrator(),
            verdict=options["verb"],
            digest=approval.digest,
            comment=options["comment"],
        )
        self.say(_line(decided))


def _find(number: int) -> Approval:
    rows = Approval.objects.select_related("step_run")
    approval = rows.filter(pk=number).first() if number < 2**63 else None
    if approval is None:
        raise CommandError(f"There is no approval {number}.")
    return approval


def _only_administrator() -> User:
    found = [user for user in User.objects.filter(is_active=True) if user.has_role(Role.ADMIN)]
    if len(found) != 1:
        raise CommandError("Say who decides: --as USER.")
    return found[0]


def _line(approval: Approval) -> str:
    row = approval.step_run
    name = f"{row.step}[{row.item}]" if row.item else row.step
    agreed = sum(decision.verdict == "approve" for decision in approval.decisions.all())
    until = f", until {approval.expires_at:%Y-%m-%d %H:%M} UTC" if approval.expires_at else ""
    who = f"{agreed} of {approval.count} agreed; for {', '.join(map(str, approval.by))}{until}"
    question = " ".join(approval.question.split())
    return f"{approval.pk}: {approval.status}, run {row.run_id}, {name} ({who}): {question[:300]}"
