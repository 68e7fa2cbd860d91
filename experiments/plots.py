from pathlib import Path


def draw(folder: Path) -> None:
    (folder/"plots").mkdir()
