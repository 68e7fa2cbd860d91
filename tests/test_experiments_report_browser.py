"""The report in a real browser: what a reader clicks on, in both colour schemes and on a phone."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from experiments.compare import compare, write_report
from experiments.run_records import RunRecords
from tests.synthetic_run import write_run

pytestmark = pytest.mark.slow
playwright = pytest.importorskip("playwright.sync_api")
pytest.importorskip("plotly")

SWITCHES = ("--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-background-networking")
DESK, PHONE = (1360, 900), (390, 844)
OpenReport = Callable[..., Any]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run as large as the benchmark, but for the seeds, and its report."""
    folder = write_run(tmp_path_factory.mktemp("run"), scenarios=13, policies=45, seeds=2)
    records = RunRecords(folder)
    write_report(records, compare(records))
    return folder


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    path = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if path is None:
        if os.environ.get("PRESERVE_GYM_REQUIRE_BROWSER") == "1":
            pytest.fail("no Chromium on the path")
        pytest.skip("no Chromium on the path")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=path, args=list(SWITCHES))
        yield browser
        browser.close()


@pytest.fixture
def open_report(folder: Path, chromium: Any) -> Iterator[OpenReport]:
    """Opens the report offline; at the end nothing may have been asked of the network or gone wrong."""
    contexts, asked, wrong = [], [], []

    def opened(size: tuple[int, int] = DESK, scheme: str = "light") -> Any:
        viewport = {"width": size[0], "height": size[1]}
        context = chromium.new_context(viewport=viewport, color_scheme=scheme, offline=True)
        contexts.append(context)
        page = context.new_page()
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("console", lambda said: wrong.append(said.text) if said.type == "error" else None)
        page.on("request", lambda request: asked.append(request.url))
        page.goto((folder / "report.html").as_uri())
        page.wait_for_selector('html[data-ready="1"]')
        return page

    yield opened
    for context in contexts:
        context.close()
    assert wrong == []
    assert [url for url in asked if not url.startswith(("file:", "data:", "blob:"))] == []


def _section(page: Any, scenario: str) -> Any:
    section = page.locator(f'details[data-scenario="{scenario}"]')
    section.locator("> summary").click()
    page.wait_for_selector(f'details[data-scenario="{scenario}"][data-ready="1"]')
    return section


def _figure(section: Any, n: int) -> Any:
    figure = section.locator(".plot").nth(n)
    figure.scroll_into_view_if_needed()
    figure.locator(".main-svg").first.wait_for()
    return figure


def test_report_is_small_enough_to_send(folder: Path) -> None:
    assert (folder / "report.html").stat().st_size < 15_000_000


def test_nothing_is_drawn_before_its_scenario_is_opened(open_report: OpenReport) -> None:
    page = open_report()
    assert page.locator("details.scenario").count() == 13
    assert page.locator("#standings tbody tr").count() == 45
    assert page.locator(".plot").count() == 0
    _section(page, "drift")
    assert page.locator(".plot").count() == 7


def test_a_click_on_a_heading_sorts(open_report: OpenReport) -> None:
    page = open_report()
    table = page.locator("#standings")

    def ranks() -> list[float]:
        return [float(text) for text in table.locator("tbody td:nth-child(3)").all_text_contents()]

    assert ranks() != sorted(ranks())
    table.get_by_role("button", name="Mean rank").click()
    assert ranks() == sorted(ranks())
    table.get_by_role("button", name="Mean rank").click()
    assert ranks() == sorted(ranks(), reverse=True)


def test_every_figure_is_drawn(open_report: OpenReport) -> None:
    section = _section(open_report(), "chat-week")
    for n in range(7):
        assert _figure(section, n).locator("svg.main-svg").count() >= 1


def test_policies_are_toggled_by_button_and_by_point(open_report: OpenReport) -> None:
    page = open_report()
    section = _section(page, "chat")
    lines = _figure(section, 1)
    count = "(figure) => figure.data.filter((trace) => trace.yaxis === 'y2').length"
    before = lines.evaluate(count)
    button = section.get_by_role("button", name="hpa", exact=True)
    assert button.get_attribute("aria-pressed") == "false"
    button.click()
    assert button.get_attribute("aria-pressed") == "true"
    playwright.expect(section.locator(".key").first).to_contain_text("hpa")
    page.wait_for_function("([f, n]) => f.data.filter((t) => t.yaxis === 'y2').length === n",
                           arg=[lines.element_handle(), before + 1])  # fmt: skip
    front = _figure(section, 0)
    front.evaluate("(figure) => figure.emit('plotly_click', { points: [{ customdata: 0 }] })")
    pressed = section.locator(".choice button").first.get_attribute("aria-pressed")
    assert pressed == "false"  # the policy of rank 1 was drawn from the beginning


def test_time_lines_zoom_together_and_change_with_the_window(open_report: OpenReport) -> None:
    page = open_report()
    section = _section(page, "code")
    lines = _figure(section, 1)
    load = lines.evaluate("(figure) => figure.data[0].y")
    box = lines.locator(".nsewdrag").first.bounding_box()
    page.mouse.move(box["x"] + 0.3 * box["width"], box["y"] + 40)
    page.mouse.down()
    page.mouse.move(box["x"] + 0.5 * box["width"], box["y"] + 60, steps=5)
    page.mouse.up()
    page.wait_for_function("(f) => f.layout.xaxis.autorange === false", arg=lines.element_handle())
    section.locator("select").select_option("1")
    page.wait_for_function("([f, y]) => f.data[0].y[0] !== y[0]", arg=[lines.element_handle(), load])


def test_intervals_for_other_days_are_other_intervals(open_report: OpenReport) -> None:
    page = open_report()
    section = _section(page, "step")
    cell = section.locator("tbody tr").first.locator("small").first
    same_days = cell.text_content()
    page.locator("#kind").select_option("_days")
    assert cell.text_content() != same_days


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [DESK, PHONE])
def test_page_is_legible_and_no_wider_than_the_screen(
    open_report: OpenReport, size: tuple[int, int], scheme: str
) -> None:
    page = open_report(size, scheme)
    section = _section(page, "flash-crowd")
    figure = _figure(section, 0)
    assert page.evaluate("document.documentElement.scrollWidth") <= size[0]
    ink, back = (
        page.evaluate(f"getComputedStyle(document.body).{name}") for name in ("color", "backgroundColor")
    )
    brightness = [sum(map(int, colour[4:-1].split(","))) / 3 for colour in (ink, back)]
    assert (brightness[0] > 200 > 60 > brightness[1]) == (scheme == "dark")
    assert (brightness[1] > 200 > 60 > brightness[0]) == (scheme == "light")
    assert figure.evaluate("(f) => f.layout.font.color").lower() == page.evaluate(
        "getComputedStyle(document.documentElement).getPropertyValue('--ink').trim()"
    )
