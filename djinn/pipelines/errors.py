"""What can be wrong with a pipeline file, a run's inputs or a template.

Exception
    PipelineInvalid     a file that cannot be run; holds every problem found in it
    InputsInvalid       the values given at the start of a run
    TemplateInvalid     a template that is refused, or that grew past its bounds
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from djinn.documents.problems import Problem


class PipelineInvalid(Exception):
    """A pipeline file that cannot be run; `problems` holds everything wrong with it, in the order of lines."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems))


class InputsInvalid(Exception):
    """Inputs that a run cannot start with; `problems` maps an input's name to what is wrong with it."""

    def __init__(self, problems: Mapping[str, str]) -> None:
        self.problems = dict(problems)
        super().__init__("; ".join(f"{name}: {message}" for name, message in self.problems.items()))


class TemplateInvalid(Exception):
    """A template that is refused, or whose rendering passed a bound.

    `line` counts from 1 in the template; 0 is unknown.
    """

    def __init__(self, message: str, line: int = 0) -> None:
        self.line = line
        super().__init__(f"line {line}: {message}" if line else message)
        self.message = message
