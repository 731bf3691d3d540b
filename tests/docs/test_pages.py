"""The documentation agrees with the repository: links, options, examples, and the picture of who imports whom."""

from __future__ import annotations

import argparse
import ast
import graphlib
import os
import re
from collections import defaultdict
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from echostream.cli.command import build_parser

REPOSITORY = Path(__file__).resolve().parents[2]
PACKAGE = REPOSITORY / "echostream"
PAGES = sorted(
    {
        *(REPOSITORY / name for name in ("README.md", "CONTRIBUTING.md", "MODEL_CARD.md", "configs/README.md")),
        *(REPOSITORY / "docs").rglob("*.md"),
        *(REPOSITORY / "scripts").rglob("README.md"),
    }
)
# Every option in the text of these belongs to a command of echostream.
PAGES_OF_COMMANDS = [f"docs/guides/{name}.md" for name in ("command-line", "live", "server")]
README_LINES = 200
FENCE = re.compile(r"^( *)(`{3,}|~{3,}).*?^\1\2[`~]*\s*?$", re.DOTALL | re.MULTILINE)
INLINE_CODE = re.compile(r"(`+)(?!`).+?(?<!`)\1(?!`)", re.DOTALL)
LINKS = (
    re.compile(r"\]\(<?([^()\s>]+)>?(?:\s+\"[^\"]*\")?\)"),
    re.compile(r"^\[[^\]]+\]:\s+(\S+)", re.MULTILINE),
    re.compile(r"\b(?:src|href|srcset)=\"([^\"]+)\""),
)
EXTERNAL = re.compile(r"[a-z][a-z0-9+.-]*:", re.IGNORECASE)
HEADING = re.compile(r"^#{1,6}\s+(.+?)\s*#*\s*$", re.MULTILINE)
COMMAND_LINE = re.compile(r"\bechostream (translate|asr|mic|serve|info|models|export)\b([^`\n|>;&#]*)")
OPTION = re.compile(r"(?<![\w-])--[a-z][\w-]*")
MARKED_IMPORTS = re.compile(r"<!-- imports:begin -->\n(.*?)<!-- imports:end -->", re.DOTALL)
EDGE = re.compile(r"    (\w+) (-->|-\.->) (\w+)")
SOLID, DASHED = "-->", "-.->"


def name_of(page: Path) -> str:
    return page.relative_to(REPOSITORY).as_posix()


@cache
def text_of(page: Path) -> str:
    return page.read_text(encoding="utf-8")


@cache
def anchors_of(page: Path) -> set[str]:
    """Anchors of the headings, as GitHub makes them: lower case, without punctuation, hyphens for spaces."""
    found: dict[str, int] = defaultdict(int)
    anchors = set()
    for heading in HEADING.findall(FENCE.sub("", text_of(page))):
        words = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).lower()
        slug = re.sub(r"[^\w\- ]", "", words).replace(" ", "-")
        anchors.add(f"{slug}-{found[slug]}" if found[slug] else slug)
        found[slug] += 1
    return anchors


def links_of(page: Path) -> list[str]:
    text = INLINE_CODE.sub("", FENCE.sub("", text_of(page)))
    return [link for pattern in LINKS for link in pattern.findall(text) if not EXTERNAL.match(link)]


def leads_somewhere(link: str, page: Path) -> bool:
    """Whether a relative link of a page leads to a file of the repository and, with an anchor, to a heading in it."""
    path, _, anchor = link.partition("#")
    target = Path(os.path.normpath(page.parent / path)) if path else page
    if path.startswith("/") or not target.is_relative_to(REPOSITORY) or not target.exists():
        return False
    return not anchor or (target.suffix == ".md" and anchor in anchors_of(target))


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_lead_somewhere(page):
    assert not [link for link in links_of(page) if not leads_somewhere(link, page)]


def test_links_are_found_as_readers_see_them(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(
        "# A `b`, c!\n## Same\n## Same\n[one](a.md#x) ![two](b.png) `[no](c.md)`\n```\n[no](d.md)\n# no\n```\n"
        '[out](https://example.org) <img src="e.png">\n',
        encoding="utf-8",
    )
    assert links_of(page) == ["a.md#x", "b.png", "e.png"]
    assert anchors_of(page) == {"a-b-c", "same", "same-1"}


def test_the_readme_is_short():
    assert len(text_of(REPOSITORY / "README.md").splitlines()) <= README_LINES


# Options


def option_strings(parser: argparse.ArgumentParser) -> set[str]:
    """Of a command, and of its own commands."""
    found = {text for action in parser._actions for text in action.option_strings}
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            found = found.union(*(option_strings(child) for child in action.choices.values()))
    return found


@pytest.fixture(scope="module")
def options() -> dict[str, set[str]]:
    """Of each command of echostream."""
    (commands,) = (action for action in build_parser()._actions if isinstance(action, argparse._SubParsersAction))
    return {name: option_strings(parser) for name, parser in commands.choices.items()}


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_options_of_the_commands_exist(page, options):
    text = text_of(page).replace("\\\n", " ")
    used = [(command, option) for command, rest in COMMAND_LINE.findall(text) for option in OPTION.findall(rest)]
    unknown = [(command, option) for command, option in used if option not in options[command]]
    if name_of(page) == "docs/reliability.md":  # it shows what mistyped options bring
        unknown = [(command, option) for command, option in unknown if f"`echostream {command} {option}" not in text]
    assert not unknown


@pytest.mark.parametrize("name", PAGES_OF_COMMANDS)
def test_options_in_the_guides_of_the_commands_exist(name, options):
    known = set().union(*options.values())
    mentioned = set(OPTION.findall(text_of(REPOSITORY / name)))
    assert mentioned and not mentioned - known


# Who imports whom


def imported(node: ast.AST) -> list[str]:
    """Dotted names that an import statement may bring in."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        assert not node.level, "imports are absolute here"
        return [f"{node.module}.{alias.name}" for alias in node.names]
    return []


def imports_of(node: ast.AST, lazy: bool = False) -> Iterator[tuple[str, bool]]:
    """``(dotted name, lazy)`` of every import: lazy inside a function and under ``TYPE_CHECKING``."""
    for child in ast.iter_child_nodes(node):
        yield from ((name, lazy) for name in imported(child))
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            for part, is_lazy in ((child.body, True), (child.orelse, lazy)):
                yield from imports_of(ast.Module(part, []), is_lazy)
        else:
            yield from imports_of(child, lazy or isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda))


def subpackage_imports(package: Path) -> dict[tuple[str, str], str]:
    """An arrow for each pair of subpackages of which the first imports the second."""
    subpackages = {path.parent.name for path in package.glob("*/__init__.py")}
    edges: dict[tuple[str, str], str] = {}
    for source in sorted(package.glob("*/**/*.py")):
        here = source.relative_to(package).parts[0]
        for name, lazy in imports_of(ast.parse(source.read_text(encoding="utf-8"))):
            parts = name.split(".")
            if parts[0] == package.name and len(parts) > 1 and parts[1] in subpackages - {here}:
                edge = (here, parts[1])
                edges[edge] = edges.get(edge, DASHED) if lazy else SOLID
    return edges


def circle_in(edges: dict[tuple[str, str], str]) -> list[str]:
    """Packages that import each other in a circle, be it inside functions only; none: empty."""
    needs: dict[str, set[str]] = defaultdict(set)
    for importer, other in edges:
        needs[importer].add(other)
    try:
        graphlib.TopologicalSorter(needs).prepare()
    except graphlib.CycleError as error:
        return error.args[1]
    return []


def test_the_picture_of_the_imports_is_that_of_the_sources():
    (block,) = MARKED_IMPORTS.findall(text_of(REPOSITORY / "docs/architecture.md"))
    lines = block.splitlines()
    assert (lines[0], lines[1].split()[0], lines[-1]) == ("```mermaid", "graph", "```")
    expected = sorted(f"    {a} {arrow} {b}" for (a, b), arrow in subpackage_imports(PACKAGE).items())
    assert all(EDGE.fullmatch(line) for line in lines[2:-1])
    assert sorted(lines[2:-1]) == expected, "the lines should be:\n" + "\n".join(expected)


def test_no_subpackages_import_each_other_in_a_circle():
    assert not circle_in(subpackage_imports(PACKAGE))


def test_imports_are_found_wherever_they_are(tmp_path):
    package = tmp_path / "thing"
    sources = {
        "a/__init__.py": "import thing.b.deep\nfrom thing import c\nimport os, thing.a.own",
        "b/__init__.py": "def f():\n    from thing.c import x\n    class K:\n        import thing.a",
        "c/__init__.py": "import typing\nif typing.TYPE_CHECKING:\n    import thing.a\nelse:\n    import thing.d",
        "d/__init__.py": "",
    }
    for name, source in sources.items():
        (package / name).parent.mkdir(parents=True)
        (package / name).write_text(source, encoding="utf-8")
    edges = subpackage_imports(package)
    assert edges == {
        ("a", "b"): SOLID,
        ("a", "c"): SOLID,
        ("b", "a"): DASHED,
        ("b", "c"): DASHED,
        ("c", "a"): DASHED,
        ("c", "d"): SOLID,
    }
    assert circle_in(edges)
    one_way = {edge: arrow for edge, arrow in edges.items() if edge[1] != "a"}
    assert not circle_in(one_way)
    assert set(circle_in(one_way | {("d", "a"): DASHED})) == {"a", "c", "d"}
