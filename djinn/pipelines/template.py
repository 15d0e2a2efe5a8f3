"""The template language: a small part of Jinja2, bounded in work and output, over JSON data only.

Names, parts of data (`review.comments`, `rows[0]`), `if`, `for`, comparisons, `and`/`or`/`not`, constants and the
filters of `filters.py`. No calls, no arithmetic, no macros, no assignment, no including. A missing name is empty text.
Values are never expanded again, and what is not text is shown as JSON.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice, takewhile

from jinja2 import TemplateError, TemplateSyntaxError, nodes
from jinja2.sandbox import ImmutableSandboxedEnvironment

from djinn.documents.report import suggestion
from djinn.pipelines.errors import TemplateInvalid
from djinn.pipelines.evaluation import Evaluation, loop_names
from djinn.pipelines.filters import FILTERS
from djinn.pipelines.schema import JSON

MAX_TEMPLATE_CHARACTERS = 256 * 1024
MAX_RENDERED_BYTES = 262_144
MAX_DEPTH = 60
MAX_PROBLEMS = 100
TESTS = frozenset({"defined", "undefined", "none"})

_ALLOWED: tuple[type[nodes.Node], ...] = (
    nodes.Template, nodes.Output, nodes.TemplateData, nodes.If, nodes.For, nodes.Name, nodes.Const, nodes.Getattr,
    nodes.Getitem, nodes.Filter, nodes.Test, nodes.And, nodes.Or, nodes.Not, nodes.Compare, nodes.Operand,
    nodes.CondExpr, nodes.List, nodes.Tuple, nodes.Neg, nodes.Concat, nodes.Keyword,
)  # fmt: skip
_WORDS = {
    "Assign": "set", "AssignBlock": "set", "FromImport": "import", "CallBlock": "call", "FilterBlock": "filter",
    "Call": "a call", "Pow": "**", "Mul": "*", "Add": "+", "Sub": "-", "Div": "/", "FloorDiv": "//", "Mod": "%",
    "Pos": "+", "Slice": "a slice", "Dict": "a mapping",
}  # fmt: skip
_ENVIRONMENT = ImmutableSandboxedEnvironment(keep_trailing_newline=True, cache_size=0)


@dataclass(frozen=True)
class Rendered:
    """A rendered text, and the names that it asked for and that were not there, in order."""

    text: str
    undefined: tuple[str, ...]


@dataclass(frozen=True)
class Study:
    """What is wrong with a template, at most a hundred problems in the order of lines; if nothing is, what it uses.

    `paths` come from outside: a name, and the keys that lead on from it as far as they are constant texts
    (`steps.TEST.status`). `unquoted_lines` print a value without the filter `quote`; a shell would read such a value as
    script.
    """

    problems: tuple[TemplateInvalid, ...] = ()
    paths: frozenset[tuple[str, ...]] = frozenset()
    unquoted_lines: tuple[int, ...] = ()

    @property
    def names(self) -> frozenset[str]:
        """The names that come from outside."""
        return frozenset(path[0] for path in self.paths)


def check_template(text: str) -> list[str]:
    """What is wrong with the template, each with its line; empty when it is fine."""
    return [str(problem) for problem in study(text).problems]


def template_names(text: str) -> frozenset[str]:
    """The names that the template takes from outside; raises `TemplateInvalid` when it is refused."""
    return frozenset(path[0] for path in _free_paths(checked(text), frozenset()))


def render(text: str, names: Mapping[str, JSON], *, max_bytes: int = MAX_RENDERED_BYTES) -> Rendered:
    """The text of the template over these names.

    NUL and lone surrogates, which cannot be stored, become U+FFFD. Raises `TemplateInvalid` when the template is
    refused, works too long, or gives more than `max_bytes` of UTF-8.
    """
    tree = checked(text)
    evaluation = Evaluation(names, max_bytes)
    rendered = evaluation.text(tree)
    return Rendered(rendered, tuple(evaluation.undefined))


def study(text: str) -> Study:
    """Everything that can be said of a template without rendering it, from one parse."""
    try:
        tree = _parsed(text)
    except TemplateInvalid as exc:
        return Study(problems=(exc,))
    problems = sorted(islice(_refusals(tree), MAX_PROBLEMS), key=lambda problem: problem.line)
    if problems:
        return Study(tuple(problems))
    printed = [part for output in tree.find_all(nodes.Output) for part in output.nodes]
    unquoted = sorted({part.lineno for part in printed if not _is_quoted(part)})
    return Study((), frozenset(_free_paths(tree, frozenset())), tuple(unquoted))


def checked(text: str) -> nodes.Template:
    """The tree of a template that is one of this language; raises `TemplateInvalid`."""
    tree = _parsed(text)
    for problem in _refusals(tree):
        raise problem
    return tree


def _is_quoted(part: nodes.Node) -> bool:
    is_quote = isinstance(part, nodes.Filter) and part.name == "quote"
    return is_quote or isinstance(part, (nodes.TemplateData, nodes.Const))


def _free_paths(node: nodes.Node, bound: frozenset[str]) -> Iterator[tuple[str, ...]]:
    path = path_of(node)
    if path:
        yield from () if path[0] in bound else (path,)
        return
    inside = bound
    if isinstance(node, nodes.For):
        inside = bound | {"loop", *loop_names(node.target)}
        yield from _free_paths(node.iter, bound)
    for child in node.iter_child_nodes(exclude=("iter",)):
        yield from _free_paths(child, inside)


def path_of(node: nodes.Node) -> tuple[str, ...]:
    """The name and the constant keys behind it; empty when the node is anything else."""
    keys: list[object] = []
    while isinstance(node, (nodes.Getattr, nodes.Getitem)):
        key = node.attr if isinstance(node, nodes.Getattr) else node.arg
        if isinstance(key, nodes.Node) and not isinstance(key, nodes.Const):
            return ()
        keys.append(key.value if isinstance(key, nodes.Const) else key)
        node = node.node
    if not isinstance(node, nodes.Name):
        return ()
    return (node.name, *map(str, takewhile(lambda key: isinstance(key, str), reversed(keys))))


def _parsed(text: str) -> nodes.Template:
    if len(text) > MAX_TEMPLATE_CHARACTERS:
        raise TemplateInvalid(f"the template is longer than {MAX_TEMPLATE_CHARACTERS} characters")
    try:
        return _ENVIRONMENT.parse(text)
    except TemplateSyntaxError as exc:
        raise TemplateInvalid(exc.message or "not a template", exc.lineno) from exc
    except RecursionError as exc:
        raise TemplateInvalid("the template is nested too deeply") from exc
    except (TemplateError, ValueError, OverflowError) as exc:
        raise TemplateInvalid(f"not a template: {exc}") from exc


def _refusals(tree: nodes.Template) -> Iterator[TemplateInvalid]:
    stack: list[tuple[nodes.Node, int]] = [(tree, 0)]
    while stack:
        node, depth = stack.pop()
        if depth > MAX_DEPTH:
            yield TemplateInvalid("the template is nested too deeply", node.lineno)
            return
        message = _refusal(node)
        if message:
            yield TemplateInvalid(message, node.lineno)
        stack.extend((child, depth + 1) for child in node.iter_child_nodes())


def _refusal(node: nodes.Node) -> str:
    if not isinstance(node, _ALLOWED):
        name = type(node).__name__
        return f"{_WORDS.get(name, name.lower())} is not part of the template language"
    if isinstance(node, nodes.Filter):
        return _filter_refusal(node)
    if isinstance(node, nodes.Test) and (node.name not in TESTS or node.args or node.kwargs):
        return f"there is no test {node.name!r}{suggestion(node.name, TESTS)}"
    if isinstance(node, nodes.For):
        return _loop_refusal(node)
    return _name_refusal(node)


def _name_refusal(node: nodes.Node) -> str:
    if isinstance(node, nodes.Name) and node.name.startswith("__"):
        return f"the name {node.name!r} is not allowed"
    if isinstance(node, nodes.Getattr) and node.attr.startswith("_"):
        return f"the name {node.attr!r} is not allowed"
    if isinstance(node, nodes.Getitem) and isinstance(node.arg, nodes.Const) and str(node.arg.value).startswith("_"):
        return f"the name {node.arg.value!r} is not allowed"
    return ""


def _loop_refusal(node: nodes.For) -> str:
    if node.recursive:
        return "a recursive loop is not part of the template language"
    target = node.target
    names = [target] if isinstance(target, nodes.Name) else getattr(target, "items", [])
    if not names or not all(isinstance(name, nodes.Name) for name in names):
        return "a loop's variable must be a name, or names with commas between them"
    return ""


def _filter_refusal(node: nodes.Filter) -> str:
    if node.node is None:
        return ""  # the block form, which is refused as a block
    if node.name not in FILTERS:
        return f"there is no filter {node.name!r}{suggestion(node.name, FILTERS)}"
    _, names, needed = FILTERS[node.name]
    keywords = [pair.key for pair in node.kwargs]
    given = [*names[: len(node.args)], *keywords]
    if node.dyn_args or node.dyn_kwargs or len(node.args) > len(names) or not set(keywords) <= set(names):
        return f"the filter {node.name!r} takes {', '.join(names) or 'no arguments'}"
    if len(set(given)) < max(needed, len(given)):
        return f"the filter {node.name!r} needs {' and '.join(names[:needed]) or 'each argument once'}"
    return ""
