# SPDX-License-Identifier: Apache-2.0
"""Has Python's own `sqlite3` work with the SQLite beside this file, whatever the machine has.

SQLite before 3.51.3 can lose committed pages when two connections begin a log anew at once
(sqlite.org/wal.html#walresetbug), and Hermes, its dashboard and a backup are connections to the
same databases. No interpreter brings one as new to every machine; a package of the lock does, as a
module with its library inside. That library alone is taken: loaded first, and for everybody in the
process, it is the one that the interpreter's own module finds its functions in.

The folder of this file is the first on the module path of every Python in the image, so that this
is what `import sqlite3` comes by.
"""

import _ctypes
import importlib.machinery
import importlib.util
import os
import sys

_FOLDER = os.path.dirname(os.path.abspath(__file__))


def _own() -> object:
    """Return the interpreter's own module. Raises ImportError."""
    elsewhere = [path for path in sys.path if os.path.abspath(path) != _FOLDER]
    spec = importlib.machinery.PathFinder.find_spec(__name__, elsewhere)
    if spec is None or spec.loader is None:
        raise ImportError("This Python was built without sqlite3.", name=__name__)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


try:
    _ctypes.dlopen(os.path.join(_FOLDER, "libsqlite3.so"), os.RTLD_NOW | os.RTLD_GLOBAL)
except OSError as error:  # what is then in force is told by whoever asks Hermes for its version
    print(f"sqlite3: {error}", file=sys.stderr)
sys.modules[__name__] = _own()  # type: ignore[assignment]
