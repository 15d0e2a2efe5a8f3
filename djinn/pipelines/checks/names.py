"""Templates and expressions: that they are of the language, and that something gives the names in them."""

from __future__ import annotations

from collections.abc import Collection

from djinn.pipelines.checks.context import Checking
from djinn.pipelines.document import Node, Scalar, Table
from djinn.pipelines.report import Report
from djinn.pipelines.template import Study, study

BUILT_IN_NAMES = frozenset({"task_description", "inputs"})
"""Names that every template may use beside inputs and outputs."""
ITEM_NAMES = frozenset({"current_item", "current_index", "completed_items", "matrix"})


def check_names(checking: Checking) -> None:
    """Templates that are refused, and names in them that nothing gives."""
    produced = {name for source in checking.sources for name in source.step.outputs}
    inputs = {one.name for one in checking.pipeline.inputs}
    for key in ("repository", "ref"):
        node = _at(checking.document, "workspace", key)
        _check_template(node, inputs | BUILT_IN_NAMES, checking.report, "", f"workspace.{key}")
    known = inputs | produced | BUILT_IN_NAMES | ITEM_NAMES | {"steps"}
    for source in checking.sources:
        for key in ("input", "run"):
            node = source.node.entries.get(key)
            _check_template(node, known, checking.report, source.step.id, key)


def _check_template(node: Node | None, known: Collection[str], report: Report, step: str, key: str) -> None:
    if not isinstance(node, Scalar):
        return
    found = study(node.text)
    for problem in found.problems:
        report.error(_file_line(node, problem.line), problem.message, step=step, key=key)
    for name in sorted(found.names - set(known)):
        message = f"nothing gives the name {name[:64]!r}; it will be empty{report.suggest(name, known)}"
        report.warn(_file_line(node, _line_of_name(node.text, name)), message, step=step, key=key)
    if key == "run":
        _warn_of_unquoted(node, found, report, step)


def _warn_of_unquoted(node: Scalar, found: Study, report: Report, step: str) -> None:
    for line in found.unquoted_lines:
        message = "a value goes into the script unquoted and could run as a command; write {{ value | quote }}"
        report.warn(_file_line(node, line), message, step=step, key="run")


def _file_line(node: Scalar, line: int) -> int:
    """The file's line for a template's line; a block's text begins on the line after its key."""
    return node.line + (line if node.is_block else max(0, line - 1))


def _line_of_name(text: str, name: str) -> int:
    return text.count("\n", 0, text.find(name)) + 1


def _at(node: Node, *path: str) -> Node | None:
    found: Node | None = node
    for key in path:
        found = found.entries.get(key) if isinstance(found, Table) else None
    return found
