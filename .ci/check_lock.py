"""Lock and metadata agree: every requirement is pinned within its bounds, with hashes. Asks no index."""

from __future__ import annotations

import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

from packaging.markers import default_environment
from packaging.requirements import InvalidRequirement, Requirement
from packaging.version import Version

REPOSITORY = Path(__file__).resolve().parents[1]
PYTHONS = ("3.11", "3.12")
LINUX = {"sys_platform": "linux", "platform_machine": "x86_64", "platform_system": "Linux", "os_name": "posix"}
# Which extras each file has to hold, and what it leaves to the reader on purpose.
FILES: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "all.txt": (("dev",), ()),
    "demo.txt": (("eval", "serve"), ()),
    "inference-cpu.txt": (("serve",), ("torch",)),
}


def environments() -> Iterator[dict[str, str]]:
    """Marker environments that the lock is for."""
    for python in PYTHONS:
        known = {name: str(value) for name, value in default_environment().items()}
        yield {**known, **LINUX, "python_version": python, "python_full_version": f"{python}.9", "extra": ""}


def normal(name: str) -> str:
    """A package's name as indexes compare names."""
    return re.sub(r"[-_.]+", "-", name).lower()


def wanted(project: dict, extras: tuple[str, ...]) -> Iterator[Requirement]:
    """Requirements of the package with ``extras``; an extra may name others of the package."""
    optional = project["optional-dependencies"]
    yield from map(Requirement, project["dependencies"])
    waiting = list(extras)
    while waiting:
        for text in optional[waiting.pop()]:
            requirement = Requirement(text)
            if normal(requirement.name) == project["name"]:
                waiting += requirement.extras
            else:
                yield requirement


def pins(path: Path) -> tuple[list[Requirement], list[str]]:
    """Pinned requirements of a lock file, and what is wrong with their lines."""
    text = path.read_text(encoding="utf-8").replace("\\\n", " ")
    found, faults = [], []
    for line in text.splitlines():
        line = line.partition(" #")[0].strip()
        if not line or line.startswith("#"):
            continue
        requirement, *hashes = line.split("--hash=")
        try:
            pin = Requirement(requirement.strip())
        except InvalidRequirement:
            faults.append(f"{path.name}: can't read '{requirement.strip()}'")
            continue
        found.append(pin)
        if not hashes or not all(value.startswith("sha256:") for value in hashes):
            faults.append(f"{path.name}: {pin.name} has no sha256")
    return found, faults


def release(pin: Requirement) -> Version:
    """The version of a pin such as ``torch==2.11.0``."""
    (specifier,) = pin.specifier
    return Version(specifier.version)


def check(repository: Path) -> list[str]:
    """What is wrong with the lock, in one line each."""
    project = tomllib.loads((repository / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    faults: list[str] = []
    for name, (extras, left_out) in FILES.items():
        path = repository / "requirements" / name
        if not path.is_file():
            faults.append(f"{name} is missing")
            continue
        found, wrong = pins(path)
        faults += wrong
        for environment in environments():
            here = {normal(pin.name): pin for pin in found if pin.marker is None or pin.marker.evaluate(environment)}
            python = environment["python_version"]
            for requirement in wanted(project, extras):
                pin = here.get(normal(requirement.name))
                if requirement.name in left_out:
                    continue
                if pin is None:
                    faults.append(f"{name}: {requirement} is not pinned for Python {python}")
                elif not requirement.specifier.contains(release(pin), prereleases=True):
                    faults.append(f"{name}: {pin.name} {release(pin)} is outside '{requirement}' (Python {python})")
            pair = [here.get(package) for package in ("torch", "torchaudio")]
            if all(pair) and len({release(pin) for pin in pair if pin}) > 1:
                faults.append(f"{name}: torch and torchaudio are of different releases, and don't load together")
    return list(dict.fromkeys(faults))


def main() -> int:
    """Print what is wrong; the exit status."""
    faults = check(Path(sys.argv[1]).resolve() if sys.argv[1:] else REPOSITORY)
    for fault in faults:
        print(f"error: {fault}", file=sys.stderr)
    if faults:
        print("error: the lock doesn't fit pyproject.toml: run 'make lock' and commit requirements/", file=sys.stderr)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
