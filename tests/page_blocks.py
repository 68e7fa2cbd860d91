"""The fenced blocks of a page: what the tests do with each follows from its language and its marker.

* ``python`` is run, all blocks of a page as one script; ``<!-- needs: MODULE -->`` above it leaves it out
  where that module is not installed.
* ``text`` right after it is what it prints, and compared.
* ``console`` holds commands, each after a prompt; the options of our own are parsed, nothing is run.
* ``yaml`` and ``csv`` are read.
* ``text`` elsewhere says why it is not run: ``<!-- not run: REASON -->`` above it.
"""

from __future__ import annotations

import importlib.util
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

LANGUAGES = ("python", "text", "console", "yaml", "csv")
_PROMPT = re.compile(r"^\w*\$ ")


@dataclass(frozen=True)
class Block:
    """A fenced block of a page."""

    language: str
    line: int  # of its first line of content, from 0
    text: str
    runs: bool  # a block of Python whose needs are installed
    is_output: bool  # what the block right before it prints
    reason: str | None  # why it is not run, as the page says


def blocks_of(page: Path) -> list[Block]:
    blocks: list[Block] = []
    lines = page.read_text(encoding="utf-8").splitlines()
    i = 0
    while i < len(lines):
        if not lines[i].startswith("```"):
            i += 1
            continue
        end = next(k for k in range(i + 1, len(lines)) if lines[k].startswith("```"))
        language = lines[i].removeprefix("```").strip()
        above = lines[i - 1] if i else ""
        needs = re.fullmatch(r"<!-- needs: (\w+) -->", above)
        reason = re.fullmatch(r"<!-- not run: (.+) -->", above)
        installed = needs is None or importlib.util.find_spec(needs[1]) is not None
        is_output = language == "text" and above == "```" and bool(blocks) and blocks[-1].language == "python"
        blocks.append(
            Block(
                language,
                i + 1,
                "\n".join(lines[i + 1 : end]),
                runs=language == "python" and installed,
                is_output=is_output,
                reason=reason and reason[1],
            )
        )
        i = end + 1
    return blocks


def commands_of(block: Block) -> Iterator[list[str]]:
    """The words of each command of a console block, without prompts and comments.

    Raises:
        ValueError: at a line without a prompt.
    """
    for line in re.sub(r"\\\n\s*", "", block.text).splitlines():
        prompt = _PROMPT.match(line)
        if prompt is None:
            raise ValueError(f"expected a command after '$ ', got {line!r}")
        words: list[str] = []
        for word in shlex.split(line[prompt.end() :], comments=True):
            if word == "&&":
                yield words
                words = []
            else:
                words.append(word)
        yield words
