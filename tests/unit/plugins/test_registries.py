# Copyright: hermes.workers contributors
# SPDX-License-Identifier: Apache-2.0
"""Our installers obey their locks; of a user's settings they know where registries are and how to get there."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from ansible_collections.hermes.workers.plugins.plugin_utils.build import installer, registries

OTHER_WORK = {
    "PIP_USER": "1",
    "PIP_PREFIX": "/nonexistent",
    "PIP_REQUIRE_VIRTUALENV": "1",
    "UV_PYTHON": "3.9",
    "UV_INDEX_STRATEGY": "unsafe-best-match",
    "UV_PROJECT_ENVIRONMENT": "/nonexistent",
    "NPM_CONFIG_IGNORE_SCRIPTS": "false",
    "npm_config_omit": "optional",
    "NPM_TOKEN_OF_OTHERS": "x",
    "NODE_OPTIONS": "--require x",
    "NODE_ENV": "production",
    "PYTHONPATH": "/nonexistent",
    "VIRTUAL_ENV": "/nonexistent",
}
FILES = {
    ".config/pip/pip.conf": "[global]\nindex-url = https://u:pw@pip.example/simple\n[install]\nuser = true\n"
    "[list]\nformat = columns\n",
    ".config/uv/uv.toml": 'native-tls = true\npython-preference = "system"\n'
    '[[index]]\nname = "own"\nurl = "https://uv.example/simple"\n'
    '[[index]]\nurl = "https://main.example/simple"\ndefault = true\n[pip]\nuser = true\n',
    ".npmrc": "registry=https://npm.example/\n//npm.example/:_authToken=${NPM_TOKEN_OF_OTHERS}\n"
    "prefix=/nonexistent\nignore-scripts=true\n; a comment\n@own:registry=https://own.example/\n",
}


@pytest.fixture(autouse=True)
def etc(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Have the machine itself say nothing."""
    monkeypatch.setattr(registries, "ETC", tmp_path / "etc")


@pytest.fixture
def home(tmp_path: Path) -> Path:
    for name, content in FILES.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return tmp_path


def test_settings_for_other_work_are_left_out(tmp_path: Path) -> None:
    env = registries.environment(OTHER_WORK | {"PATH": "/bin"}, tmp_path)
    assert env["PATH"] == "/bin"
    assert not OTHER_WORK.keys() & env.keys()
    assert env["UV_NO_CONFIG"] == "1" and env["PIP_CONFIG_FILE"] == "/dev/null"
    assert env["npm_config_userconfig"] != env["npm_config_globalconfig"]


def test_registries_come_from_the_files_of_each_program(home: Path) -> None:
    env = registries.environment({"NPM_TOKEN_OF_OTHERS": "t0ken"}, home)
    assert env["PIP_INDEX_URL"] == "https://u:pw@pip.example/simple"
    assert env["UV_DEFAULT_INDEX"] == "https://main.example/simple"
    assert env["UV_INDEX"] == "own=https://uv.example/simple"
    assert env["UV_NATIVE_TLS"] == "true"
    assert env["npm_config_registry"] == "https://npm.example/"
    assert env["npm_config_//npm.example/:_authToken"] == "t0ken"
    assert env["npm_config_@own:registry"] == "https://own.example/"
    said = " ".join(f"{name}={value}" for name, value in env.items()).lower()
    for word in ("user=", "prefix", "ignore", "preference", "format", "nonexistent"):
        assert word not in said


def test_what_is_exported_goes_before_the_files(home: Path) -> None:
    given = {
        "PIP_INDEX_URL": "https://exported.example/simple",
        "NPM_CONFIG_REGISTRY": "https://exported.example/npm",
        "UV_INDEX_OWN_PASSWORD": "pw",
        "UV_INDEX_URL": "https://exported.example/uv",
        "npm_config_fetch_retries": "5",
    }
    env = registries.environment(given, home)
    assert env["PIP_INDEX_URL"] == given["PIP_INDEX_URL"]
    assert env["UV_INDEX_URL"] == given["UV_INDEX_URL"]
    assert env["UV_INDEX_OWN_PASSWORD"] == "pw"
    assert env["npm_config_registry"] == given["NPM_CONFIG_REGISTRY"]
    assert env["npm_config_fetch_retries"] == "5", "the user's own patience counts"


def test_an_index_of_pip_alone_is_uvs_as_well(tmp_path: Path) -> None:
    env = registries.environment({"PIP_INDEX_URL": "https://pip.example/simple"}, tmp_path)
    assert env["UV_DEFAULT_INDEX"] == "https://pip.example/simple"


@pytest.mark.parametrize("name", registries.BUNDLES)
def test_an_authority_that_one_variable_names_is_known_to_all(name: str, tmp_path: Path) -> None:
    bundle = tmp_path / "authorities.pem"
    bundle.write_text("")
    env = registries.environment({name: str(bundle)}, tmp_path)
    for each in ("SSL_CERT_FILE", "PIP_CERT", "NODE_EXTRA_CA_CERTS"):
        assert env[each] == str(bundle)


def test_an_authority_added_for_node_replaces_no_list(tmp_path: Path) -> None:
    env = registries.environment({"NODE_EXTRA_CA_CERTS": "/own.pem"}, tmp_path)
    assert env["NODE_EXTRA_CA_CERTS"] == "/own.pem"
    assert "SSL_CERT_FILE" not in env


def test_proxies_go_along(tmp_path: Path) -> None:
    proxies = {"HTTPS_PROXY": "http://p:1", "http_proxy": "http://p:2", "NO_PROXY": "x"}
    assert proxies.items() <= registries.environment(proxies, tmp_path).items()


@pytest.mark.parametrize(
    ("file", "text"),
    [
        (".config/pip/pip.conf", "[global]\nproxy = http://p:1\n"),
        (".config/uv/uv.toml", 'https-proxy = "http://p:1"\n'),
        (".npmrc", "https-proxy=http://p:1\n"),
        (".npmrc", "proxy=http://p:1\n"),
    ],
)
def test_a_proxy_in_the_file_of_one_program_is_known_to_all(
    file: str, text: str, tmp_path: Path
) -> None:
    """All of them read the variable; one that is exported goes before."""
    (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / file).write_text(text)
    assert registries.environment({}, tmp_path)["HTTPS_PROXY"] == "http://p:1"
    env = registries.environment({"all_proxy": "http://own:1"}, tmp_path)
    assert "HTTPS_PROXY" not in env


def test_what_a_proxy_is_not_for_is_known_to_all(tmp_path: Path) -> None:
    (tmp_path / ".config/uv").mkdir(parents=True)
    (tmp_path / ".config/uv/uv.toml").write_text(
        'https-proxy = "http://p:1"\nno-proxy = ["a.example", "b.example"]\n'
    )
    env = registries.environment({"HTTP_PROXY": "http://own:1"}, tmp_path)
    assert env["NO_PROXY"] == "a.example,b.example"
    assert (env["HTTP_PROXY"], env["HTTPS_PROXY"]) == ("http://own:1", "http://p:1")


def test_an_index_of_uv_alone_is_pips_as_well(tmp_path: Path) -> None:
    """Without uv on the PATH it is pip that gets it."""
    env = registries.environment({"UV_DEFAULT_INDEX": "own=https://uv.example/simple"}, tmp_path)
    assert env["PIP_INDEX_URL"] == "https://uv.example/simple"
    given = {"UV_INDEX_URL": "https://uv.example/simple", "PIP_INDEX_URL": "https://pip.example/"}
    assert registries.environment(given, tmp_path)["PIP_INDEX_URL"] == "https://pip.example/"


def test_the_card_names_the_registry_and_nobodys_password() -> None:
    env = {"npm_config_registry": "https://me:secret@npm.example:8443/path"}
    output = "npm error code ECONNREFUSED\nnpm error connect ECONNREFUSED 127.0.0.1:9"
    card = installer.installer_card("workerd", "npm", 1, output, env=env).render()
    assert "npm could not fetch workerd from npm.example:8443" in card
    assert "secret" not in card.split("  |")[0]
    output = (
        "error: Failed to fetch: `https://mirror.example/simple/x/`\n cause: Connection refused"
    )
    card = installer.installer_card("Hermes", "uv", 1, output, env={}).render()
    assert "from mirror.example" in card


def test_what_is_no_address_names_no_registry() -> None:
    output = "error: Failed to fetch `https://` and http://[::1/simple and https:///x"
    assert registries.host_of(output, {}, "uv") == ""
    env = {"UV_INDEX_URL": "https://mirror.example:3141/simple"}
    assert registries.host_of(output, env, "uv") == "mirror.example:3141"


def test_a_file_of_pips_that_a_variable_names_goes_before_all(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    named = home / "named.conf"
    named.write_text("[global]\nindex-url = https://named.example/simple\n")
    env = registries.environment({"PIP_CONFIG_FILE": str(named)}, home)
    assert env["PIP_INDEX_URL"] == "https://named.example/simple"
    library = home / "Library" / "Application Support" / "pip" / "pip.conf"
    library.parent.mkdir(parents=True)
    library.write_text("[global]\nindex-url = https://mac.example/simple\n")
    told = "https://u:pw@pip.example/simple"
    assert registries.environment({}, home)["PIP_INDEX_URL"] == told
    monkeypatch.setattr(registries.sys, "platform", "darwin")
    assert registries.environment({}, home)["PIP_INDEX_URL"] == "https://mac.example/simple"


@pytest.mark.parametrize("index", ['["https://a.example"]', '[{name = "a"}]'])
def test_an_index_of_uvs_that_has_no_address_is_none(tmp_path: Path, index: str) -> None:
    (tmp_path / ".config" / "uv").mkdir(parents=True)
    (tmp_path / ".config" / "uv" / "uv.toml").write_text(f"index = {index}\nnative-tls = true\n")
    env = registries.environment({}, tmp_path)
    assert "UV_INDEX" not in env
    assert env["UV_NATIVE_TLS"] == "true"


def test_npm_obeys_no_setting_but_those(tmp_path: Path) -> None:
    """Asked itself, with all that a user may have set."""
    (tmp_path / ".npmrc").write_text(FILES[".npmrc"])
    work = tmp_path / "work"
    work.mkdir()
    (work / "package.json").write_text("{}")
    env = registries.environment({**OTHER_WORK, "PATH": installer.os.environ["PATH"]}, tmp_path)
    done = subprocess.run(
        ["npm", "config", "get", "omit", "ignore-scripts", "registry", "global"],
        cwd=work,
        env=env | {"HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    found = dict(line.split("=", 1) for line in done.stdout.splitlines())
    assert found["registry"] == "https://npm.example/"
    assert (found["omit"], found["ignore-scripts"], found["global"]) == ("", "false", "false")


@pytest.mark.parametrize(
    ("tool", "env", "said"),
    [
        ("uv", {}, ""),
        ("uv", {"HTTPS_PROXY": ""}, ""),
        (
            "uv",
            {"HTTPS_PROXY": "http://me:canary@proxy.test:3128/"},
            "HTTPS_PROXY names the proxy proxy.test:3128.",
        ),
        (
            "uv",
            {"HTTPS_PROXY": "a.test", "https_proxy": "b.test:1"},
            "https_proxy names the proxy b.test:1.",
        ),
        (
            "pip",
            {"ALL_PROXY": "socks5h://[::1]", "PIP_PROXY": "a.test"},
            "PIP_PROXY (proxy in pip.conf) names the proxy a.test.",
        ),
        (
            "uv",
            {"ALL_PROXY": "http://a.test:canary"},
            "ALL_PROXY names a proxy, with an address that is none.",
        ),
        (
            "npm",
            {"npm_config_https_proxy": "http://c.test:8"},
            "npm_config_https_proxy (https-proxy in .npmrc) names the proxy c.test:8.",
        ),
        (
            "uv",
            {"PIP_PROXY": "http://a.test:1", "HTTPS_PROXY": "http://a.test:1"},
            "PIP_PROXY (proxy in pip.conf) names the proxy a.test:1.",
        ),
        (
            "pip",
            {"PIP_NO_INDEX": "true"},
            "PIP_NO_INDEX (no-index in pip.conf) has pip ask no registry.",
        ),
        ("uv", {"PIP_NO_INDEX": "true", "UV_OFFLINE": "0"}, ""),
        ("uv", {"npm_config_https_proxy": "http://c.test:8"}, ""),
    ],
)
def test_a_registry_that_is_not_reached_is_told_with_the_proxy(
    tool: str, env: dict[str, str], said: str
) -> None:
    card = installer.installer_card("Hermes", tool, 2, "Could not connect", env=env)
    sentence = card.problems[0].sentence
    assert sentence.removeprefix(f"{tool} could not fetch Hermes.").strip() == said
    assert "canary" not in card.render()
