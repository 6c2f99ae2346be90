"""The pages are what their generator makes of the results."""

import pytest

from tests.reliability.page import PAGES, RESULTS


@pytest.mark.parametrize("path", list(PAGES), ids=lambda path: path.stem)
def test_a_page_is_what_the_results_say(path):
    assert path.read_text(encoding="utf-8") == PAGES[path](RESULTS)


def test_the_results_are_there_and_nothing_was_wrong():
    from lightning_inf.files import read_json

    assert read_json(RESULTS / "damage.json")["wrong"] == []
    assert [kind for kind, trial in read_json(RESULTS / "bits.json")["kinds"].items() if trial["wrong"]] == []
    assert read_json(RESULTS / "interrupts.json")["wrong"] == []
    assert [trial for trial in read_json(RESULTS / "same.json")["trials"] if trial["wrong"]] == []
    trials = read_json(RESULTS / "compatibility.json")["trials"]
    assert not [trial for trial in trials if trial["outcome"] == "fails"]
    refused = [trial for trial in trials if trial["outcome"] == "refused"]
    assert all("dirpath" in trial["sentence"] or len(trial["sentence"]) > 60 for trial in refused)
