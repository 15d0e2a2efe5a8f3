"""Who may read a stream: one function for pages, sockets, SSE and JSON.

The apps that own streams register a rule for their names (`run-`, later `chat-` and `project-`), since this app lies
below them.
"""

from __future__ import annotations

from collections.abc import Callable

from djinn.accounts.models import User

Rule = Callable[[User, str], bool]

_rules: dict[str, Rule] = {}


def register_rule(prefix: str, rule: Rule) -> None:
    """Let `rule(user, stream)` decide about the streams whose names begin with `prefix` and a dash."""
    _rules[prefix] = rule


def may_read(user: User, stream: str) -> bool:
    """Whether the person may read the stream. Nobody reads a stream that no rule knows."""
    rule = _rules.get(stream.partition("-")[0])
    return rule is not None and user.is_authenticated and user.is_active and rule(user, stream)
