"""Results that have to be one of a few: the agent is told, refused, and asked again a few times."""

from __future__ import annotations

from collections.abc import Callable

from execution_double import Execution
from gateway_double import Gateway, completes, problems, says

Serve = Callable[..., Gateway]
RESULTS = ["APPROVED", "CHANGES"]


def _complete(served: Gateway) -> dict[str, object]:
    """The parameters of the tool `complete` as the model sees them."""
    tools = {tool["function"]["name"]: tool["function"] for tool in served.requests[0].body["tools"]}
    found: dict[str, object] = tools["complete"]["parameters"]["properties"]["outputs"]["properties"]
    return found


def test_an_answer_with_a_remark_is_asked_again(execution: Execution, gateway: Serve) -> None:
    served = gateway(completes(VERDICT="APPROVED with nits"), completes(VERDICT="approved"))
    ended = execution.agent(outputs=["VERDICT"], results=RESULTS)
    assert (ended.finished["status"], ended.finished["outputs"]) == ("succeeded", {"VERDICT": "approved"})
    told = served.requests[1].messages[-1]["content"]
    assert told.startswith("Error: VERDICT must be exactly one of APPROVED | CHANGES")


def test_an_agent_that_never_answers_with_one_of_them_fails_with_what_it_said(
    execution: Execution, gateway: Serve
) -> None:
    served = gateway(completes(VERDICT="fine"))
    ended = execution.agent(outputs=["VERDICT"], results=RESULTS)
    assert (ended.reason, ended.finished["outputs"], len(served.requests)) == ("unmatched", {"VERDICT": "fine"}, 3)
    assert "one of APPROVED | CHANGES" in ended.message


def test_the_only_output_is_an_enum_for_the_model(execution: Execution, gateway: Serve) -> None:
    served = gateway(completes(VERDICT="CHANGES"))
    execution.agent(outputs=["VERDICT"], results=RESULTS)
    assert _complete(served)["VERDICT"]["enum"] == RESULTS  # type: ignore[index]


def test_one_of_several_outputs_has_to_be_one_of_them(execution: Execution, gateway: Serve) -> None:
    served = gateway(completes(VERDICT="good", NOTES="none"), completes(VERDICT=" Approved ", NOTES="none"))
    ended = execution.agent(outputs=["VERDICT", "NOTES"], results=RESULTS)
    assert (ended.finished["status"], len(served.requests)) == ("succeeded", 2)
    assert "One of VERDICT, NOTES must be exactly" in str(_complete(served)["NOTES"])


def test_without_results_any_answer_will_do(execution: Execution, gateway: Serve) -> None:
    gateway(completes(VERDICT="whatever"))
    assert execution.agent(outputs=["VERDICT"]).finished["status"] == "succeeded"


def test_a_structured_answer_that_never_matches_fails_as_unmatched(execution: Execution, gateway: Serve) -> None:
    served = gateway(says('{"V": "maybe"}'))
    served.checks = [problems("V is 'maybe'", reason="unmatched")]
    schema = {"name": "verdict", "strict": True, "schema": {"type": "object"}}
    ended = execution.agent(output_schema=schema, outputs=["V"], results=RESULTS)
    assert (ended.reason, ended.finished["outputs"], len(served.requests)) == (
        "unmatched", {"answer": {"V": "maybe"}}, 3,
    )  # fmt: skip
    assert "V is 'maybe'" in ended.message


def test_a_script_that_fails_keeps_the_outputs_that_it_has_set(execution: Execution) -> None:
    script = 'echo "CODE=3" >> "$DJINN_OUTPUT"; echo "OTHER=x" >> "$DJINN_OUTPUT"; exit 3'
    ended = execution.command(script, outputs=["CODE", "LATER"])
    assert (ended.reason, ended.finished["outputs"]) == ("error", {"CODE": "3"})


def test_a_script_that_fails_with_a_broken_output_file_loses_its_outputs_with_a_warning(execution: Execution) -> None:
    ended = execution.command('echo nonsense >> "$DJINN_OUTPUT"; exit 3', outputs=["CODE"])
    assert (ended.reason, ended.finished["outputs"]) == ("error", {})
    assert any("are lost" in one["message"] for one in ended.of("log"))
