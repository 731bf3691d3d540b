"""Whether requirements/*.txt are what pyproject.toml asks for; offline, in a moment.

Every requirement, those of the extras too, has one pin within its bounds in each file that is made for it; every pin
has a hash; the files agree with each other; torch and torchaudio are of one release. One line for each thing that is
wrong, and exit status 1. What the pinned packages require in turn is settled by `make lock`, and not read here.
"""

from __future__ import annotations

import re
import sys
import tomllib
from dataclasses import dataclass, field
from pathlib import Path

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

# extras that a file of requirements/ is made for, beside the dependencies of the package itself
LOCKS: dict[str, tuple[str, ...]] = {
    "all.txt": ("dev",),
    "demo.txt": ("eval", "serve"),
    "inference-cpu.txt": ("serve",),
    "docs.txt": ("docs",),
}
ALONE = "docs.txt"  # made for its extra alone: the package itself is not installed with it
WRITTEN = ("installer.txt", "build.txt")  # made from .in files beside them
LIGHT = "inference-cpu.txt"
# The light installation gets torch from elsewhere, as torch-cpu.txt says, and nothing that only its CUDA builds need.
LEFT_OUT = re.compile(r"torch|triton|nvidia-.*|cuda-.*")
PYTHONS = ("3.11", "3.12")
REMEDY = "run make lock"


@dataclass(frozen=True)
class Pin:
    """One pinned package of a file."""

    version: Version
    hashes: tuple[str, ...]


@dataclass
class Lock:
    """A file of requirements/, and what is wrong with it as a file."""

    name: str
    pins: dict[str, Pin] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)


def environment(python: str) -> dict[str, str]:
    """The markers of Linux on x86-64."""
    return {
        "python_version": python,
        "python_full_version": f"{python}.0",
        "implementation_name": "cpython",
        "implementation_version": f"{python}.0",
        "platform_python_implementation": "CPython",
        "os_name": "posix",
        "sys_platform": "linux",
        "platform_system": "Linux",
        "platform_machine": "x86_64",
        "platform_release": "",
        "platform_version": "",
    }


def applies(requirement: Requirement) -> bool:
    """Whether a requirement counts on any Python that the files are made for."""
    marker = requirement.marker
    return marker is None or any(marker.evaluate({**environment(python), "extra": ""}) for python in PYTHONS)


def read_lock(path: Path) -> Lock:
    """Pins and hashes of one file.

    Raises:
        OSError: there is no such file.
    """
    lock = Lock(path.name)
    text = re.sub(r"(^|\s)#.*", "", path.read_text(encoding="utf-8")).replace("\\\n", " ")
    for line in filter(None, map(str.strip, text.splitlines())):
        words, *hashes = re.split(r"\s+--hash=", line)
        try:
            requirement = Requirement(words)
        except InvalidRequirement:
            lock.problems.append(f"cannot read '{words}'")
            continue
        name = canonicalize_name(requirement.name)
        exact = [clause.version for clause in requirement.specifier if clause.operator == "=="]
        if len(exact) != 1 or "*" in exact[0] or len(requirement.specifier) != 1:
            lock.problems.append(f"'{words}' is no pin")
            continue
        if not applies(requirement):
            continue
        if name in lock.pins:
            lock.problems.append(f"{name} is pinned twice")
        lock.pins[name] = Pin(Version(exact[0]), tuple(hashes))
    return lock


def project_requirements(project: dict, extras: tuple[str, ...], package: bool = True) -> list[Requirement]:
    """Dependencies of these extras, those that an extra names in turn included, and of the package itself."""
    own, optional = canonicalize_name(project["name"]), project.get("optional-dependencies", {})
    found = [Requirement(text) for text in project["dependencies"]] if package else []
    waiting, seen = list(extras), set()
    while waiting:
        extra = waiting.pop()
        if extra in seen:
            continue
        seen.add(extra)
        for requirement in map(Requirement, optional[extra]):
            if canonicalize_name(requirement.name) == own:
                waiting += sorted(requirement.extras)
            else:
                found.append(requirement)
    return [requirement for requirement in found if applies(requirement)]


def unmet(requirements: list[Requirement], pins: dict[str, Pin], left_out: re.Pattern | None = None) -> list[str]:
    """What is required and not pinned, or pinned outside its bounds."""
    problems = []
    for requirement in requirements:
        name = canonicalize_name(requirement.name)
        if left_out is not None and left_out.fullmatch(name):
            continue
        if name not in pins:
            problems.append(f"{requirement} is not pinned")
        elif not requirement.specifier.contains(pins[name].version, prereleases=True):
            problems.append(f"{name} is pinned to {pins[name].version}, which is not {requirement.specifier}")
    return problems


def read_requirements(path: Path) -> list[Requirement]:
    """Those of a file written by hand, a requirement a line."""
    lines = (line.split("#")[0].strip() for line in path.read_text(encoding="utf-8").splitlines())
    return [Requirement(line) for line in lines if line]


def check(root: Path) -> list[str]:
    """Everything that is wrong, a line each.

    Raises:
        OSError: a file is missing.
    """
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    folder = root / "requirements"
    locks = {name: read_lock(folder / name) for name in (*WRITTEN, *LOCKS)}
    problems = []

    def report(name: str, found: list[str]) -> None:
        problems.extend(f"requirements/{name}: {problem}" for problem in found)

    for name, lock in locks.items():
        report(name, lock.problems)
        report(name, [f"{package} has no hash" for package, pin in lock.pins.items() if not pin.hashes])
        bad = [package for package, pin in lock.pins.items() for text in pin.hashes if not is_sha256(text)]
        report(name, [f"{package} has a hash that is no sha256" for package in sorted(set(bad))])
    for name in WRITTEN:
        report(name, unmet(read_requirements((folder / name).with_suffix(".in")), locks[name].pins))
    for name, extras in LOCKS.items():
        requirements = project_requirements(project, extras, package=name != ALONE)
        report(name, unmet(requirements, locks[name].pins, LEFT_OUT if name == LIGHT else None))

    everything = locks["all.txt"].pins
    for name in (*WRITTEN, "demo.txt", ALONE):
        for package, pin in locks[name].pins.items():
            other = everything.get(package)
            if other is None and name == "demo.txt":
                report(name, [f"{package} is not in all.txt"])
            elif other is not None and other.version != pin.version:
                report(name, [f"{package} is pinned to {pin.version}, in all.txt to {other.version}"])
            elif other is not None and other.hashes != pin.hashes:
                report(name, [f"{package} has other hashes than in all.txt"])
    for name, lock in locks.items():
        torch, audio = (lock.pins.get(package) for package in ("torch", "torchaudio"))
        if torch and audio and torch.version.public != audio.version.public:
            report(name, [f"torch {torch.version} and torchaudio {audio.version} are of different releases"])

    report(LIGHT, [f"{package} does not belong here" for package in locks[LIGHT].pins if LEFT_OUT.fullmatch(package)])
    cpu_torch = read_lock(folder / "torch-cpu.txt")
    report("torch-cpu.txt", cpu_torch.problems)
    torch_alone = [item for item in project_requirements(project, ()) if canonicalize_name(item.name) == "torch"]
    report("torch-cpu.txt", unmet(torch_alone, cpu_torch.pins))
    return problems


def is_sha256(text: str) -> bool:
    """Whether a hash is one that pip takes."""
    return re.fullmatch(r"sha256:[0-9a-f]{64}", text) is not None


def main() -> int:
    root = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).resolve().parent.parent
    try:
        problems = check(root)
    except OSError as error:
        print(f"error: {error.filename}: {error.strerror}: {REMEDY}", file=sys.stderr)
        return 1
    for problem in problems:
        print(f"error: {problem}: {REMEDY}", file=sys.stderr)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
