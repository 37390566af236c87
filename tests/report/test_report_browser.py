"""The page in a real browser: nothing breaks, overflows, or stays invisible."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sample import sample, stopped
from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from test_report_html import hostile

from fedtl.report.html import write_report

FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)
BROWSER, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
pytestmark = pytest.mark.skipif(
    not (BROWSER and DRIVER), reason="chromium and chromedriver are not installed"
)
MEASURE = """
const figures = [...document.querySelectorAll('figure svg')].map(svg => {
  const box = svg.getBoundingClientRect(), clip = svg.parentElement.getBoundingClientRect();
  const out = [...svg.querySelectorAll('text')].filter(text => {
    const r = text.getBoundingClientRect();
    return r.left < box.left - 1 || r.right > box.right + 1 || r.bottom > box.bottom + 1
      || r.top < box.top - 1;
  }).map(text => text.textContent);
  return {width: box.width, height: box.height, inside: box.right <= clip.right + 1, out: out};
});
return {figures, page: document.documentElement.scrollWidth,
        room: document.documentElement.clientWidth,
        back: getComputedStyle(document.body).backgroundColor,
        shown: [...document.querySelectorAll('h1, h2, h3')].every(h => h.offsetHeight > 0)};
"""


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[webdriver.Chrome]:
    options = webdriver.ChromeOptions()
    options.binary_location = str(BROWSER)
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('browser')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(str(DRIVER)))
    yield driver
    driver.quit()


def look(driver: webdriver.Chrome, page: Path, *, width: int, scheme: str = "light") -> Any:
    """Open a page and measure it; the picture is left beside it."""
    feature = {"name": "prefers-color-scheme", "value": scheme}
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})
    window = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", window)
    driver.get(page.as_uri())
    driver.execute_script("document.querySelectorAll('details').forEach(d => d.open = true)")
    assert driver.save_screenshot(str(page.with_name(f"{width}-{scheme}.png")))
    return driver.execute_script(MEASURE)


RUNS = {
    "usual": (sample(failing=0.2), 8),
    "one round": (stopped(sample(sites=1)), 8),
    "large": (sample(sites=100, classes=100, rounds=30), 8),
    "hostile": (hostile(sample(failing=0.2)), 8),
}


@pytest.mark.parametrize("name", RUNS)
def test_the_page_is_whole_on_a_desk_and_on_a_telephone(
    browser: webdriver.Chrome, tmp_path: Path, name: str
) -> None:
    result, figures = RUNS[name]
    path = tmp_path / "report.html"
    write_report(result, path)
    for width in (1280, 400):
        seen = look(browser, path, width=width)
        assert len(seen["figures"]) == figures
        for figure in seen["figures"]:
            assert figure["width"] > 250
            assert figure["height"] > 60
            assert figure["inside"]
            assert figure["out"] == []  # no label is cut off at the edge of its figure
        assert seen["page"] <= seen["room"]
        assert seen["shown"]
        assert (tmp_path / f"{width}-light.png").stat().st_size > 10_000
    assert browser.get_log("browser") == []


def test_the_page_follows_the_readers_colour_scheme(
    browser: webdriver.Chrome, tmp_path: Path
) -> None:
    path = tmp_path / "report.html"
    write_report(sample(), path)
    light, dark = (look(browser, path, width=800, scheme=s)["back"] for s in ("light", "dark"))
    assert light == "rgb(244, 245, 247)"
    assert dark == "rgb(20, 24, 29)"


def test_no_script_of_a_hostile_name_runs(browser: webdriver.Chrome, tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    write_report(hostile(sample()), path)
    look(browser, path, width=800)
    assert "alert(1)" in browser.title  # shown as text; an open dialog would have raised
