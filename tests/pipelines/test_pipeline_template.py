"""The template language: what it renders, what it refuses, and that nothing in it can run away."""

from __future__ import annotations

import shlex
import subprocess
import tracemalloc

import pytest

from djinn.pipelines.errors import TemplateInvalid
from djinn.pipelines.schema import JSON
from djinn.pipelines.template import check_template, render, template_names

NAMES: dict[str, JSON] = {
    "topic": "Tides",
    "count": 3,
    "score": 1.5,
    "done": True,
    "nothing": None,
    "rows": [{"name": "a", "n": 1}, {"name": "b", "n": 2}],
    "review": {"comments": ["x", "y"], "items": "own key"},
    "braces": "{{ topic }}",
    "long": list(range(20_000)),
    "wide": "x" * 200_000,
}


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ("Write about {{ topic }}.\n", "Write about Tides.\n"),
        ("{{ count }} {{ score }} {{ done }} [{{ nothing }}]", "3 1.5 true []"),
        ("{{ review.comments }}", '["x", "y"]'),
        ("{{ rows[1].name }}{{ rows[0]['n'] }}{{ rows.0.n }}{{ rows[-1].n }}", "b112"),
        ("{{ review.items }}", "own key"),
        ("{% for row in rows %}{{ loop.index }}{{ row.name }}{% if not loop.last %},{% endif %}{% endfor %}", "1a,2b"),
        ("{% for row in rows if row.n > 1 %}{{ row.name }}{% else %}none{% endfor %}", "b"),
        ("{% for row in missing %}{{ row }}{% else %}none{% endfor %}", "none"),
        ("{% for key, value in review|items %}{{ key }};{% endfor %}", "comments;items;"),
        ("{% if count == 3 and not nothing %}yes{% elif done %}no{% endif %}", "yes"),
        ("{% if 'x' in review.comments and 'id' in topic %}in{% endif %}", "in"),
        ("{% if topic in ['Tides', 'Moon'] and 1 < count <= 3 %}in{% endif %}", "in"),
        ("{{ 'a' if count > -1 else 'b' }}{{ topic ~ '-' ~ count }}", "aTides-3"),
        ("{{ topic|upper }} {{ topic|lower }} {{ ' a '|trim }}", "TIDES tides a"),
        ("{{ missing|default('d') }}{{ nothing|default('e') }}{{ ''|default('f', true) }}", "def"),
        ("{{ review.comments|join(', ') }} {{ rows|length }}", "x, y 2"),
        ("{{ rows|first|tojson }} {{ topic|last }}", '{"name": "a", "n": 1} s'),
        ("{{ 'a\nb'|indent(2) }}|{{ 'a\nb'|indent(width=2, first=true) }}", "a\n  b|  a\n  b"),
        ("{{ topic|truncate(4) }} {{ topic|truncate(2, '') }} {{ topic|replace('T', 'S') }}", "T... Ti Sides"),
        ("{% raw %}{{ topic }}{% endraw %}{# a comment #}", "{{ topic }}"),
        ("{% if missing is defined %}a{% endif %}{% if topic is defined %}b{% endif %}", "b"),
        ("{{ missing > 3 }} {{ missing == nothing }}", "false true"),
    ],
)  # fmt: skip
def test_a_template_gives_this_text(template: str, text: str) -> None:
    assert check_template(template) == []
    assert render(template, NAMES).text == text


def test_a_value_is_never_expanded_again() -> None:
    assert render("{{ braces }}", NAMES).text == "{{ topic }}"


def test_a_missing_name_is_empty_and_listed_once() -> None:
    rendered = render("[{{ gone }}{{ gone }}{{ review.author.name }}{{ rows[9] }}{{ here|default('') }}]", NAMES)
    assert (rendered.text, rendered.undefined) == ("[]", ("gone", "review.author.name", "rows[9]"))


def test_a_name_that_the_template_asks_about_is_not_listed_as_missing() -> None:
    template = "{% if a and b %}x{% endif %}{% if not c or d %}y{% endif %}{{ 'z' if e is defined or f }}{{ g or 'h' }}"
    rendered = render(template, {})
    assert (rendered.text, rendered.undefined) == ("yh", ())


def test_a_name_that_is_compared_is_listed_when_it_is_missing() -> None:
    assert render("{% if a == 'x' or b %}{% endif %}", {}).undefined == ("a",)


def test_what_cannot_be_stored_is_replaced() -> None:
    assert render("\x00{{ a }}{{ '\\ud800' }}", {"a": "b\x00\udfff"}).text == "\ufffdb\ufffd\ufffd\ufffd"


@pytest.mark.parametrize("value", ["a'b", "$(touch x)", "; rm -rf /", "", "a\nb", "`id`", "-n"])
def test_a_quoted_value_is_one_word_of_a_shell_script(value: str) -> None:
    script = render("printf %s {{ value | quote }}", {"value": value}).text
    done = subprocess.run(["sh", "-c", script], capture_output=True, text=True, timeout=10, check=True)
    assert done.stdout == value
    assert shlex.split(script) == ["printf", "%s", value]


def test_the_names_of_a_template_are_those_it_takes_from_outside() -> None:
    text = "{{ a.b }}{% for x, y in c if x %}{{ x }}{{ y }}{{ loop.index }}{{ d|default(e) }}{% endfor %}{{ x }}"
    assert template_names(text) == {"a", "c", "d", "e", "x"}


@pytest.mark.parametrize(
    ("template", "problem"),
    [
        ("{{ ''.__class__ }}", "line 1: the name '__class__' is not allowed"),
        ("{{ x['__class__'] }}", "line 1: the name '__class__' is not allowed"),
        ("{{ x._private }}", "line 1: the name '_private' is not allowed"),
        ("{{ __builtins__ }}", "line 1: the name '__builtins__' is not allowed"),
        ("a\n{{ x() }}", "line 2: a call is not part of the template language"),
        ("{{ range(9) }}", "line 1: a call is not part of the template language"),
        ("{{ 9 ** 9 }}", "line 1: ** is not part of the template language"),
        ("{{ 'a' * 9 }}", "line 1: * is not part of the template language"),
        ("{{ 1 + 1 }}", "line 1: + is not part of the template language"),
        ("{{ '%999d' % 1 }}", "line 1: % is not part of the template language"),
        ("{{ x[1:2] }}", "line 1: a slice is not part of the template language"),
        ("{% set x = 1 %}", "line 1: set is not part of the template language"),
        ("{% macro m() %}{% endmacro %}", "line 1: macro is not part of the template language"),
        ("{% include 'x' %}", "line 1: include is not part of the template language"),
        ("{% import 'x' as y %}", "line 1: import is not part of the template language"),
        ("{% extends 'x' %}", "line 1: extends is not part of the template language"),
        ("{% block b %}{% endblock %}", "line 1: block is not part of the template language"),
        ("{% with a = 1 %}{% endwith %}", "line 1: with is not part of the template language"),
        ("{% filter upper %}a{% endfilter %}", "line 1: filter is not part of the template language"),
        ("{% for x in y recursive %}{% endfor %}", "line 1: a recursive loop is not part of the template language"),
        ("{{ x|uper }}", "line 1: there is no filter 'uper'; did you mean 'upper'?"),
        ("{{ x|attr('y') }}", "line 1: there is no filter 'attr'"),
        ("{{ x|map(attribute='y') }}", "line 1: there is no filter 'map'"),
        ("{{ x|replace('a') }}", "line 1: the filter 'replace' needs old and new"),
        ("{{ x|upper(1) }}", "line 1: the filter 'upper' takes no arguments"),
        ("{{ x|join(*y) }}", "line 1: the filter 'join' takes separator"),
        ("{{ x|indent(2, width=3) }}", "line 1: the filter 'indent' needs each argument once"),
        ("{{ x is callable }}", "line 1: there is no test 'callable'"),
        ("\n\n{{ x", "line 3: unexpected end of template"),
        ("{% if x %}", "line 1: Unexpected end of template"),
        ("{% nope %}", "line 1: Encountered unknown tag 'nope'."),
        ("{{ " + "(" * 9999, "the template is nested too deeply"),
        ("{{ a" + ".a" * 999 + " }}", "line 1: the template is nested too deeply"),
        ("{% if a %}" * 99 + "{% endif %}" * 99, "line 1: the template is nested too deeply"),
        ("{{ " + "9" * 5000 + " }}", "not a template: "),
        ("x" * 300_000, "the template is longer than 262144 characters"),
    ],
)
def test_a_template_outside_of_the_language_is_refused(template: str, problem: str) -> None:
    assert check_template(template)[0].lower().startswith(problem.lower())
    with pytest.raises(TemplateInvalid):
        render(template, NAMES)


def test_all_problems_of_a_template_are_listed_in_order() -> None:
    assert [text[:7] for text in check_template("{{ a() }}\n{{ b|c }}\n{{ 1 * 2 }}")] == [
        "line 1:",
        "line 2:",
        "line 3:",
    ]


@pytest.mark.parametrize(
    "template",
    [
        "{% for a in long %}{% for b in long %}{% for c in long %}{% endfor %}{% endfor %}{% endfor %}",
        "{% for a in long %}{% for b in long if false %}{% endfor %}{% endfor %}",
        "{% for a in long %}{% if wide == topic %}{% endif %}{% endfor %}",
        "{% for a in long %}{% if 'q' in wide %}{% endif %}{% endfor %}",
        "{% for a in long %}{% if long == long %}{% endif %}{% endfor %}",
        "{% for a in long %}{% if long|tojson %}{% endif %}{% endfor %}",
        "{% for a in long %}{% if wide|upper %}{% endif %}{% endfor %}",
        "{% for a in long %}{% if wide|truncate(1) %}{% endif %}{% endfor %}",
        "{% for a in long %}{% if wide|replace('q', '') %}{% endif %}{% endfor %}",
        "{% for a in long %}{% if wide|quote %}{% endif %}{% endfor %}",
        "{% for a in long %}{% if long|join %}{% endif %}{% endfor %}",
        "{% for a in long %}{% for b in wide %}{% endfor %}{% endfor %}",
    ],
)
def test_a_template_that_loops_for_ever_is_stopped(template: str) -> None:
    with pytest.raises(TemplateInvalid, match="works too long"):
        render(template, NAMES)


@pytest.mark.parametrize(
    "template",
    [
        "{{ wide|replace('x', wide) }}",
        "{{ long|join(wide) }}",
        "{{ wide|replace('x', 'x\n')|indent(100) }}",
        "{{ wide ~ wide ~ wide ~ wide ~ wide ~ wide }}",
    ],
)
def test_a_text_that_would_grow_too_long_is_never_made(template: str) -> None:
    with pytest.raises(TemplateInvalid, match="makes a text of"):
        render(template, NAMES)


def test_a_text_too_long_to_loop_over_is_not_taken_apart() -> None:
    names: dict[str, JSON] = {"huge": "x" * 5_000_000}
    tracemalloc.start()
    with pytest.raises(TemplateInvalid, match="works too long"):
        render("{% for a in huge %}{% endfor %}", names)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 5_000_000


@pytest.mark.parametrize("template", ["{{ wide }}{{ wide }}", "{% for a in long %}0123456789abcdef{% endfor %}"])
def test_output_past_its_bound_is_refused(template: str) -> None:
    with pytest.raises(TemplateInvalid, match="more than 262144 bytes"):
        render(template, NAMES)


def test_the_bound_of_output_counts_bytes() -> None:
    assert render("{{ a }}", {"a": "é" * 5}, max_bytes=10).text == "é" * 5
    with pytest.raises(TemplateInvalid, match="more than 10 bytes"):
        render("{{ a }}x", {"a": "é" * 5}, max_bytes=10)


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{% for a in count %}{% endfor %}", "cannot loop over a number"),
        ("{% for a, b in rows %}{% endfor %}", "cannot take a and b from a mapping"),
        ("{{ topic > count }}", "cannot order text and a number"),
        ("{{ -topic }}", "only a number can be negative, not text"),
        ("{{ topic|indent('a') }}", "must be a whole number from 0 to 100"),
        ("{{ topic|indent(101) }}", "must be a whole number from 0 to 100"),
        ("{{ topic|replace('', 'b') }}", "replace needs a text to look for"),
        ("{{ topic|replace(1, 'b') }}", "argument must be text, not a number"),
        ("{{ count|join }}", "this filter needs a list, not a number"),
        ("{{ topic|items }}", "items needs a mapping, not text"),
    ],
)
def test_a_value_of_the_wrong_kind_is_an_error_that_says_so(template: str, message: str) -> None:
    with pytest.raises(TemplateInvalid, match=message):
        render(template, NAMES)


def test_data_nested_too_deeply_is_refused() -> None:
    deep: JSON = []
    for _ in range(5000):
        deep = [deep]
    with pytest.raises(TemplateInvalid, match="nested deeper than 100 levels"):
        render("{{ deep }}", {"deep": deep})
