# SPDX-License-Identifier: Apache-2.0
"""Inventories as people never meant them: good ones of which some values are odd, each made from one number alone."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from dataclasses import dataclass

from ansible_collections.hermes.workers.plugins.module_utils.settings.catalogue import (
    INPUTS,
    SECRET_INPUTS,
    role_argument,
)
from inventory_play import HOST, vaulted

CANARY = "canary5b0cd2f4e6a7c8b9"
"""Part of every secret; no message may have it, in whichever case."""
VAULTED = vaulted(CANARY)
VAULTED_PORT = vaulted("8790")

GOOD: dict[str, list[str]] = {
    "hermes_name": ["bob", "a-1"],
    "hermes_port": ["8800", "'8801'"],
    "hermes_providers_port": ["18900"],
    "hermes_dashboard_port": ["9900"],
    "hermes_dashboard": ["true", "no", "'off'"],
    "hermes_sleep_after": ["1h", "90s", "' 2m '"],
    "hermes_drain_timeout": ["0s", "5m"],
    "hermes_token_overlap": ["1h"],
    "hermes_dashboard_idle": ["10m"],
    "hermes_dashboard_origin": ["https://hermes.example.com", "http://nas.lan:8080"],
    "hermes_context_length": ["131072", "'65536'"],
    "hermes_default_model": ["rehearsal/rehearsal", "openai/gpt-5-mini", "custom/llama3"],
    "hermes_models": ["[openai/gpt-5-mini, anthropic/claude-sonnet-4-5]", "[]"],
    "hermes_provider": ["rehearsal"],
    "hermes_provider_base_url": [
        "https://models.example/v1",
        "http://127.0.0.1:11434/v1/",
        "http://100.64.0.1/v1",
    ],
    "hermes_provider_keys": ["environment"],
    "hermes_ai_gateway": [f"{'a' * 32}/main"],
    "hermes_egress": ["open", "providers", "[github.com, .example.com]"],
    "hermes_cors_origins": [
        "[https://app.example.com]",
        "['http://localhost:3000', 'app://obsidian.md']",
    ],
    "hermes_access_team_domain": ["acme.cloudflareaccess.com"],
    "hermes_access_audiences": ["[0123456789abcdef]"],
    "hermes_after_reboot": ["start", "start_with_keys"],
    "hermes_on_disconnect": ["finish"],
    "hermes_host_tools": ["yes"],
    "hermes_lazy_installs": ["false", "true"],
    "hermes_gateway_token": [f"{CANARY}-{CANARY}"],
    "hermes_allow_unauthenticated": ["true"],
    "hermes_env": ["{TZ: Europe/Berlin, LEVEL: 3, ON: true}", "{}"],
    "hermes_secrets": [f"{{TELEGRAM_BOT_TOKEN: '{CANARY}'}}", "{}"],
    "hermes_config": ["{pinned: {timezone: UTC}, initial: {display: {language: de}}}", "{}"],
    "hermes_mcp_servers": ["{a: {url: https://mcp.example.com}}", "{b: {command: c, args: [d]}}"],
    "hermes_soul": ["{text: You are kind.}"],
    "hermes_skills": [r'{a: "---\nname: a\ndescription: b\n---\nc\n"}', "[]"],
    "hermes_cron_jobs": ["{morning: {schedule: 0 7 * * *, prompt: Good morning.}}"],
    "hermes_memories": ["{user: {text: Likes tea.}}"],
    "hermes_take_over": ["[soul]", "[skills, jobs, config]"],
    "hermes_channels": [
        f"{{telegram: {{token: '4242:{CANARY}', allow: [77, -500]}}}}",
        f"{{telegram: {{token: '4242:{CANARY}', allow: ['77'], receive: poll}}}}",
        f"{{telegram: {{token: '4242:{CANARY}', pairing: true}}}}",
        f"{{slack: {{token: xoxb-1-{CANARY}, signing_secret: {'a' * 32}, allow: [U0ANN00]}}}}",
        f"{{hooks: {{ci: {{kind: github, secret: {CANARY}, events: [push]}}}}}}",
        f"{{telegram: {{token: '4242:{CANARY}', allow: [77], home: 77}}}}",
        "{email: {address: hermes@example.com, allow: [Ann@example.net], home: ann@example.net}}",
        "{}",
    ],
    "hermes_public_url": ["https://hermes.example.com/"],
    "hermes_telegram_api_url": ["http://127.0.0.1:8081", "https://telegram.example.com"],
    "hermes_verify": ["full"],
    "hermes_docker_socket": ["unix:/var/run/docker.sock", "/run/podman/podman.sock"],
    "hermes_features": ["[]", "[search]", "[web, mcp]", "[chromium]"],
    "hermes_packages": ["{}", "{python: [], debian: []}"],
    "hermes_version": ["'0.19.0'", "''"],
    "hermes_source": ["{}", f"{{image: 'docker.io/acme/hermes@sha256:{'a' * 64}'}}"],
    "hermes_browser_url": [f"wss://browser.example/?token={CANARY}"],
    "hermes_accept_advisories": ["[CVE-2026-71963]", "[]"],
    "hermes_base_image": ["debian:12", f"debian@sha256:{'a' * 64}"],
    "hermes_sidecar_image": ["cloudflare/proxy-everything:latest"],
    "hermes_account_id": ["b" * 32],
    "hermes_instance_type": ["basic"],
    "hermes_location": ["weur"],
    "hermes_dashboard_hostname": ["hermes.example.com", "Hermes.Example.com."],
    "hermes_route_mode": ["zone_route"],
    "hermes_take_over_hostname": ["true"],
    "hermes_uploader": ["plain"],
    "hermes_check_provider_key": ["false"],
    "hermes_prune_images": ["1"],
    "hermes_state_dir": ["state", "./a b/ü"],
    "hermes_token_vault_file": ["group_vars/vault.yml"],
    "hermes_token_command": ["[pass, insert, -m, hermes]"],
    "hermes_platform": ["workerd", "cloudflare"],
    "hermes_engine": ["process", "docker"],
    "hermes_action": ["wake"],
    "hermes_backup": ["newest"],
    "hermes_backup_dir": ["kept"],
    "hermes_confirm": ["yes"],
    "hermes_keys": ["api_token"],
    "hermes_log_level": ["warn"],
    "hermes_log_lines": ["100"],
    "hermes_log_raw": ["yes"],
    "hermes_log_since": ["2h", "'14:30'"],
    "hermes_max_fail_percentage": ["25", "'50'"],
    "cloudflare_api_base_url": ["https://api.example.com/client/v4/"],
}
"""Values that are taken, as YAML; of a secret, a text with the canary is."""

ODD = [
    # What YAML makes of it is not what was typed.
    *("~", "''", "' '", "true", "no", "on", "0", "1", "-1", "1.5", "1e400", ".nan", "-.inf"),
    *("0x1F90", "0o21", "1_000", "12:30:45", "2026-01-01", "2026-01-01T10:00:00Z", "1e3"),
    *("!!binary aGVybWVz", "!!set {a, b}", "[]", "{}", "[[]]", "[~]", "{a: ~}", "{1: 2, a: b}"),
    *(
        "{~: a, b: c}",
        "{true: a, '1': b, 1: c}",
        "{[1]: a}",
        "{2026-01-01: a}",
        "[1, [2, {a: []}]]",
    ),
    *(f"0x{'f' * 5000}", "9" * 400, f"'{'9' * 20}'", f"'{'x' * 100_000}'", f"[{'a, ' * 500}]"),
    # Characters.
    *(
        r'"\uD800"',
        r'"a\0b"',
        r'"\e[31mred\e[0m"',
        r'"a\nb"',
        r'"a\r\n"',
        r'"\t8787"',
        r'"\u202Eabc"',
    ),
    *(
        r'"\uFEFF"',
        r'"\uFF18\uFF17\uFF18\uFF17"',
        r'"\u0663\u0660s"',
        "'Ⅷ'",
        "'ß'",
        "'İ'",
        "'😀'",
        "'a/../../b'",
        "'~root/x'",
        "'$HOME/x'",
    ),
    *(
        "'-rf'",
        "'--help'",
        "'a;b'",
        "'`id`'",
        "'%s %(a)s {0}'",
        "'\\'",
        "'\"'",
        "'http://'",
        "'http://['",
    ),
    *(
        "'https://u:p@example.com'",
        "'https://example.com:99999/'",
        "'https://example.com/?a#b'",
        "'//x'",
    ),
    *(
        r"'https://exa mple.com'",
        r'"https://exa\u0001mple.com/v1"',
        r"'https://a\b/'",
        "'https://ü.example'",
    ),
    # Templates.
    *(
        "'{{ typo }}'",
        "['{{ typo }}']",
        "{A: '{{ typo }}'}",
        "'{{ omit }}'",
        "'{{ none }}'",
        "'{{ 1 / 0 }}'",
    ),
    *(
        "'{{'",
        "'{% if %}'",
        "'{{ 1 | nofilter }}'",
        '\'{{ lookup("file", "/not/there") }}\'',
        "'{{ 10 ** 5000 }}'",
    ),
    *(
        "'{{ -(10 ** 5000) }}'",
        "'{{ now() }}'",
        "'{{ range(3) }}'",
        "'{{ groups }}'",
        "'{{ hostvars }}'",
    ),
    *(
        "'{{ namespace(a=1) }}'",
        "'{{ lipsum }}'",
        "'{{ cycler(1) }}'",
        "'{{ dict }}'",
        "'{{ ''{'' ~ ''{ x }}'' }}'",
    ),
    *(
        "'{{ [1, typo] }}'",
        "'{{ {\"a\": typo} }}'",
        "'{{ 5 | float }}'",
        "'{{ inventory_hostname }}'",
    ),
    *(
        "!unsafe '{{ typo }}'",
        "!unsafe 'plain'",
        "'{{ own }}'",
        "{A: '{{ own }}'}",
        "'{{ own.missing }}'",
    ),
    *(
        "'{{ own[0] }}'",
        "'{{ (1, 2) }}'",
        "'{{ \"a\" is undefined }}'",
        "'{{ true }}'",
        "'{{ \"8787\" }}'",
    ),
    # Vaulted, and vaulted with another password.
    *(VAULTED_PORT, VAULTED_PORT.replace("3", "4"), "!vault |\n        no vault"),
]

INSIDE: dict[str, list[str]] = {
    "hermes_config": ["{pinned: @}", "{pinned: {agent: @}}", "{initial: {display: {language: @}}}"],
    "hermes_mcp_servers": [
        *("{@: {command: c}}", "{a: @}", "{a: {command: @}}", "{a: {command: c, args: @}}"),
        *("{a: {command: c, env: {A: @}}}", "{a: {command: c, env: @}}", "{a: {url: @}}"),
        *("{a: {url: 'https://a.example', headers: {A: @}}}", "{a: {command: c, timeout: @}}"),
    ],
    "hermes_soul": ["{text: @}", "{file: @}"],
    "hermes_skills": ["[@]", "{@: a.zip}", "{a: @}", "{a: {text: @}}"],
    "hermes_cron_jobs": [
        *("{@: {schedule: every 1h, prompt: a}}", "{a: @}", "{a: {schedule: @, prompt: a}}"),
        *(
            "{a: {schedule: every 1h, prompt: @}}",
            "{a: {schedule: every 1h, prompt: a, repeat: @}}",
        ),
        *("{a: {schedule: every 1h, prompt: a, skills: @}}",),
        *("{a: {schedule: every 1h, prompt: a, workdir: @}}",),
    ],
    "hermes_memories": ["{@: a.md}", "{user: @}", "{user: {text: @}}"],
    "hermes_take_over": ["[@]", "[soul, @]"],
}
"""What has something odd further in, where @ stands, of what is declared of the agent."""

CHARACTERS = " \t\n\r\0\x1b\x7f\"'\\$#{}%&*!|>@`,:;/..\u00a0\u200b\u2028\u202e\ufeff\ud800üß😀٣Ａ"


@dataclass(frozen=True)
class Case:
    """One inventory. variables: those that are set, as YAML, by name."""

    seed: int
    variables: dict[str, str]

    @property
    def text(self) -> str:
        """The inventory, as a file would have it."""
        lines = [f"      {json.dumps(name)}: {value}" for name, value in self.variables.items()]
        return "\n".join(["all:", "  hosts:", f"    {HOST}:", *lines, ""])


def case(seed: int) -> Case:
    """Make the inventory of a number."""
    draw = random.Random(seed)  # noqa: S311 - repeatable on purpose
    variables = {"hermes_platform": draw.choice(["workerd", "workerd", "cloudflare"])}
    if variables["hermes_platform"] == "cloudflare":
        variables |= {"hermes_account_id": "a" * 32, "cloudflare_api_token": f"'{CANARY}'"}
    elif draw.random() < 0.3:
        variables["hermes_engine"] = "docker"
    variables["own"] = draw.choice(ODD)
    variables |= {
        name: f"'sk-{CANARY}-{CANARY}'"
        for name in sorted(SECRET_INPUTS - {"hermes_secrets"})
        if draw.random() < 0.2
    }
    for name in draw.sample(sorted(GOOD), draw.randint(0, 3)):
        variables[name] = draw.choice(GOOD[name])
    for name in draw.sample(sorted(INPUTS), draw.choice([1, 1, 1, 2, 3])):
        argument = role_argument(name) if draw.random() < 0.1 else None
        variables[argument or name] = _odd(draw, name)
    return Case(seed, variables)


def _odd(draw: random.Random, name: str) -> str:
    if name in SECRET_INPUTS:
        return _odd_secret(draw, name)
    way = draw.random()
    if name in INSIDE and draw.random() < 0.7:
        return draw.choice(INSIDE[name]).replace("@", draw.choice(ODD))
    if way < 0.4:
        return draw.choice(ODD)
    if way < 0.5:
        return draw.choice(GOOD[draw.choice(sorted(GOOD.keys() - SECRET_INPUTS))])
    if way < 0.6:
        secret = draw.choice(sorted(SECRET_INPUTS))
        return draw.choice(
            [f"'{{{{ {secret} }}}}'", f"['{{{{ {secret} }}}}']", f"{{A: 'x{{{{ {secret} }}}}'}}"]
        )
    value = draw.choice(GOOD.get(name, ["text"]))
    return _bent(draw, value)


def _odd_secret(draw: random.Random, name: str) -> str:
    text = json.dumps(_changed(draw, f"sk-{CANARY}"))
    if name == "hermes_secrets":
        key = draw.choice(["TELEGRAM_BOT_TOKEN", "A B", "1", "~", "PATH"])
        text = f"{{{key}: {text}}}"
    ways = [
        text,
        text,
        f"[{text}]",
        f"{{a: {text}}}",
        f"'{{{{ {text.replace(chr(39), '')} | int(typo) }}}}'",
    ]
    return draw.choice([*ways, VAULTED, *draw.sample(ODD, 3)])


def _bent(draw: random.Random, value: str) -> str:
    """Change a good value a little."""
    if value[0] in "[{":
        return draw.choice([f"[{value}]", f"{{a: {value}}}", json.dumps(value), value])
    text = json.dumps(_changed(draw, value.strip("'")))
    return draw.choice([text, text, text, f"[{text}]", f"{{a: {text}}}", f"!unsafe {text}"])


CHANGES: list[Callable[[random.Random, str], str]] = [
    lambda _, text: f" {text}",
    lambda _, text: f"{text} ",
    lambda _, text: f"{text}\n",
    lambda _, text: text.upper(),
    lambda _, text: text.title(),
    lambda _, text: text * 2,
    lambda _, text: text * 3000,
    lambda draw, text: _inserted(draw, text, draw.choice(CHARACTERS)),
    lambda draw, text: _inserted(draw, text, draw.choice(CHARACTERS)),
    lambda draw, text: _inserted(draw, text, "{{ typo }}"),
    lambda _, text: f"{text}...",
    lambda _, text: f"<{text}>",
]


def _changed(draw: random.Random, text: str) -> str:
    return draw.choice(CHANGES)(draw, text)


def _inserted(draw: random.Random, text: str, more: str) -> str:
    """Put something before, behind or into a text, of which the canary stays whole."""
    at = draw.choice(
        [0, len(text), *([draw.randrange(len(text) + 1)] if CANARY not in text else [])]
    )
    return text[:at] + more + text[at:]
