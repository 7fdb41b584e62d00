# SPDX-License-Identifier: Apache-2.0
"""The map of the code is true: each room imports only from the rooms below it, and no files go round in a circle."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]


def typescript_imports(path: Path) -> Iterator[Path]:
    """The files that one imports, be it a type alone."""
    # A statement ends with its first text; what is imported for its effects names nothing before that.
    words = r'^(?:import|export)\b[^"\';]*?["\'](\.[^"\']+)["\']|\bimport\(\s*["\'](\.[^"\']+)["\']'
    for found in re.finditer(words, path.read_text(), re.MULTILINE):
        yield (path.parent / (found[1] or found[2])).resolve()


def python_imports(root: str) -> Callable[[Path], Iterator[Path]]:
    """What reads the files that one imports, be it for a type alone. root: where Python finds full names from."""

    def imports(path: Path) -> Iterator[Path]:
        top = next(folder for folder in path.parents if folder.name == root)
        for node in ast.walk(ast.parse(path.read_text())):
            base, names = top, []
            if isinstance(node, ast.Import):
                names = [one.name for one in node.names]
            elif isinstance(node, ast.ImportFrom):
                base = path.parents[node.level - 1] if node.level else top
                inside = f"{node.module}." if node.module else ""
                # A name is a file of the folder, or something in the file.
                names = [inside.rstrip("."), *(inside + one.name for one in node.names)]
            for name in names:
                yield base / f"{name.replace('.', '/')}.py"

    return imports


@dataclass(frozen=True)
class Wing:
    """A folder of sources, and what the files of each of its rooms may import besides each other."""

    folder: str
    files: str
    imports: Callable[[Path], Iterator[Path]]
    # Room -> rooms. A room is a folder, or a file that stands alone.
    rooms: dict[str, str]

    def sources(self, root: Path) -> list[Path]:
        """Its files."""
        return sorted((root / self.folder).rglob(self.files))

    def room(self, path: Path, root: Path) -> str:
        """The room of a file: the innermost folder of its own that is one, or itself."""
        inside = path.relative_to(root / self.folder)
        names = [inside, *inside.parents]
        return next((str(name) for name in names if str(name) in self.rooms), str(inside))


# What goes into a module's zip knows nothing of what only the controller has.
SENT = "module_utils module_utils/settings"
STATE = f"{SENT} plugin_utils/state"
BUILD = f"{STATE} plugin_utils/agent plugin_utils/build"
PLATFORM = (
    f"{BUILD} plugin_utils/proof plugin_utils/containers plugin_utils/controller.py"
    " plugin_utils/plan.py"
)
ACTIONS = (
    f"{PLATFORM} module_utils/cloudflare plugin_utils/agent plugin_utils/inputs plugin_utils/display"
    " plugin_utils/cloudflare"
)
PLUGINS = {
    "action": f"{ACTIONS} plugin_utils/workerd plugin_utils/platform.py plugin_utils/actions",
    "callback": "plugin_utils/display",
    "doc_fragments": "",
    "inventory": "module_utils/cloudflare plugin_utils/cloudflare",
    "lookup": f"{SENT} plugin_utils/display",
    "modules": "module_utils/cloudflare",
    "module_utils": "",
    "module_utils/cloudflare": "module_utils",
    "module_utils/settings": "module_utils",
    "plugin_utils/actions": ACTIONS,
    "plugin_utils/agent": SENT,
    "plugin_utils/build": f"{STATE} plugin_utils/agent",
    "plugin_utils/cloudflare": f"{PLATFORM} module_utils/cloudflare",
    "plugin_utils/containers": BUILD,
    "plugin_utils/controller.py": BUILD,
    "plugin_utils/display": f"{SENT} plugin_utils/inputs",
    "plugin_utils/inputs": SENT,
    "plugin_utils/plan.py": f"{STATE} plugin_utils/proof",
    "plugin_utils/platform.py": f"{PLATFORM} plugin_utils/workerd plugin_utils/cloudflare",
    "plugin_utils/proof": f"{STATE} plugin_utils/agent",
    "plugin_utils/state": SENT,
    # A sibling of cloudflare: neither knows the other.
    "plugin_utils/workerd": f"{PLATFORM} plugin_utils/display",
}


WINGS = [
    Wing(
        "worker/src",
        "*.ts",
        typescript_imports,
        {
            "index.ts": "providers dashboard gate instance channels/gate.ts channels sandbox config state base",
            "providers": "gate instance channels/gate.ts channels sandbox config state base",
            "dashboard": "gate instance sandbox config state base",
            "gate": "instance sandbox config state base",
            "instance": "channels/channels.ts channels sandbox config state base",
            # What comes in, what becomes of it, and between them the messengers.
            "channels/gate.ts": "channels/platforms channels/mail channels config base",
            "channels/channels.ts": "channels/platforms channels config base",
            "channels/platforms": "channels/mail channels config base",
            "channels/mail": "channels config base",
            "channels": "config base",
            "sandbox": "config state base",
            "config": "base",
            "state": "base",
            "base": "",
        },
    ),
    Wing("plugins", "*.py", python_imports("plugins"), PLUGINS),
    Wing(
        "container/sandbox",
        "*.py",
        python_imports("container"),
        {
            "__init__.py": "",
            "__main__.py": "cli.py",
            "cli.py": "pid1 commands state paths.py errors.py",
            "pid1": "state paths.py processes.py errors.py",
            "commands": "agent job_records.py paths.py processes.py errors.py",
            "agent": "state job_records.py paths.py errors.py",
            "state": "paths.py errors.py",
            # On another interpreter, which knows nothing of this package.
            "in_hermes": "",
            "job_records.py": "",
            "paths.py": "errors.py",
            "processes.py": "",
            "errors.py": "",
        },
    ),
    Wing(
        "container/engine",
        "*.py",
        python_imports("container"),
        {
            "__init__.py": "",
            "__main__.py": "cli.py",
            "cli.py": "server.py engine.py confine.py disks.py images.py snapshots.py",
            "server.py": "engine.py exec.py errors.py",
            "engine.py": "sandbox.py disks.py images.py snapshots.py errors.py",
            "exec.py": "sandbox_link.py errors.py",
            "sandbox.py": "sandbox_link.py snapshots.py confine.py disks.py images.py processes.py errors.py",
            "sandbox_link.py": "errors.py",
            "snapshots.py": "disks.py errors.py",
            "confine.py": "images.py errors.py",
            "images.py": "errors.py",
            "disks.py": "processes.py",
            "processes.py": "",
            "errors.py": "",
        },
    ),
    Wing(
        "host",
        "*.py",
        python_imports("host"),
        {
            "supervisor.py": "processes.py control.py records.py arrivals.py guardian.py",
            "processes.py": "records.py arrivals.py",
            "records.py": "",
            "arrivals.py": "",
            "control.py": "",
            # These two are programs of their own.
            "guardian.py": "",
            "cleaner.py": "",
        },
    ),
]


def flaws(wing: Wing, root: Path = ROOT) -> list[str]:
    """What is wrong with a wing."""
    found: list[str] = []
    graph: dict[str, set[str]] = {}
    sources = wing.sources(root)
    for path in sources:
        name, room = str(path.relative_to(root)), wing.room(path, root)
        if room not in wing.rooms:
            found.append(f"{name} is in no room")
            continue
        imported = {there for there in wing.imports(path) if there in sources and there != path}
        graph[name] = {str(there.relative_to(root)) for there in imported}
        allowed = {room, *wing.rooms[room].split()}
        found += [
            f"{name} may not import {there.relative_to(root)}"
            for there in sorted(imported)
            if wing.room(there, root) not in allowed
        ]
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        found.append(f"a circle: {' -> '.join(reversed(error.args[1]))}")
    return found


@pytest.mark.parametrize("wing", WINGS, ids=lambda wing: wing.folder)
def test_each_room_imports_only_from_below(wing: Wing) -> None:
    assert len(wing.sources(ROOT)) >= len(wing.rooms), "the files were not found"
    assert flaws(wing) == []


@pytest.mark.parametrize("wing", WINGS, ids=lambda wing: wing.folder)
def test_the_rooms_lie_above_each_other(wing: Wing) -> None:
    assert {room for room in wing.rooms if not (ROOT / wing.folder / room).exists()} == set()
    order = TopologicalSorter({room: set(below.split()) for room, below in wing.rooms.items()})
    assert set(order.static_order()) == set(wing.rooms)


WORKER = {
    "index.ts": 'import { gate } from "./gate/gate.ts";\n',
    "gate/gate.ts": 'import { base } from "../base/base.ts";\nexport const gate = base;\n',
    "base/base.ts": 'import other from "elsewhere";\nexport const base = other;\n',
}


@pytest.mark.parametrize(
    ("file", "text", "flaw"),
    [
        ("base/x.ts", 'import { gate } from "../gate/gate.ts";', "may not import"),
        ("base/x.ts", 'import type { Gate } from "../gate/gate.ts";', "may not import"),
        ("base/x.ts", 'import {\n  type A,\n  b,\n} from "../gate/gate.ts";', "may not import"),
        ("base/x.ts", 'export * from "../gate/gate.ts";', "may not import"),
        ("base/x.ts", 'import "../gate/gate.ts";', "may not import"),
        ("base/x.ts", 'const gate = await import("../gate/gate.ts");', "may not import"),
        ("dashboard/x.ts", 'import { key } from "../providers/y.ts";', "may not import"),
        ("base/base.ts", 'import { y } from "./y.ts";', "a circle"),
        ("attic.ts", "export const attic = 1;", "is in no room"),
        ("attic/x.ts", "export const attic = 1;", "is in no room"),
    ],
)
def test_what_breaks_the_rules_is_found(file: str, text: str, flaw: str, tmp_path: Path) -> None:
    others = {
        "providers/y.ts": "export const key = 1;\n",
        "base/y.ts": 'import type { X } from "./base.ts";\n',
    }
    for name, content in {**WORKER, **others}.items():
        path = tmp_path / "worker/src" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    assert flaws(WINGS[0], tmp_path) == []
    path = tmp_path / "worker/src" / file
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"{text}\n")
    assert [found for found in flaws(WINGS[0], tmp_path) if flaw in found]


PLUGIN_FILES = {
    "action/deploy.py": "from ..plugin_utils.state.folder import Folder\n",
    "plugin_utils/state/folder.py": "from ...module_utils import cards\nFolder = cards\n",
    "plugin_utils/state/lock.py": "lock = 1\n",
    "plugin_utils/cloudflare/place.py": "place = 1\n",
    "module_utils/cards.py": "import elsewhere\n",
}


@pytest.mark.parametrize(
    ("file", "text", "flaw"),
    [
        ("module_utils/x.py", "from ..plugin_utils.state import folder", "may not import"),
        ("module_utils/x.py", "from ..plugin_utils.state.folder import Folder", "may not import"),
        ("plugin_utils/workerd/x.py", "from ..cloudflare.place import place", "may not import"),
        ("plugin_utils/state/x.py", "def f():\n    from ...action import deploy", "may not import"),
        ("plugin_utils/state/lock.py", "from . import folder", ""),
        ("plugin_utils/attic/x.py", "attic = 1", "is in no room"),
    ],
)
def test_what_breaks_the_rules_of_plugins_is_found(
    file: str, text: str, flaw: str, tmp_path: Path
) -> None:
    for name, content in PLUGIN_FILES.items():
        path = tmp_path / "plugins" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    path = tmp_path / "plugins" / file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"{text}\n")
    found = flaws(WINGS[1], tmp_path)
    assert [one for one in found if flaw in one] if flaw else found == []


@pytest.mark.parametrize(
    ("file", "text", "flaw"),
    [
        ("state/x.py", "from sandbox.pid1 import init", "may not import"),
        ("commands/x.py", "from sandbox.pid1.init import Init", "may not import"),
        ("pid1/x.py", "def f():\n    import sandbox.commands.logs", "may not import"),
        ("errors.py", "from sandbox.paths import Paths", "a circle"),
        ("pid1/init.py", "from sandbox.pid1 import child", "a circle"),
        ("attic.py", "", "is in no room"),
    ],
)
def test_what_breaks_the_rules_in_python_is_found(
    file: str, text: str, flaw: str, tmp_path: Path
) -> None:
    wing = next(one for one in WINGS if one.folder == "container/sandbox")
    others = {
        "errors.py": "import os\n",
        "paths.py": "from sandbox import errors\n",
        "pid1/init.py": "from sandbox.paths import Paths\n",
        "pid1/child.py": "from sandbox.pid1.init import Init\n",
        "commands/logs.py": "",
    }
    for name, content in others.items():
        path = tmp_path / wing.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    assert flaws(wing, tmp_path) == []
    path = tmp_path / wing.folder / file
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"{others.get(file, '')}{text}\n")
    assert [found for found in flaws(wing, tmp_path) if flaw in found]


def test_what_the_worker_exports_is_read_elsewhere() -> None:
    folder = ROOT / "worker"
    texts = {
        path: path.read_text() for room in ("src", "test") for path in (folder / room).rglob("*.ts")
    }
    words = {path: set(re.findall(r"\w+", text)) for path, text in texts.items()}
    # A type may be told for the sake of what is made of it.
    declared = re.compile(r"^export (?:async )?(?:const|function|class) (\w+)", re.MULTILINE)
    unread = [
        f"{path.relative_to(folder)}: {name}"
        for path, text in texts.items()
        for name in (declared.findall(text) if path.is_relative_to(folder / "src") else ())
        if not any(name in others for other, others in words.items() if other != path)
    ]
    assert len(texts) > 60, "the files were not found"
    assert unread == []
