#!/usr/bin/env python
"""Reads which part of the package imports which, and writes the picture into docs/architecture.md.

    .venv/bin/python scripts/architecture.py    # after a change of imports; a test compares the page with the code

The picture is Mermaid, which GitHub and most Markdown viewers draw. A *room* is a sub-package; modules that lie directly in the
package are its ground, the command line its roof.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "monai_chd"
PAGE = ROOT / "docs" / "architecture.md"
BEGIN, END = "<!-- rooms: written by scripts/architecture.py -->", "<!-- end of rooms -->"
GROUND = "ground"
ROOF = ("cli", "arguments")
"""Modules of the command line, which lie directly in the package as the ground does."""
ROOF = "cli", "arguments"
"""Modules that lie in the package and are no ground: the command line."""


def modules() -> dict[str, ast.Module]:
    """Every module by its dotted name without `monai_chd.`, parsed; a package's `__init__` by the package's name."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = ast.parse(path.read_text(), str(path))
    return found


def imported(tree: ast.AST) -> set[str]:
    """Full names of all modules imported anywhere in a file; `from a import b` gives a and a.b."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, "imports are absolute here"
            base = node.module or ""
            names |= {base} | {f"{base}.{alias.name}" for alias in node.names}
    return names


def own_imports(tree: ast.AST, known: dict[str, ast.Module]) -> set[str]:
    """Modules of the package that a file imports, by their names in `known`."""
    own = {name.removeprefix("monai_chd.") for name in imported(tree) if name.startswith("monai_chd.")}
    return {name for name in own if name in known}


def room(module: str) -> str:
    """The room that a module is in."""
    package, _, name = module.partition(".")
    if name or (PACKAGE / package / "__init__.py").is_file():
        return package
    return "cli" if module in ROOF else GROUND


def arrows() -> dict[str, set[str]]:
    """For each room, the rooms that it imports from."""
    known = modules()
    found: dict[str, set[str]] = {room(name): set() for name in known if name}
    for name, tree in known.items():
        if name:
            found[room(name)] |= {room(other) for other in own_imports(tree, known)} - {room(name)}
    return found


def floors(graph: dict[str, set[str]]) -> list[list[str]]:
    """The rooms bottom up; each stands one floor above the highest of those that it imports from.

    Raises:
        ValueError: rooms that import each other in a circle.
    """
    left, found = dict(graph), []
    while left:
        floor = sorted(name for name, below in left.items() if not below & set(left))
        if not floor:
            raise ValueError(f"these rooms import each other in a circle: {', '.join(sorted(left))}")
        found.append(floor)
        left = {name: below for name, below in left.items() if name not in floor}
    return found


def _needed(graph: dict[str, set[str]]) -> Iterator[tuple[str, str]]:
    """The arrows that no longer way says, too."""

    def reaches(start: str, goal: str) -> bool:
        return goal in graph[start] or any(reaches(step, goal) for step in graph[start])

    for name in sorted(graph):
        for below in sorted(graph[name]):
            if not any(reaches(other, below) for other in graph[name] if other != below):
                yield name, below


def picture() -> str:
    """The rooms, their modules and the arrows between them, as Mermaid and as a table."""
    graph, known = arrows(), modules()
    parts = [name for name in known if name and not (PACKAGE / name / "__init__.py").is_file()]
    inside = {name: sorted(m.split(".")[-1] for m in parts if room(m) == name) for name in graph}
    lines = ["```mermaid", "flowchart TD"]
    for number, floor in reversed(list(enumerate(floors(graph), 1))):
        lines += [f'    subgraph floor{number}["{number}"]', "        direction LR"]
        lines += [f'        {name}["{name}"]' for name in floor]
        lines.append("    end")
    lines += [f"    {name} --> {below}" for name, below in _needed(graph)]
    lines += ["```", "", "| floor | room | modules | imports from |", "|---|---|---|---|"]
    for number, floor in reversed(list(enumerate(floors(graph), 1))):
        for name in floor:
            places = ", ".join(sorted(graph[name])) or "nothing"
            lines.append(f"| {number} | **{name}** | {' '.join(inside[name])} | {places} |")
    return "\n".join(lines)


def page_with(text: str, page: str) -> str:
    """`page` with `text` between its two marks."""
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n{text}\n{END}{after}"


def main() -> int:
    """Write the picture into the page."""
    PAGE.write_text(page_with(picture(), PAGE.read_text()))
    print(PAGE.relative_to(ROOT))
    return 0


if __name__ == "__main__":
    sys.exit(main())
