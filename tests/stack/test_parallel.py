"""Parallel steps in real containers: each in a tree of its own, merged at the join, with artifacts and lanes."""

from __future__ import annotations

import hashlib

import pytest

from tests.stack.live import Live

pytestmark = [pytest.mark.docker, pytest.mark.xdist_group("stack-parallel")]

FAN = """
defaults: {retries: {max: 0}, timeout: 2m}
steps:
  - id: MAKE
    run: |
      printf 'one\\ntwo\\nthree\\n' > common.txt
      printf '["a", "b", "c"]' > list.json
      echo "ITEMS=$(cat list.json)" >> "$DJINN_OUTPUT"
    outputs: [ITEMS]
  - id: WRITE
    needs: [MAKE]
    foreach: {over: ITEMS, parallel: 3}
    run: |
      ls > seen.{{ current_item }}
      echo "{{ current_item }}" > "{{ current_item }}.txt"
      echo "N={{ current_item }}" >> "$DJINN_OUTPUT"
    outputs: [N]
  - id: SIDE
    needs: [MAKE]
    run: sed -i 's/three/THREE/' common.txt
  - id: JOIN
    needs: [WRITE, SIDE]
    run: |
      cat a.txt b.txt c.txt common.txt | tee all.txt
      mkdir -p dist && cp all.txt dist/all.txt && ln -s /etc/passwd dist/link
    artifacts: ["dist/*"]
"""
CLASH = """
defaults: {retries: {max: 0}, timeout: 2m}
steps:
  - {id: MAKE, run: "echo base > f.txt; echo base > g.txt"}
  - {id: LEFT, needs: [MAKE], run: "echo left > f.txt; echo left > own-left.txt"}
  - {id: RIGHT, needs: [MAKE], run: "echo right > f.txt; echo right > own-right.txt"}
  - {id: JOIN, needs: [LEFT, RIGHT], run: "true"}
"""


@pytest.fixture
def live(live: Live) -> Live:
    live.add_pipeline("fan", FAN)
    live.add_pipeline("clash", CLASH)
    return live


def test_parallel_steps_have_trees_of_their_own_and_meet_at_the_join(live: Live) -> None:
    run = live.start("fan")
    assert live.await_end(run)["status"] == "succeeded", live.steps(run)
    join = live.steps(run)[-1]
    text = "".join(event["data"]["text"] for event in live.events(run, "output") if event["data"]["step"] == "JOIN")
    assert text == "a\nb\nc\none\ntwo\nTHREE\n"
    assert "+a" in join["run_diff"]
    lanes = {row["lane"] for row in live.rows("SELECT lane FROM runs_steprun WHERE run_id = %s", run)}
    assert lanes == {"MAKE", "WRITE.0", "WRITE.1", "WRITE.2", "SIDE", "JOIN"}
    for item, event in zip("abc", live.events(run, "step_finished")[1:], strict=False):
        assert event["data"]["status"] == "succeeded", item


def test_files_that_a_step_leaves_are_kept_by_their_content_and_links_are_not(live: Live) -> None:
    run = live.start("fan")
    live.await_end(run)
    kept = live.rows(
        "SELECT a.path, a.size, a.digest FROM executions_artifact a"
        " JOIN runs_steprun s ON s.execution_id = a.execution_id WHERE s.run_id = %s",
        run,
    )
    content = b"a\nb\nc\none\ntwo\nTHREE\n"
    digest = hashlib.sha256(content).hexdigest()
    assert [(row["path"], row["size"], row["digest"]) for row in kept] == [("dist/all.txt", len(content), digest)]
    assert (live.installation.artifacts / digest).read_bytes() == content


def test_a_true_conflict_fails_the_join_and_names_the_files(live: Live) -> None:
    run = live.start("clash")
    ended = live.await_end(run)
    assert (ended["status"], ended["reason"]) == ("failed", "conflict")
    join = live.steps(run)[-1]
    assert (join["step"], join["reason"]) == ("JOIN", "conflict")
    assert "f.txt" in join["message"]
    assert "own-" not in join["message"]
