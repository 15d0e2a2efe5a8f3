"""What holds for every pipeline of either family, whatever its steps come to, in whichever order they end."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from djinn.pipelines.flow import (
    Blocked,
    Blocker,
    Decision,
    Finish,
    Past,
    Refuse,
    Skip,
    Start,
    Status,
    next_steps,
)
from djinn.pipelines.schema import (
    JSON,
    Approve,
    Loop,
    Notify,
    Pipeline,
    Retries,
    Route,
    Step,
    WorkspaceSource,
    from_snapshot,
    to_snapshot,
)

IDS = "ABCDEF"
INPUTS: dict[str, JSON] = {"NONE": [], "TWO": ["x", "y"], "FOUR": [[1], [], [2, 3], 4], "WORD": "yes"}
MOST_STEP_RUNS = 3000
REASONS = ("error", "timeout", "lost", "rejected", "conflict")
KEYS = ("yes", "no", "go")
VALUES: tuple[JSON, ...] = ("yes", "no", "go", 3, True, None, [], ["a"], ["a", ["b", "c"]], '["p", "q"]')
CONDITIONS = (
    "V == 'yes'", "WORD == 'yes'", "V|length > 1", "V > 2", "not V", "steps.A.status == 'failed'",
    "steps.B.outputs.V == 'yes'", "steps.C.status in ['skipped', 'succeeded']",
)  # fmt: skip

retries = st.builds(Retries, max=st.integers(0, 2), backoff_seconds=st.sampled_from((0.0, 10.0)))


def pipeline_of(steps: list[Step]) -> Pipeline:
    return Pipeline("p", "p", "", "", (), WorkspaceSource(), tuple(steps))


@st.composite
def graphs(draw: st.DrawFn) -> Pipeline:
    """Needs in any form without circles, conditions, items, tolerated failures, questions."""
    ids = IDS[: draw(st.integers(1, len(IDS)))]
    steps = [draw(graph_steps(ids[:number], name)) for number, name in enumerate(ids)]
    steps[0] = replace(steps[0], when=steps[0].when or "true")
    return pipeline_of(draw(st.permutations(steps)))


@st.composite
def graph_steps(draw: st.DrawFn, before: str, name: str) -> Step:
    needs = tuple(draw(st.lists(st.sampled_from(before), unique=True, max_size=3))) if before else ()
    is_question = draw(st.integers(0, 5)) == 0
    kind = "approve" if is_question else "run"
    step = Step(name, kind, run="x", outputs=("V",), needs=needs, retries=draw(retries))  # type: ignore[arg-type]
    if is_question:
        return replace(step, approve=Approve(), continue_on_error=draw(st.booleans()))
    form = draw(st.sampled_from(("plain", "plain", "over", "matrix")))
    lists = ("NONE", "TWO", "FOUR", "V", "inputs.TWO", f"steps.{before[-1:] or 'A'}.outputs.V")
    return replace(
        step,
        when=draw(st.sampled_from(("", "", *CONDITIONS))),
        over=draw(st.sampled_from(lists)) if form == "over" else "",
        matrix={"n": (1, 2), "m": ("a", "b")} if form == "matrix" else {},
        parallel=draw(st.integers(1, 3)),
        continue_on_error=draw(st.booleans()),
    )


@st.composite
def routed(draw: st.DrawFn) -> Pipeline:
    """Any routes, loops in loops, results that ask for another try, notices, questions."""
    ids = IDS[: draw(st.integers(1, len(IDS)))]
    return pipeline_of([draw(routed_steps(ids, name)) for name in ids])


@st.composite
def routed_steps(draw: st.DrawFn, ids: str, name: str) -> Step:
    targets = st.sampled_from(ids)
    step = Step(name, "run", run="x", outputs=("V",), retries=draw(retries), max_visits=draw(st.integers(1, 3)))
    step = replace(step, on_complete=draw(st.none() | targets))
    if draw(st.integers(0, 3)) == 0:
        over = draw(st.sampled_from(("TWO", "FOUR", "V", "current_item", "NONE")))
        return replace(step, loop=Loop(over, draw(st.none() | targets), draw(st.none() | targets)))
    if draw(st.integers(0, 5)) == 0:
        step = replace(step, kind="approve", approve=Approve())
    routes = st.one_of(
        st.builds(Route, goto=targets),
        st.builds(Route, retry=st.just(True), max_retries=st.integers(1, 2)),
        st.builds(Route, continue_loop=st.just(True)),
        st.builds(Route, notify=st.just(Notify("a", "{{ V }}")), goto=st.none() | targets),
    )
    return replace(step, on_result=draw(st.dictionaries(st.sampled_from(KEYS), routes, max_size=3)))


pipelines = graphs() | routed()


class Run:
    """A run in which somebody else chooses which of what is open ends next, and how."""

    def __init__(self, pipeline: Pipeline, data: st.DataObject) -> None:
        self.pipeline, self.data = pipeline, data
        self.history: list[Past] = []
        self.finish: Finish | None = None
        self.started: list[tuple[int, Start]] = []

    def moments(self) -> Iterator[tuple[Decision, ...]]:
        """What the flow decides at each moment, before it is applied."""
        while self.finish is None:
            decisions = self.decide()
            yield decisions
            for decision in decisions:
                self.apply(decision)
            assert len(self.history) <= MOST_STEP_RUNS, [(p.step, p.item) for p in self.history[-20:]]
            if self.finish is None and not any(isinstance(one, (Skip, Refuse)) for one in decisions):
                self.end_one()

    def decide(self, **flags: bool) -> tuple[Decision, ...]:
        return next_steps(self.pipeline, self.history, inputs=INPUTS, **flags)

    def apply(self, decision: Decision) -> None:
        if isinstance(decision, Start):
            self.started.append((len(self.history), decision))
            status = self.data.draw(st.sampled_from((Status.QUEUED, Status.RUNNING, Status.WAITING)))
            self.history.append(
                Past(decision.step, decision.visit, decision.attempt, status, item=decision.item,
                     item_value=decision.item_value, bases=decision.bases)
            )  # fmt: skip
        elif isinstance(decision, Skip):
            value = decision.item_value
            self.history.append(
                Past(decision.step, decision.visit, 1, Status.SKIPPED, item=decision.item, item_value=value,
                     bases=decision.bases)
            )  # fmt: skip
        elif isinstance(decision, Refuse):
            self.history.append(
                Past(decision.step, decision.visit, decision.attempt, Status.FAILED, decision.reason,
                     item=decision.item, bases=decision.bases)
            )  # fmt: skip
        elif isinstance(decision, Finish):
            self.finish = decision

    def open_rows(self) -> list[int]:
        return [number for number, past in enumerate(self.history) if not past.status.is_final]

    def end_one(self) -> None:
        rows = self.open_rows()
        assert rows, "nothing is open, nothing starts, and the run does not end"
        number = self.data.draw(st.sampled_from(rows))
        kind = self.data.draw(st.integers(0, 19))
        if kind < 14:
            ended = {"status": Status.SUCCEEDED, "outputs": {"V": self.data.draw(st.sampled_from(VALUES))}}
        elif kind < 19:
            ended = {"status": Status.FAILED, "reason": self.data.draw(st.sampled_from(REASONS))}
        else:
            ended = {"status": Status.CANCELLED, "reason": "cancelled"}
        self.history[number] = replace(self.history[number], **ended)  # type: ignore[arg-type]


def many(examples: int) -> settings:
    return settings(deadline=None, max_examples=examples, suppress_health_check=[HealthCheck.too_slow])


@many(200)
@given(pipelines, st.data())
def test_every_run_ends(pipeline: Pipeline, data: st.DataObject) -> None:
    run = Run(pipeline, data)
    for _ in run.moments():
        pass
    assert run.open_rows() == []


@many(200)
@given(graphs(), st.data())
def test_no_step_starts_before_what_it_needs_has_ended(pipeline: Pipeline, data: st.DataObject) -> None:
    run = Run(pipeline, data)
    for decisions in run.moments():
        passed = {one.step for one in decisions if isinstance(one, Skip)}
        again = {one.step for one in decisions if isinstance(one, Start) and one.attempt > 1}
        begun = {past.step for past in run.history}
        still_open = {run.history[number].step for number in run.open_rows()}
        for start in (one for one in decisions if isinstance(one, (Start, Skip)) and one.step not in begun):
            for need in pipeline.step(start.step).needs:
                assert need in begun | passed, (start, need)
                assert need not in still_open | again, (start, need)


@many(150)
@given(pipelines, st.data())
def test_nothing_starts_after_a_cancel_or_while_paused(pipeline: Pipeline, data: st.DataObject) -> None:
    run = Run(pipeline, data)
    for decisions in run.moments():
        cancelled, paused = run.decide(cancelled=True), run.decide(paused=True)
        assert not any(isinstance(one, (Start, Skip, Refuse)) for one in (*cancelled, *paused))
        assert any(isinstance(one, Finish) for one in cancelled) == (not run.open_rows())
        assert any(isinstance(one, Finish) for one in paused) == any(isinstance(one, Finish) for one in decisions)


@many(150)
@given(pipelines, st.data())
def test_no_try_is_started_twice(pipeline: Pipeline, data: st.DataObject) -> None:
    run = Run(pipeline, data)
    for _ in run.moments():
        tries = [(past.step, past.item, past.visit, past.attempt) for past in run.history]
        assert len(set(tries)) == len(tries)


@many(150)
@given(pipelines, st.data())
def test_a_step_begins_with_files_of_step_runs_that_succeeded_before(pipeline: Pipeline, data: st.DataObject) -> None:
    run = Run(pipeline, data)
    for decisions in run.moments():
        for one in decisions:
            for base in one.bases if isinstance(one, (Start, Skip, Refuse)) else ():
                assert 1 <= base <= len(run.history)
                assert run.history[base - 1].status is Status.SUCCEEDED


@many(150)
@given(graphs(), st.data())
def test_no_more_items_run_at_once_than_may(pipeline: Pipeline, data: st.DataObject) -> None:
    run = Run(pipeline, data)
    for decisions in run.moments():
        for step in pipeline.steps:
            rows = [run.history[number].item for number in run.open_rows() if run.history[number].step == step.id]
            starts = [one.item for one in decisions if isinstance(one, Start) and one.step == step.id]
            assert len(rows) + len(starts) <= (step.parallel if step.has_items else 1)


@many(150)
@given(routed(), st.data())
def test_one_token_walks(pipeline: Pipeline, data: st.DataObject) -> None:
    run = Run(pipeline, data)
    for decisions in run.moments():
        starts = [one for one in decisions if isinstance(one, (Start, Skip, Refuse))]
        assert len(starts) + len(run.open_rows()) <= 1


@many(150)
@given(pipelines, st.data())
def test_the_same_history_gives_the_same_decision(pipeline: Pipeline, data: st.DataObject) -> None:
    again = from_snapshot(to_snapshot(pipeline))
    run = Run(pipeline, data)
    for decisions in run.moments():
        assert next_steps(again, tuple(run.history), inputs=dict(INPUTS)) == decisions


# --- What blocks ------------------------------------------------------------------------------------------------------
def lifted(run: Run, pipeline: Pipeline, blockers: tuple[Blocker, ...]) -> tuple[Decision, ...]:
    """What is decided when just these blockers are gone."""
    history, paused = list(run.history), not any(one.kind == "pause" for one in blockers)
    for one in blockers:
        if one.kind == "step":
            history = succeeded(pipeline, history, one.step)
        elif one.kind == "parallel":
            free = [replace(step, parallel=1000) if step.id == one.step else step for step in pipeline.steps]
            pipeline = replace(pipeline, steps=tuple(free))
    return next_steps(pipeline, history, inputs=INPUTS, paused=paused)


def succeeded(pipeline: Pipeline, history: list[Past], name: str) -> list[Past]:
    """The history in which everything of the step has succeeded."""
    latest = {past.item: number for number, past in enumerate(history) if past.step == name}
    for number in latest.values():
        history[number] = replace(history[number], status=Status.SUCCEEDED, reason="")
    if not latest and not pipeline.step(name).has_items:
        return [*history, Past(name, 1, 1, Status.SUCCEEDED)]
    if not latest:
        return [*history, Past(name, 1, 1, Status.SKIPPED, item_value=[])]
    while rest := [one for one in next_steps(pipeline, history, inputs=INPUTS)
                   if isinstance(one, Start) and one.step == name]:  # fmt: skip
        history = [*history, *(Past(name, 1, 1, Status.SUCCEEDED, item=one.item) for one in rest)]
    return history


def is_held(decisions: tuple[Decision, ...], blocked: Blocked) -> bool:
    """Whether the step, or the item, is neither started nor decided on."""
    moved = [one for one in decisions if isinstance(one, (Start, Skip, Refuse)) and one.step == blocked.step]
    return not any(blocked.item in ("", one.item) for one in moved)


@many(200)
@given(graphs(), st.booleans(), st.data())
def test_exactly_the_blockers_have_to_go(pipeline: Pipeline, is_paused: bool, data: st.DataObject) -> None:
    """A blocker that is left counts as gone when the flow passes it by in the same breath."""
    run = Run(pipeline, data)
    for _ in run.moments():
        for blocked in run.decide(paused=is_paused):
            if not isinstance(blocked, Blocked) or not blocked.blockers:
                continue
            gone = blocked.blockers if is_paused else (*blocked.blockers, Blocker("pause", ""))
            assert not is_held(lifted(run, pipeline, gone), blocked), blocked
            for left in blocked.blockers:
                decisions = lifted(run, pipeline, tuple(one for one in gone if one is not left))
                is_passed_by = any(isinstance(one, Skip) and one.step == left.step for one in decisions)
                assert is_passed_by or is_held(decisions, blocked), (blocked, left)


@many(150)
@given(graphs(), st.data())
def test_whatever_has_not_begun_is_blocked_or_decided_on(pipeline: Pipeline, data: st.DataObject) -> None:
    run = Run(pipeline, data)
    for decisions in run.moments():
        begun = {past.step for past in run.history}
        named = {one.step for one in decisions if isinstance(one, (Start, Skip, Refuse, Blocked))}
        assert {step.id for step in pipeline.steps} <= begun | named
