"""What must fit together in a pipeline: ids, routes, agents, results, names. Reports; changes nothing."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from djinn.pipelines.checks.context import Checking
from djinn.pipelines.checks.families import check_family
from djinn.pipelines.checks.graph import check_graph
from djinn.pipelines.checks.kinds import check_kinds
from djinn.pipelines.checks.names import check_names
from djinn.pipelines.checks.results import warn_of_results
from djinn.pipelines.checks.routed import check_routed, warn_of_unreached
from djinn.pipelines.checks.steps import check_agents, check_ids, check_references
from djinn.pipelines.document import Table
from djinn.pipelines.reading.steps import StepSource
from djinn.pipelines.report import Report
from djinn.pipelines.schema import Pipeline


def check_pipeline(
    pipeline: Pipeline,
    document: Table,
    sources: Sequence[StepSource],
    known_agents: Collection[str] | None,
    report: Report,
) -> None:
    """Reports everything that does not fit together."""
    checking = Checking(pipeline, document, sources, report)
    check_ids(checking)
    check_family(checking)
    check_references(checking)
    check_agents(checking, known_agents)
    check_kinds(checking)
    check_routed(checking)
    warn_of_results(checking)
    check_graph(checking)
    check_names(checking)
    warn_of_unreached(checking)
