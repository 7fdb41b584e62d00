# Copyright: hermes.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which Hermes a deployment gets, and what comes along with it: packages, a browser, what it fetches later."""

from __future__ import annotations

import re
from collections.abc import Mapping
from urllib.parse import urlsplit

from .catalogue import REGISTRY
from .inputs import Inputs
from .values import ADVISORY, BROWSER, SOURCES, VERSION, packages_flaw, show

NOT_WITH_AN_IMAGE = (
    "hermes_features",
    "hermes_packages",
    "hermes_lazy_installs",
    "hermes_browser_url",
    "hermes_base_image",
)
"""What stands on packages of ours, or says what they are laid upon."""


def read_release(inputs: Inputs) -> None:
    """Read which Hermes is wanted, and what is known of it and accepted."""
    settings = inputs.settings
    version = inputs.text("hermes_version", "hermes-version")
    if version and not VERSION.fullmatch(version):
        inputs.problem(
            "hermes_version",
            f"{show(version)} is no version.",
            "write it as its registry does, for example 0.18.2, or leave it out for the pinned one.",
            "hermes-version",
        )
    else:
        settings.version = version
    _source(inputs)
    _packages(inputs)
    if "image" in settings.source:
        _beside_an_image(inputs)
    settings.accept_advisories = inputs.texts(
        "hermes_accept_advisories", ADVISORY.fullmatch, "the id of an advisory"
    )


def _source(inputs: Inputs) -> None:
    """Read where a Hermes comes from that is in no registry."""
    given = inputs.raw.get("hermes_source")
    if given in (None, "", {}):
        return
    told = given if isinstance(given, Mapping) else {}
    shape = next((one for one in SOURCES if set(told) == set(one)), None)
    flaws = [
        name
        for name, looks in (shape or {}).items()
        if not looks.fullmatch(str(told[name]).strip())
    ]
    if flaws == ["image"]:
        inputs.problem(
            "hermes_source",
            f"image: {show(told['image'])} names no image by its digest, and a tag may be another one tomorrow.",
            "write {image: registry/name@sha256:64 digits}; a pull prints the digest of what a tag is today.",
            "hermes-source",
        )
        return
    if shape is None or flaws:
        what = f"{flaws[0]}: {show(told[flaws[0]])}" if flaws else show(given)
        inputs.problem(
            "hermes_source",
            f"{what} names no source of Hermes.",
            "write {file: a .whl, .tar.gz or .zip, sha256: 64 digits}, {git: https://..., commit: 40 digits}"
            " with the ref that it is at, or {image: registry/name@sha256:64 digits}.",
            "hermes-source",
        )
        return
    inputs.settings.source = {name: str(told[name]).strip() for name in sorted(told)}
    if "image" in told:
        # Beside a digest a tag says nothing, and not every engine takes both.
        name, _at, digest = inputs.settings.source["image"].partition("@")
        inputs.settings.source["image"] = f"{re.sub(r':[^/]*$', '', name)}@{digest}"


def _beside_an_image(inputs: Inputs) -> None:
    """Refuse what cannot be had with an image of upstream's: it is taken as it is, for containers only."""
    settings = inputs.settings
    if settings.engine == "process":
        inputs.problem(
            "hermes_source",
            "names an image, and the process engine runs Hermes as processes of this machine.",
            "set hermes_engine: docker, or name a file or a commit.",
            "hermes-source",
        )
    judged = {
        "hermes_packages": settings.packages,
        "hermes_lazy_installs": settings.lazy_installs,
    }
    for variable in NOT_WITH_AN_IMAGE:
        if judged.get(variable, inputs.raw.get(variable)) not in (None, "", False, [], {}):
            inputs.problem(
                variable,
                "cannot be had with the image of hermes_source: that is taken with what it has, and nothing is"
                " installed into it.",
                f"leave {variable} out, or name a file, a commit or hermes_version instead of an image.",
                "hermes-source",
            )
    # Those that another setting asked for are upstream's own there.
    settings.features = []


def _packages(inputs: Inputs) -> None:
    """Read what is to be there beside Hermes; each has to be pinned."""
    found: dict[str, list[str]] = {}
    for where, given in inputs.mapping("hermes_packages").items():
        flaw = packages_flaw(where, given)
        if flaw:
            inputs.problem("hermes_packages", *flaw, "packages")
        elif given:
            found[where] = sorted(given)
    inputs.settings.packages = dict(sorted(found.items()))


def read_browser(inputs: Inputs) -> None:
    """Read which browser Hermes opens pages in; what speaks to it comes along, and is of no use alone."""
    settings, given = inputs.settings, inputs.raw.get("hermes_browser_url")
    named = given not in (None, "")
    if "chromium" in settings.features:
        _chromium(inputs, named=named)
    elif not named:
        if "browser" in settings.features:
            inputs.problem(
                "hermes_features",
                "browser opens pages in a browser, and none is named.",
                "set hermes_browser_url, take the feature chromium for one in the image, or take browser out.",
                "browser",
            )
        return
    # The address itself may be a secret.
    elif "BROWSER_URL" in inputs.secrets and not BROWSER.fullmatch(inputs.secrets["BROWSER_URL"]):
        inputs.problem(
            "hermes_browser_url",
            "is no address of a browser.",
            "write it as its DevTools say: http://host:9222, or ws:// or wss:// with all that follows.",
            "browser",
        )
    elif not settings.has_host_tools:
        inputs.problem(
            "hermes_browser_url",
            "needs hermes_host_tools on the process engine: a browser beside it reads this machine's files.",
            "set hermes_host_tools: true, run Hermes in a container, or leave hermes_browser_url out.",
            "browser",
        )
    if "browser" not in settings.features:
        settings.features = sorted([*settings.features, "browser"])
        inputs.sources.setdefault("hermes_features", "hermes_browser_url")


def _chromium(inputs: Inputs, *, named: bool) -> None:
    """Refuse a browser of the image where no image is, or beside another. named: by hermes_browser_url."""
    if named:
        inputs.problem(
            "hermes_browser_url",
            "names a browser elsewhere, and the feature chromium is one in the image.",
            "leave hermes_browser_url out, or take chromium out of hermes_features.",
            "browser",
        )
    if inputs.settings.engine == "process":
        inputs.problem(
            "hermes_features",
            "chromium is a browser in an image, and the process engine has no image.",
            "set hermes_engine: docker, or name a browser in hermes_browser_url.",
            "browser",
        )


def read_lazy_installs(inputs: Inputs) -> None:
    """See that what Hermes asks for later can be had; neither the setting nor the feature is of use alone."""
    settings = inputs.settings
    if not settings.lazy_installs:
        if "installs" in settings.features:
            inputs.problem(
                "hermes_features",
                "installs is what fetches packages later, and Hermes may not.",
                "set hermes_lazy_installs: true, or take installs out.",
                "lazy-installs",
            )
        return
    if "installs" not in settings.features:
        settings.features = sorted([*settings.features, "installs"])
        inputs.sources.setdefault("hermes_features", "hermes_lazy_installs")
    host = urlsplit(settings.env.get(REGISTRY, "")).hostname or ""
    if settings.egress != "open" and not any(
        host == one or (one.startswith(".") and host.endswith(one))
        for one in settings.egress.split(",")
    ):
        inputs.problem(
            "hermes_lazy_installs",
            "needs a registry, and hermes_egress names none that Hermes could reach.",
            f"name one as {REGISTRY} in hermes_env, and its host, with that of its files, in hermes_egress.",
            "lazy-installs",
        )
