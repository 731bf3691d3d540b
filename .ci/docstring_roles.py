"""Extension of griffe, which reads the sources for mkdocstrings: reStructuredText of docstrings as Markdown.

The docstrings name other things as ``:class:`Policy```; the pages show such names as code.
"""

from __future__ import annotations

import re
from typing import Any

import griffe

ROLE = re.compile(r":(?:class|meth|func|mod|data|attr|exc):`~?([^`]+)`")
LITERAL_BLOCK = re.compile(r"::$", re.MULTILINE)


class DocstringRoles(griffe.Extension):
    """Changes every docstring once its object is read."""

    def on_instance(self, *, obj: griffe.Object | griffe.Alias, **kwargs: Any) -> None:
        if not obj.is_alias and obj.docstring is not None:
            obj.docstring.value = LITERAL_BLOCK.sub(":", ROLE.sub(r"`\1`", obj.docstring.value))
