"""The JSON Schema for editors says what the loader does."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import pytest
from jsonschema import Draft202012Validator

from djinn.documents.nodes import read_document
from djinn.documents.report import Report
from djinn.pipelines.errors import PipelineInvalid
from djinn.pipelines.json_schema import PIPELINE_WORDS, STEP_WORDS, json_schema
from djinn.pipelines.loader import load_text
from djinn.pipelines.readers import ALIASES, data
from djinn.pipelines.schema import JSON
from tests.pipelines.test_pipeline_language import GRAPH, LOOP
from tests.pipelines.test_pipeline_loader import FULL

ROOT = Path(__file__).parents[2]
SHIPPED = [*sorted((ROOT / "pipelines").glob("*.yaml")), *sorted((ROOT / "tests/content/foreign").glob("*.y*ml"))]
SCHEMA = json_schema()
VALIDATOR = Draft202012Validator(SCHEMA)

MAPPINGS = {
    "": ("properties",),
    "defaults": ("properties", "defaults", "anyOf", "0", "properties"),
    "workspace": ("properties", "workspace", "anyOf", "0", "properties"),
    "resources": ("properties", "resources", "anyOf", "0", "properties"),
    "budget": ("properties", "budget", "anyOf", "0", "properties"),
    "concurrency": ("properties", "concurrency", "anyOf", "0", "anyOf", "1", "properties"),
    "steps.0": ("properties", "steps", "items", "properties"),
    "agents.0": ("properties", "agents", "anyOf", "0", "items", "properties"),
}


def problems_of(text: str) -> list[str]:
    document = read_document(text, Report("any.yaml"))
    assert document is not None
    return [error.message for error in VALIDATOR.iter_errors(data(document))]


def part(*path: str) -> dict[str, JSON]:
    found: JSON = SCHEMA
    for key in path:
        found = found[int(key)] if isinstance(found, list) else cast("dict[str, JSON]", found)[key]
    return cast("dict[str, JSON]", found)


def refused_keys(text: str) -> set[str]:
    """The keys that the loader calls unknown."""
    try:
        load_text(text, file="any.yaml")
    except PipelineInvalid as exc:
        return {problem.key for problem in exc.problems if problem.message.startswith("unknown key")}
    return set()


def with_key(place: str, key: str) -> str:
    """A file with that key at a place, with nothing behind it."""
    if place == "":
        return f"{key}:\nother: 1\n"
    if place.endswith(".0"):
        return f"{place[:-2]}: [{{{key}: }}]\n"
    return f"{place}: {{{key}: }}\n"


def test_the_schema_is_one() -> None:
    Draft202012Validator.check_schema(SCHEMA)


@pytest.mark.parametrize("place", MAPPINGS)
def test_the_loader_knows_every_key_of_the_schema(place: str) -> None:
    prefix = {"": "", "steps.0": "", "agents.0": "agents."}.get(place, f"{place}.")
    keys = part(*MAPPINGS[place])
    assert f"{prefix}nonsense" in refused_keys(with_key(place, "nonsense"))
    assert [key for key in keys if f"{prefix}{key}" in refused_keys(with_key(place, key))] == []


def test_every_key_that_is_read_has_words_and_every_word_a_key() -> None:
    aliases = {alias for names in ALIASES.values() for alias in names}
    for words, place in ((PIPELINE_WORDS, ""), (STEP_WORDS, "steps.0")):
        keys = part(*MAPPINGS[place])
        without_effect = {key for key, value in keys.items() if value == {"description": "Has no effect."}}
        assert words.keys() == keys.keys() - without_effect - aliases
        assert all("description" in cast("dict[str, JSON]", keys[key]) for key in words)


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.name)
def test_every_pipeline_that_ships_follows_the_schema(path: Path) -> None:
    assert problems_of(path.read_text()) == []


@pytest.mark.parametrize("text", [FULL, LOOP, GRAPH], ids=["full", "loop", "graph"])
def test_what_loads_follows_the_schema(text: str) -> None:
    assert problems_of(text) == []


@pytest.mark.parametrize(
    "text",
    [
        "id: a",
        "id: a\nsteps: []",
        "id: a\nsteps: [3]",
        "id: a\nsteps: [{id: A}]",
        "id: a\nsteps: [{run: ls}]",
        "id: 1a\nsteps: [{id: A, run: ls}]",
        "id: a\ntpye: b\nsteps: [{id: A, run: ls}]",
        "id: a\nsteps: [{id: A, run: ls, agent: b}]",
        "id: a\nsteps: [{id: A, run: ls, input: b}]",
        "id: a\nsteps: [{id: A, approve: true, image: b}]",
        "id: a\nsteps: [{id: A, run: ls, tiemout: 3}]",
        "id: a\nsteps: [{id: A, run: ls, timeout: 30x}]",
        "id: a\nsteps: [{id: A, run: ls, retries: {max: 21}}]",
        "id: a\nsteps: [{id: A, run: ls, retries: {on: [cancelled]}}]",
        "id: a\nsteps: [{id: A, run: ls, network: host}]",
        "id: a\nsteps: [{id: A, run: ls, resources: {memory: 1t}}]",
        "id: a\nsteps: [{id: A, run: ls, outputs: [not]}]",
        "id: a\nsteps: [{id: A, run: ls, outputs: [a, a]}]",
        "id: a\nsteps: [{id: A, run: ls, outputs: [v], onResult: {x: {gto: A}}}]",
        "id: a\nsteps: [{id: A, run: ls, outputs: [v], onResult: {x: {notify: {agent: b}}}}]",
        "id: a\nsteps: [{id: A, run: ls, loop: {onEachComplete: A}}]",
        "id: a\nsteps: [{id: A, run: ls, foreach: {parallel: 2}}]",
        "id: a\nsteps: [{id: A, run: ls, foreach: {over: [1], parallel: 0}}]",
        "id: a\nsteps: [{id: A, run: ls, matrix: {}}]",
        "id: a\nsteps: [{id: A, run: ls, matrix: {a: []}}]",
        "id: a\nsteps: [{id: A, approve: false}]",
        "id: a\nsteps: [{id: A, approve: {count: 0}}]",
        "id: a\nsteps: [{id: A, agent: b, outputSchema: text}]",
        "id: a\nconcurrency: {limit: 2}\nsteps: [{id: A, run: ls}]",
        "id: a\nconcurrency: {group: x, policy: wait}\nsteps: [{id: A, run: ls}]",
        "id: a\nbudget: {usd: -1}\nsteps: [{id: A, run: ls}]",
        "id: a\npriority: 101\nsteps: [{id: A, run: ls}]",
        "id: a\nartifacts: [/etc]\nsteps: [{id: A, run: ls}]",
        "id: a\ninputs: {a: txt}\nsteps: [{id: A, run: ls}]",
        "id: a\ninputs: {a: {kind: text}}\nsteps: [{id: A, run: ls}]",
        "id: a\nagents: [{name: b}]\nsteps: [{id: A, run: ls}]",
    ],
)
def test_a_file_with_a_wrong_key_or_value_is_refused_by_both(text: str) -> None:
    with pytest.raises(PipelineInvalid):
        load_text(text, file="any.yaml")
    assert problems_of(text) != []
