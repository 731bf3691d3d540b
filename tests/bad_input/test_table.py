"""docs/reliability.md lists the cases of these tests."""

from cases import tables
from spoilt import TESTS


def test_reliability_page_lists_these_cases():
    text = (TESTS.parent / "docs" / "reliability.md").read_text(encoding="utf-8")
    begin, end = "<!-- python tests/bad_input/cases.py -->\n", "<!-- end of bad input -->\n"
    assert text.split(begin)[1].split(end)[0] == tables(), "run python tests/bad_input/cases.py and paste it"
