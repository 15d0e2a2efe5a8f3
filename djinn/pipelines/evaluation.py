"""Rendering a checked template: a walk over its tree that counts every step and every byte.

No code is generated from a template and nothing of Python can be called from one: a node is either handled here, over
JSON data, or the template was refused when it was checked.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import TypeVar

from jinja2 import nodes

from djinn.pipelines.errors import TemplateInvalid
from djinn.pipelines.filters import FILTERS, Budget, as_text, kind
from djinn.pipelines.schema import JSON

Ordered = TypeVar("Ordered", str, float)

MAX_STEPS = 250_000
TEXT_FACTOR = 4
"""A text on the way may be this many times as long as the output, since a filter may yet cut it."""

_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")


class Evaluation:
    """One rendering of one tree."""

    def __init__(self, names: Mapping[str, JSON], max_bytes: int) -> None:
        self.undefined: dict[str, None] = {}
        self._budget = Budget(MAX_STEPS, max_bytes * TEXT_FACTOR)
        self._max_bytes = max_bytes
        self._scopes: list[Mapping[str, object]] = [names]

    def text(self, tree: nodes.Template) -> str:
        """The rendered text; raises `TemplateInvalid` past a bound."""
        parts: list[str] = []
        size = 0
        for piece in self._body(tree.body):
            part = _UNSTORABLE.sub("\ufffd", piece)
            size += len(part.encode())
            if size > self._max_bytes:
                raise TemplateInvalid(f"the template gives more than {self._max_bytes} bytes")
            parts.append(part)
        return "".join(parts)

    def value(self, expression: nodes.Expr) -> object:
        """The value of one expression; what is missing is None. Raises `TemplateInvalid` past a bound."""
        return self._value(expression, may_be_missing=True)

    def _body(self, body: Sequence[nodes.Node]) -> Iterator[str]:
        for node in body:
            self._budget.spend()
            if isinstance(node, nodes.Output):
                for part in node.nodes:
                    yield part.data if isinstance(part, nodes.TemplateData) else self._shown(part)
            elif isinstance(node, nodes.If):
                yield from self._body(self._branch(node))
            elif isinstance(node, nodes.For):
                yield from self._loop(node)

    def _branch(self, node: nodes.If) -> Sequence[nodes.Node]:
        for branch in (node, *node.elif_):
            if self._value(branch.test, may_be_missing=True):
                return branch.body
        return node.else_

    def _loop(self, node: nodes.For) -> Iterator[str]:
        items = self._chosen(node, self._iterable(self._value(node.iter)))
        for index, item in enumerate(items):
            self._budget.spend()
            loop = {"index": index + 1, "index0": index, "first": index == 0, "length": len(items)}
            loop["last"] = index == len(items) - 1
            self._scopes.append({**self._targets(node.target, item), "loop": loop})
            yield from self._body(node.body)
            self._scopes.pop()
        if not items:
            yield from self._body(node.else_)

    def _chosen(self, node: nodes.For, items: Sequence[object]) -> Sequence[object]:
        if node.test is None:
            return items
        chosen = []
        for item in items:
            self._scopes.append(self._targets(node.target, item))
            if self._value(node.test, may_be_missing=True):
                chosen.append(item)
            self._scopes.pop()
        return chosen

    def _iterable(self, value: object) -> Sequence[object]:
        if value is None:
            return ()
        if isinstance(value, (list, tuple, str, Mapping)):
            self._budget.spend(1 + len(value))
            return value if isinstance(value, (list, tuple)) else list(value)
        raise TemplateInvalid(f"cannot loop over {kind(value)}")

    def _targets(self, target: nodes.Node, item: object) -> dict[str, object]:
        names = loop_names(target)
        if isinstance(target, nodes.Name):
            return {target.name: item}
        if not isinstance(item, (list, tuple)) or len(item) != len(names):
            raise TemplateInvalid(f"cannot take {' and '.join(names)} from {kind(item)}")
        return dict(zip(names, item, strict=True))

    def _shown(self, node: nodes.Node) -> str:
        return as_text(self._value(node), self._budget)

    def _value(self, node: nodes.Node, *, may_be_missing: bool = False) -> object:
        """The value of an expression; what is missing is None, and noted unless the template asks if it is there."""
        self._budget.spend()
        if isinstance(node, nodes.Const):
            return node.value
        if isinstance(node, (nodes.Name, nodes.Getattr, nodes.Getitem)):
            return self._lookup(node, may_be_missing)
        if isinstance(node, nodes.Filter):
            return self._filtered(node)
        if isinstance(node, nodes.Test):
            return self._tested(node)
        if isinstance(node, (nodes.And, nodes.Or)):
            left = self._value(node.left, may_be_missing=True)
            goes_on = bool(left) is isinstance(node, nodes.And)
            return self._value(node.right, may_be_missing=may_be_missing) if goes_on else left
        return self._combined(node)

    def _combined(self, node: nodes.Node) -> object:
        if isinstance(node, nodes.Not):
            return not self._value(node.node, may_be_missing=True)
        if isinstance(node, nodes.Compare):
            return self._compared(node)
        if isinstance(node, nodes.CondExpr):
            return self._conditional(node)
        if isinstance(node, (nodes.List, nodes.Tuple)):
            return [self._value(item) for item in node.items]
        if isinstance(node, nodes.Neg):
            return self._negative(node)
        if isinstance(node, nodes.Concat):
            return self._concatenated(node)
        raise TemplateInvalid(f"{type(node).__name__} is not part of the template language", node.lineno)

    def _conditional(self, node: nodes.CondExpr) -> object:
        if self._value(node.test, may_be_missing=True):
            return self._value(node.expr1)
        return None if node.expr2 is None else self._value(node.expr2)

    def _negative(self, node: nodes.Neg) -> object:
        value = self._value(node.node)
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            return -value
        raise TemplateInvalid(f"only a number can be negative, not {kind(value)}", node.lineno)

    def _concatenated(self, node: nodes.Concat) -> str:
        parts = [self._shown(part) for part in node.nodes]
        self._budget.make(sum(map(len, parts)))
        return "".join(parts)

    def _lookup(self, node: nodes.Node, may_be_missing: bool) -> object:
        if isinstance(node, nodes.Name):
            found, value = self._named(node.name)
        else:
            found, value = self._part(node)
        if not found and not may_be_missing:
            self.undefined.setdefault(_path(node))
        return value

    def _named(self, name: str) -> tuple[bool, object]:
        for scope in reversed(self._scopes):
            self._budget.spend()
            if name in scope:
                return True, scope[name]
        return False, None

    def _part(self, node: nodes.Node) -> tuple[bool, object]:
        assert isinstance(node, (nodes.Getattr, nodes.Getitem))
        whole = self._value(node.node, may_be_missing=True)
        key = node.attr if isinstance(node, nodes.Getattr) else self._value(node.arg)
        if isinstance(whole, Mapping):
            known = isinstance(key, str) and key in whole
            return known, whole[key] if known else None
        if isinstance(whole, (list, tuple, str)) and type(key) is int and -len(whole) <= key < len(whole):
            return True, whole[key]
        return False, None

    def _filtered(self, node: nodes.Filter) -> object:
        function, names, _ = FILTERS[node.name]
        assert node.node is not None
        subject = self._value(node.node, may_be_missing=node.name in ("default", "d"))
        given = dict(zip(names, (self._value(argument) for argument in node.args), strict=False))
        given.update({str(pair.key): self._value(pair.value) for pair in node.kwargs})
        result = function(subject, self._budget, **given)
        if isinstance(result, str):
            self._budget.make(len(result))
        return result

    def _tested(self, node: nodes.Test) -> bool:
        value = self._value(node.node, may_be_missing=True)
        return value is not None if node.name == "defined" else value is None

    def _compared(self, node: nodes.Compare) -> bool:
        left = self._value(node.expr)
        for operand in node.ops:
            right = self._value(operand.expr)
            if not self._holds(operand.op, left, right):
                return False
            left = right
        return True

    def _holds(self, name: str, left: object, right: object) -> bool:
        self._budget.read(left)
        self._budget.read(right)
        if name in ("eq", "ne"):
            return (left == right) is (name == "eq")
        if name in ("in", "notin"):
            return _contains(right, left) is (name == "in")
        if left is None or right is None:
            return False
        return _ordered(name, left, right)


def loop_names(target: nodes.Node) -> list[str]:
    """The names that a loop gives to each item."""
    if isinstance(target, nodes.Name):
        return [target.name]
    return [part.name for part in target.find_all(nodes.Name)]


def _ordered(name: str, left: object, right: object) -> bool:
    if isinstance(left, str) and isinstance(right, str):
        return _stands(name, left, right)
    if isinstance(left, (int, float)) and isinstance(right, (int, float)):
        return _stands(name, left, right)
    raise TemplateInvalid(f"cannot order {kind(left)} and {kind(right)}")


def _stands(name: str, left: Ordered, right: Ordered) -> bool:
    if name in ("lt", "lteq"):
        return left < right or (name == "lteq" and left == right)
    return left > right or (name == "gteq" and left == right)


def _contains(whole: object, part: object) -> bool:
    if isinstance(whole, str):
        return isinstance(part, str) and part in whole
    if isinstance(whole, Mapping):
        return isinstance(part, str) and part in whole
    return isinstance(whole, (list, tuple)) and part in whole


def _path(node: nodes.Node) -> str:
    """The expression as it was written, as far as it is names and constants."""
    if isinstance(node, nodes.Name):
        return node.name
    if isinstance(node, nodes.Getattr):
        return f"{_path(node.node)}.{node.attr}"
    if isinstance(node, nodes.Getitem) and isinstance(node.arg, nodes.Const):
        return f"{_path(node.node)}[{node.arg.value!r}]"
    return "(expression)"
