# Copyright: hermes.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What may be added to Hermes: each feature's packages, from which tools/lock_features.py makes a hashed lock."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Feature:
    """Something that Hermes can do once its packages are there."""

    name: str
    requirements: tuple[str, ...]
    text: str
    """What it brings, for the documentation."""
    debian: tuple[str, ...] = ()
    """Packages of Debian that an image gets, with what they need; tools/lock_programs.py locks them."""
    programs: tuple[str, ...] = ()
    """What a machine has to have of them where Hermes is a process of it."""
    modules: tuple[str, ...] = ()
    """What is imported of its packages; a running Hermes is asked whether they are there."""
    commands: tuple[str, ...] = ()
    """The same of programs that it calls, beside its own."""
    toolset: str = ""
    """What Hermes calls the tools that need it, where it has a name for them."""


CHROMIUM = "chromium-headless-shell"
"""Debian's package of the browser, as a feature brings it into an image."""

FEATURES = (
    Feature(
        "search",
        ("ripgrep>=14,<15",),
        "ripgrep, with which Hermes looks through files",
        commands=("rg",),
        toolset="file",
    ),
    Feature(
        "git",
        (),
        "git, and ssh for it",
        debian=("git", "openssh-client"),
        programs=("git",),
        toolset="terminal",
    ),
    Feature(
        "web",
        ("ddgs>=9,<10", "hermes-agent[exa,firecrawl,parallel-web]"),
        "search of the web and reading of pages: DuckDuckGo without a key; Exa, Firecrawl and Parallel with one",
        modules=("ddgs", "exa_py", "firecrawl", "parallel"),
        toolset="web",
    ),
    Feature(
        "mcp",
        ("hermes-agent[mcp]", "mcp-server-time"),
        "MCP servers, over stdio and HTTP, and one that tells the time in any zone",
        modules=("mcp", "mcp_server_time"),
    ),
    Feature(
        "messaging",
        ("hermes-agent[messaging]",),
        "Telegram, Discord and Slack, as Hermes reaches them itself",
        modules=("telegram", "discord", "slack_bolt"),
    ),
    Feature(
        "voice",
        ("hermes-agent[edge-tts]", "imageio-ffmpeg>=0.6"),
        "speech from text without a key, and ffmpeg, which makes voice messages of it",
        modules=("edge_tts",),
        commands=("ffmpeg",),
        toolset="tts",
    ),
    Feature(
        "browser",
        ("agent-browser-cli>=0.39,<0.40",),
        "pages opened in a browser: the one that `hermes_browser_url` names, or `chromium`",
        commands=("agent-browser",),
        toolset="browser",
    ),
    Feature(
        "chromium",
        (),
        "that browser in the image: Debian's Chromium, without a screen",
        debian=(CHROMIUM, "libnss3-tools"),
        commands=("chromium",),
        toolset="browser",
    ),
    Feature(
        "installs",
        ("uv>=0.9,<1",),
        "uv, with which Hermes fetches what it asks for later: `hermes_lazy_installs` brings it along",
        commands=("uv",),
    ),
    Feature(
        "images",
        ("hermes-agent[fal]",),
        "pictures by fal.ai, with its key",
        modules=("fal_client",),
        toolset="image_gen",
    ),
    Feature(
        "google",
        ("hermes-agent[google,youtube]",),
        "Google's mail, calendar and files; YouTube",
        modules=("googleapiclient", "google_auth_oauthlib", "youtube_transcript_api"),
    ),
    Feature(
        "editors",
        ("hermes-agent[acp]",),
        "the Agent Client Protocol, for programs that start `hermes acp` beside it; an editor is connected by the API",
        modules=("acp",),
    ),
)
FEATURE_NAMES = tuple(feature.name for feature in FEATURES)
DEFAULT_FEATURES: tuple[str, ...] = ()
"""The image stays small for who asks for nothing."""
