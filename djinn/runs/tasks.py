"""Doors from the broker to the services: each takes a primary key, may come twice, late or never, and asks the row."""

from __future__ import annotations

from djinn.celery import app
from djinn.runs import engine


@app.task(name="runs.advance_run")
def advance_run(run_id: int) -> None:
    engine.advance_run(run_id)


@app.task(name="runs.prepare_step")
def prepare_step(step_run_id: int) -> None:
    engine.prepare_step(step_run_id)


@app.task(name="runs.execute_step")
def execute_step(step_run_id: int) -> None:
    engine.execute_step(step_run_id)


@app.task(name="runs.settle_step")
def settle_step(step_run_id: int) -> None:
    engine.settle_step(step_run_id)


@app.task(name="runs.fail_step")
def fail_step(step_run_id: int) -> None:
    engine.note_crash(step_run_id)
