"""Stage 1, first half: what is not there yet is fetched: Tatoeba's sentence pairs, and the voice tables of Kokoro.

    python fetch.py --tatoeba DIR/fetched/fra-eng.zip --voices-dir DIR/fetched/voices

Files that are there are left alone; a known file is checked by its SHA-256. Kokoro's tables are in the npm package
`kokoro-js` (Apache-2.0), fetched by `npm pack`.
"""

from __future__ import annotations

import argparse
import hashlib
import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path

from scripts.files import atomic_path
from scripts.recipes.cvss_c.download import fetch

# The archive of 2017-09-29, 142,787 pairs, that the published counts were made with. It stays at the first address; at
# the second is the latest one.
TATOEBA_URLS = (
    "https://storage.googleapis.com/download.tensorflow.org/data/fra-eng.zip",
    "https://www.manythings.org/anki/fra-eng.zip",
)
TATOEBA_SHA256 = "16c4f7d0df9e7c5e6c54cdb0447f3f4a18a55052ff5e2e0b27dd4a06c0e49d04"
KOKORO_PACKAGE = "kokoro-js@1.2.1"
VOICES_SHA256 = {
    "em_alex.bin": "27809e9eafdcbcfff90a3016c697568676531de2a2c39cee29c96c7bd6b83e95",
    "ff_siwis.bin": "a35f5675ad08948e326ae75fd0ea16ba5d0042e4f76b5f3d1df77d0a48c54861",
    "if_sara.bin": "409b69248798fcdc2542330c76953d230710f19b057e59cb82fdc3c4cf71265c",
    "im_nicola.bin": "bc578e510d52a96d6940d46f12e96d7b3df00905dbea075113226d100e6e1ab0",
    "pf_dora.bin": "3da7b5b2d91847ebf5646f57631af6ececae3c29a89cd300f06edf9aa6cfe9ee",
    "pm_alex.bin": "0175c753f59c54e7fd5a995bedef0c5ff2fb67e0043dd3dcb2ae74ec2acbeb2a",
}


def sha256_of(path: Path) -> str:
    """Hex digest of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def fetch_tatoeba(path: Path) -> None:
    """Fetch the sentence pairs unless they are there.

    Raises:
        SystemExit: no address answers.
    """
    if not path.is_file():
        reasons = []
        for url in TATOEBA_URLS:
            print(f"fetching {url}", flush=True)
            try:
                fetch(url, path)
                break
            except OSError as error:
                reasons.append(f"{url}: {error}")
        else:
            raise SystemExit(
                f"error: cannot fetch Tatoeba's pairs ({'; '.join(reasons)}); fetch fra-eng.zip elsewhere and give it "
                "with --tatoeba"
            )
    if sha256_of(path) != TATOEBA_SHA256:
        print(f"note: {path} is another version than that of 2017-09-29: counts will differ", flush=True)


def fetch_voices(folder: Path) -> None:
    """Fetch Kokoro's voice tables unless they are there, and check them.

    Raises:
        SystemExit: npm is missing or fails, or a table is not what it should be.
    """
    remedy = f"fetch the npm package {KOKORO_PACKAGE} elsewhere and give its folder voices/ with --voices-dir"
    if any(not (folder / name).is_file() for name in VOICES_SHA256):
        npm = shutil.which("npm")
        if npm is None:
            raise SystemExit(f"error: no npm here to fetch Kokoro's voices; {remedy}")
        print(f"fetching {KOKORO_PACKAGE} with npm pack", flush=True)
        with tempfile.TemporaryDirectory() as scratch:
            done = subprocess.run(
                [npm, "pack", KOKORO_PACKAGE], cwd=scratch, capture_output=True, text=True, check=False
            )
            packed = next(Path(scratch).glob("*.tgz"), None)
            if done.returncode or packed is None:
                reason = (done.stderr.strip().splitlines() or ["no message"])[-1]
                raise SystemExit(f"error: npm pack failed ({reason}); {remedy}")
            with tarfile.open(packed) as archive:
                for name in VOICES_SHA256:
                    member = archive.extractfile(f"package/voices/{name}")
                    if member is None:
                        raise SystemExit(f"error: {KOKORO_PACKAGE} has no voices/{name}; {remedy}")
                    with atomic_path(folder / name) as temporary:
                        temporary.write_bytes(member.read())
    for name, expected in VOICES_SHA256.items():
        if sha256_of(folder / name) != expected:
            raise SystemExit(f"error: {folder / name} has not the SHA-256 of {KOKORO_PACKAGE}; delete it")


def main() -> None:
    parser = argparse.ArgumentParser(description="Fetch texts and voice tables.")
    parser.add_argument("--tatoeba", type=Path, required=True, help="where fra-eng.zip is, or is to be")
    parser.add_argument("--voices-dir", type=Path, required=True, help="where Kokoro's tables are, or are to be")
    args = parser.parse_args()
    fetch_tatoeba(args.tatoeba)
    fetch_voices(args.voices_dir)


if __name__ == "__main__":
    main()
