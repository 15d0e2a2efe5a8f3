"""The check of answers, asked by containers of the gateway's real process."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx2
import pytest

from djinn.executions.models import Execution
from djinn.executions.structured import order_of
from djinn.executions.tokens import token_of
from djinn.pipelines.schema import OutputSchema
from tests.core.serving import serving

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.xdist_group("gateway")]

PATH = "/v1/outputs/check"
SCHEMA = {"type": "object", "properties": {"a": {"type": "string", "pattern": "^(x+)+$"}}, "required": ["a"]}
SLOW = {"a": "x" * 60 + "!"}


@pytest.fixture(scope="module")
def gateway(django_db_setup: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx2.Client]:
    with serving("djinn.gateway.asgi", tmp_path_factory.mktemp("g")) as client:
        yield client


def bearer(schema: dict[str, Any] | None = SCHEMA, results: Sequence[str] = (), **columns: Any) -> dict[str, str]:
    """The header of an execution with that schema in its order, whose output `a` has to be one of the results."""
    wanted = OutputSchema("answer", schema) if schema is not None else None
    agent = {"output_schema": order_of(wanted), "outputs": ["a"], "results": list(results)}
    order = {"mode": "agent", "agent": agent}
    execution = Execution.objects.create(stream="test", image="none", timeout_seconds=60, order=order, **columns)
    return {"Authorization": f"Bearer {token_of(execution.pk)}"}


def check(gateway: httpx2.Client, value: Any, headers: dict[str, str] | None = None) -> httpx2.Response:
    return gateway.post(PATH, json={"value": value}, headers=headers or bearer())


def test_a_value_that_fits_has_no_problems(gateway: httpx2.Client) -> None:
    answer = check(gateway, {"a": "x"})
    assert (answer.status_code, answer.json()) == (200, {"problems": []})


def test_each_problem_is_told_with_its_place(gateway: httpx2.Client) -> None:
    assert check(gateway, {"a": 5}).json() == {"problems": ["/a: 5 is not of type 'string'"]}


def test_the_schema_is_that_of_the_asking_execution(gateway: httpx2.Client) -> None:
    assert check(gateway, [], bearer({"type": "array"})).json() == {"problems": []}


def test_a_result_that_is_none_of_those_it_may_be_is_a_problem_of_its_own(gateway: httpx2.Client) -> None:
    headers = bearer({"type": "object"}, results=["GOOD", "BAD"])
    assert check(gateway, {"a": "good "}, headers).json() == {"problems": []}
    problem = "a is 'good, mostly', but a must be exactly one of GOOD | BAD"
    assert check(gateway, {"a": "good, mostly"}, headers).json() == {"problems": [problem], "reason": "unmatched"}


@pytest.mark.parametrize("headers", [{}, {"Authorization": "Bearer 1.00"}, {"Authorization": "Basic x"}])
def test_nobody_else_is_let_in(gateway: httpx2.Client, headers: dict[str, str]) -> None:
    assert gateway.post(PATH, json={"value": {}}, headers=headers).status_code == 401


def test_an_execution_without_a_schema_has_nothing_to_check(gateway: httpx2.Client) -> None:
    assert check(gateway, {}, bearer(None)).status_code == 409


def test_a_script_has_nothing_to_check(gateway: httpx2.Client) -> None:
    order = {"mode": "command", "script": "true"}
    execution = Execution.objects.create(stream="test", image="none", timeout_seconds=60, order=order)
    headers = {"Authorization": f"Bearer {token_of(execution.pk)}"}
    assert check(gateway, {}, headers).status_code == 409


def test_another_method_is_refused(gateway: httpx2.Client) -> None:
    assert gateway.get(PATH, headers=bearer()).status_code == 405


BODIES = [b"", b"{", b"[]", b"5", b"{}", b'{"value": 1, "schema": {}}', b'{"other": 1}', b"[" * 100_000, b"\xff"]


@pytest.mark.parametrize("body", BODIES, ids=lambda body: repr(body[:20]))
def test_a_body_that_is_no_question_is_refused(gateway: httpx2.Client, body: bytes) -> None:
    assert gateway.post(PATH, content=body, headers=bearer()).status_code == 400


def test_a_body_that_is_too_large_is_refused(gateway: httpx2.Client) -> None:
    assert check(gateway, "x" * 2_000_000).status_code == 413


@pytest.mark.parametrize(
    "body", [b'{"value": NaN}', b'{"value": 1e999}', b'{"value": {"a": ' + b"[" * 500 + b"]" * 500 + b"}}"]
)
def test_a_value_that_is_no_plain_json_is_a_problem(gateway: httpx2.Client, body: bytes) -> None:
    answer = gateway.post(PATH, content=body, headers=bearer())
    assert (answer.status_code, len(answer.json()["problems"])) == (200, 1)


def test_a_check_that_takes_too_long_is_a_problem(gateway: httpx2.Client) -> None:
    assert check(gateway, SLOW).json() == {"problems": ["it cannot be checked: that takes too long"]}


def test_one_container_has_one_check_at_a_time_and_keeps_nobody_waiting(gateway: httpx2.Client) -> None:
    headers = bearer()
    with ThreadPoolExecutor() as threads:
        slow = [threads.submit(check, gateway, SLOW, headers) for _ in range(2)]
        others = check(gateway, {"a": "x"})
        assert (others.json(), all(one.done() for one in slow)) == ({"problems": []}, False)
    first, second = sorted((one.result() for one in slow), key=lambda answer: answer.status_code)
    assert (first.status_code, second.status_code, second.headers["Retry-After"]) == (200, 429, "1")
    assert check(gateway, {"a": "x"}, headers).json() == {"problems": []}
