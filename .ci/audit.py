"""Known vulnerabilities among the installed packages, by pip-audit; those that are explained below don't count.

A package that the advisory service says nothing about is not a safe one: if any can't be looked up, that is said, and
the exit status is 2. With --skip-unreachable, as in CI, it is then 0: no run depends on whether a service answers.
What was found counts all the same.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys

# id or alias: why it does no harm here
EXPLAINED = {
    "CVE-2024-34062": "tqdm, held at 4.64.1 by simuleval 1.1.4: options of its command line, which nothing calls",
    "CVE-2025-71176": "pytest before 9.0.3: predictable folders in /tmp, on the machines of developers",
}
OWN = "echostream"


def main() -> int:
    parser = argparse.ArgumentParser(description="Known vulnerabilities among the installed packages.")
    parser.add_argument("--skip-unreachable", action="store_true", help="end with 0 where nobody can be asked")
    args = parser.parse_args()
    status = audit()
    if status == 2 and args.skip_unreachable:
        print("skipped: the advisory service could not be asked about everything; see the line above")
        return 0
    return status


def audit() -> int:
    """Ask, and print what comes of it; returns 0: nothing open, 1: something is, 2: not everything could be asked."""
    command = [sys.executable, "-m", "pip_audit", "--local", "--format", "json", "--progress-spinner", "off"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    try:
        packages = json.loads(done.stdout)["dependencies"]
    except (ValueError, KeyError):
        reason = (done.stderr.strip().splitlines() or ["no message"])[-1]
        print(f"error: pip-audit gave no answer: {reason}", file=sys.stderr)
        return 2
    packages = [package for package in packages if package["name"] != OWN]
    unknown = [package["name"] for package in packages if "skip_reason" in package]
    found = [(package, entry) for package in packages for entry in package.get("vulns", [])]
    open_ones = 0
    for package, entry in found:
        names = [entry["id"], *entry.get("aliases", [])]
        reason = next((EXPLAINED[name] for name in names if name in EXPLAINED), None)
        open_ones += reason is None
        fixed = ", ".join(entry.get("fix_versions", [])) or "no version yet"
        print(f"{package['name']} {package['version']}: {' '.join(names)}: {reason or f'fixed in {fixed}'}")
    print(f"{len(packages) - len(unknown)} packages looked up, {len(found)} vulnerabilities, {open_ones} of them open")
    if unknown:
        print(f"error: the advisory service knows nothing of {len(unknown)} packages, such as {unknown[0]}: "
              "is the package index a mirror without it?", file=sys.stderr)  # fmt: skip
    return 1 if open_ones else 2 if unknown else 0


if __name__ == "__main__":
    sys.exit(main())
