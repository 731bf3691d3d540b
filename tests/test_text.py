"""Lines of a text, and text on its way to a terminal."""

import io

import pytest

from echostream.printing import one_printable_line, printable
from echostream.text import split_lines, text_lines, word_errors


@pytest.mark.parametrize(
    "text", ["", "\n", "a", "a\n", "a\n\n", "\n\nb", "a\r\nb\rc\n", "a\u2028b\u0085c\x0bd\x0ce\x1cf\u2029g\nh"]
)
def test_lines_end_where_files_end_them(tmp_path, text):
    expected = [line.rstrip("\n") for line in io.StringIO(text, newline=None)]
    assert split_lines(text) == expected
    (tmp_path / "a").write_bytes(text.encode())
    assert text_lines(tmp_path / "a") == expected


def test_what_steers_a_terminal_is_written_out():
    assert printable("a\x1b[31m\x07\r\x9b\u202eb\ud800") == r"a\x1b[31m\x07\r\x9b\u202eb\ud800"
    assert printable("élève\tça\nĝis 日本 👩‍👩‍👧") == "élève\tça\nĝis 日本 👩‍👩‍👧"
    assert one_printable_line(ValueError("a  b\n  c\x1b\n")) == r"a  b c\x1b"


def test_word_errors_are_counted_over_all_pairs():
    assert word_errors(["the cat", "", "a b c"], ["the dog", "one two", "b  c"]) == (1 + 2 + 1, 2 + 2 + 2)
    assert word_errors([], []) == (0, 0)
    with pytest.raises(ValueError):
        word_errors(["a"], [])
