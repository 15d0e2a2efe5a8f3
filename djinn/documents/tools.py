"""The tools that files name: ours, and what tools of the same meaning are called elsewhere."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from djinn.documents.report import suggestion

TOOLS = ("read", "write", "edit", "bash", "grep", "find", "ls")
TOOL_NAMES: Mapping[str, str] = {
    **{name: name for name in TOOLS},
    **dict.fromkeys(("read_file", "readfile", "view", "open_file"), "read"),
    **dict.fromkeys(("write_file", "writefile", "create_file"), "write"),
    **dict.fromkeys(("edit_file", "editfile", "multiedit", "str_replace", "apply_patch"), "edit"),
    **dict.fromkeys(("shell", "exec", "terminal", "run_command", "execute_command", "run_shell_command"), "bash"),
    **dict.fromkeys(("grep_search", "search_files", "search_file_content"), "grep"),
    **dict.fromkeys(("glob", "find_files", "file_search"), "find"),
    **dict.fromkeys(("list", "list_dir", "list_directory", "list_files"), "ls"),
}
"""What tools are called, in lower case, and what they are called here."""


def our_tools(names: Iterable[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The tools by our names, each once, and the names that mean none of them."""
    known = {name: TOOL_NAMES.get(name.strip().lower().replace("-", "_")) for name in names}
    ours = dict.fromkeys(tool for tool in known.values() if tool is not None)
    return tuple(ours), tuple(name for name, tool in known.items() if tool is None)


def unknown_tool(name: str) -> str:
    """The warning about a tool that is not one of ours."""
    return f"there is no tool {name[:80]!r} here, the agent works without it{suggestion(name, TOOLS)}"
