"""Stage 1: the corpora and the unit model, fetched and unpacked; what is there already is left alone.

    python download.py --lang fr --out corpora --common-voice-url cv-corpus-4-2019-12-10-fr.tar.gz

leaves in `out`: cv-corpus-4/<lang>/{validated.tsv,clips}, covost_v2.<lang>_en.tsv, cvss_c_<lang>_en_v1.0/ and the two
files of mHuBERT. An address may also be a file of this machine. An interrupted download goes on where it stopped.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tarfile
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

from echostream.untar import unpack as unpack_members
from scripts.command_line import require
from scripts.files import atomic_path, scratch_folder
from scripts.recipes.cvss_c.layout import CorpusLayout

BLOCK_BYTES = 1 << 20
TIMEOUT_S = 60


@dataclass(frozen=True)
class Part:
    """Something to fetch: what it is, where from, where it belongs, and what a tar file of it has in its top folder."""

    title: str
    option: str
    url: str
    place: Path
    marker: str = ""  # file beside which the rest of an archive lies; "" for a single file

    @property
    def is_there(self) -> bool:
        return (self.place / self.marker).exists() if self.marker else self.place.exists()

    @property
    def unpacking(self) -> Path:
        """Folder that an archive is unpacked to before what is wanted of it goes to its place."""
        return self.place.with_name(f".{self.place.name}.unpacking")


def fetch(url: str, path: Path) -> None:
    """Get a file, going on with a part that is there.

    Raises:
        OSError: the address cannot be reached, or the connection ended early.
    """
    partial = path.with_name(f"{path.name}.part")
    path.parent.mkdir(parents=True, exist_ok=True)
    have = partial.stat().st_size if partial.exists() else 0
    headers = {"Range": f"bytes={have}-"} if have else {}
    request = urllib.request.Request(url, headers=headers)  # noqa: S310  whoever runs it names the address
    try:
        answer = urllib.request.urlopen(request, timeout=TIMEOUT_S)  # noqa: S310
    except urllib.error.HTTPError as error:
        if error.code != 416 or not have:  # 416: there is nothing beyond what we have
            raise
        partial.replace(path)
        return
    with answer:
        if answer.status != 206:  # the server begins anew
            have = 0
        length = int(answer.headers.get("Content-Length") or 0)
        with (
            partial.open("ab" if have else "wb") as file,
            require("tqdm").tqdm(
                initial=have, total=have + length or None, desc=path.name, unit="B", unit_scale=True
            ) as progress,
        ):
            while block := answer.read(BLOCK_BYTES):
                file.write(block)
                progress.update(len(block))
    if length and partial.stat().st_size != have + length:
        raise OSError(f"the connection ended at {partial.stat().st_size} of {have + length} bytes")
    partial.replace(path)


def unpack(archive: Path, part: Part) -> None:
    """Unpack a tar file and put the folder that holds the part's marker, or the file, into its place.

    Raises:
        ValueError: it is no tar file, holds a path that leads outside, or not what was expected.
    """
    wanted = part.marker or part.place.name
    try:
        with (
            scratch_folder(part.unpacking) as unpacked,
            archive.open("rb") as file,
            require("tqdm").tqdm(
                total=archive.stat().st_size, desc=f"unpacking {archive.name}", unit="B", unit_scale=True
            ) as progress,
            tarfile.open(fileobj=file, mode="r|*") as members,
        ):
            for member in members:
                unpack_members(members, [member], unpacked)
                progress.update(file.tell() - progress.n)
            found = sorted(unpacked.rglob(wanted), key=lambda path: len(path.parts))
            if not found:
                raise ValueError(f"{archive} holds no {wanted}")
            shutil.rmtree(part.place, ignore_errors=True)
            (found[0].parent if part.marker else found[0]).replace(part.place)
    except (tarfile.TarError, EOFError, OSError) as error:
        raise ValueError(f"{archive} cannot be unpacked: {error}") from error


def local_file(url: str) -> Path | None:
    """The file that an address without a server means."""
    address = urlsplit(url)
    if address.scheme in ("http", "https", "ftp"):
        return None
    return Path(unquote(address.path) if address.scheme == "file" else url)


def bring(part: Part, out: Path) -> None:
    """Put one part into its place.

    Raises:
        ValueError: it cannot be had, or is not what it should be.
    """
    source = local_file(part.url)
    name = Path(urlsplit(part.url).path).name
    if source is None:
        source = out / "downloads" / name
        if not source.exists():
            try:
                fetch(part.url, source)
            except (OSError, urllib.error.URLError) as error:
                reason = getattr(error, "reason", error)
                raise ValueError(f"{part.url} cannot be fetched ({reason})") from error
    if not source.is_file():
        raise ValueError(f"there is no file {source}")
    if tarfile.is_tarfile(source):
        unpack(source, part)
    elif part.marker:
        raise ValueError(f"{source} is no tar file")
    elif source.parent == out / "downloads":
        source.replace(part.place)
    else:
        with atomic_path(part.place) as temporary:
            shutil.copyfile(source, temporary)


def list_parts(args: argparse.Namespace) -> list[Part]:
    """What the recipe needs. Unit model and clusters may be elsewhere: without an address they are not asked for."""
    layout = CorpusLayout(args.out, args.lang)
    parts = [
        Part("Common Voice 4", "--common-voice-url", args.common_voice_url, layout.common_voice, "validated.tsv"),
        Part("CVSS-C", "--cvss-url", args.cvss_url, layout.cvss, "test.tsv"),
        Part("mHuBERT", "--hubert-url", args.hubert_url, layout.hubert),
        Part("its clusters", "--kmeans-url", args.kmeans_url, layout.kmeans),
    ]
    if not layout.has_covost_splits:
        parts.insert(1, Part("CoVoST 2", "--covost-url", args.covost_url, layout.covost))
    return [part for part in parts if part.url or part.place not in (layout.hubert, layout.kmeans)]


def main() -> None:
    parser = argparse.ArgumentParser(description="Fetch and unpack Common Voice 4, CoVoST 2, CVSS-C and mHuBERT.")
    parser.add_argument("--lang", required=True, help="source language: fr, es or de")
    parser.add_argument("--out", type=Path, required=True, help="folder for the corpora")
    parser.add_argument("--common-voice-url", default="", help="tar file; Mozilla gives no lasting address")
    parser.add_argument("--covost-url", required=True, help="tar file")
    parser.add_argument("--cvss-url", required=True, help="tar file")
    parser.add_argument("--hubert-url", default="", help="fairseq checkpoint")
    parser.add_argument("--kmeans-url", default="", help="its clusters")
    parser.add_argument("--dry-run", action="store_true", help="only say what is there")
    args = parser.parse_args()
    problems = []
    for part in list_parts(args):
        if part.is_there:
            if not args.dry_run:  # the rest of an archive, if a run was killed just when the part had come to its place
                shutil.rmtree(part.unpacking, ignore_errors=True)
            print(f"{part.title}: already in {part.place}", flush=True)
        elif args.dry_run:
            source = part.url or f"nowhere: {part.option} is not given"
            print(f"{part.title}: would be fetched from {source}", flush=True)
        elif not part.url:
            problems.append(
                f"{part.title}: accept its terms at commonvoice.mozilla.org and download version 4; then give the tar "
                f"file as {part.option}, or unpack it to {part.place}"
            )
        else:
            try:
                bring(part, args.out)
                print(f"{part.title}: now in {part.place}", flush=True)
            except ValueError as error:
                remedy = f"put it at {part.place}, or give another address or a file as {part.option}"
                problems.append(f"{part.title}: {error}; {remedy}")
    for problem in problems:
        print(f"missing: {problem}", file=sys.stderr)
    if problems:
        raise SystemExit(f"error: {len(problems)} of the corpora are missing, see above")


if __name__ == "__main__":
    main()
