"""Templates and expressions: that they are of the language, and that something gives the names in them."""

from __future__ import annotations

from collections.abc import Iterable

from djinn.documents.nodes import Scalar
from djinn.documents.report import Report
from djinn.pipelines.checks.context import Checking
from djinn.pipelines.checks.scope import Scope, scope_of_document, scopes
from djinn.pipelines.checks.texts import Text, Use, texts_of, texts_of_document
from djinn.pipelines.errors import TemplateInvalid
from djinn.pipelines.expression import study_expression
from djinn.pipelines.template import Study, study

STEP_PARTS = ("status", "outputs")


def check_names(checking: Checking) -> None:
    """Texts that are refused, and names in them that nothing gives or that another step gives.

    An unknown name is empty text in a template, which is a warning. An expression over an unknown name, or over the
    output of a step that may run at the same time, is an error.
    """
    document = scope_of_document(checking)
    for text in texts_of_document(checking.document):
        _Names(checking.report, "", document, text).check()
    for source, scope in scopes(checking):
        for text in texts_of(source):
            _Names(checking.report, source.step.id, scope, text).check()


class _Names:
    """The check of one text."""

    def __init__(self, report: Report, step: str, scope: Scope, text: Text) -> None:
        self.report = report
        self.step = step
        self.scope = scope
        self.text = text
        self.known = scope.names | scope.item_names if text.has_item else scope.names

    def check(self) -> None:
        found = self._study()
        for problem in found.problems:
            self._report(problem.message, problem.line, is_error=True)
        for path in sorted(_longest(found.paths)):
            self._check_path(path)
        for line in found.unquoted_lines if self.text.use is Use.SCRIPT else ():
            self._report(
                "a value goes into the script unquoted and could run as a command; write {{ value | quote }}", line
            )

    def _study(self) -> Study:
        text = self.text.node.text
        if self.text.use is Use.NAME:
            return Study(paths=frozenset({(text,)}))
        return _study_expression(text) if self.text.use is Use.EXPRESSION else study(text)

    def _check_path(self, path: tuple[str, ...]) -> None:
        name = path[0]
        if name not in self.known:
            self._unknown(name, self.known)
        elif name == "inputs" and len(path) > 1 and path[1] not in self.scope.inputs:
            self._unknown(f"inputs.{path[1]}", self.scope.inputs, path[1])
        elif name == "steps" and self.scope.is_graph and name not in self.scope.inputs and len(path) > 1:
            self._check_step(path)

    def _check_step(self, path: tuple[str, ...]) -> None:
        """`steps.TEST.status` and `steps.TEST.outputs.REPORT`."""
        step_id, steps = path[1], self.scope.steps
        if step_id not in steps:
            near = self.report.suggest(step_id, steps)
            self._report(f"{step_id[:64]!r} is no step that this one needs{near}", self._line(step_id), is_error=True)
        elif len(path) > 2 and path[2] not in STEP_PARTS:
            self._report(f"a step has 'status' and 'outputs', no {path[2][:64]!r}", self._line(path[2]), is_error=True)
        elif len(path) > 3 and path[2] == "outputs":
            outputs = steps[step_id]
            if outputs is not None and path[3] not in outputs:
                self._unknown(f"steps.{step_id}.outputs.{path[3]}", outputs, path[3])

    def _unknown(self, name: str, known: Iterable[str], word: str = "") -> None:
        line = self._line(word or name)
        other = self.scope.others.get(name)
        if other is not None:
            message = f"step {other} gives {name!r}, but this step does not need it; add {other} to 'needs'"
            self._report(message, line, is_error=True)
        elif not (self.scope.is_open and not word):
            near = self.report.suggest(word or name, known)
            is_error = self.text.use in (Use.EXPRESSION, Use.NAME)
            effect = "" if is_error else "; it will be empty"
            self._report(f"nothing gives the name {name[:128]!r}{effect}{near}", line, is_error=is_error)

    def _line(self, word: str) -> int:
        text = self.text.node.text
        return text.count("\n", 0, max(0, text.find(word))) + 1

    def _report(self, message: str, line: int, *, is_error: bool = False) -> None:
        say = self.report.error if is_error else self.report.warn
        say(_file_line(self.text.node, line), message, step=self.step, key=self.text.key)


def _study_expression(text: str) -> Study:
    if not text.strip():
        return Study((TemplateInvalid("an expression is missing"),))
    if text.lstrip().startswith("{{"):
        return Study((TemplateInvalid("an expression is written without {{ }}"),))
    return study_expression(text)


def _longest(paths: Iterable[tuple[str, ...]]) -> set[tuple[str, ...]]:
    """The paths up to the part that is checked: a name, an input's name, a step's output."""
    lengths = {"inputs": 2, "steps": 4}
    return {path[: lengths.get(path[0], 1)] for path in paths}


def _file_line(node: Scalar, line: int) -> int:
    """The file's line for a template's line; a block's text begins on the line after its key."""
    return node.line + (line if node.is_block else max(0, line - 1))
