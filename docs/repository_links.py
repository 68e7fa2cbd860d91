"""A hook of MkDocs: links from a page to files of the repository outside docs/ lead to pages of the site."""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]
PAGES = {"CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changelog.md"}
"""Of the root: pages of the site with these names."""
STANDS_FOR = {**PAGES, "README.md": "index.md"}
_FENCE = "`" * 8
_LINK = re.compile(r"(?<!!)\[([^\[\]]*)\]\(([^)\s:#]+)(#[^)\s]*)?\)")
_CODE = re.compile(r"(^```.*?^```)", re.DOTALL | re.MULTILINE)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages of the root, and a page for each file of the code that a page links to."""
    for name, page in PAGES.items():
        files.append(File.generated(config, page, abs_src_path=str(ROOT / name)))
    for path in sorted({path for file in files.documentation_pages() for path in _sources(file)}):
        listing = f"---\nsearch:\n  exclude: true\n---\n# {path}\n\n{_FENCE}{_language(path)}\n"
        content = f"{listing}{(ROOT / path).read_text(encoding='utf-8').rstrip()}\n{_FENCE}\n"
        files.append(File.generated(config, f"source/{path}.md", content=content))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Turn such links into links within the site; one to a folder becomes its text."""
    folder = _folder(page.file)
    here = PurePosixPath(page.file.src_uri).parent
    if folder is None:
        return markdown

    def within_site(link: re.Match[str]) -> str:
        text, target, anchor = link[1], link[2], link[3] or ""
        path = _path(folder, target)
        if path is None or (ROOT / path).is_dir():
            return link[0] if path is None else text
        if path.startswith("docs/"):
            page_of_it = path.removeprefix("docs/")
        else:
            page_of_it = STANDS_FOR.get(path, f"source/{path}.md")
        up = "../" * len([part for part in here.parts if part != "."])
        return f"[{text}]({up}{page_of_it}{anchor})"

    parts = _CODE.split(markdown)
    return "".join(part if k % 2 else _LINK.sub(within_site, part) for k, part in enumerate(parts))


def _folder(file: File) -> Path | None:
    """The folder of the repository that a page's links start from; None for a listing."""
    if file.src_uri in PAGES.values():
        return ROOT
    return None if file.src_uri.startswith("source/") else (ROOT / "docs" / file.src_uri).parent


def _path(folder: Path, target: str) -> str | None:
    """Of the target, from the root; None if it is not there, which MkDocs tells."""
    path = (folder / target).resolve()
    return path.relative_to(ROOT).as_posix() if path.is_relative_to(ROOT) and path.exists() else None


def _sources(file: File) -> set[str]:
    folder = _folder(file)
    if folder is None:
        return set()
    text = _CODE.sub("", file.content_string)
    paths = {_path(folder, link[2]) for link in _LINK.finditer(text)}
    return {
        path
        for path in paths
        if path and not path.startswith("docs/") and path not in STANDS_FOR and (ROOT / path).is_file()
    }


def _language(path: str) -> str:
    return {".py": "python", ".yaml": "yaml", ".yml": "yaml", ".json": "json"}.get(Path(path).suffix, "text")
