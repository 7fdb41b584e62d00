# SPDX-License-Identifier: Apache-2.0
"""Records README's first five minutes: `make record` types them in a fresh clone and draws docs/first-five-minutes.svg.

What is shown is what was printed, in a terminal of 80 columns, with its colours.
"""

from __future__ import annotations

import io
import os
import pty
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.terminal_theme import SVG_EXPORT_THEME
from rich.text import Text

ROOT = Path(__file__).resolve().parents[1]
TARGET = ROOT / "docs" / "first-five-minutes.svg"
COLUMNS = 80
ASKED = re.compile(r"```sh\n(curl -s .+?)```", re.DOTALL)
DRAWING = """\
<svg class="rich-terminal" viewBox="0 0 {width} {height}" xmlns="http://www.w3.org/2000/svg">
<title>The first five minutes with hermes.workers</title>
<style>
.{unique_id}-matrix {{ font-family: ui-monospace, Menlo, Consolas, "DejaVu Sans Mono", monospace;
  font-size: {char_height}px; line-height: {line_height}px; font-variant-east-asian: full-width; }}
{styles}
</style>
<defs>{lines}</defs>
<rect fill="#0c0c0c" width="{width}" height="{height}" rx="8"/>
<g transform="translate({terminal_x}, {terminal_y})">{backgrounds}
<g class="{unique_id}-matrix">{matrix}</g></g>
</svg>
"""
"""Rich's own loads a font from elsewhere, which a picture in a page may not."""


def typed() -> list[str]:
    """What somebody types who reads README from its beginning, and then asks what there is now."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    (asked,) = ASKED.findall(readme)
    return ["make deploy", asked.strip(), "make deploy", "make status"]


def printed(command: str, folder: Path, env: dict[str, str]) -> str:
    """Run a command in a terminal of its own; return what it printed there. Raises where it fails."""
    leader, follower = pty.openpty()
    size = f"stty cols {COLUMNS} rows 40; "
    with subprocess.Popen(
        ["sh", "-c", size + command],
        cwd=folder,
        env=env,
        stdin=follower,
        stdout=follower,
        stderr=follower,
    ) as process:
        os.close(follower)
        read = bytearray()
        while piece := _read(leader):
            read += piece
    os.close(leader)
    text = read.decode(errors="replace").replace("\r\n", "\n")
    if process.returncode != 0:
        raise SystemExit(f"{command} failed:\n{text}")
    return text


def _read(leader: int) -> bytes:
    try:
        return os.read(leader, 65536)
    except OSError:
        # Linux's way of saying that nobody holds the other side any more.
        return b""


def clone(folder: Path) -> None:
    """Copy what is tracked of the checkout into a folder."""
    command = ["git", "ls-files", "-z"]
    listed = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    for name in filter(None, listed.split("\0")):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, folder / name, follow_symlinks=False)


def person(home: Path) -> dict[str, str]:
    """An environment with nothing of the tests' in it, beyond the way to the registries."""
    way = re.compile(
        r"PATH$|LANG$|(?:UV|PIP|npm_config|SSL|REQUESTS|NODE)_|https?_proxy$", re.IGNORECASE
    )
    kept = {name: value for name, value in os.environ.items() if way.match(name)}
    path = [part for part in kept["PATH"].split(":") if not part.startswith(str(ROOT))]
    return {**kept, "PATH": ":".join(path), "HOME": str(home), "TERM": "xterm-256color"}


def draw(sessions: list[tuple[str, str]]) -> str:
    """Return the picture of what was typed and printed."""
    console = Console(width=COLUMNS, record=True, file=io.StringIO(), force_terminal=True)
    for command, output in sessions:
        prompt = Text("$ ", style="bold green").append(command, style="bold white")
        console.print(prompt, overflow="fold", soft_wrap=False)
        console.print(Text.from_ansi(output.rstrip("\n")), overflow="fold")
        console.print()
    title = "The first five minutes with hermes.workers"
    drawn = console.export_svg(
        title=title, theme=SVG_EXPORT_THEME, code_format=DRAWING, unique_id="first"
    )
    # What Ansible paints as a dark grey is all but black there.
    drawn = drawn.replace("#4b4e55", "#8a8f98")
    return "\n".join(line.rstrip() for line in drawn.splitlines()) + "\n"


def main() -> int:
    """Record; returns the exit code."""
    with tempfile.TemporaryDirectory(prefix="hermes-record-") as place:
        folder = Path(place) / "hermes.workers"
        clone(folder)
        env = person(Path(place))
        try:
            sessions = [(command, printed(command, folder, env)) for command in typed()]
        finally:
            destroy = ["make", "destroy", "CONFIRM=yes", "FORGET=yes"]
            subprocess.run(destroy, cwd=folder, env=env, check=False, stdout=subprocess.DEVNULL)
    TARGET.write_text(draw(sessions), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
