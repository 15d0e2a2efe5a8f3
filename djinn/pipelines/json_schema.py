"""The pipeline language as a JSON Schema, for editors that complete and check YAML while it is written.

It is made of the tables of keys that the loader itself reads by. What it cannot say (routes to nowhere, names that
nothing gives) only the loader tells.
"""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy

from djinn.pipelines.readers import mapping
from djinn.pipelines.reading.document import IDLE_PIPELINE, PIPELINE_KEYS
from djinn.pipelines.schema import JSON

PIPELINE_WORDS: Mapping[str, str] = {
    "id": "The pipeline's id; the name of the file when it is left out.",
    "name": "What people call it.",
    "version": "Shown to people.",
    "description": "What the pipeline is for.",
    "inputs": "The values that a run is started with: `topic: text`, or `topic: {type: text, default: ...}`.",
    "workspace": "What the workspace is cloned from; a fresh one when it is left out.",
    "defaults": "What every step has unless it says otherwise.",
    "agents": "Agents of agents/ with another model or other tools in this pipeline.",
    "steps": "The steps.",
    "concurrency": "How many runs of one group may be under way, and what becomes of one more.",
    "priority": "From -100 to 100; what waits gains one a minute.",
    "budget": "What a run may use at most.",
    "image": "The container's image of all steps.",
    "network": "The container's network of all steps.",
    "resources": "Upper bounds of the containers of all steps.",
    "artifacts": "Patterns of files that all steps keep.",
}
STEP_WORDS: Mapping[str, str] = {
    "id": "The step's id.",
    "description": "Shown to people; the agent's task when there is no `input`.",
    "input": "The agent's task, or what an approval asks. A template.",
    "outputs": "The names of what the step gives.",
    "dependsOn": "In a pipeline without routes: the steps that come before.",
    "agent": "The agent that does the step.",
    "run": "A shell script instead of an agent. A template.",
    "uses": "The id of another pipeline that runs as this step.",
    "approve": "A person's decision that the run waits for.",
    "with": "The inputs of the used pipeline; texts are templates.",
    "outputSchema": "The JSON Schema of the answer: one model call without tools.",
    "onComplete": "The step after this one.",
    "onResult": "What follows when an output has this value. Without `else` and `onComplete` it must have one of them.",
    "else": "What follows when no output has a value of `onResult`.",
    "loop": "Run the step, and the steps from `onEachComplete` on, once for each item of a list.",
    "needs": "The steps that have to be done before.",
    "when": "An expression; the step is skipped when it is not true.",
    "foreach": "Run the step once for each item of a list.",
    "matrix": "Run the step once for each combination of these lists.",
    "parallel": "How many items run at once.",
    "continueOnError": "The run goes on when this step fails.",
    "timeout": "300, 90s, 30m, 2h, 1d.",
    "retries": "How often the step is tried again after a failure.",
    "maxVisits": "How often the run may come here.",
    "model": "The model of this step.",
    "maxTurns": "How often the agent may ask its model.",
    "maxOutputTokens": "How long one answer of the model may be.",
    "temperature": "The model's temperature.",
    "image": "The container's image.",
    "network": "The container's network.",
    "resources": "Upper bounds of the container.",
    "artifacts": "Patterns of files in the workspace that are kept.",
}


def json_schema() -> dict[str, JSON]:
    """The schema of a pipeline file, draft 2020-12."""
    keys = mapping(PIPELINE_KEYS, required=("steps",), idle=IDLE_PIPELINE)
    draft = "https://json-schema.org/draft/2020-12/schema"
    schema: dict[str, JSON] = {"$schema": draft, "title": "Djinn pipeline", **deepcopy(dict(keys))}
    _describe(schema, PIPELINE_WORDS)
    _describe(_part(schema, "properties", "steps", "items"), STEP_WORDS)
    return schema


def _describe(schema: JSON, words: Mapping[str, str]) -> None:
    for name, text in words.items():
        _part(schema, "properties", name)["description"] = text


def _part(schema: JSON, *path: str) -> dict[str, JSON]:
    for key in path:
        assert isinstance(schema, dict)
        schema = schema[key]
    assert isinstance(schema, dict)
    return schema
