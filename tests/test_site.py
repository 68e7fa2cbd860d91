"""The documentation site: built without a warning, like its pages on a code host, asking no other host."""

from __future__ import annotations

import importlib
import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path

import pytest
from markdown_it import MarkdownIt

from tests.pages import DOCS, ROOT

pytestmark = pytest.mark.slow
pytest.importorskip("mkdocs")
pytest.importorskip("mkdocstrings")

COUNTED = ("h1", "h2", "h3", "h4", "table", "tr", "td", "ul", "ol", "li", "pre", "img", "strong", "em")
LOADING = {"src", "srcset", "poster", "data", "action"}
"""Attributes from which a browser loads; also ``href``, of ``link`` alone."""
DOCUMENTED = (
    "preserve_gym",
    "preserve_gym.forecasting",
    "preserve_gym.prediction",
    "preserve_gym.scenarios",
    "preserve_gym.sim",
    "preserve_gym.traces",
    "baselines",
)
PAGES_OF_ROOT = {"contributing": ROOT / "CONTRIBUTING.md", "changelog": ROOT / "CHANGELOG.md"}


class Tags(HTMLParser):
    """Tags of the article, ids, and what is loaded."""

    def __init__(self, text: str, whole: bool = False) -> None:
        super().__init__()
        self.counted: Counter[str] = Counter()
        self.ids: set[str] = set()
        self.loaded: list[str] = []
        self._inside = whole
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._inside |= tag == "article"
        self.counted[tag] += self._inside
        for name, value in attrs:
            if name == "id":
                self.ids.add(value or "")
            elif name in LOADING or (name == "href" and tag == "link"):
                self.loaded.append(value or "")

    def handle_endtag(self, tag: str) -> None:
        self._inside &= tag != "article"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    # The theme's advertisement for its successor is no warning of ours.
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    result = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert "WARNING" not in result.stderr
    return folder


def test_every_page_is_there_as_a_code_host_shows_it(site: Path) -> None:
    renderer = MarkdownIt("commonmark").enable("table")
    pages = {path.relative_to(DOCS).with_suffix("").as_posix(): path for path in DOCS.rglob("*.md")}
    for name, path in {**pages, **PAGES_OF_ROOT}.items():
        if name == "api":
            continue
        expected = Tags(renderer.render(path.read_text(encoding="utf-8")), whole=True).counted
        shown = Tags((site / f"{name}.html").read_text(encoding="utf-8")).counted
        assert {tag: shown[tag] for tag in COUNTED} == {tag: expected[tag] for tag in COUNTED}, name


def test_nothing_is_loaded_from_elsewhere(site: Path) -> None:
    pages = sorted(site.rglob("*.html"))
    assert len(pages) > 30
    for page in pages:
        for url in Tags(page.read_text(encoding="utf-8")).loaded:
            assert not re.match(r"(\w+:)?//", url), f"{page.name} loads {url}"
            if page.name != "404.html" and not url.startswith("data:"):
                assert (page.parent / re.sub(r"[?#].*", "", url)).exists(), f"{page.name}: {url}"
    for style in site.rglob("*.css"):
        text = style.read_text(encoding="utf-8")
        assert re.findall(r"url\(\s*['\"]?(?:\w+:)?//|@import", text) == [], style.name


def test_all_public_names_are_in_the_reference(site: Path) -> None:
    anchors = Tags((site / "api.html").read_text(encoding="utf-8")).ids
    for module in DOCUMENTED:
        for name in importlib.import_module(module).__all__:
            origin = getattr(getattr(importlib.import_module(module), name), "__module__", module)
            places = {f"{place}.{name}" for place in (module, "preserve_gym", origin)}
            assert places & anchors, f"{module}.{name} is not in docs/api.md"


def test_files_of_the_code_are_shown(site: Path) -> None:
    listing = (site / "source" / "examples" / "my_scaler.py.html").read_text(encoding="utf-8")
    assert "RateWithHeadroom" in listing
    linking = (site / "write-your-own-policy.html").read_text(encoding="utf-8")
    assert 'href="source/examples/my_scaler.py.html"' in linking


def test_it_reads_in_a_browser(site: Path) -> None:
    playwright = pytest.importorskip("playwright.sync_api")
    path = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if path is None:
        if os.environ.get("PRESERVE_GYM_REQUIRE_BROWSER") == "1":
            pytest.fail("no Chromium on the path")
        pytest.skip("no Chromium on the path")
    asked: list[str] = []
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page()
        page.on("request", lambda request: asked.append(request.url))
        for name in ("index", "environments/autoscale", "api"):
            page.goto((site / f"{name}.html").as_uri())
            page.wait_for_load_state("networkidle")
            assert page.locator("h1").first.is_visible()
        browser.close()
    assert [url for url in asked if not url.startswith(("file:", "data:", "blob:"))] == []
