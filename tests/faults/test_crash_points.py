"""Every named crash point, struck at least twice on a real stack: everything ends as it should, nothing is violated.

Two stacks: one of plain processes for what a worker does, where much can be struck in a short time, and one of real
containers for what is done to containers.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest

from djinn.core.faults import POINTS
from tests.faults.campaign import Campaign, Rules, variable
from tests.faults.harness import fanning, linear, revisiting, talking, using, watched
from tests.stack.live import wait_for

pytestmark = [pytest.mark.xdist_group("faults"), pytest.mark.timeout(600)]

CAMPAIGN_SECONDS = 400.0
"""At most. It is over when every rule has fired, which takes two minutes on two idle cores."""
EARLY = ("kill9@1", "raise@4")
SELDOM = ("kill9@1", "raise@2")
LATER = ("kill9@5", "raise@9")
LONGER = ("kill9@1", "raise@4", "stop:3@7")
"""Stopped for longer than its lease runs: what the process does then is done by somebody who was given up."""

WORKERS: Rules = {
    "start_run.before_commit": EARLY,
    "start_run.after_commit": EARLY,
    "cancel.before_commit": SELDOM,
    "cancel.after_commit": SELDOM,
    "turn.before_events": LATER,
    "turn.before_commit": LATER,
    "advance.after_commit": EARLY,
    "step.created": EARLY,
    "step.prepared": EARLY,
    "step.rung": EARLY,
    "prepare.before_commit": EARLY,
    "running.before_commit": EARLY,
    "settle.before_commit": EARLY,
    "settle.after_commit": EARLY,
    "crash.before_commit": EARLY,
    "claim.before": EARLY,
    "claim.after": LONGER,
    "workspace.made": EARLY,
    "brief.written": LONGER,
    "launch.written": LONGER,
    "container.started": EARLY,
    "relay.before_first_batch": EARLY,
    "relay.offset_written": EARLY,
    "relay.before_commit": LONGER,
    "relay.after_commit": EARLY,
    "relay.outcome_shipped": EARLY,
    "conclude.before_snapshot": EARLY,
    "conclude.after_snapshot": LONGER,
    "conclude.before_commit": EARLY,
    "conclude.after_commit": EARLY,
    "stop.before": SELDOM,
    "stop.after": SELDOM,
    "stop.requested": SELDOM,
    "sweep.before_ring": LATER,
    "sweep.before_send": LATER,
    "hint.before_publish": LATER,
    "sse.before_flush": LATER,
    "gateway.before_open_call": EARLY,
    "gateway.after_open_call": EARLY,
    "gateway.before_close_call": EARLY,
}
CONTAINERS: Rules = {
    "container.before_create": EARLY,
    "container.created": EARLY,
    "collect.before_remove": EARLY,
    "collect.after_remove": EARLY,
    "give_up.before": SELDOM,
    "give_up.after": SELDOM,
    "unwanted.before_stop": SELDOM,
}
LOST_HOST = {"DJINN_HOST_LOST_SECONDS": "4", "DJINN_KEEP_CONTAINER_SECONDS": "3"}


@pytest.fixture(scope="module")
def struck() -> Iterator[Campaign]:
    """Workers, control, web and gateway, struck at each of their points while runs of five kinds are under way."""
    with watched(faults=variable(WORKERS)) as live:
        talk, script = talking()
        live.add_pipeline("line", linear())
        live.add_pipeline("loop", revisiting())
        live.add_pipeline("long", linear(2, things=100, seconds=0.2))
        live.add_pipeline("talk", talk)
        live.add_pipeline("fan", fanning())
        live.add_pipeline("use", using("line"))
        (live.pipelines / "scripts" / "talk.yaml").write_text(script)
        live.call("GET", "runs/")
        campaign = Campaign(live, WORKERS)
        campaign.wage(["long", "fan", "use", "talk", "loop"], seconds=CAMPAIGN_SECONDS, between=cancel_what_is_long)
        cancel_all(campaign, "long")
        campaign.rest()
        yield campaign


def cancel_all(campaign: Campaign, pipeline: str) -> None:
    for run in campaign.of(pipeline):
        campaign.live.cancel(run)


def cancel_what_is_long(campaign: Campaign) -> None:
    """Cancel each run of `long` once its container is at work."""
    for run in set(campaign.of("long")) & set(campaign.open_runs()):
        if campaign.live.events(run, "output") and not campaign.live.run_row(run)["cancel_requested_at"]:
            campaign.live.cancel(run)


@pytest.fixture(scope="module")
def contained(image: str) -> Iterator[Campaign]:
    """Containers that are made, given up with their host, stopped as orphans and removed, struck at each of these."""
    with watched(image=image, runner="docker", faults=variable(CONTAINERS), environment=LOST_HOST) as live:
        live.add_pipeline("line", linear(2, things=2))
        live.add_pipeline("slow", linear(1, things=1000, seconds=0.2))
        live.call("GET", "runs/")
        campaign = Campaign(live, CONTAINERS)
        campaign.wage([*["slow"] * 3, *["line"] * 50], seconds=CAMPAIGN_SECONDS, between=lose_the_host)
        cancel_all(campaign, "slow")
        campaign.rest()
        yield campaign


def lose_the_host(campaign: Campaign) -> None:
    """Stop the agents worker, with containers at work, until the control worker has given up on its host."""
    live = campaign.live
    at_work = live.rows("SELECT 1 FROM executions_execution WHERE status = 'running'")
    if len(at_work) < 3 or not any(rule.startswith("give_up") for rule in campaign.unfired()):
        return
    lost = "SELECT count(*) AS count FROM executions_execution WHERE status = 'lost'"
    before = live.rows(lost)[0]["count"]
    pid = live.kill("agents", signal.SIGSTOP)
    try:
        wait_for(lambda: live.rows(lost)[0]["count"] > before, seconds=120, why="an execution that is given up")
    finally:
        live.wake(pid)


def test_every_point_there_is_is_struck_by_one_of_the_campaigns() -> None:
    assert {*WORKERS, *CONTAINERS} == POINTS


def test_every_point_of_the_processes_is_struck_as_planned(struck: Campaign) -> None:
    assert struck.unfired() == []
    assert all(len(struck.live.hits()[name]) >= 2 for name in WORKERS)


def test_struck_runs_end_as_undisturbed_ones_do(struck: Campaign) -> None:
    ends = struck.ends()
    assert ends.pop("long") == {"cancelled"}
    assert ends == {name: {"succeeded"} for name in ("fan", "use", "talk", "loop")}


def test_a_stack_whose_processes_were_struck_breaks_no_invariant(struck: Campaign) -> None:
    assert [str(violation) for violation in struck.violations] == []


def test_each_wish_became_one_run_however_often_the_web_process_died(struck: Campaign) -> None:
    rows = struck.live.rows("SELECT idempotency_key FROM runs_run WHERE parent_id IS NULL")
    wishes = [f"intent {number}" for number in range(1, struck.live.intents + 1)]
    assert sorted(row["idempotency_key"] for row in rows) == sorted(wishes)


def test_who_follows_a_log_through_deaths_of_the_web_process_sees_each_event_once(struck: Campaign) -> None:
    for run, follower in struck.followers.items():
        assert follower.seqs == [event["seq"] for event in struck.live.events(run)]


def test_every_point_of_the_containers_is_struck_as_planned(contained: Campaign) -> None:
    assert contained.unfired() == []
    assert all(len(contained.live.hits()[name]) >= 2 for name in CONTAINERS)


def test_runs_whose_containers_were_struck_end_as_undisturbed_ones_do(contained: Campaign) -> None:
    assert contained.ends() == {"line": {"succeeded"}, "slow": {"cancelled"}}


def test_a_stack_whose_containers_were_struck_breaks_no_invariant(contained: Campaign) -> None:
    assert [str(violation) for violation in contained.violations] == []
