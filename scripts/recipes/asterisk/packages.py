"""Stage 1: Asterisk's recorded prompts, from Debian's packages: fetched, or found in a folder, and unpacked.

    python packages.py --languages fr en --out DIR [--packages FOLDER | --mirror URL]

writes DIR/<language>/sounds/**.g722, DIR/<language>/transcript.txt and DIR/<language>/copyright.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import io
import shutil
import subprocess
import tarfile
import urllib.error
import urllib.request
from pathlib import Path

from echostream.untar import unpack
from scripts.files import atomic_path, scratch_folder

LANGUAGES = ("en", "es", "fr", "it", "ru")
VERSION = "1.6.1-1"
POOL = "pool/main/a/asterisk-core-sounds"
# The files that the published counts were made with.
SHA256 = {
    "asterisk-core-sounds-en": "973e797d28e37fa6ca3c0a9d6fa717e77cf1268ae916bf09fd3503113cdffa50",
    "asterisk-core-sounds-en-g722": "38c5261820b406dcb0ecb37675720da2b0864850690690352ca52707eb623806",
    "asterisk-core-sounds-es": "9afdab7f559f036649fb406e625899306ca1004df8ebe39c30bfbd5912d66f74",
    "asterisk-core-sounds-es-g722": "e4e3b4281057d3b81b779298fd6be705f57411513955c518eed1bcaabbd615b8",
    "asterisk-core-sounds-fr": "04c82c78c570c43a7136cbc5e2488d0c470b775468dff9fbce4a131b18cf1056",
    "asterisk-core-sounds-fr-g722": "7add61d5e42279ecff1bbdf842a5a946ac3644fac9a0fe44384731aa7270c8e0",
}
AR_MAGIC = b"!<arch>\n"
AR_HEADER = 60


def package_names(language: str) -> tuple[str, str]:
    """The package with the transcript and the one with the recordings."""
    return f"asterisk-core-sounds-{language}", f"asterisk-core-sounds-{language}-g722"


def unpack_deb(path: Path, folder: Path) -> None:
    """Unpack the files of a Debian package: an `ar` archive that holds a tar file named data.tar.*.

    Raises:
        SystemExit: it isn't one, or is packed in a way that Python can't read.
    """
    data = path.read_bytes()
    hint = f"fetch it again, or unpack it with 'dpkg-deb -x {path} FOLDER' and give --packages FOLDER"
    position = len(AR_MAGIC)
    while data.startswith(AR_MAGIC) and position + AR_HEADER <= len(data):
        name = data[position : position + 16].decode("ascii", "replace").strip().rstrip("/")
        size_field = data[position + 48 : position + 58].strip()
        if not size_field.isdigit():
            break
        start, size = position + AR_HEADER, int(size_field)
        if name.startswith("data.tar"):
            try:
                with tarfile.open(fileobj=io.BytesIO(data[start : start + size])) as archive:
                    unpack(archive, archive, folder)
            except (tarfile.TarError, EOFError, OSError) as error:
                raise SystemExit(f"error: cannot unpack {path} ({name}: {error}); {hint}") from error
            return
        position = start + size + size % 2
    raise SystemExit(f"error: {path} is no Debian package, or cut short; {hint}")


def fetch(names: list[str], folder: Path, mirror: str) -> None:
    """Put the packages that are missing into `folder`, from a mirror of Debian or by `apt-get download`.

    Raises:
        SystemExit: neither works; the message says how to go on without a network here.
    """
    folder.mkdir(parents=True, exist_ok=True)
    missing = [name for name in names if not find_deb(folder, name)]
    if not missing:
        return
    remedy = f"fetch {' '.join(missing)} elsewhere (Debian, 'apt-get download ...') and give the folder with --packages"
    if mirror:
        for name in missing:
            url = f"{mirror.rstrip('/')}/{POOL}/{name}_{VERSION}_all.deb"
            print(f"fetching {url}", flush=True)
            try:
                answer = urllib.request.urlopen(url, timeout=60)  # noqa: S310  whoever runs it names the address
                with answer, atomic_path(folder / Path(url).name) as path:
                    path.write_bytes(answer.read())
            except (OSError, ValueError, urllib.error.URLError) as error:
                raise SystemExit(f"error: cannot fetch {url}: {error}; {remedy}") from error
        return
    if shutil.which("apt-get") is None:
        raise SystemExit(f"error: no apt-get here; give --mirror URL (a mirror of Debian), or {remedy}")
    print(f"fetching with apt-get download: {' '.join(missing)}", flush=True)
    command = ["apt-get", "download", *missing]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise SystemExit(f"error: apt-get download failed ({reason}); try 'apt-get update' first, or {remedy}")


def find_deb(folder: Path, name: str) -> Path | None:
    """The package's file in a folder, whatever its version; the last one by name if there are several."""
    found = sorted(folder.glob(f"{name}_*.deb"))
    return found[-1] if found else None


def check_sum(path: Path, name: str) -> None:
    """Stop at a damaged package of the known version; another version is only remarked on."""
    if not path.name.startswith(f"{name}_{VERSION}_"):
        print(f"note: {path.name} is another version than {VERSION}: counts may differ", flush=True)
    elif name in SHA256 and hashlib.sha256(path.read_bytes()).hexdigest() != SHA256[name]:
        raise SystemExit(f"error: {path} has not the SHA-256 of {name} {VERSION}; delete it and fetch it again")


def install(unpacked: Path, language: str, out: Path) -> None:
    """Copy one language's recordings, transcript and copyright note out of unpacked packages.

    Raises:
        SystemExit: a part isn't there.
    """
    text_name, sound_name = package_names(language)
    transcripts = sorted(unpacked.rglob(f"core-sounds-{language}.txt*"))
    folders = sorted(path for path in unpacked.rglob(f"{language}_*") if path.is_dir() and any(path.rglob("*.g722")))
    for found, what, name in (
        (transcripts, f"core-sounds-{language}.txt", text_name),
        (folders, f"a folder {language}_*/ with .g722 files", sound_name),
    ):
        if not found:
            raise SystemExit(f"error: {unpacked} has no {what}: neither the package {name} nor its contents")
    data = transcripts[0].read_bytes()
    text = gzip.decompress(data) if transcripts[0].suffix == ".gz" else data
    target = out / language
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(folders[0], target / "sounds")
    for copyright_note in sorted(unpacked.rglob(f"{text_name}/copyright"))[:1]:
        shutil.copy(copyright_note, target / "copyright")
    # Last: its presence says that the rest is complete.
    with atomic_path(target / "transcript.txt") as temporary:
        temporary.write_bytes(text)


def main() -> None:
    parser = argparse.ArgumentParser(description="Fetch and unpack Asterisk's prompts.")
    parser.add_argument("--languages", nargs="+", choices=LANGUAGES, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--packages", type=Path, help="folder with the .deb files, or with their contents")
    parser.add_argument("--mirror", default="", help="URL of a mirror of Debian, instead of apt-get")
    args = parser.parse_args()

    if args.packages and not args.packages.is_dir():
        raise SystemExit(f"error: no folder {args.packages}; give one with the .deb files or their contents")
    args.out.mkdir(parents=True, exist_ok=True)
    folder = args.packages or args.out / "deb"
    names = [name for language in args.languages for name in package_names(language)]
    if not args.packages:
        fetch(names, folder, args.mirror)
    debs = {name: deb for name in names if (deb := find_deb(folder, name))}
    for name, deb in debs.items():
        check_sum(deb, name)
    with scratch_folder(args.out / ".unpacked") as unpacked:
        for deb in debs.values():
            unpack_deb(deb, unpacked)
        for language in args.languages:
            has_debs = all(name in debs for name in package_names(language))
            install(unpacked if has_debs else folder, language, args.out)
    print(f"asterisk: {', '.join(args.languages)} unpacked", flush=True)


if __name__ == "__main__":
    main()
