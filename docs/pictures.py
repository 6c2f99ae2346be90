"""Takes the pictures of the report that the documentation shows: ``python docs/pictures.py RUN_DIR``.

The ones in ``docs/images`` are of ``lightning-inf fit --config configs/fashion_mnist.yaml`` on the 20,000 training images of
a part of Fashion-MNIST, without planted mistakes. It needs playwright, Pillow and a Chromium on the path.
"""

from __future__ import annotations

import io
import shutil
import sys
from pathlib import Path
from typing import Any

from PIL import Image
from playwright.sync_api import sync_playwright

IMAGES = Path(__file__).with_name("images")
SIZE = {"width": 1200, "height": 1040}
BROWSERS = ("chromium", "chromium-browser", "google-chrome")


def save(page: Any, name: str) -> None:
    """Save what the window shows, in few colours: a repository keeps every version of a picture."""
    picture = Image.open(io.BytesIO(page.screenshot())).convert("RGB")
    picture.quantize(128, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE).save(
        IMAGES / f"report-{name}.png", optimize=True
    )


def main(run: Path) -> None:
    """Take the page in light, in dark, and under review."""
    found = next((path for name in BROWSERS if (path := shutil.which(name))), None)
    if found is None:
        sys.exit(f"expected one of {', '.join(BROWSERS)} on PATH, found none: install Chromium")
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=found, args=["--no-sandbox"])
        for scheme in ("light", "dark"):
            page = browser.new_page(viewport=SIZE, color_scheme=scheme)
            page.goto((run / "report.html").resolve().as_uri())
            page.wait_for_selector("html[data-ready]")
            save(page, scheme)
        page = browser.new_page(viewport={"width": 1200, "height": 760}, color_scheme="light")
        page.goto((run / "report.html").resolve().as_uri())
        page.wait_for_selector("html[data-ready]")
        page.get_by_role("button", name="Review the").click()
        save(page, "review")
        browser.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
