"""The filters of the template language. Each one says what it costs before it works, so that none can blow up."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Mapping, Sequence

from djinn.pipelines.errors import TemplateInvalid
from djinn.pipelines.schema import JSON

CHARACTERS_A_STEP = 64
MAX_DATA_DEPTH = 100
MAX_INDENT = 100


class Budget:
    """What one rendering may spend: a number of steps, and a size for every text that it makes."""

    def __init__(self, steps: int, max_text: int) -> None:
        self.max_text = max_text
        self._steps = steps

    def spend(self, steps: int = 1) -> None:
        """Raises `TemplateInvalid` when the template has worked too long."""
        self._steps -= steps
        if self._steps < 0:
            raise TemplateInvalid("the template works too long; it loops over too much data")

    def read(self, value: object) -> None:
        """Spends the steps for going through a value once, however deep it is."""
        stack: list[tuple[object, int]] = [(value, 0)]
        while stack:
            item, depth = stack.pop()
            if depth > MAX_DATA_DEPTH:
                raise TemplateInvalid(f"a value is nested deeper than {MAX_DATA_DEPTH} levels")
            self.spend(1 + (len(item) // CHARACTERS_A_STEP if isinstance(item, str) else 0))
            if isinstance(item, Mapping):
                stack.extend((part, depth + 1) for pair in item.items() for part in pair)
            elif isinstance(item, (list, tuple)):
                stack.extend((part, depth + 1) for part in item)

    def make(self, size: int) -> None:
        """Raises `TemplateInvalid` when a text of that many characters would be too long."""
        if size > self.max_text:
            raise TemplateInvalid(
                f"the template makes a text of {size} characters, at most {self.max_text} are allowed"
            )
        self.spend(1 + size // CHARACTERS_A_STEP)


def as_text(value: object, budget: Budget) -> str:
    """A value as it is shown: nothing for null, JSON for what is not text."""
    if value is None:
        return ""
    if isinstance(value, str):
        budget.spend(1 + len(value) // CHARACTERS_A_STEP)
        return value
    return to_json(value, budget)


def to_json(value: object, budget: Budget, indent: int | None = None) -> str:
    """The value as JSON, indented by 0 to 8 blanks when that is asked for."""
    budget.read(value)
    try:
        return json.dumps(value, ensure_ascii=False, indent=None if indent is None else _whole(indent, 0, 8))
    except (TypeError, ValueError) as exc:
        raise TemplateInvalid(f"a value is not JSON: {exc}") from exc


def _upper(value: object, budget: Budget) -> str:
    return as_text(value, budget).upper()


def _lower(value: object, budget: Budget) -> str:
    return as_text(value, budget).lower()


def _trim(value: object, budget: Budget) -> str:
    return as_text(value, budget).strip()


def _default(value: object, budget: Budget, other: object = "", boolean: object = False) -> object:
    """The other value when this one is missing or null; with a true second argument also when it is empty or false."""
    return other if value is None or (boolean and not value) else value


def _join(value: object, budget: Budget, separator: object = "") -> str:
    between = _text(separator)
    parts = [as_text(item, budget) for item in _list(value, budget)]
    budget.make(sum(map(len, parts)) + len(between) * max(0, len(parts) - 1))
    return between.join(parts)


def _length(value: object, budget: Budget) -> int:
    return len(value) if isinstance(value, (str, Mapping)) else len(_list(value, budget))


def _indent(value: object, budget: Budget, width: object = 4, first: object = False) -> str:
    lines = as_text(value, budget).split("\n")
    blanks = " " * _whole(width, 0, MAX_INDENT)
    budget.make(sum(map(len, lines)) + len(lines) * (len(blanks) + 1))
    rest = [blanks + line if line else line for line in lines[1:]]
    return "\n".join([blanks + lines[0] if first else lines[0], *rest])


def _truncate(value: object, budget: Budget, length: object = 255, end: object = "...") -> str:
    text, most, tail = as_text(value, budget), _whole(length, 0, 2**31), _text(end)
    return text if len(text) <= most else text[: max(0, most - len(tail))] + tail[:most]


def _replace(value: object, budget: Budget, old: object, new: object) -> str:
    text, before, after = as_text(value, budget), _text(old), _text(new)
    if not before:
        raise TemplateInvalid("replace needs a text to look for")
    budget.spend(1 + len(text) // CHARACTERS_A_STEP)
    budget.make(len(text) + max(0, text.count(before) * (len(after) - len(before))))
    return text.replace(before, after)


def _first(value: object, budget: Budget) -> object:
    return next(iter(_sequence(value, budget)), None)


def _last(value: object, budget: Budget) -> object:
    items = _sequence(value, budget)
    return items[-1] if items else None


def _items(value: object, budget: Budget) -> object:
    if value is not None and not isinstance(value, Mapping):
        raise TemplateInvalid(f"items needs a mapping, not {kind(value)}")
    budget.spend(1 + len(value or ()))
    return [list(pair) for pair in (value or {}).items()]


def _quote(value: object, budget: Budget) -> str:
    """The value as one word of a shell script, whatever it holds."""
    text = as_text(value, budget)
    budget.make(len(text) + text.count("'") * 4 + 2)
    return shlex.quote(text)


Filter = Callable[..., object]

FILTERS: dict[str, tuple[Filter, tuple[str, ...], int]] = {
    "upper": (_upper, (), 0),
    "lower": (_lower, (), 0),
    "trim": (_trim, (), 0),
    "default": (_default, ("other", "boolean"), 0),
    "d": (_default, ("other", "boolean"), 0),
    "join": (_join, ("separator",), 0),
    "length": (_length, (), 0),
    "count": (_length, (), 0),
    "tojson": (to_json, ("indent",), 0),
    "indent": (_indent, ("width", "first"), 0),
    "truncate": (_truncate, ("length", "end"), 0),
    "replace": (_replace, ("old", "new"), 2),
    "first": (_first, (), 0),
    "last": (_last, (), 0),
    "items": (_items, (), 0),
    "quote": (_quote, (), 0),
}
"""A filter's function, the names of its arguments, and how many of them it needs."""


def kind(value: object) -> str:
    """What a value is, in the words of JSON."""
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return "true or false"
    if isinstance(value, (int, float)):
        return "a number"
    if isinstance(value, str):
        return "text"
    return "a mapping" if isinstance(value, Mapping) else "a list"


def _text(value: object) -> str:
    if isinstance(value, str):
        return value
    raise TemplateInvalid(f"a filter's argument must be text, not {kind(value)}")


def _whole(value: object, least: int, most: int) -> int:
    if isinstance(value, int) and not isinstance(value, bool) and least <= value <= most:
        return value
    raise TemplateInvalid(f"a filter's argument must be a whole number from {least} to {most}")


def _list(value: object, budget: Budget) -> Sequence[JSON]:
    if value is None:
        return []
    if isinstance(value, (list, tuple)):
        return value
    if isinstance(value, Mapping):
        budget.spend(1 + len(value))
        return list(value)
    raise TemplateInvalid(f"this filter needs a list, not {kind(value)}")


def _sequence(value: object, budget: Budget) -> Sequence[JSON]:
    return value if isinstance(value, str) else _list(value, budget)
