"""The README's picture, from a run: `python docs/picture.py runs/NAME/report.html` (needs Chromium, playwright)."""

import shutil
import sys
from pathlib import Path

from playwright.sync_api import sync_playwright

picture = Path(__file__).parent / "report.png"
with sync_playwright() as playwright:
    browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
    page = browser.new_page(viewport={"width": 1080, "height": 860}, device_scale_factor=1.5)
    page.goto(Path(sys.argv[1]).resolve().as_uri())
    page.wait_for_selector("tr.audit-row")
    page.screenshot(path=picture)
print(picture)
