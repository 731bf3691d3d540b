"""What the user sees: text on the standard output, status and errors on the other one, a bar below both."""

from __future__ import annotations

import os
import sys

from tqdm import tqdm

from echostream.printing import one_printable_line, printable

MAX_ERROR_CHARACTERS = 2_000
FAINT, NORMAL = "\x1b[2m", "\x1b[22m"  # ECMA-48, SGR; grey on most terminals


def faint(text: str) -> str:
    """``text`` as a terminal shows what is less important."""
    return f"{FAINT}{text}{NORMAL}"


class Console:
    """Talks to the terminal or the pipes in its place.

    Args:
        quiet: no status.
        verbose: detail too.
        text_to_stderr: the standard output carries audio.
    """

    def __init__(self, quiet: bool = False, verbose: bool = False, text_to_stderr: bool = False) -> None:
        self.quiet, self.verbose = quiet, verbose
        self._text = sys.stderr if text_to_stderr else sys.stdout
        self._bar: tqdm | None = None
        self._line = ""  # text kept back until it can stand above the bar

    @property
    def shows_text_in_terminal(self) -> bool:
        """Somebody reads the text as it comes."""
        return self._text.isatty()

    @property
    def shows_faint_text(self) -> bool:
        """The text goes to a terminal that knows how, and whose user has nothing against it."""
        return self.shows_text_in_terminal and os.environ.get("TERM") != "dumb" and not os.environ.get("NO_COLOR")

    def start_bar(self, total_s: float) -> None:
        """Show progress in seconds of audio, if there is a terminal to show it in."""
        if not self.quiet:
            layout = "{percentage:3.0f}%|{bar}| {n:.0f}/{total:.0f} s of audio [{elapsed}<{remaining}] {desc}"
            self._bar = tqdm(total=total_s, file=sys.stderr, disable=None, leave=False, bar_format=layout)

    def show_current(self, name: str) -> None:
        """Name what is being worked on beside the bar."""
        if self._bar is not None:
            self._bar.set_description_str(name)

    def advance(self, seconds: float) -> None:
        """Move the bar on."""
        if self._bar is not None:
            self._bar.update(min(seconds, self._bar.total - self._bar.n))

    def close(self) -> None:
        """Take the bar away."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None
        if self._line:
            self.text("")

    def text(self, text: str) -> None:
        """Print text that may not end its line, at once."""
        self.marked_text(printable(text))

    def marked_text(self, text: str) -> None:
        """The same with text that is printable already, but for marks such as those of :func:`faint`."""
        if self._bar is None or self._bar.disable:
            print(self._line + text, end="", file=self._text, flush=True)
            self._line = ""
            return
        whole, newline, self._line = (self._line + text).rpartition("\n")
        if newline:
            tqdm.write(whole, file=self._text)
            self._text.flush()

    def status(self, line: str) -> None:
        """Say what happened."""
        if not self.quiet:
            self._say(line)

    def detail(self, line: str) -> None:
        """Say what only the curious want to know."""
        if self.verbose:
            self._say(line)

    def warning(self, line: str) -> None:
        """Say that the result may be bad."""
        self.status(f"warning: {line}")

    def error(self, line: object) -> None:
        """Say what went wrong, in one line."""
        text = one_printable_line(line)
        if len(text) > MAX_ERROR_CHARACTERS:
            text = f"{text[: MAX_ERROR_CHARACTERS // 2]} ... {text[-MAX_ERROR_CHARACTERS // 2 :]}"
        self._say(f"error: {text}")

    def _say(self, line: str) -> None:
        line = printable(line)
        if self._bar is None or self._bar.disable:
            print(line, file=sys.stderr, flush=True)
        else:
            tqdm.write(line, file=sys.stderr)
