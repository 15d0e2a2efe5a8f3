"""What can be wrong with an agent's folder."""

from __future__ import annotations

from djinn.core.errors import UserError


class AgentInvalid(UserError):
    """An agent's folder cannot be used; the text names file, line where there is one, and key."""
