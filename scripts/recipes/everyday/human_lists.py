"""Stage 6: lists for SimulEval of what people said in French, from the tables of stage 3.

    python human_lists.py --data-root DIR

writes `simuleval_armelle`, to test with, and `simuleval_tuxpaint`, to develop on, like the folders of the other sets.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from scripts.recipes.everyday.manifests import write_lists
from scripts.speech.speech_synthesis import read_table

SETS = {"armelle": "armelle.tsv", "tuxpaint": "tuxpaint_fr.tsv"}


def main() -> None:
    parser = argparse.ArgumentParser(description="Write SimulEval's lists of human French speech.")
    parser.add_argument("--data-root", type=Path, required=True, help="whose folder human has the tables of human.py")
    args = parser.parse_args()
    folder = args.data_root / "human"
    for name, file in SETS.items():
        if not (folder / file).is_file():
            print(f"lists: no {folder / file}, so none of {name}; stage 3 makes it", flush=True)
            continue
        rows = read_table(folder / file, "audio", "fr", "en")
        recordings = [(row["id"], "test", name, "", row["fr"], row["en"]) for row in rows]
        # Archives are named beside their table.
        places = {row["id"]: {"audio": f"{folder.name}/{row['audio']}"} for row in rows}
        write_lists(args.data_root, name, recordings, places, {})


if __name__ == "__main__":
    main()
