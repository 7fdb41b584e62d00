# SPDX-License-Identifier: Apache-2.0
"""Break each promise in turn and see that its tests notice: `make mutants`.

Each patch is applied to a copy of the checkout, its tests are run there, and every one of them has to fail by what
it asserts. A test that cannot be collected, or that fails without the patch too, proves nothing.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import queue
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

from tests.mutants.patches import ROOT, Malformed, Mutant, NamedTest, apply, mutants

# Seconds that the tests of one mutant may take; a mutant may have made something endless.
PATIENCE = 600
# Tests here find processes by marks that they share, or have one engine or the machine's ports: one at a time.
ALONE = ("tests/unit/engine/", "tests/unit/sandbox/", "tests/docker/", "tests/integration/")
TURN = threading.Lock()
# What fails by these was not run far enough to assert anything.
UNFIT = re.compile(r"^(?:\w+\.)*(?:ImportError|ModuleNotFoundError|NameError|ReferenceError)\b")


class Broken(Exception):
    """A mutant proves nothing: its patch, or its test, is no good."""


@dataclass(frozen=True)
class Case:
    """What became of one case of a test: `passed`, `failed`, or why it proves nothing."""

    test: str
    outcome: str


@dataclass(frozen=True)
class Verdict:
    """What became of a mutant: `caught`, `survived` or `broken`, and why."""

    mutant: Mutant
    word: str
    why: str
    seconds: float


class Checkout:
    """A copy of the checkout with the tools of the original."""

    def __init__(self, folder: Path) -> None:
        """Copy what git knows, and what is new; link what `make tools` installed."""
        self.folder = folder
        listed = subprocess.run(
            ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
            cwd=ROOT,
            check=True,
            capture_output=True,
            text=True,
        )
        for name in filter(None, listed.stdout.split("\0")):
            if (ROOT / name).is_file() or (ROOT / name).is_symlink():
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(ROOT / name, folder / name, follow_symlinks=False)
        for tools in (".venv", ".venv-test", "worker/node_modules"):
            (folder / tools).symlink_to(ROOT / tools)
        # Some tests ask git what belongs to the checkout.
        subprocess.run(["git", "init", "-q"], cwd=folder, check=True)
        subprocess.run(["git", "add", "--all"], cwd=folder, check=True)
        link = folder / ".ansible/collections/ansible_collections/hermes/workers"
        link.parent.mkdir(parents=True)
        link.symlink_to("../../../..")

    def run(self, tests: Iterable[NamedTest]) -> list[Case]:
        """Run tests and tell what became of each of their cases.

        :raises Broken: when they could not be run.
        """
        chosen = list(tests)
        python = [test for test in chosen if test.is_python]
        files = sorted({test.file for test in chosen if not test.is_python})
        cases = self._pytest(python) if python else []
        for file in files:
            cases += self._vitest(file, [test for test in chosen if test.file == file])
        return cases

    def _pytest(self, tests: list[NamedTest]) -> list[Case]:
        report = self.folder / "mutant.xml"
        report.unlink(missing_ok=True)
        command = [".venv-test/bin/python", "-m", "pytest", "-q", "-p", "no:cacheprovider"]
        command += [f"--junitxml={report}", *map(str, tests)]
        is_alone = any(test.file.startswith(ALONE) for test in tests)
        with TURN if is_alone else contextlib.nullcontext():
            told = self._end(command, self.folder)
        if not report.exists():
            raise Broken(f"pytest wrote no report: {told}")
        tree = ElementTree.parse(report)  # noqa: S314 pytest wrote it
        found = [case for each in tree.iter("testcase") for case in junit(each)]
        return [case for test in tests for case in named(test, found, by_start=True)]

    def _vitest(self, file: str, tests: list[NamedTest]) -> list[Case]:
        report = self.folder / "mutant.json"
        report.unlink(missing_ok=True)
        pattern = "|".join(re.escape(test.name) for test in tests)
        command = ["node_modules/.bin/vitest", "run", file.removeprefix("worker/"), "-t", pattern]
        told = self._end(
            [*command, "--reporter=json", f"--outputFile={report}"], self.folder / "worker"
        )
        if not report.exists():
            raise Broken(f"vitest wrote no report: {told}")
        suites = json.loads(report.read_text())["testResults"]
        found = [case for suite in suites for case in vitest(suite, file)]
        if not found:
            raise Broken(
                f"{file} was not run: {' '.join(suite['message'] for suite in suites)[:300]}"
            )
        return [case for test in tests for case in named(test, found, by_start=False)]

    def _end(self, command: list[str], folder: Path) -> str:
        """Run a program to its end, or end it with all that it started.

        :returns: the last lines that it said.
        """
        env = {
            "HERMES_TEST_CACHE": str(ROOT / ".cache"),
            **os.environ,
            "PYTHONDONTWRITEBYTECODE": "1",
        }
        env["PATH"] = os.pathsep.join([str(ROOT / ".venv-test/bin"), node_folder(), env["PATH"]])
        # Coordinates of a runner that started us are not those of the run that begins here.
        env.pop("PYTEST_CURRENT_TEST", None)
        with tempfile.TemporaryFile() as output:
            process = subprocess.Popen(
                command, cwd=folder, env=env, stdout=output, stderr=output, start_new_session=True
            )
            try:
                process.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                raise Broken(f"its tests did not end within {PATIENCE} s") from None
            finally:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()
            output.seek(0)
            return output.read().decode(errors="replace").strip()[-500:]


def node_folder() -> str:
    """Where the Node of the tests is."""
    command = [str(ROOT / ".venv-test/bin/python"), str(ROOT / "requirements/node_path.py")]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def junit(case: ElementTree.Element) -> Iterator[Case]:
    """Read what pytest tells of one case."""
    parts = case.get("classname", "").split(".")
    # A class follows the module in what is a path with dots.
    module = next(n for n in range(len(parts), 0, -1) if parts[n - 1].startswith("test_"))
    test = "::".join(["/".join(parts[:module]) + ".py", *parts[module:], case.get("name", "")])
    failure, error = case.find("failure"), case.find("error")
    if error is not None:
        yield Case(test, f"did not get so far: {error.get('message', '')[:200]}")
    elif failure is not None:
        yield Case(test, verdict_on(failure.get("message", "")))
    elif case.find("skipped") is not None:
        yield Case(test, "was skipped")
    else:
        yield Case(test, "passed")


def vitest(suite: dict, file: str) -> Iterator[Case]:
    """Read what vitest tells of one file."""
    for case in suite["assertionResults"]:
        name = f"{file}::{' '.join([*case['ancestorTitles'], case['title']])}"
        if case["status"] == "failed":
            yield Case(name, verdict_on("\n".join(case["failureMessages"])))
        elif case["status"] == "passed":
            yield Case(name, "passed")


def verdict_on(message: str) -> str:
    """Tell a failed assertion from a test that could not be what it is."""
    return f"could not be run: {message[:200]}" if UNFIT.match(message) else "failed"


def named(test: NamedTest, found: list[Case], *, by_start: bool) -> Iterator[Case]:
    """Choose the cases that a test's name means: all parameters of it, unless it names one."""
    whole = str(test)
    if by_start:
        cases = [case for case in found if case.test == whole or case.test.startswith(f"{whole}[")]
    else:
        cases = [
            case for case in found if case.test.startswith(test.file) and test.name in case.test
        ]
    return (Case(whole, case.outcome) for case in cases or [Case(whole, "is not there")])


def judge(mutant: Mutant, checkout: Checkout, sound: dict[str, str]) -> Verdict:
    """Break the copy, ask the tests, and mend it again."""
    began = time.monotonic()

    def verdict(word: str, why: str = "") -> Verdict:
        return Verdict(mutant, word, why, time.monotonic() - began)

    for test in mutant.tests:
        if sound[str(test)] != "":
            return verdict("broken", f"{test} without the patch: {sound[str(test)]}")
    refused = apply(mutant, checkout.folder)
    if refused != "":
        return verdict("broken", f"the patch does not apply: {refused}")
    try:
        cases = checkout.run(mutant.tests)
    except Broken as error:
        return verdict("broken", str(error))
    finally:
        apply(mutant, checkout.folder, "--reverse")
    for test in mutant.tests:
        outcomes = {case.outcome for case in cases if case.test == str(test)}
        unfit = outcomes - {"passed", "failed"}
        if unfit:
            return verdict("broken", f"{test} {unfit.pop()}")
        if "failed" not in outcomes:
            return verdict("survived", f"{test} passes")
    return verdict("caught")


def soundness(file_tests: list[NamedTest], checkout: Checkout) -> dict[str, str]:
    """Run tests of one file without any patch: why each is no good, or an empty text."""
    try:
        cases = checkout.run(file_tests)
    except Broken as error:
        return dict.fromkeys(map(str, file_tests), str(error))
    bad = {case.test: case.outcome for case in cases if case.outcome != "passed"}
    return {str(test): bad.get(str(test), "") for test in file_tests}


@contextlib.contextmanager
def checkouts(count: int) -> Iterator[queue.Queue[Checkout]]:
    """Lend copies of the checkout to as many threads."""
    with tempfile.TemporaryDirectory(prefix="hermes-mutants-") as folder:
        free: queue.Queue[Checkout] = queue.Queue()
        for n in range(count):
            (Path(folder) / str(n)).mkdir()
            free.put(Checkout(Path(folder) / str(n)))
        yield free


def judge_all(chosen: list[Mutant], jobs: int) -> Iterator[Verdict]:
    """Judge mutants side by side; each test is first run once without any patch."""
    with checkouts(jobs) as free, ThreadPoolExecutor(jobs) as pool:

        def lent(work, *more):
            checkout = free.get()
            try:
                return work(checkout, *more)
            finally:
                free.put(checkout)

        tests = {test for mutant in chosen for test in mutant.tests}
        files = [
            sorted((t for t in tests if t.file == file), key=str)
            for file in {t.file for t in tests}
        ]
        sound: dict[str, str] = {}
        for told in pool.map(lambda each: lent(lambda copy: soundness(each, copy)), files):
            sound |= told
        running = [
            pool.submit(lent, lambda copy, mutant=mutant: judge(mutant, copy, sound))
            for mutant in chosen
        ]
        for done in as_completed(running):
            yield done.result()


def main() -> int:
    """Judge the chosen mutants and print a table.

    :returns: 0 when all were caught.
    """
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("pattern", nargs="?", default="*", help="names of patches, as a glob")
    parser.add_argument("--jobs", type=int, default=2, help="how many at a time")
    parser.add_argument("--list", action="store_true", help="only show the claims and their tests")
    given = parser.parse_args()
    try:
        chosen = mutants(given.pattern)
    except Malformed as error:
        print(error, file=sys.stderr)
        return 2
    if not chosen:
        print(f"No patch is named {given.pattern}.", file=sys.stderr)
        return 2
    if given.list:
        for mutant in chosen:
            print(
                f"{mutant.name}: {mutant.claim}",
                *(f"    {test}" for test in mutant.tests),
                sep="\n",
            )
        return 0
    verdicts = []
    for verdict in judge_all(chosen, given.jobs):
        verdicts.append(verdict)
        print(
            f"{verdict.word:9} {verdict.seconds:6.1f} s  {verdict.mutant.name}: {verdict.mutant.claim}"
        )
        if verdict.why:
            print(f"{'':20} {verdict.why}")
        sys.stdout.flush()
    caught = sum(verdict.word == "caught" for verdict in verdicts)
    print(f"{caught} of {len(verdicts)} caught.")
    return 0 if caught == len(verdicts) else 1


if __name__ == "__main__":
    sys.exit(main())
