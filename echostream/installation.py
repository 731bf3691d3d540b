"""How this package was installed, and how more of it is."""

from __future__ import annotations

from pathlib import Path


def checkout_folder() -> Path | None:
    """The checkout that this package is run from; None for an installed package."""
    folder = Path(__file__).resolve().parents[1]
    return folder if (folder / "pyproject.toml").is_file() and (folder / "configs").is_dir() else None


def install_hint(extra: str) -> str:
    """The command that installs an extra: from the checkout, since nobody has registered the package's name."""
    if (checkout := checkout_folder()) is not None:
        return f"pip install -e '{checkout}[{extra}]'"
    return f"pip install '.[{extra}]' in a checkout of EchoStream"
