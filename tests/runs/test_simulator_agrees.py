"""The simulator and the engine tell the same story of a run whose tries end in the same way."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import pytest
from django.conf import settings
from django.utils import timezone

from djinn.executions.models import Execution
from djinn.pipelines.loader import load_folder
from djinn.pipelines.names import names_for, outputs_of
from djinn.pipelines.schema import Pipeline
from djinn.pipelines.simulate import Answer, Ask, play
from djinn.runs import engine
from djinn.runs.approvals import decide, expire_due
from djinn.runs.histories import history_of
from djinn.runs.models import Approval, Run, StepRun
from djinn.runs.services import start_run
from tests.make import failed, make_user, played, step, succeeded, told, write_pipeline

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("home")]

JSON = Any
Says = dict[str, list[Answer]]
JOURNAL = {"ready", "finished"}
COMPARED = (
    "step",
    "item",
    "visit",
    "attempt",
    "status",
    "reason",
    "because",
    "delay_seconds",
    "agent",
    "text",
    "verdict",
)


def ok(seconds: float = 60.0, **outputs: JSON) -> Answer:
    return Answer(outputs=outputs, seconds=seconds)


def bad(reason: str = "error", seconds: float = 60.0) -> Answer:
    return Answer("failed", reason, seconds=seconds)


@dataclass
class Script:
    """Who answers: the next of what is written down for `STEP[item]`, or else for `STEP`; the last one again."""

    says: Says
    used: dict[str, int] = field(default_factory=dict)

    def __call__(self, ask: Ask) -> Answer:
        name = f"{ask.step.id}[{ask.item}]"
        name = name if name in self.says else ask.step.id
        answers = self.says.get(name) or [ok(**dict.fromkeys(ask.step.outputs, "ok"))]
        number = self.used.get(name, 0)
        self.used[name] = number + 1
        return answers[min(number, len(answers) - 1)]


class Engine:
    """The real engine with as many workers as there is work, on a virtual clock: each thing is done at its moment."""

    def __init__(self, run: Run, answers: Callable[[Ask], Answer]) -> None:
        self.run, self.answers = run, answers
        self.now, self.seen, self.entries = 0.0, 0, 0
        self.agenda: list[tuple[float, int, Callable[[], None]]] = []

    def work(self) -> Run:
        self._do(lambda: engine.advance_run(self.run.pk))
        while self.agenda:
            self.now, _, happens = heapq.heappop(self.agenda)
            self._do(happens)
        self.run.refresh_from_db()
        return self.run

    def _do(self, happens: Callable[[], None]) -> None:
        """Do one thing, then see what has begun by it."""
        happens()
        for row in self.run.step_runs.filter(number__gt=self.seen).order_by("number"):
            self.seen = row.number
            if row.not_before is not None:
                self._later(self._delay(row), self._prepare(row))
            elif not row.is_final:
                self._begin(row)

    def _delay(self, row: StepRun) -> float:
        return next(data["delay_seconds"] for _, data in told(self.run, "step_queued") if data["step_run"] == row.pk)

    def _prepare(self, row: StepRun) -> Callable[[], None]:
        def happens() -> None:
            engine.prepare_step(row.pk)
            self._begin(StepRun.objects.select_related("run", "execution").get(pk=row.pk))

        return happens

    def _begin(self, row: StepRun) -> None:
        pipeline, history = load_work(), history_of(self.run)
        definition, past = pipeline.step(row.step), history[row.number - 1]
        names = names_for(pipeline, history, self.run.inputs, definition, past)
        answer = self.answers(Ask(definition, row.item, row.visit, row.attempt, names))
        if definition.approve is not None:
            expires = float(definition.approve.expires_seconds or 0)
            seconds = expires if answer.status == "expired" else answer.seconds
            self._later(seconds, lambda: self._decide(row, answer))
        elif definition.kind == "uses":
            self._later(answer.seconds, lambda: self._end_child(row, answer))
        else:
            let_play(row, answer)
            self._later(0.0, lambda: self._take(row, answer))

    def _take(self, row: StepRun, answer: Answer) -> None:
        engine.execute_step(row.pk)
        row.refresh_from_db()
        assert row.status == "running", "another step run was taken"
        self._later(answer.seconds, lambda: engine.settle_step(row.pk))

    def _end_child(self, row: StepRun, answer: Answer) -> None:
        child = Run.objects.get(parent=row)
        engine.advance_run(child.pk)
        inner = child.step_runs.get()
        let_play(inner, Answer("failed", "error") if answer.status == "failed" else answer)
        engine.execute_step(inner.pk)
        engine.settle_step(inner.pk)
        engine.settle_step(row.pk)

    def _decide(self, row: StepRun, answer: Answer) -> None:
        approval = Approval.objects.get(step_run=row)
        if answer.status == "expired":
            Approval.objects.filter(pk=approval.pk).update(expires_at=timezone.now() - timedelta(hours=1))
            assert expire_due() == 1
        for number in range(approval.count if answer.status == "approved" else 1 if answer.status == "rejected" else 0):
            verdict = "approve" if answer.status == "approved" else "reject"
            user = make_user(f"user-{row.pk}-{number}")
            decide(approval_id=approval.pk, user=user, verdict=verdict, comment="", digest=approval.digest)
        engine.advance_run(self.run.pk)

    def _later(self, seconds: float, happens: Callable[[], None]) -> None:
        self.entries += 1
        heapq.heappush(self.agenda, (self.now + seconds, self.entries, happens))


def let_play(row: StepRun, answer: Answer) -> None:
    """Let the stub end the step run's execution as the answer says; a lost one ends without its last record."""
    finished = succeeded(**answer.outputs) if answer.status == "succeeded" else failed(answer.reason)
    finished["outputs"] = dict(answer.outputs)
    script = played(finished=None, exit_code=1) if answer.reason == "lost" else played(finished=finished)
    execution = Execution.objects.get(step_run=row)
    Execution.objects.filter(pk=execution.pk).update(order={**execution.order, "script": script})


def catalogue() -> dict[str, Pipeline]:
    found = load_folder(settings.PIPELINES_DIRECTORY)
    assert found.problems == {}
    return {name: loaded.pipeline for name, loaded in found.pipelines.items()}


def load_work() -> Pipeline:
    return catalogue()["work"]


def story(events: list[tuple[str, dict[str, JSON]]]) -> list[tuple[JSON, ...]]:
    """What is compared of each event; a word that is not there is an empty one."""
    return [(kind, *(data.get(name) or "" for name in COMPARED)) for kind, data in events if kind not in JOURNAL]


def step_rows(history: Any) -> list[tuple[JSON, ...]]:
    return [
        (p.step, p.item, p.visit, p.attempt, str(p.status), p.reason, dict(p.outputs), p.item_value, p.bases)
        for p in history
    ]


TWICE = {"retries": {"max": 2, "backoff": "10s"}}
LOOP = (
    step("PLAN", outputs=["TASKS"], onComplete="BUILD"),
    step("BUILD", loop={"over": "TASKS", "onEachComplete": "TEST", "onAllComplete": "SHIP"}),
    step("TEST", outputs=["V"], retries={"max": 1}, onResult={
        "PASS": {"continueLoop": True},
        "FLAKY": {"retry": True, "maxRetries": 1},
        "FAIL": {"goto": "BUILD", "notify": {"agent": "engineer", "message": "{{ current_item }} is {{ V }}"}},
    }),
    step("SHIP"),
)  # fmt: skip
NESTED = (
    step("PLAN", outputs=["TASKS"], onComplete="OUTER"),
    step("OUTER", loop={"over": "TASKS", "onEachComplete": "INNER", "onAllComplete": "SHIP"}),
    step("INNER", loop={"over": "current_item.parts", "onEachComplete": "CHECK", "onAllComplete": "AFTER"}),
    step("CHECK", outputs=["V"], onResult={"ok": {"continueLoop": True}, "again": {"goto": "INNER"}}),
    step("AFTER", onComplete="OUTER"),
    step("SHIP"),
)
PARTS = [{"parts": ["a", "b"]}, {"parts": []}, {"parts": ["c"]}]
ASK = {"id": "ASK", "input": "Ship?", "approve": {"show": [], "count": 2, "expires": "1h"}}
DIAMOND = (
    step("A", outputs=["N"]),
    step("B", needs=["A"], outputs=["V"]),
    step("C", needs=["A"], retries={"max": 1}),
    step("D", needs=["B", "C"], when="V == 'go'"),
    step("E", needs=["D"]),
    step("F", needs=["B", "D"], when="steps.D.status == 'skipped'"),
)
ITEMS = (
    step("LIST", outputs=["L"]),
    step("EACH", needs=["LIST"], foreach={"over": "L", "parallel": 2}, outputs=["R"], retries={"max": 1}),
    step("SIDE", needs=["LIST"]),
    step("JOIN", needs=["EACH", "SIDE"], when="R | length > 1"),
)
MATRIX = (
    step("ONE", matrix={"a": [1, 2], "b": ["x", "y"]}, parallel=3, continueOnError=True, outputs=["R"]),
    step("JOIN", needs=["ONE"]),
)
FIVE = ["a", "b", "c", "d", "e"]

TABLE: dict[str, tuple[tuple[dict[str, JSON], ...], Says]] = {
    "a line": ((step("A"), step("B"), step("C")), {}),
    "a line that is tried again": ((step("A", **TWICE), step("B")), {"A": [bad(), bad("timeout"), ok()]}),
    "a line that fails": ((step("A", **TWICE), step("B")), {"A": [bad()]}),
    "a container that is lost": ((step("A"), step("B")), {"A": [bad("lost"), bad("lost"), ok()]}),
    "a container that is lost for good": ((step("A"),), {"A": [bad("lost")]}),
    "a template that cannot be filled in": (
        (step("A", outputs=["V"]), step("B", "{% for a, b in V %}{% endfor %}"), step("C")),
        {"A": [ok(V=[1])]},
    ),
    "a way back": (
        (step("A", onComplete="B"), step("B", outputs=["V"], onResult={"no": {"goto": "A"}}, onComplete="C"),
         step("C")),
        {"B": [ok(V="no"), ok(V=" NO "), ok(V="yes")]},
    ),
    "a result that no key names": (
        (step("A", outputs=["V"], onResult={"yes": {"goto": "B"}}, **TWICE), step("B")),
        {"A": [ok(V="yes, with nits"), ok(V="nearly"), ok(V="YES")]},
    ),
    "a result that no key ever names": (
        (step("A", outputs=["V"], onResult={"yes": {"goto": "B"}}), step("B")), {"A": [ok(V="no")]},
    ),
    "what follows any other result": (
        (step("A", outputs=["V"], onResult={"yes": {}}, **{"else": {"goto": "B"}}), step("B")), {"A": [ok(V="no")]},
    ),
    "a result that has nothing to say": (
        (step("A", outputs=["V"], onResult={"yes": {}, "no": {"goto": "B"}}), step("B")), {"A": [ok(V="yes")]},
    ),
    "a used pipeline whose result no key names": (
        ({"id": "USE", "uses": "inner", "with": {"x": "1"}, "outputs": ["R"], "onResult": {"yes": {}}},),
        {"USE": [ok(R="no")]},
    ),
    "a loop that is left at its first item": (
        (
            *LOOP[:2],
            step("TEST", outputs=["V"], onResult={"PASS": {"continueLoop": True}, "STOP": {"break": True}}),
            LOOP[3],
        ),
        {"PLAN": [ok(TASKS=["a", "b", "c"])], "TEST": [ok(V="STOP")]},
    ),
    "a loop that is left for another step": (
        (
            *LOOP[:2],
            step("TEST", outputs=["V"], onResult={
                "PASS": {"continueLoop": True},
                "STOP": {"break": True, "goto": "HELP", "notify": {"agent": "engineer", "message": "See {{ V }}."}},
            }),
            LOOP[3],
            step("HELP"),
        ),
        {"PLAN": [ok(TASKS=["a", "b", "c"])], "TEST": [ok(V="PASS"), ok(V="STOP")]},
    ),
    "a way back that is taken too often": (
        (step("A", onComplete="B", maxVisits=2), step("B", outputs=["V"], onResult={"no": {"goto": "A"}})),
        {"B": [ok(V="no")]},
    ),
    "a loop": (LOOP, {"PLAN": [ok(TASKS=["a", "b"])], "TEST": [ok(V="PASS")]}),
    "a loop with everything": (
        LOOP,
        {
            "PLAN": [ok(TASKS='["a", "b", "c"]')],
            "TEST": [ok(V="FLAKY"), ok(V="PASS"), bad(), ok(V="FAIL"), ok(V="none of them"), ok(V="PASS")],
        },
    ),
    "a loop whose result asks too often": (LOOP, {"PLAN": [ok(TASKS=["a"])], "TEST": [ok(V="FLAKY")]}),
    "a loop that fails": (LOOP, {"PLAN": [ok(TASKS=["a", "b"])], "TEST": [ok(V="PASS"), bad()]}),
    "a loop over nothing": (LOOP, {"PLAN": [ok(TASKS=[])]}),
    "a loop over what is no list": (LOOP, {"PLAN": [ok(TASKS={"a": 1})]}),
    "a loop in a loop": (NESTED, {"PLAN": [ok(TASKS=PARTS)], "CHECK": [ok(V="again"), ok(V="ok")]}),
    "a notice that cannot be filled in": (
        (
            step("A", outputs=["V"], onResult={
                "x": {"goto": "B", "notify": {"agent": "engineer", "message": "{% for a, b in [1] %}{% endfor %}"}},
            }),
            step("B"),
        ),
        {"A": [ok(V="x")]},
    ),
    "an approval": (
        (step("A", onComplete="ASK"), {**ASK, "onComplete": "B"}, step("B")), {"ASK": [Answer("approved")]},
    ),
    "a rejection": (
        (step("A", onComplete="ASK"), {**ASK, "onComplete": "B"}, step("B")), {"ASK": [Answer("rejected")]},
    ),
    "a rejection with a way": (
        (step("A", onComplete="ASK"), {**ASK, "onResult": {"Rejected": {"goto": "A"}}, "onComplete": "B"}, step("B")),
        {"ASK": [Answer("rejected"), Answer("approved")]},
    ),
    "a question that expires": ((step("A", onComplete="ASK"), ASK), {"ASK": [Answer("expired")]}),
    "a diamond": (DIAMOND, {"B": [ok(50, V="go")], "C": [bad(seconds=20), ok(20)]}),
    "a diamond whose condition is not true": (DIAMOND, {"B": [ok(10, V="stop")], "C": [ok(99)]}),
    "a diamond that breaks": (DIAMOND, {"B": [ok(90, V="go")], "C": [bad(seconds=20)]}),
    "a condition that cannot be told": ((step("A", outputs=["V"]), step("B", needs=["A"], when="V > 1")), {}),
    "items": (ITEMS, {"LIST": [ok(L=FIVE)], "EACH[0]": [ok(90, R=1)], "EACH[1]": [bad(seconds=10), ok(10, R=2)]}),
    "items of which one fails": (
        ITEMS,
        {"LIST": [ok(L=FIVE)], "EACH[0]": [ok(200)], "EACH[2]": [bad(seconds=5)], "EACH": [ok(30, R="x")]},
    ),
    "no items": (ITEMS, {"LIST": [ok(L=[])], "SIDE": [ok(5)]}),
    "items of what is no list": (ITEMS, {"LIST": [ok(L="{}")]}),
    "a matrix with failures": (MATRIX, {"ONE[1]": [bad(seconds=10)], "ONE[3]": [bad(seconds=1)], "ONE": [ok(40, R=1)]}),
    "an approval beside work": (
        (step("A", needs=[]), {**ASK, "needs": ["A"]}, step("B", needs=["A"]), step("C", needs=["ASK", "B"])),
        {"ASK": [Answer("approved", seconds=500)], "B": [ok(5)]},
    ),
    "work before an approval": (
        (step("B", when="true"), {**ASK, "when": "true"}, step("C", needs=["B", "ASK"])),
        {"ASK": [Answer("approved", seconds=500)]},
    ),
    "two approvals at once": (
        ({**ASK, "when": "true"}, {**ASK, "id": "TOO", "approve": True, "when": "true"},
         step("C", needs=["ASK", "TOO"])),
        {"ASK": [Answer("approved", seconds=50)], "TOO": [Answer("approved", seconds=90)]},
    ),
    "a rejection that is tolerated": (
        ({**ASK, "continueOnError": True}, step("B", needs=["ASK"]), step("C", when="true")),
        {"ASK": [Answer("rejected", seconds=5)]},
    ),
    "a rejection that a graph goes on from": (
        (
            {**ASK, "continueOnError": True},
            step("SHIP", needs=["ASK"], when="steps.ASK.outputs.DECISION == 'approved'"),
            step("MEND", needs=["ASK"], when="steps.ASK.outputs.DECISION == 'rejected'"),
        ),
        {"ASK": [Answer("rejected", seconds=5)]},
    ),
    "a failure whose outputs are looked at": (
        (
            step("A", outputs=["CODE"], continueOnError=True),
            step("B", "echo {{ CODE | quote }}", needs=["A"], when="steps.A.outputs.CODE == '3'"),
        ),
        {"A": [Answer("failed", "error", outputs={"CODE": "3"})]},
    ),
    "a used pipeline": (
        (step("A", outputs=["V"], onComplete="USE"),
         {"id": "USE", "uses": "inner", "with": {"x": "{{ V }}"}, "outputs": ["R"], "onComplete": "B"}, step("B")),
        {"USE": [ok(R="r", OTHER="not taken over")]},
    ),
    "a used pipeline that fails": (({"id": "USE", "uses": "inner", "with": {"x": "1"}},), {"USE": [bad("child")]}),
    "a used pipeline beside work": (
        ({"id": "USE", "uses": "inner", "with": {"x": "1"}}, step("B", when="true"), step("C", needs=["USE", "B"])),
        {"USE": [ok(5, R="r")]},
    ),
}  # fmt: skip


@pytest.mark.parametrize(("steps", "says"), TABLE.values(), ids=TABLE.keys())
def test_the_simulator_and_the_engine_tell_the_same_story(steps: tuple[dict[str, JSON], ...], says: Says) -> None:
    write_pipeline(step("IN", outputs=["R"]), name="inner", inputs={"x": "string"})
    write_pipeline(*steps)
    known = catalogue()
    simulated = play(known["work"], Script(says), known=known)
    driver = Engine(start_run(pipeline_id="work", inputs={}), Script(says))
    run = driver.work()
    real = history_of(run)
    assert story(told(run)) == story([(event.type, dict(event.data)) for event in simulated.events])
    assert step_rows(real) == step_rows(simulated.history)
    assert (run.status, run.reason) == (simulated.finish.status, simulated.finish.reason)
    assert outputs_of(known["work"], real) == simulated.outputs
    assert driver.now == simulated.seconds
