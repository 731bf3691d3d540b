"""Put the figures of a judgement into Markdown files, between marks, so that they can't drift from what was measured.

    python scripts/judging/judge_report.py --results models/fr-en/results.json --plots docs/images \\
        --fill README.md MODEL_CARD.md docs/results.md docs/what-it-can-do.md
    python scripts/judging/judge_report.py --results models/fr-en/results.json --plots docs/images \\
        --fill README.md MODEL_CARD.md docs/results.md docs/what-it-can-do.md --check

A file says where they go:

    <!-- figures:quality:begin -->
    <!-- figures:quality:end -->

with setup, reach (on the phrasebook), aims (on the other sets), quality, latency, policies and baselines for the
tables, summary for one row a test set, and plot-sets and plot-policies for the plots.
What stands between two marks is replaced. --check changes nothing and fails if something would.
"""

from __future__ import annotations

import argparse
import json
import os
import re
from pathlib import Path

from scripts.benchmarks.figures import require_plotting
from scripts.files import write_text
from scripts.judging.judgement import PLOTS, TABLES, write_plots

MARKED = re.compile(
    r"(<!-- figures:(?P<name>[\w-]+):begin -->\n)(?P<text>.*?)(<!-- figures:(?P=name):end -->)", re.DOTALL
)
MARK = re.compile(r"<!-- figures:([\w-]+):(?:begin|end) -->")


def picture(name: str, plots: Path, page: Path) -> str:
    """A plot on a page, in the colours that its reader has chosen."""
    light, dark = (os.path.relpath(plots / f"quality_latency_{name}{end}.png", page.parent) for end in ("", "-dark"))
    return (
        f'<picture>\n  <source media="(prefers-color-scheme: dark)" srcset="{dark}">\n'
        f'  <img alt="Quality over latency: {name}" src="{light}">\n</picture>'
    )


def fill(page: Path, results: dict, plots: Path) -> str:
    """The text of a page with its figures put in.

    Raises:
        ValueError: a mark that isn't known, or without its other half.
    """
    text = page.read_text(encoding="utf-8")
    known = {*TABLES, *(f"plot-{name}" for name in PLOTS)}
    if unknown := [name for name in MARK.findall(text) if name not in known]:
        raise ValueError(f"{page} has a mark figures:{unknown[0]}; known are {', '.join(sorted(known))}")
    if len(MARK.findall(text)) != 2 * len(MARKED.findall(text)):
        raise ValueError(f"{page} has a mark of figures without its begin or end")

    def figures(match: re.Match[str]) -> str:
        name = match["name"]
        made = TABLES[name](results) if name in TABLES else picture(name.removeprefix("plot-"), plots, page)
        return f"{match[1]}{made}\n{match[4]}"

    return MARKED.sub(figures, text)


def main() -> None:
    parser = argparse.ArgumentParser(description="Put the figures of a judgement into Markdown files.")
    parser.add_argument("--results", type=Path, required=True, help="results.json of scripts/judging/judge.py")
    parser.add_argument("--fill", type=Path, nargs="+", required=True, help="Markdown files with marks")
    parser.add_argument(
        "--plots", type=Path, default=Path("docs/images"), help="folder for the plots (default: %(default)s)"
    )
    parser.add_argument("--check", action="store_true", help="change nothing, fail if something would change")
    args = parser.parse_args()
    try:
        results = json.loads(args.results.read_text(encoding="utf-8"))
        pages = {page: fill(page, results, args.plots) for page in args.fill}
    except (OSError, ValueError, KeyError) as error:
        raise SystemExit(f"error: {error}") from error
    stale = [str(page) for page, text in pages.items() if page.read_text(encoding="utf-8") != text]
    if args.check:
        if stale:
            raise SystemExit(f"error: {', '.join(stale)}: not the figures of {args.results}; run it without --check")
        return
    require_plotting()
    write_plots(results, args.plots)
    for page, text in pages.items():
        write_text(page, text)
    print(f"filled in: {', '.join(map(str, args.fill))}; changed: {', '.join(stale) or 'none'}; plots in {args.plots}")


if __name__ == "__main__":
    main()
