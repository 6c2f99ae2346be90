"""The page of evidence is what the results say."""

from __future__ import annotations

from benchmarks.evidence import PAGE, PARTS, RESULTS, main, page


def test_the_page_is_generated_from_the_results(tmp_path):
    assert all((RESULTS / f"{name}.json").is_file() for name in PARTS)
    assert PAGE.read_text(encoding="utf-8") == page(), "run `python -m benchmarks.evidence` and commit docs/evidence.md"


def test_what_was_not_measured_is_left_out(tmp_path):
    main(["--results", str(tmp_path), "--out", str(tmp_path / "page.md")])
    text = (tmp_path / "page.md").read_text(encoding="utf-8")
    assert text.startswith("# Evidence")
    assert "##" not in text
