# Copyright: hermes.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What installers may know of a user's settings: where registries are, and how to get there; the locks say the rest.

A setting for other work (`user = true`, a prefix, constraints, offline wheels for one platform) breaks an installation
that a lock describes, or makes another one of it. Needs nothing but Python itself: requirements/bootstrap.py reads it.
"""

from __future__ import annotations

import configparser
import os
import re
import sys
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


PIP = _names("""
    index-url extra-index-url find-links no-index trusted-host cert client-cert proxy keyring-provider cache-dir
    timeout default-timeout retries
    """)
UV = _names("""
    index default-index index-url extra-index-url find-links no-index insecure-host native-tls system-certs
    keyring-provider http-timeout http-retries cache-dir offline
    """)
NPM = _names("""
    registry ca cafile cert key proxy https-proxy noproxy strict-ssl cache offline prefer-offline
    fetch-retries fetch-timeout fetch-retry-mintimeout fetch-retry-maxtimeout
    """)
KEPT = frozenset(("NODE_EXTRA_CA_CERTS", "NODE_USE_SYSTEM_CA", "NODE_USE_ENV_PROXY"))
OTHERS = ("NODE_", "PYTHON", "CONDA_", "VIRTUAL_ENV", "NPM_")
"""Beginnings of variables that set the programs themselves up: options, folders, another environment."""
BUNDLES = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "PIP_CERT")
"""Variables that name a file with all authorities, as people set them; each program reads one of them only."""
PROXIES = ("https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY")
PIP_PROXY = "PIP_PROXY"
NPM_PROXIES = ("npm_config_https_proxy", "npm_config_proxy")
FILES = {
    PIP_PROXY: "proxy in pip.conf",
    "PIP_NO_INDEX": "no-index in pip.conf",
    "UV_NO_INDEX": "no-index in uv.toml",
    "UV_OFFLINE": "offline in uv.toml",
    "npm_config_https_proxy": "https-proxy in .npmrc",
    "npm_config_proxy": "proxy in .npmrc",
    "npm_config_offline": "offline in .npmrc",
}
"""Variable -> what says the same in a file."""
FORBIDDING = {
    "pip": ("PIP_NO_INDEX",),
    "uv": ("UV_NO_INDEX", "UV_OFFLINE"),
    "npm": ("npm_config_offline",),
}
"""Installer -> variables with which it asks no registry."""
OFF = ("", "0", "n", "no", "off", "false", "f")
# Their own patience is minutes without a word.
RETRIES = {"retries": "1"}
HTTP_RETRIES = {"http-retries": "1"}
PATIENCE = {
    "fetch-retries": "1",
    "fetch-timeout": "20000",
    "fetch-retry-mintimeout": "1000",
    "fetch-retry-maxtimeout": "3000",
}
ETC = Path("/etc")
NOWHERE = f"{os.devnull}/none"


def environment(given: Mapping[str, str], home: Path) -> dict[str, str]:
    """Return the environment for pip, uv and npm. given: that of the user; home: their folder."""
    config = Path(given.get("XDG_CONFIG_HOME") or home / ".config")
    pip = RETRIES | _pip_files(given, home, config) | _variables(given, "PIP_", PIP)
    uv = HTTP_RETRIES | _uv_files(given, config) | _variables(given, "UV_", UV)
    npm = PATIENCE | _npm_files(given, home) | _npm_variables(given)
    _share_index(pip, uv)
    env = {name: value for name, value in given.items() if not _is_setting(name)}
    env |= {name: value for name, value in given.items() if name.startswith("UV_INDEX_")}
    env.pop("UV_INDEX_STRATEGY", None)
    env |= {_name("PIP_", key): value for key, value in pip.items()}
    env |= {_name("UV_", key): value for key, value in uv.items()}
    env |= {f"npm_config_{_for_npm(key)}": value for key, value in npm.items()}
    _share_certificates(env)
    _share_proxy(env, _uv_proxies(given, config))
    return env | {
        "PIP_CONFIG_FILE": os.devnull,
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        "PIP_NO_INPUT": "1",
        "UV_NO_CONFIG": "1",
        # npm refuses one file for both.
        "npm_config_userconfig": os.devnull,
        "npm_config_globalconfig": NOWHERE,
    }


def host_of(output: str, env: Mapping[str, str], tool: str) -> str:
    """Return the registry that did not answer, by what the installer says or was told; without anybody's password."""
    told = re.findall(r"https?://[^\s'\"`<>)]+", output)
    names = ("npm_config_registry",) if tool == "npm" else ("UV_DEFAULT_INDEX", "UV_INDEX_URL")
    told += [env[name] for name in (*names, "PIP_INDEX_URL") if env.get(name)]
    for url in told:
        try:
            parts = urlsplit(url)
            port = f":{parts.port}" if parts.port else ""
        except ValueError:
            continue
        if parts.hostname:
            return f"{parts.hostname}{port}"
    return ""


def obstacles(env: Mapping[str, str], tool: str) -> str:
    """Return sentences on what keeps an installer from a registry, by what it was told; empty when nothing is known.

    Nobody's password is in them.
    """
    forbidding = [
        f" {name} ({FILES[name]}) has {tool} ask no registry."
        for name in FORBIDDING.get(tool, ())
        if env.get(name, "").lower() not in OFF
    ]
    return "".join([*forbidding, _proxy_of(env, tool)])


def _proxy_of(env: Mapping[str, str], tool: str) -> str:
    own = {"pip": (PIP_PROXY,), "npm": NPM_PROXIES}.get(tool, ())
    name = next((one for one in (*own, *PROXIES) if env.get(one)), "")
    url = env.get(name, "")
    # What one of the three has in a file of its own, all are told.
    name = next((one for one in (PIP_PROXY, *NPM_PROXIES) if url and env.get(one) == url), name)
    said = f"{name} ({FILES[name]})" if name in FILES else name
    try:
        parts = urlsplit(url if "://" in url else f"//{url}")
        port = f":{parts.port}" if parts.port else ""
    except ValueError:
        return f" {said} names a proxy, with an address that is none."
    return f" {said} names the proxy {parts.hostname}{port}." if parts.hostname else ""


def _is_setting(name: str) -> bool:
    upper = name.upper()
    return upper not in KEPT and upper.startswith(("PIP_", "UV_", *OTHERS))


def _name(prefix: str, key: str) -> str:
    return prefix + key.upper().replace("-", "_")


def _variables(given: Mapping[str, str], prefix: str, keys: Iterable[str]) -> dict[str, str]:
    return {key: given[name] for key in keys if given.get(name := _name(prefix, key))}


def _pip_files(given: Mapping[str, str], home: Path, config: Path) -> dict[str, str]:
    shared = (given.get("XDG_CONFIG_DIRS") or str(ETC / "xdg")).split(os.pathsep)
    files = [Path(folder) / "pip" / "pip.conf" for folder in shared]
    files += [ETC / "pip.conf", home / ".pip" / "pip.conf", config / "pip" / "pip.conf"]
    if sys.platform == "darwin":
        files.append(home / "Library" / "Application Support" / "pip" / "pip.conf")
    if given.get("PIP_CONFIG_FILE"):
        files.append(Path(given["PIP_CONFIG_FILE"]))
    found: dict[str, str] = {}
    for file in files:
        parser = configparser.RawConfigParser()
        try:
            parser.read_string(file.read_text(encoding="utf-8"))
        except (OSError, ValueError, configparser.Error):
            continue
        for section in ("global", "install"):
            if parser.has_section(section):
                found |= {key: value for key, value in parser.items(section) if key in PIP}
    return {key: " ".join(value.split()) for key, value in found.items() if value}


def _uv_files(given: Mapping[str, str], config: Path) -> dict[str, str]:
    """Return what uv's files say that its variables can say too."""
    found: dict[str, str] = {}
    for content in _uv_contents(given, config):
        found |= _of_uv(content.get("pip") or {}) | _of_uv(content)
    return found


def _uv_proxies(given: Mapping[str, str], config: Path) -> dict[str, str]:
    """Return the proxies in uv's files, for which it has no variables but everybody's."""
    found: dict[str, str] = {}
    for content in _uv_contents(given, config):
        for name in ("http-proxy", "https-proxy", "no-proxy"):
            value = content.get(name)
            if value:
                found[name] = ",".join(value) if isinstance(value, list) else str(value)
    return found


def _uv_contents(given: Mapping[str, str], config: Path) -> Iterator[dict[str, Any]]:
    """Yield what uv's files for a machine and a user hold; one above the checkout is another project's."""
    own = Path(given["UV_CONFIG_FILE"]) if given.get("UV_CONFIG_FILE") else config / "uv/uv.toml"
    for file in (ETC / "uv" / "uv.toml", own):
        try:
            yield tomllib.loads(file.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue


def _of_uv(table: Mapping[str, Any]) -> dict[str, str]:
    found: dict[str, Any] = {"index": []}
    for index in table.get("index") or ():
        if isinstance(index, dict) and index.get("url"):
            name = f"{index['name']}=" if index.get("name") else ""
            found.setdefault("default-index" if index.get("default") else "index", []).append(
                f"{name}{index['url']}"
            )
    for key, value in table.items():
        name = "insecure-host" if key == "allow-insecure-host" else key
        if name in UV and key != "index":
            found[name] = value if isinstance(value, list) else [value]
    return {
        key: " ".join(str(one).lower() if isinstance(one, bool) else str(one) for one in values)
        for key, values in found.items()
        if values
    }


def _npm_files(given: Mapping[str, str], home: Path) -> dict[str, str]:
    lower = {name.lower(): value for name, value in given.items()}
    named = lower.get("npm_config_globalconfig"), lower.get("npm_config_userconfig")
    shared = [named[0]] if named[0] else [ETC / "npmrc", "/usr/etc/npmrc", "/usr/local/etc/npmrc"]
    found: dict[str, str] = {}
    for file in (*shared, named[1] or home / ".npmrc"):
        try:
            lines = Path(file).read_text(encoding="utf-8").splitlines()
        except (OSError, ValueError):
            continue
        for line in lines:
            key, separator, value = line.partition("=")
            key, value = key.strip(), value.strip().strip("\"'")
            if separator and _is_npms(key):
                found[key] = re.sub(r"\$\{(\w+)\}", lambda name: given.get(name[1], name[0]), value)
    return found


def _npm_variables(given: Mapping[str, str]) -> dict[str, str]:
    found = {}
    for name, value in given.items():
        if name.lower().startswith("npm_config_"):
            key = name[len("npm_config_") :]
            key = key if key[:1] in ("/", "@") else key.lower().replace("_", "-")
            if value and _is_npms(key):
                found[key] = value
    return found


def _for_npm(key: str) -> str:
    """Return a key as a variable's name has it: what a shell knows as a name survives a script around npm."""
    return key if key[0] in "/@" else key.replace("-", "_")


def _is_npms(key: str) -> bool:
    """Tell whether a key of npm's is about registries: `//host/:_authToken` and `@scope:registry` are, too."""
    return key in NPM or key.startswith("//") or (key.startswith("@") and key.endswith(":registry"))


def _share_index(pip: dict[str, str], uv: dict[str, str]) -> None:
    """Have pip and uv ask the same index, where one of them alone has a word of its own."""
    told = uv.get("default-index") or uv.get("index-url")
    if pip.get("index-url") and not uv.keys() & {"index", "default-index", "index-url"}:
        uv["default-index"] = pip["index-url"]
    elif told and "index-url" not in pip:
        pip["index-url"] = re.sub(r"^[\w.-]+=", "", told)


def _share_proxy(env: dict[str, str], uv: Mapping[str, str]) -> None:
    """Have each program know a proxy that stands in a file of one of them. uv: its own file's."""
    told = {
        "HTTPS_PROXY": ("https-proxy", PIP_PROXY, *NPM_PROXIES),
        "HTTP_PROXY": ("http-proxy", PIP_PROXY, "npm_config_proxy"),
        "NO_PROXY": ("no-proxy", "npm_config_noproxy"),
    }
    for name, places in told.items():
        said = (name, name.lower(), *(() if name == "NO_PROXY" else ("all_proxy", "ALL_PROXY")))
        value = next((one for place in places if (one := uv.get(place) or env.get(place))), "")
        if value and not any(env.get(one) for one in said):
            env[name] = value


def _share_certificates(env: dict[str, str]) -> None:
    """Have each program know an authority that one variable names."""
    bundle = next((env[name] for name in BUNDLES if os.path.isfile(env.get(name, ""))), None)
    if bundle:
        for name in ("SSL_CERT_FILE", "PIP_CERT", "NODE_EXTRA_CA_CERTS"):
            env.setdefault(name, bundle)
