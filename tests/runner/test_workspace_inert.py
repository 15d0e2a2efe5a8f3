"""Nothing that an agent writes into its tree runs on the host: each trap here would leave a canary file behind."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from djinn.runner.git import WorkspaceError
from djinn.runner.source import Source
from djinn.runner.workspace import Workspace

Trap = Callable[[Path, str], None]


def git(directory: Path, *arguments: str) -> None:
    """As the agent would call it in its container."""
    command = ["git", "-c", "safe.directory=*", "-c", "user.name=a", "-c", "user.email=a@a", *arguments]
    subprocess.run(command, cwd=directory, check=True, capture_output=True, timeout=60)


def every_setting(repository: Path, bait: str) -> None:
    settings = [
        "core.fsmonitor", "core.sshCommand", "core.editor", "core.pager", "core.askPass", "core.gitProxy",
        "gpg.program",
        "diff.external", "diff.trap.command", "diff.trap.textconv", "filter.trap.clean", "filter.trap.smudge",
        "filter.trap.process", "merge.trap.driver", "uploadpack.packObjectsHook", "credential.helper", "alias.ls-files",
        "submodule.inner.update", "core.alternateRefsCommand",
    ]  # fmt: skip
    with (repository / ".git" / "config").open("a") as file:
        for setting in settings:
            section, _, name = setting.partition(".")
            part, _, last = name.rpartition(".")
            head = f'[{section} "{part}"]' if part else f"[{section}]"
            file.write(f'{head}\n\t{last} = "{bait} #"\n')
        file.write('[filter "trap"]\n\trequired = true\n[core]\n\thooksPath = .githooks\n')


def every_hook(repository: Path, bait: str) -> None:
    names = (
        "pre-commit post-commit post-checkout post-index-change reference-transaction fsmonitor-watchman post-rewrite"
    )
    for folder in (repository / ".git" / "hooks", repository / ".githooks"):
        folder.mkdir(parents=True, exist_ok=True)
        for name in names.split():
            (folder / name).write_text(f"#!/bin/sh\n{bait}\n")
            (folder / name).chmod(0o755)


def configuration_of_the_tree(tree: Path, bait: str) -> None:
    every_setting(tree, bait)


def hooks_of_the_tree(tree: Path, bait: str) -> None:
    every_hook(tree, bait)
    git(tree, "config", "core.hooksPath", ".githooks")


def attributes(tree: Path, bait: str) -> None:
    every_setting(tree, bait)
    (tree / ".gitattributes").write_text("* filter=trap diff=trap merge=trap text ident working-tree-encoding=UTF-16\n")
    (tree / ".git" / "info").mkdir(exist_ok=True)
    (tree / ".git" / "info" / "attributes").write_text("* filter=trap diff=trap\n")


def nested_repository(tree: Path, bait: str) -> None:
    inner = tree / "inner"
    inner.mkdir()
    git(inner, "init", "-q")
    (inner / "file").write_text("x")
    git(inner, "add", ".")
    git(inner, "commit", "-qm", "x")
    (inner / ".gitattributes").write_text("* filter=trap diff=trap\n")
    every_setting(inner, bait)
    every_hook(inner, bait)


def nested_repository_without_commits(tree: Path, bait: str) -> None:
    inner = tree / "young"
    inner.mkdir()
    git(inner, "init", "-q")
    (inner / "file").write_text("x")
    every_setting(inner, bait)


def tracked_directory_that_became_a_repository(tree: Path, bait: str) -> None:
    nested_repository_in(tree / "tracked", bait)


def nested_repository_in(inner: Path, bait: str) -> None:
    git(inner, "init", "-q")
    git(inner, "add", ".")
    git(inner, "commit", "-qm", "x")
    every_setting(inner, bait)
    every_hook(inner, bait)


def submodule(tree: Path, bait: str) -> None:
    nested_repository(tree, bait)
    (tree / ".gitmodules").write_text(f'[submodule "inner"]\n\tpath = inner\n\turl = ext::{bait}\n\tupdate = !{bait}\n')


def link_to_a_repository(tree: Path, bait: str) -> None:
    nested_repository(tree, bait)
    other = tree / "linked"
    other.mkdir()
    (other / ".git").write_text(f"gitdir: {tree}/inner/.git\n")
    (other / "file").write_text("x")


def repository_in_capitals(tree: Path, bait: str) -> None:
    (tree / ".GIT" / "hooks").mkdir(parents=True)
    (tree / ".GIT" / "config").write_text(f'[core]\n\tfsmonitor = "{bait}"\n')


def names_like_options(tree: Path, bait: str) -> None:
    for name in (
        "--help",
        "-c",
        "--upload-pack=x",
        "--output=canary",
        ";touch canary",
        "$(touch canary)",
        "`touch canary`",
    ):
        (tree / name).write_text(bait)


TRAPS = [
    configuration_of_the_tree,
    hooks_of_the_tree,
    attributes,
    nested_repository,
    nested_repository_without_commits,
    tracked_directory_that_became_a_repository,
    submodule,
    link_to_a_repository,
    repository_in_capitals,
    names_like_options,
]


@pytest.mark.parametrize("trap", TRAPS)
def test_no_verb_of_a_workspace_sets_a_trap_off(trap: Trap, tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    workspace = Workspace(tmp_path / "run", owner=None)
    workspace.prepare(Source())
    (workspace.tree / "tracked").mkdir()
    (workspace.tree / "tracked" / "file").write_text("x\n")
    before = workspace.snapshot("before")
    trap(workspace.tree, f"touch {canary}")
    canary.unlink(missing_ok=True)
    (workspace.tree / "tracked" / "file").write_text("y\n")
    after = workspace.snapshot("after")
    workspace.diff(before, after)
    workspace.restore(before)
    workspace.restore(after)
    workspace.snapshot("again")
    found = [path for path in (canary, Path.cwd() / "canary", workspace.tree / "canary") if path.exists()]
    assert found == []


LINES = "".join(f"{number}\n" for number in range(20))


def head(root: Path, lane: str, base: str, change: Callable[[Path], object]) -> str:
    """The snapshot of a parallel step that made this change."""
    workspace = Workspace(root, owner=None, lane=lane)
    workspace.restore(base)
    change(workspace.tree)
    return workspace.snapshot(lane, parent=base)


def with_lines(root: Path, attributes: str = "") -> str:
    """A run whose tree has a file of many lines, and these attributes from the start."""
    workspace = Workspace(root, owner=None)
    workspace.prepare(Source())
    (workspace.tree / "tracked").mkdir()
    (workspace.tree / "tracked" / "file").write_text(LINES)
    (workspace.tree / ".gitattributes").write_text(attributes)
    return workspace.snapshot("lines")


def edit(old: str, new: str) -> Callable[[Path], object]:
    return lambda tree: (tree / "tracked" / "file").write_text(LINES.replace(old, new, 1))


@pytest.mark.parametrize("trap", TRAPS)
def test_no_merge_sets_a_trap_off(trap: Trap, tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    base = with_lines(tmp_path / "run", "* merge=trap\n")

    def change_and_trap(tree: Path) -> None:
        edit("0\n", "first\n")(tree)
        trap(tree, f"touch {canary}")

    one = head(tmp_path / "run", "one", base, change_and_trap)
    two = head(tmp_path / "run", "two", base, edit("19\n", "last\n"))
    canary.unlink(missing_ok=True)
    joined = Workspace(tmp_path / "run", owner=None, lane="join")
    joined.restore(joined.merge([one, two], "join"))
    found = [path for path in (canary, Path.cwd() / "canary", joined.tree / "canary") if path.exists()]
    assert found == []


def test_the_merge_driver_does_go_off_for_an_ordinary_git(tmp_path: Path) -> None:
    """The proof that the test above can fail."""
    canary = tmp_path / "canary"
    git(tmp_path, "init", "-q")
    (tmp_path / "file").write_text(LINES)
    (tmp_path / ".gitattributes").write_text("* merge=trap\n")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-qm", "x")
    git(tmp_path, "branch", "other")
    for text in ("first\n", "last\n"):
        (tmp_path / "file").write_text(text + LINES if text == "first\n" else LINES + text)
        git(tmp_path, "commit", "-qam", text)
        git(tmp_path, "checkout", "-q", "other")
    git(tmp_path, "config", "merge.trap.driver", f"touch {canary}")
    git(tmp_path, "merge", "-q", "master" if (tmp_path / ".git/refs/heads/master").exists() else "main")
    assert canary.exists()


@pytest.mark.parametrize("attributes", ["* merge=union", "* merge=ours", "* merge=text conflict-marker-size=1"])
def test_no_attribute_of_a_tree_settles_a_conflict(attributes: str, tmp_path: Path) -> None:
    base = with_lines(tmp_path / "run", f"{attributes}\n")
    heads = [head(tmp_path / "run", text, base, edit("7\n", f"{text}\n")) for text in ("one", "two")]
    with pytest.raises(WorkspaceError) as caught:
        Workspace(tmp_path / "run", owner=None).merge(heads, "join")
    assert caught.value.files == ("tracked/file",)


@pytest.mark.parametrize(
    "attributes", ["* -merge", "* binary", "* merge=binary", "* merge=trap", "* filter=trap ident"]
)
def test_no_attribute_of_a_tree_prevents_a_merge(attributes: str, tmp_path: Path) -> None:
    base = with_lines(tmp_path / "run", f"{attributes}\n")
    one = head(tmp_path / "run", "one", base, edit("0\n", "first\n"))
    two = head(tmp_path / "run", "two", base, edit("19\n", "last\n"))
    joined = Workspace(tmp_path / "run", owner=None, lane="join")
    joined.restore(joined.merge([one, two], "join"))
    assert (joined.tree / "tracked" / "file").read_text().split()[::19] == ["first", "last"]


def test_hostile_names_are_merged_like_any_other(tmp_path: Path) -> None:
    names = [
        "--help",
        "-c",
        "--output=x",
        "$(touch canary)",
        "a\nb",
        "git~1",
        "n\udcff",
        "..x",
        ".gitmodules",
        ".GIT~1",
    ]
    base = with_lines(tmp_path / "run")

    def write(tree: Path) -> None:
        for name in names:
            (tree / name).write_text("x")

    heads = [
        head(tmp_path / "run", "one", base, write),
        head(tmp_path / "run", "two", base, edit("0\n", "first\n")),
    ]
    joined = Workspace(tmp_path / "run", owner=None, lane="join")
    joined.restore(joined.merge(heads, "join"))
    assert {path.name for path in joined.tree.iterdir()} >= set(names)


@pytest.mark.parametrize("verb", [["status"], ["add", "."]])
def test_the_traps_do_go_off_for_an_ordinary_git(verb: list[str], tmp_path: Path) -> None:
    """The proof that the test above can fail."""
    canary = tmp_path / "canary"
    git(tmp_path, "init", "-q")
    attributes(tmp_path, f"touch {canary}")
    (tmp_path / "file").write_text("x")
    subprocess.run(["git", "-c", "safe.directory=*", *verb], cwd=tmp_path, check=False, capture_output=True, timeout=60)
    assert canary.exists()


def test_a_nested_repository_is_left_out_and_reported(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path / "run", owner=None)
    before = workspace.prepare(Source())
    nested_repository(workspace.tree, "true")
    after = workspace.snapshot("nested")
    assert (workspace.skipped, workspace.diff(before, after).files) == (("inner/",), ())


def test_the_users_own_configuration_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    canary = tmp_path / "canary"
    (tmp_path / ".gitconfig").write_text(f'[core]\n\tfsmonitor = "touch {canary}"\n\texcludesFile = {tmp_path}/all\n')
    (tmp_path / "all").write_text("*\n")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("GIT_CONFIG_COUNT", "1")
    monkeypatch.setenv("GIT_CONFIG_KEY_0", "core.excludesFile")
    monkeypatch.setenv("GIT_CONFIG_VALUE_0", str(tmp_path / "all"))
    workspace = Workspace(tmp_path / "run", owner=None)
    before = workspace.prepare(Source())
    (workspace.tree / "file").write_text("x")
    files = workspace.diff(before, workspace.snapshot("after")).files
    assert ([file.path for file in files], canary.exists(), os.environ["HOME"]) == (["file"], False, str(tmp_path))


def test_a_cloned_repository_runs_nothing_either(tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    origin = tmp_path / "origin"
    origin.mkdir()
    git(origin, "init", "-q")
    (origin / "file").write_text("x")
    (origin / ".gitattributes").write_text("* filter=trap\n")
    git(origin, "add", ".")
    git(origin, "commit", "-qm", "x")
    every_setting(origin, f"touch {canary}")
    every_hook(origin, f"touch {canary}")
    Workspace(tmp_path / "run", owner=None).prepare(Source(str(origin)))
    assert not canary.exists()
