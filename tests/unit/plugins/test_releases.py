# SPDX-License-Identifier: Apache-2.0
"""Which Hermes is asked for, how it is found once, and what is known to be wrong with it."""

from __future__ import annotations

import functools
import hashlib
import io
import json
import shutil
import ssl
import subprocess
import threading
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import trustme
from ansible.module_utils import urls
from ansible_collections.hermes.workers.plugins.module_utils.cards import Card
from ansible_collections.hermes.workers.plugins.module_utils.settings.settings import Settings
from ansible_collections.hermes.workers.plugins.plugin_utils.build import (
    advisories,
    build_context,
    conformance,
    debian,
    debian_index,
    installer,
    origins,
    releases,
)
from ansible_collections.hermes.workers.plugins.plugin_utils.build.sources import Sources
from ansible_collections.hermes.workers.plugins.plugin_utils.state.folder import StateFolder

CONTAINER = Sources().container
PINNED = build_context.hermes_version(CONTAINER)
# What uv prints, without asking anybody.
NO_VERSION = """error: No solution found when resolving dependencies
  cause: Because there is no version of hermes-agent[anthropic]==9.9.9 and you require
    hermes-agent[anthropic]==9.9.9, we can conclude that your requirements are unsatisfiable."""
NO_FIT = "error: No solution found when resolving dependencies\n  cause: openai==9 depends on x>2."
NO_NETWORK = (
    "error: Failed to fetch: `https://pypi.example/simple/hermes-agent/`\n  Caused by: dns error"
)


CAPTURED = installer.captured
LOCKED_PROGRAM = {"archive": "debian", "path": "pool/jq.deb", "sha256": "ab", "size": 1}


class Resolver:
    """Stands for uv: writes a lock of two packages, or fails as told."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.failure = ""

    def __call__(
        self, command: list[str], env: dict[str, str], **_more: object
    ) -> subprocess.CompletedProcess[str]:
        if "uv" not in command[0]:  # git
            return CAPTURED(command, env)
        self.asked.append(Path(command[-1]).read_text())
        if self.failure:
            return subprocess.CompletedProcess(command, 1, self.failure, "")
        lock = Path(command[command.index("--output-file") + 1])
        assert lock.read_text(), "what we pin is preferred"
        lock.write_text(
            "aiohttp==3 \\\n    --hash=sha256:a\nhermes-agent==9.9.9 \\\n    --hash=sha256:b\n"
        )
        return subprocess.CompletedProcess(command, 0, "", "")


@pytest.fixture
def resolver(monkeypatch: pytest.MonkeyPatch) -> Resolver:
    made = Resolver()
    monkeypatch.setattr(installer, "captured", made)
    monkeypatch.setattr(installer, "find_uv", lambda: "uv")
    return made


@pytest.fixture
def here(tmp_path: Path) -> releases.Releases:
    deployment = StateFolder(str(tmp_path / "state"), "alice")
    return releases.Releases(deployment, CONTAINER, lambda _line: None)


@pytest.fixture
def wheel(tmp_path: Path) -> Path:
    made = tmp_path / "hermes_agent-9.9.9+mine-py3-none-any.whl"
    with zipfile.ZipFile(made, "w") as packed:
        packed.writestr("hermes_cli/__init__.py", "")
    return made


def of_source(advised: tuple[str, ...] = (), version: str = "", **source: str) -> Settings:
    return Settings(source=source, accept_advisories=[*advised], version=version)


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def git(folder: Path, *words: str) -> str:
    identity = ("-c", "user.name=a", "-c", "user.email=a@example.com")
    command = ["git", "-C", str(folder), *identity, *words]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """Sources of a Hermes, at a tag, with a hook and a monitor that would leave a trace."""
    folder = tmp_path / "repository"
    folder.mkdir()
    (folder / "pyproject.toml").write_text('[build-system]\nrequires = ["setuptools"]\n')
    git(folder, "init", "--quiet")
    git(folder, "add", ".")
    git(folder, "commit", "--quiet", "-m", "one")
    git(folder, "tag", "v9.9.9")
    return folder


@pytest.fixture
def builder(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Stands for uv's build: makes a wheel; git's own commands run."""
    ran: list[list[str]] = []

    def run(command: list[str], _label: str, *, env: dict[str, str], **_more: object) -> str:
        ran.append(command)
        if command[0] != "uv":
            subprocess.run(command, check=True, env=env)
        elif command[1] == "build":
            assert env["SOURCE_DATE_EPOCH"] == origins.SINCE_1980
            assert not (Path(command[-1]) / ".git").exists()
            assert (Path(command[-1]) / "pyproject.toml").is_file()
            folder = Path(command[command.index("--out-dir") + 1])
            name = folder / "hermes_agent-9.9.9-py3-none-any.whl"
            with zipfile.ZipFile(name, "w") as packed:
                packed.writestr("hermes_cli/__init__.py", "")
        return ""

    monkeypatch.setattr(installer, "run", run)
    return ran


def wanted(version: str = "9.9.9", *features: str, accepted: tuple[str, ...] = ()) -> Settings:
    return Settings(version=version, features=[*features], accept_advisories=[*accepted])


def refusal(here: releases.Releases, settings: Settings) -> str:
    with pytest.raises(Card) as caught:
        here.find(settings, Path)
    return caught.value.render()


@pytest.mark.parametrize("version", ["", PINNED])
def test_the_pinned_hermes_asks_nobody(
    here: releases.Releases, resolver: Resolver, version: str
) -> None:
    here.find(wanted(version), Path)
    assert here.kept(wanted(version)) is None
    assert resolver.asked == []
    assert not here.deployment.state_dir.exists()


def test_another_is_found_once_and_the_same_ever_after(
    here: releases.Releases, resolver: Resolver
) -> None:
    here.find(wanted(), Path)
    first = here.kept(wanted())
    here.find(wanted(), Path)
    assert here.kept(wanted()) == first
    assert len(resolver.asked) == 1
    assert "hermes-agent[anthropic]==9.9.9\n" in resolver.asked[0]
    assert f"=={PINNED}" not in resolver.asked[0]
    assert first is not None
    assert first.words == f"hermes_version: resolved {first.found}, 2 packages"
    assert here.deployment.state_dir.stat().st_mode & 0o777 == 0o700


def test_its_features_are_found_with_it(here: releases.Releases, resolver: Resolver) -> None:
    here.find(wanted(), Path)
    here.find(wanted("9.9.9", "mcp"), Path)
    assert "hermes-agent[mcp]" not in resolver.asked[0]
    assert "hermes-agent[mcp]" in resolver.asked[1]


def test_its_packages_are_what_is_installed_and_name_the_image(
    here: releases.Releases, resolver: Resolver
) -> None:
    here.find(wanted(), Path)
    pinned, other = Sources(), Sources(release=here.kept(wanted()))
    assert other.hermes_version == "9.9.9"
    assert other.lock_text.startswith("aiohttp==3 ")
    assert other.image != pinned.image
    assert other.container_image("") != pinned.container_image("")


@pytest.mark.parametrize(
    ("failure", "said"),
    [
        (NO_VERSION, "hermes_version: no registry that is asked here has Hermes 9.9.9."),
        (NO_FIT, "hermes_version: the parts of Hermes 9.9.9 cannot be had together."),
        (NO_NETWORK, "registry not reachable: uv could not fetch Hermes 9.9.9 from pypi.example."),
        ("error: unexpected argument", "Hermes 9.9.9: uv failed with exit code 1."),
    ],
)
def test_one_that_cannot_be_had_is_one_card(
    here: releases.Releases, resolver: Resolver, failure: str, said: str
) -> None:
    resolver.failure = failure
    told = refusal(here, wanted())
    assert told.splitlines()[0] == said
    assert "\nNothing was changed.\n" in told
    with pytest.raises(Card, match="not kept"):
        here.kept(wanted())


def test_a_version_with_an_advisory_is_refused_until_it_is_named(
    here: releases.Releases, resolver: Resolver, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = {"published": "2026-01-02", "what": "it leaks", "source": "https://a.example/1"}
    known = [
        advisories.Advisory(id="A-1", aliases=["CVE-1"], affected="<9.9.10", **entry),
        advisories.Advisory(id="A-2", aliases=[], affected=">=9,<10", **entry),
        advisories.Advisory(id="A-3", aliases=[], affected="<9.9.9", **entry),
    ]
    monkeypatch.setattr(advisories, "known", lambda _container: known)
    told = refusal(here, wanted())
    assert "9.9.9 has A-1 (2026-01-02): it leaks (https://a.example/1)." in told
    assert "9.9.9 has A-2" in told and "A-3" not in told
    assert "hermes_accept_advisories: [A-1, A-2]." in told
    assert resolver.asked == [], "nobody was asked for what is refused"
    assert "A-1" not in refusal(here, wanted(accepted=("cve-1",)))
    here.find(wanted(accepted=("CVE-1", "A-2")), Path)
    assert here.kept(wanted()) is not None


def test_a_wheel_of_ones_own_is_compared_and_then_the_only_hermes_there_is(
    here: releases.Releases, resolver: Resolver, wheel: Path
) -> None:
    told = refusal(here, of_source(file=str(wheel), sha256="0" * 64))
    assert f"its sha256 is {sha256(wheel)}, not 0000" in told
    assert resolver.asked == []
    settings = of_source(file=str(wheel), sha256=sha256(wheel))
    here.find(settings, Path)
    wheel.unlink()
    here.find(settings, Path)
    assert len(resolver.asked) == 1
    assert "hermes-agent[anthropic]==9.9.9+mine\n" in resolver.asked[0]
    kept = here.kept(settings)
    assert kept is not None and kept.wheels is not None
    assert (kept.version, [one.name for one in kept.wheels.glob("*.whl")]) == (
        "9.9.9+mine",
        [wheel.name],
    )
    (found,) = kept.wheels.glob("*.whl")
    # What a registry has under that version is not taken.
    assert kept.lock.endswith(f"hermes-agent==9.9.9 \\\n    --hash=sha256:{sha256(found)}\n")
    assert kept.words.startswith(f"hermes_source: {wheel}, sha256 {sha256(found)[:12]}: resolved")


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("other-1.0-py3-none-any.whl", "is no wheel of Hermes"),
        ("hermes_agent-1.0-py3-none-any.whl", "is no wheel of Hermes"),
        ("hermes-agent.tar.gz", "cannot be unpacked"),
    ],
)
def test_what_is_no_hermes_is_one_card(
    here: releases.Releases, resolver: Resolver, tmp_path: Path, name: str, said: str
) -> None:
    (tmp_path / name).write_text("neither")
    settings = of_source(file=str(tmp_path / name), sha256=sha256(tmp_path / name))
    told = refusal(here, settings)
    assert said in told and "\nNothing was changed.\n" in told
    with pytest.raises(Card, match="not kept"):
        here.kept(settings)


def test_a_source_with_an_advisory_or_of_another_version_is_refused(
    here: releases.Releases,
    resolver: Resolver,
    wheel: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    entry = {"published": "2026-01-02", "what": "it leaks", "source": "https://a.example/1"}
    known = [advisories.Advisory(id="A-1", aliases=[], affected="==9.9.9", **entry)]
    monkeypatch.setattr(advisories, "known", lambda _container: known)
    source = {"file": str(wheel), "sha256": sha256(wheel)}
    assert "9.9.9+mine has A-1" in refusal(here, of_source(**source))
    here.find(of_source(("A-1",), **source), Path)
    assert "9.9.9+mine has A-1" in refusal(here, of_source(**source)), "kept, and refused still"
    told = refusal(here, of_source(("A-1",), "1.2.3", file=str(wheel), sha256=source["sha256"]))
    assert "1.2.3 is not what hermes_source names: that is 9.9.9+mine." in told


def test_a_commit_is_built_as_it_is_in_the_repository(
    here: releases.Releases, resolver: Resolver, repository: Path, builder: list[list[str]]
) -> None:
    commit = git(repository, "rev-parse", "HEAD")
    source = {"git": str(repository), "ref": "v9.9.9"}
    told = refusal(here, of_source(commit="0" * 40, **source))
    assert f"v9.9.9 of {repository} is the commit {commit}, not 0000" in told
    told = refusal(here, of_source(commit=commit, git=str(repository), ref="v1"))
    assert f"{repository} does not give v1." in told
    assert builder == []
    here.find(of_source(commit=commit, **source), Path)
    kept = here.kept(of_source(commit=commit, git=str(repository)))
    assert kept is not None, "the same commit, however it is named"
    assert kept.version == "9.9.9"
    build = next(command for command in builder if command[1] == "build")
    assert {"--require-hashes", "--build-constraints"} <= {*build}


@pytest.mark.parametrize("kind", ["zip", "gztar"])
def test_an_archive_is_unpacked_and_built_whatever_it_is_packed_with(
    here: releases.Releases,
    resolver: Resolver,
    builder: list[list[str]],
    tmp_path: Path,
    kind: str,
) -> None:
    tree = tmp_path / "sources" / "hermes-9.9.9"
    tree.mkdir(parents=True)
    (tree / "pyproject.toml").write_text('[build-system]\nrequires = ["setuptools"]\n')
    made = Path(shutil.make_archive(str(tmp_path / "hermes"), kind, tree.parent))
    settings = of_source(file=str(made), sha256=sha256(made))
    here.find(settings, Path)
    kept = here.kept(settings)
    assert kept is not None and kept.version == "9.9.9"
    assert "build" in [command[1] for command in builder]


def test_without_git_or_uv_it_is_said_what_to_install(
    here: releases.Releases,
    resolver: Resolver,
    repository: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    commit = git(repository, "rev-parse", "HEAD")
    monkeypatch.setattr(origins.shutil, "which", lambda _name: None)
    assert "needs git" in refusal(here, of_source(commit=commit, git=str(repository)))
    monkeypatch.setattr(installer, "find_uv", lambda: None)
    assert "uv: not found; it finds out what Hermes 9.9.9 is made of" in refusal(here, wanted())
    assert resolver.asked == []


def in_image(digest: str = "a", name: str = "a.example/hermes", version: str = "") -> Settings:
    return of_source(version=version, image=f"{name}@sha256:{digest * 64}")


@pytest.mark.parametrize("settings", [wanted(), in_image()], ids=["a version", "an image"])
def test_what_another_play_resolves_meanwhile_is_taken_from_it(
    here: releases.Releases,
    resolver: Resolver,
    monkeypatch: pytest.MonkeyPatch,
    settings: Settings,
) -> None:
    asked: list[str] = []

    def look(image: str) -> releases.Found:
        asked.append(image)
        return releases.Found("9.9.9", "3.13", ["hermes-agent==9.9.9"])

    here.find(settings, Path, look)
    first = here.kept(settings)
    read = here._read
    looks: list[Path] = []

    def late(folder: Path) -> releases.Release | None:
        looks.append(folder)
        return read(folder) if len(looks) > 1 else None

    monkeypatch.setattr(here, "_read", late)
    here.find(settings, Path, look)
    assert here.kept(settings) == first
    assert len(asked + resolver.asked) == 1


def test_the_hermes_of_an_image_is_looked_at_once_and_known_by_the_digest(
    here: releases.Releases, resolver: Resolver
) -> None:
    looked: list[str] = []

    def look(image: str) -> releases.Found:
        looked.append(image)
        return releases.Found("9.9.9", "3.13", ["aiohttp==3", "hermes-agent==9.9.9"])

    here.find(in_image(), Path, look)
    here.find(in_image(), Path, look)
    here.find(in_image(name="b.example/mirror"), Path, look)
    assert looked == [f"a.example/hermes@sha256:{'a' * 64}"]
    assert resolver.asked == []
    kept = here.kept(in_image())
    assert kept is not None and kept == here.kept(in_image(name="b.example/mirror"))
    assert (kept.version, kept.python, kept.wheels) == ("9.9.9", "3.13", None)
    assert kept.words.startswith("hermes_source: image a.example/hermes, sha256 aaaaaaaaaaaa: ")
    assert kept.words.endswith(f"looked at {kept.found}, 2 packages")
    told = refusal(here, in_image(version="1.2.3"))
    assert "1.2.3 is not what hermes_source names: that is 9.9.9." in told

    here.find(in_image("b"), Path, look)
    digests = [
        Sources(release=here.kept(one)).container_image("") for one in (in_image(), in_image("b"))
    ]
    assert len({*digests, Sources().container_image("")}) == 3, "another digest is another image"


def test_the_hermes_of_an_image_may_have_an_advisory(here: releases.Releases) -> None:
    with pytest.raises(Card, match=r"0\.19\.0 has CVE-2026-71963"):
        here.find(in_image(), Path, lambda _image: releases.Found("0.19.0", "3.13", []))
    with pytest.raises(Card, match="not kept"):
        here.kept(in_image())


def test_a_build_of_ones_own_has_what_its_version_has() -> None:
    one = advisories.Advisory("A", [], "2026-01-02", "<=1.2.3", "it leaks", "https://a.example")
    assert [one.holds_for(version) for version in ("1.2.3+mine", "1.2.4+mine", "1.2.3rc1")] == [
        True,
        False,
        True,
    ]


def test_each_known_advisory_says_when_and_where_from() -> None:
    content = json.loads((CONTAINER / advisories.FILE).read_text())
    assert content["looked_up"] >= max(one.published for one in advisories.known(CONTAINER))
    for one in advisories.known(CONTAINER):
        assert (one.source.startswith("https://") and one.id in one.source) or one.aliases
        one.holds_for(PINNED)


def test_the_pinned_hermes_is_deployed_with_nothing_that_was_not_weighed() -> None:
    assert advisories.problems(CONTAINER, PINNED, (), pinned=True) == []
    weighed = [one for one in advisories.known(CONTAINER) if one.holds_for(PINNED)]
    page = (CONTAINER.parent / "docs" / "hermes.md").read_text()
    for one in advisories.known(CONTAINER):
        assert one.id in page, "the page lists all that are known"
    assert all(one.pinned_because in page for one in weighed)


def lacking(*names: str, needed: bool) -> str:
    lost = [{"name": name, "needed": needed, "lost": "it is lost"} for name in names]
    return f"what a module prints\n\n{json.dumps(lost)}\n"


def test_what_a_hermes_lacks_is_told_by_name(here: releases.Releases, resolver: Resolver) -> None:
    here.find(wanted(), Path)
    release = here.kept(wanted())
    assert release is not None
    with pytest.raises(Card) as caught:
        conformance.judge(release, lacking("/v1/toolsets", needed=True), print)
    assert "this Hermes has no /v1/toolsets: it is lost." in caught.value.render()
    with pytest.raises(Card, match="does not load"):
        conformance.judge(release, "Traceback\nImportError: gateway", print)
    assert conformance.notes(release) == []
    said: list[str] = []
    conformance.judge(release, lacking("a relay", needed=False), said.append)
    assert (
        said
        == conformance.notes(here.kept(wanted()))
        == ["Hermes 9.9.9 has no a relay: it is lost."]
    )
    conformance.judge(release, lacking(needed=False), said.append)
    assert conformance.notes(here.kept(wanted())) == []


@contextmanager
def served_by_tls(folder: Path, authority: trustme.CA) -> Iterator[str]:
    """Serve a folder's files on this machine; the address."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    handler = functools.partial(SimpleHTTPRequestHandler, directory=str(folder))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        yield f"https://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_a_file_is_fetched_from_whom_the_machine_trusts(
    here: releases.Releases,
    resolver: Resolver,
    wheel: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ours, others = trustme.CA(), trustme.CA()
    bundle = tmp_path / "ours.pem"
    ours.cert_pem.write_to_path(bundle)
    monkeypatch.setenv("SSL_CERT_FILE", str(bundle))
    for proxy in ("HTTPS_PROXY", "https_proxy"):
        monkeypatch.delenv(proxy, raising=False)
    with served_by_tls(tmp_path, others) as address:
        settings = of_source(file=f"{address}/{wheel.name}", sha256=sha256(wheel))
        told = refusal(here, settings)
        assert "cannot be had" in told and "certificate verify failed" in told
        assert "SSL_CERT_FILE" in told and "\nNothing was changed.\n" in told
    with served_by_tls(tmp_path, ours) as address:
        absent = of_source(file=f"{address}/none-{wheel.name}", sha256=sha256(wheel))
        assert "HTTP Error 404" in refusal(here, absent)
        settings = of_source(file=f"{address}/{wheel.name}", sha256=sha256(wheel))
        here.find(settings, Path)
    kept = here.kept(settings)
    assert kept is not None and kept.version == "9.9.9+mine"


def test_what_signs_an_address_is_shown_nowhere(
    here: releases.Releases, resolver: Resolver, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = "https://files.example/hermes_agent-9.9.9-py3-none-any.whl?X-Signature=canary-1234"
    content = [b""]

    def fetch(address: str, **_: object) -> io.BytesIO:
        assert address == place
        if not content[0]:
            raise OSError("HTTP Error 403: Forbidden")
        return io.BytesIO(content[0])

    monkeypatch.setattr(urls, "open_url", fetch)
    unreachable = refusal(here, of_source(file=place, sha256="0" * 64))
    assert "any.whl cannot be had: HTTP Error 403" in unreachable
    content[0] = b"not the one"
    another = refusal(here, of_source(file=place, sha256="0" * 64))
    assert "any.whl is not what the inventory says" in another
    words = origins.words({"file": place, "sha256": "0" * 64})
    assert "canary" not in unreachable + another + words


def with_packages(
    python: tuple[str, ...] = (),
    programs: tuple[str, ...] = (),
    engine: str = "docker",
    **more: str,
) -> Settings:
    packages = {"python": [*python], "debian": [*programs]}
    return Settings(engine=engine, packages=packages, accept_advisories=[], **more)


@pytest.fixture
def index(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Stands for Debian's indexes; what was asked of them."""
    asked: list[list[str]] = []

    def resolve(_container: Path, wanted: list[str]) -> debian.Lock:
        asked.append([*wanted])
        if wanted == ["jq=0"]:
            raise debian_index.NotInDebian("jq=0 is not to be had: in Debian bookworm jq is 1.6-2")
        if wanted == ["jq=9"]:
            raise debian.DebianError("Could not connect: https://x.example/y: timed out")
        return {"snapshot": "20260101T000000Z", "packages": {"jq": LOCKED_PROGRAM}}

    monkeypatch.setattr(debian_index, "resolve", resolve)
    return asked


def test_further_packages_are_found_once_and_stay_with_the_pinned_hermes(
    here: releases.Releases, resolver: Resolver, index: list[list[str]]
) -> None:
    settings = with_packages(("a==1", "b==2"), ("jq=1.6-2",))
    here.find(settings, Path)
    first = here.kept(settings)
    here.find(settings, Path)
    assert first == here.kept(settings)
    assert len(resolver.asked) == len(index) == 1
    assert resolver.asked[0].endswith("\na==1\nb==2\n")
    assert f"hermes-agent[anthropic]=={PINNED}\n" in resolver.asked[0]
    assert first is not None and first.version == PINNED
    words = f"hermes_packages: resolved {first.found}, 2 packages and 1 of Debian"
    assert first.words == words
    others = [with_packages(("a==1",)), with_packages((), ("jq=1.6-2",)), Settings()]
    images = set()
    for one in (settings, *others):
        here.find(one, Path)
        sources = Sources(release=here.kept(one))
        images |= {sources.container_image(""), sources.image}
    # Programs are none of a process', and the resolver here finds the same for all packages.
    assert len(images) == 4 + 2
    assert Sources(release=here.kept(others[1])).lock_text == Sources().lock_text


def test_both_another_hermes_and_further_packages_are_named_while_they_are_resolved(
    here: releases.Releases, resolver: Resolver, index: list[list[str]]
) -> None:
    said: list[str] = []
    here.progress = said.append
    here.find(with_packages(("a==1",), version="9.9.9"), Path)
    assert any("resolving Hermes 9.9.9 and its further packages" in line for line in said)
    said.clear()
    here.find(with_packages(("a==1",)), Path)
    assert any("resolving its further packages" in line for line in said)


def test_what_is_only_of_debian_resolves_nothing_of_python(
    here: releases.Releases, resolver: Resolver, index: list[list[str]]
) -> None:
    here.find(with_packages((), ("jq=1.6-2",)), Path)
    assert index == [["jq=1.6-2"]] and resolver.asked == []
    here.find(with_packages((), ("jq=1.6-2",), engine="process"), Path)
    assert here.kept(with_packages((), ("jq=1.6-2",), engine="process")) is None
    assert len(index) == 1, "a process has what its machine has"


def test_packages_of_python_come_as_wheels(
    here: releases.Releases, resolver: Resolver, monkeypatch: pytest.MonkeyPatch
) -> None:
    commands: list[list[str]] = []

    def captured(command: list[str], env: dict[str, str]) -> subprocess.CompletedProcess[str]:
        commands.append(command)
        return resolver(command, env)

    monkeypatch.setattr(installer, "captured", captured)
    here.find(with_packages(("a==1",)), Path)
    assert commands[0][commands[0].index("--only-binary") + 1] == ":all:"


# What uv prints.
SOLVING = "error: No solution found when resolving dependencies\n  cause: Because "


@pytest.mark.parametrize(
    ("failure", "said"),
    [
        ("there is no version of a==1 and you", "no registry that is asked here has a==1."),
        ("a was not found in the package registry", "no registry that is asked here has a."),
        ("a==1 has no usable wheels and you", "a==1 has no wheel, and nothing is built here."),
        ("b depends on c>2", f"Hermes {PINNED} and a==1 cannot be had together."),
    ],
)
def test_packages_that_cannot_be_had_are_one_card(
    here: releases.Releases, resolver: Resolver, failure: str, said: str
) -> None:
    resolver.failure = f"{SOLVING}{failure} require it."
    told = refusal(here, with_packages(("a==1",)))
    assert told.splitlines()[0] == f"hermes_packages.python: {said}"
    assert "\nNothing was changed.\n" in told


def test_programs_that_cannot_be_had_are_one_card(
    here: releases.Releases, resolver: Resolver, index: list[list[str]]
) -> None:
    told = refusal(here, with_packages((), ("jq=0",)))
    assert "hermes_packages.debian: jq=0 is not to be had" in told and "jq is 1.6-2." in told
    assert "registry not reachable" in refusal(here, with_packages((), ("jq=9",)))
    with pytest.raises(Card, match="not kept"):
        here.kept(with_packages((), ("jq=0",)))


def test_a_release_that_mends_a_pinned_package_mends_it_beside_others(
    here: releases.Releases, resolver: Resolver, monkeypatch: pytest.MonkeyPatch
) -> None:
    here.find(with_packages(("a==1",)), Path)
    monkeypatch.setattr(build_context, "lock_text", lambda *_: "mended==2\n")
    here.find(with_packages(("a==1",)), Path)
    assert len(resolver.asked) == 2
