"""Takes the picture of an example's report: ``python docs/example_pictures.py RUN_DIR NAME [SECTION [REFERENCE]]``.

It shows the top of the page, or a section of it (``suspects``, ``duplicates``, ...; of ``references``, maybe one by its
number), and goes to ``docs/images/NAME.png``.
It needs playwright, Pillow and a Chromium on the path.
"""

from __future__ import annotations

import io
import shutil
import sys
from pathlib import Path

from PIL import Image
from playwright.sync_api import sync_playwright

IMAGES = Path(__file__).with_name("images")
SIZE = {"width": 1200, "height": 1000}
BROWSERS = ("chromium", "chromium-browser", "google-chrome")


def main(run: Path, name: str, section: str | None = None, reference: str | None = None) -> None:
    """Take it, in few colours: a repository keeps every version of a picture."""
    found = next((path for browser in BROWSERS if (path := shutil.which(browser))), None)
    if found is None:
        sys.exit(f"expected one of {', '.join(BROWSERS)} on PATH, found none: install Chromium")
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=found, args=["--no-sandbox"])
        page = browser.new_page(viewport=SIZE, color_scheme="light")
        page.goto((run / "report.html").resolve().as_uri())
        page.wait_for_selector("html[data-ready]")
        if reference is not None:
            page.locator("#pick-reference select").select_option(label=reference)
        if section is not None:
            page.evaluate("id => document.getElementById(id).scrollIntoView()", section)
        picture = Image.open(io.BytesIO(page.screenshot())).convert("RGB")
        browser.close()
    few = picture.quantize(128, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
    few.save(IMAGES / f"{name}.png", optimize=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
