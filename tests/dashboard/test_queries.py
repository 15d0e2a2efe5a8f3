"""How much pages and lists ask of the database: as many queries for 100 rows as for 10, and no column that may be large
and is not shown."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from djinn.accounts.models import User
from djinn.core.models import WorkerBeat
from djinn.dashboard.live import figures
from djinn.executions.models import Artifact, Execution
from djinn.pipelines.loader import load_text
from djinn.pipelines.schema import to_snapshot
from djinn.runs.explanation import explain
from djinn.runs.histories import history_of
from djinn.runs.models import Approval, Decision, Intent, Run, Schedule, StepRun
from djinn.runs.schedules import Wanted, create_schedule
from tests.dashboard.make import Browser, make_run

pytestmark = [pytest.mark.django_db]

DEFINITION = '"runs_run"."definition"'
OUTPUTS = '"runs_steprun"."outputs"'
DIFFS = ('"executions_execution"."diff"', '"runs_approval"."shown"')


def asked(action: Callable[[], Any]) -> list[str]:
    """The queries that it makes."""
    with CaptureQueriesContext(
        connection,
    ) as queries:
        action()
    return [query["sql"] for query in queries.captured_queries]


def page(client: Client, path: str) -> list[str]:
    """The queries of a page; of the second time it is asked for, when everything that is kept is kept."""
    client.get(path)

    def get() -> None:
        answer = client.get(path)
        assert answer.status_code == 200, answer.content

    return asked(get)


PIPELINE = """\
name: Review
steps:
  - {id: S0, run: "true", foreach: {over: "[1, 2]"}}
  - {id: ASK, approve: {by: [admin]}}
  - {id: END, run: "true", needs: [S0]}
"""


def snapshot() -> Any:
    """The definition of a graph: a script for each of many items, and a question."""
    return to_snapshot(load_text(PIPELINE, file="review.yaml").pipeline)


def add_steps(run: Run, count: int, **columns: Any) -> list[StepRun]:
    """More step runs of the run, each with an execution."""
    start = run.step_runs.count()
    final = {"status": "exited", "ended_at": timezone.now()} if columns.get("ended_at") else {}
    executions = Execution.objects.bulk_create(
        Execution(stream=run.stream, image="i", timeout_seconds=60, **final) for _ in range(count)
    )
    return StepRun.objects.bulk_create(
        StepRun(
            run=run, number=start + index + 1, step="S0", item=str(start + index), visit=1, attempt=1,
            execution=execution, outputs={"WORD": "x"}, **columns,
        )
        for index, execution in enumerate(executions)
    )  # fmt: skip


def add_runs(user: User, count: int) -> None:
    """Runs of many pipelines, each with a step run that waits for a person."""
    for number in range(count):
        ask(make_run(user, pipeline=f"p{number}"), user)


def ask(run: Run, user: User) -> None:
    """A question of the run, on which somebody has decided."""
    number = run.step_runs.count() + 1
    row = StepRun.objects.create(run=run, number=number, step="ASK", visit=number, attempt=1, status="waiting")
    question = Approval.objects.create(step_run=row, by=["admin"], digest="0" * 64, count=2)
    Decision.objects.create(approval=question, user=user, verdict="approve")


def grown(act: Callable[[], list[str]], grow: Callable[[int], Any]) -> list[str]:
    """The queries at 100 rows; there were as many at 10."""
    grow(10)
    few = act()
    grow(90)
    many = act()
    assert len(many) == len(few), "\n".join(many)
    return many


def without(queries: list[str], *columns: str) -> bool:
    return not any(column in sql for sql in queries for column in columns)


@pytest.mark.parametrize("path", ["/", "/approvals/", "/api/v1/runs/?page_size=200",
                                  "/api/v1/approvals/?page_size=200"])  # fmt: skip
def test_a_list_asks_as_much_for_a_hundred_as_for_ten(browse: Browser, operator: User, viewer: User, path: str) -> None:
    client = browse(operator)
    queries = grown(lambda: page(client, path), lambda count: add_runs(viewer, count))
    assert without(queries, DEFINITION, '"runs_run"."agents"', OUTPUTS, *DIFFS)


@pytest.mark.parametrize("path", ["/runs/{}/", "/runs/{}/items/?step=S0", "/api/v1/runs/{}/"])
def test_what_shows_a_run_asks_as_much_for_a_hundred_steps_as_for_ten(
    browse: Browser, operator: User, path: str
) -> None:
    run, client = make_run(operator, definition=snapshot()), browse(operator)
    Run.objects.filter(pk=run.pk).update(status="running")
    queries = grown(
        lambda: page(client, path.format(run.pk)),
        lambda count: add_steps(run, count, status="succeeded", ended_at=timezone.now()),
    )
    assert without(queries, '"executions_execution"."diff"')
    if "items" in path:
        assert without(queries, OUTPUTS, DEFINITION)


def test_the_schedules_ask_as_much_for_a_hundred_as_for_ten(browse: Browser, operator: User, pipelines: Any) -> None:
    (pipelines / "echo.yaml").write_text("name: Echo\nsteps:\n  - id: A\n    run: echo hi\n")

    def add(count: int) -> None:
        for _ in range(count):
            name = f"s{Schedule.objects.count()}"
            made = create_schedule(
                user=operator, wanted=Wanted(name=name, pipeline="echo", cron="0 6 * * *", inputs={})
            )
            make_run(operator, schedule=made)

    client = browse(operator)
    queries = grown(lambda: page(client, "/schedules/") + page(client, "/api/v1/schedules/?page_size=200"), add)
    assert without(queries, DEFINITION)


@pytest.mark.parametrize("part", ["approvals", "artifacts", "intents"])
def test_a_part_of_a_run_asks_as_much_for_a_hundred_as_for_ten(browse: Browser, operator: User, part: str) -> None:
    run, client = make_run(operator), browse(operator)

    def add(count: int) -> None:
        for _ in range(count):
            ask(run, operator)
            Intent.objects.create(run=run, verb="pause", by=operator)
        rows = add_steps(run, count, status="succeeded", ended_at=timezone.now())
        Artifact.objects.bulk_create(Artifact(execution=row.execution, path="a", size=1, digest="d") for row in rows)

    queries = grown(lambda: page(client, f"/api/v1/runs/{run.pk}/{part}/"), add)
    assert without(queries, DEFINITION, OUTPUTS, *DIFFS)


def test_the_figures_of_a_run_ask_for_no_step_run(operator: User) -> None:
    run = make_run(operator)
    queries = grown(
        lambda: asked(lambda: figures(run.pk)),
        lambda count: add_steps(run, count, status="succeeded", ended_at=timezone.now()),
    )
    assert len(queries) == 2
    assert without(queries, DEFINITION, OUTPUTS, *DIFFS)


def test_an_explanation_asks_as_much_for_a_hundred_items_as_for_ten(operator: User) -> None:
    """Queued for a worker, waiting for a person, and each of them in a pipeline that the run uses, too."""
    WorkerBeat.objects.create(worker="agents@a", kind="agents", host="here")
    outer = make_run(operator, definition=snapshot())
    Run.objects.filter(pk=outer.pk).update(status="running")
    outer.refresh_from_db()

    def add(count: int) -> None:
        add_steps(outer, count)
        for _ in range(count):
            ask(outer, operator)
        for row in add_steps(outer, count, status="running"):
            inner = make_run(operator, parent=row, definition=snapshot())
            Run.objects.filter(pk=inner.pk).update(status="running")
            add_steps(inner, 1)
            ask(inner, operator)

    queries = grown(lambda: asked(lambda: explain(outer)), add)
    assert len(queries) <= 12, "\n".join(queries)
    assert len(explain(outer)) >= 400


def test_a_history_reads_no_output_until_one_is_looked_at(operator: User) -> None:
    run = make_run(operator)
    rows = add_steps(run, 100, status="succeeded", ended_at=timezone.now())
    with CaptureQueriesContext(connection) as queries:
        history = history_of(run)
        assert [past.step for past in history] == ["S0"] * 100
    assert without([query["sql"] for query in queries.captured_queries], OUTPUTS)
    with CaptureQueriesContext(connection) as queries:
        assert history[7].outputs["WORD"] == "x"
        assert "OTHER" not in history[7].outputs
    assert [f'"id" = {rows[7].pk}' in query["sql"] for query in queries.captured_queries] == [True]
    with CaptureQueriesContext(connection) as queries:
        assert [dict(past.outputs) for past in history] == [{"WORD": "x"}] * 100
    assert len(queries) == 1
