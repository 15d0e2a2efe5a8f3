"""What can be wrong with an agent's folder."""

from __future__ import annotations

from djinn.core.errors import UserError
from djinn.documents.problems import Problem


class AgentInvalid(UserError):
    """An agent's folder cannot be used; `problems` has everything wrong with it, by file, line and key."""

    def __init__(self, *problems: Problem) -> None:
        self.problems = problems
        super().__init__("; ".join(map(str, problems)))
