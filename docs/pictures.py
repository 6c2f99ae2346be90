"""Takes the pictures of the report that the documentation shows: ``python docs/pictures.py RUN_DIR``.

The ones in ``docs/images`` are of ``lightning-inf fit --config configs/fashion_mnist.yaml`` on the 20,000 training images of
a part of Fashion-MNIST, without planted mistakes. ``python docs/pictures.py RUN_DIR SECTION NAME`` takes one section of
the page, such as ``references``, for an example. It needs playwright, Pillow and a Chromium on the path.
"""

from __future__ import annotations

import io
import shutil
import sys
from pathlib import Path

from PIL import Image
from playwright.sync_api import sync_playwright

IMAGES = Path(__file__).with_name("images")
SIZE = {"width": 1200, "height": 1040}
BROWSERS = ("chromium", "chromium-browser", "google-chrome")


def save(shot: bytes, name: str) -> None:
    """Save what the window shows, in few colours: a repository keeps every version of a picture."""
    picture = Image.open(io.BytesIO(shot)).convert("RGB")
    picture.quantize(128, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE).save(
        IMAGES / f"{name}.png", optimize=True
    )


def browse() -> str:
    """Find a browser."""
    found = next((path for name in BROWSERS if (path := shutil.which(name))), None)
    if found is None:
        sys.exit(f"expected one of {', '.join(BROWSERS)} on PATH, found none: install Chromium")
    return found


def section(run: Path, which: str, name: str) -> None:
    """Take one section of the page, its first 900 pixels."""
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=browse(), args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1000, "height": 900}, color_scheme="light")
        page.goto((run / "report.html").resolve().as_uri())
        page.wait_for_selector("html[data-ready]")
        place = page.locator(f"#{which}")
        place.scroll_into_view_if_needed()
        box = place.bounding_box()
        assert box is not None
        page.evaluate("y => window.scrollTo(0, y)", page.evaluate("window.scrollY") + box["y"])
        box = place.bounding_box()
        assert box is not None
        height = min(box["height"], 900.0 - box["y"])
        save(page.screenshot(clip={**box, "height": height}), name)
        browser.close()


def main(run: Path) -> None:
    """Take the page in light, in dark, and under review."""
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=browse(), args=["--no-sandbox"])
        for scheme in ("light", "dark"):
            page = browser.new_page(viewport=SIZE, color_scheme=scheme)
            page.goto((run / "report.html").resolve().as_uri())
            page.wait_for_selector("html[data-ready]")
            save(page.screenshot(), f"report-{scheme}")
        page = browser.new_page(viewport={"width": 1200, "height": 760}, color_scheme="light")
        page.goto((run / "report.html").resolve().as_uri())
        page.wait_for_selector("html[data-ready]")
        page.get_by_role("button", name="Review the").click()
        save(page.screenshot(), "report-review")
        browser.close()


if __name__ == "__main__":
    if sys.argv[2:]:
        section(Path(sys.argv[1]), *sys.argv[2:4])
    else:
        main(Path(sys.argv[1]))
