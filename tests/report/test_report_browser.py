"""The page as a person meets it: in a browser, on a phone, in the dark, by keyboard."""

import os
import shutil

import pytest

from wpl_d2.cli import main
from wpl_d2.report import write_report

PHONE = {"width": 390, "height": 844}
CANVASES = """() => [...document.querySelectorAll("canvas")].map((canvas) => {
    const { width, height } = canvas, blank = Object.assign(document.createElement("canvas"), { width, height });
    return {
        label: canvas.getAttribute("aria-label"),
        values: Chart.getChart(canvas).data.datasets.reduce((sum, line) => sum + line.data.length, 0),
        drawn: width * height > 0 && canvas.toDataURL() !== blank.toDataURL(),
    };
})"""


@pytest.fixture(scope="module")
def chromium():
    """Debian's Chromium; without it a user's test is skipped, and the project's own fails."""
    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        sync_playwright = None
    if found is None or sync_playwright is None:
        missing = "no chromium in PATH" if found is None else "no playwright (extra dev)"
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(f"{missing}: the page was not opened")
    with sync_playwright() as playwright:
        # Chromium's sandbox does not start for root, as whom containers run.
        browser = playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def files(runs, tmp_path_factory):
    side_by_side = tmp_path_factory.mktemp("pages") / "all.html"
    write_report(list(runs.values()), side_by_side)
    suggested = side_by_side.with_name("suggested.html")
    main(["suggest", str(runs["teacher"]), "-n", "3", "--output", str(suggested), "--device", "cpu"])
    return {"one run": runs["teacher"] / "report.html", "several runs": side_by_side, "suggestions": suggested}


@pytest.fixture
def show(chromium, files):
    """Opens a page; whatever its console says, or it asks the network for, fails the test."""
    said, contexts = [], []

    def open_page(name, **options):
        contexts.append(chromium.new_context(**options))
        page = contexts[-1].new_page()
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on(
            "request", lambda request: None if request.url.startswith(("file:", "data:")) else said.append(request.url)
        )
        page.goto(files[name].as_uri())
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert said == []


def wait_until(page, condition):
    """Playwright's `wait_for_function` would have the page evaluate text, which the page's policy forbids."""
    for _ in range(100):
        if page.evaluate(condition):
            return
        page.wait_for_timeout(100)
    pytest.fail(f"never came: {condition}")


@pytest.mark.parametrize("name", ["one run", "several runs"])
def test_charts_hold_data_and_say_what_they_show(show, name):
    page = show(name)
    page.evaluate('document.querySelectorAll("details").forEach((part) => { part.open = true; })')
    wait_until(page, f"({CANVASES})().every((chart) => chart.drawn)")
    charts = page.evaluate(CANVASES)
    assert len(charts) >= 6 and all(chart["values"] > 0 and chart["label"] for chart in charts)


@pytest.mark.parametrize("name", ["one run", "several runs", "suggestions"])
@pytest.mark.parametrize("width", [320, 390, 1280])
def test_nothing_is_wider_than_the_screen(show, name, width):
    page = show(name, viewport={"width": width, "height": 800})
    page.evaluate('document.querySelectorAll("details").forEach((part) => { part.open = true; })')
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_it_can_be_read_in_the_dark_and_follows_a_change(show):
    page = show("one run", viewport=PHONE, color_scheme="dark")
    look = "[getComputedStyle(document.body).backgroundColor, getComputedStyle(document.body).color]"
    line = 'Chart.getChart(document.querySelector("canvas")).data.datasets[0].borderColor'
    dark, color = page.evaluate(look), page.evaluate(line)
    page.emulate_media(color_scheme="light")
    wait_until(page, f"{line} !== '{color}'")
    light = page.evaluate(look)
    brightness = [sum(map(int, text[4:-1].split(", "))) for text in (dark[0], dark[1], light[0], light[1])]
    assert brightness[1] - brightness[0] > 300 and brightness[2] - brightness[3] > 300


def test_the_keyboard_reaches_every_part(show):
    page = show("one run")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    focusable = 'a[href], button, summary, [tabindex="0"]'
    visible = page.evaluate(f"[...document.querySelectorAll('{focusable}')].filter((e) => e.checkVisibility()).length")
    reached = 1
    while True:
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement === document.body || document.activeElement.className === 'skip'"):
            break
        reached += 1
        assert reached <= visible
    assert reached == visible > 20
    scrolls = """() => [...document.querySelectorAll("*")].filter((element) => element.checkVisibility()
        && element.scrollWidth > element.clientWidth && getComputedStyle(element).overflowX === "auto"
        && !element.matches('[tabindex="0"]') && !element.querySelector("a, button")).length"""
    assert page.evaluate(scrolls) == 0


def test_a_curve_is_hidden_and_shown_by_a_key(show):
    page = show("one run")
    button = page.locator(".legend button").first
    shown = 'Chart.getChart(document.querySelector("canvas")).isDatasetVisible(0)'
    button.focus()
    for pressed in ("false", "true"):
        page.keyboard.press("Space")
        assert button.get_attribute("aria-pressed") == pressed
        assert page.evaluate(shown) is (pressed == "true")


def test_pictures_and_headings_speak_to_a_screen_reader(show):
    page = show("one run")
    assert page.evaluate("[...document.images].every((image) => image.naturalWidth > 0 && image.alt.length > 10)")
    assert page.evaluate("document.images.length") == 12
    assert page.locator("h1").count() == 1 and page.get_attribute("html", "lang") == "en"
    ids = page.evaluate('[...document.querySelectorAll("[id]")].map((element) => element.id)')
    assert len(ids) == len(set(ids))
    targets = page.evaluate('[...document.querySelectorAll("nav a")].map((link) => link.hash.slice(1))')
    assert set(targets) <= set(ids)


def test_suggestions_are_shown_with_their_reasons(show):
    page = show("suggestions", viewport=PHONE)
    assert page.evaluate("[...document.images].every((image) => image.naturalWidth > 0 && image.alt.length > 10)")
    assert page.evaluate("document.images.length") == 9
    reasons = page.locator(".example p").all_inner_texts()
    assert len(reasons) == 3
    assert all("Trust 0." in text and "to the model" in text and "% of the image)" in text for text in reasons)
