"""What the command lines of the tools share."""

import pytest

from scripts.command_line import positive, require


def test_missing_package_is_named_with_a_remedy():
    with pytest.raises(SystemExit, match=r"cannot import no_such_package .*pip install -e"):
        require("no_such_package")


@pytest.mark.parametrize("text", ["0", "-1", "1.5", "x"])
def test_a_count_is_a_whole_number_from_1(text):
    assert positive("3") == 3
    with pytest.raises(ValueError):
        positive(text)
