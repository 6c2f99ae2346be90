"""The page of the examples is what their studies wrote."""

import pytest

from examples.page import PAGE, page
from examples.study import Study, Table


def make(tmp_path, **changes):
    table = Table("Found, of 10", ["method", "top-1", "top-5"], [["ours", 9, 0.95], ["theirs", 3, None]], note="Why.")
    known = {"title": "Copies", "shows": "What leaked.", "command": "run", "study": "study", "data": "digits"}
    Study("copies", **known | {"tables": [table]} | changes).write(tmp_path / "copies.json")
    return page(tmp_path)


def test_the_page_is_up_to_date():
    assert page() == PAGE.read_text(encoding="utf-8"), "run `python -m examples.page`"


def test_tables_and_commands_are_shown(tmp_path):
    text = make(tmp_path, remarks=["Seen."], picture="images/a.png")
    assert "| ours | 9 | 0.95 |" in text
    assert "| theirs | 3 | – |" in text
    assert "```sh\nrun\n```" in text
    assert "![Copies](../docs/images/a.png)" in text
    assert "- Seen." in text
    assert "[Copies](#copies)" in text


def test_a_row_of_another_length_is_refused():
    with pytest.raises(ValueError, match="Expected 2 cells a row, found 1"):
        Table("a", ["x", "y"], [["z"]])
