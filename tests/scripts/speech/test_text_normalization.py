"""Texts as the model writes them."""

import pytest

from scripts.speech.text_normalization import normalize_text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("L’été, c'est  fini !", "l'été c'est fini"),
        ("Pouvez-vous rappeler ?", "pouvez vous rappeler"),
        ("'Nine' o'clock.", "nine o'clock"),
        ("E\u0301te\u0301", "été"),
    ],
)
def test_text_is_lower_case_words(text, expected):
    assert normalize_text(text) == expected
