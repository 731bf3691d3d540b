"""Hook of mkdocs: links of a page to files of the repository that are no pages lead to the repository.

On GitHub and in an editor such a link, ../MODEL_CARD.md for one, works as it is; a site holds its own pages only. The
page is left alone where nothing is there, so that the strict build reports it.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

LINK = re.compile(r"(?P<before>\]\()(?P<path>(?:\.\./)+[^)#\s]*)(?P<anchor>#[^)\s]*)?(?=\))")


def on_page_markdown(markdown: str, *, page: Any, config: Any, files: Any) -> str:
    """The text of a page with those links changed; mkdocs calls it."""
    root = Path(config.config_file_path).parent
    docs = Path(config.docs_dir)

    def target(match: re.Match[str]) -> str:
        path = Path(os.path.normpath((docs / page.file.src_uri).parent / match["path"]))
        if path.is_relative_to(docs) or not path.exists():
            return match[0]
        address = urljoin(config.extra["repository"], path.relative_to(root).as_posix())
        return f"{match['before']}{address}{match['anchor'] or ''}"

    return LINK.sub(target, markdown)
