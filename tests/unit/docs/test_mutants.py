# SPDX-License-Identifier: Apache-2.0
"""Every kept breaking still breaks something, and names a promise and tests that are there."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

from tests.mutants.patches import ROOT, Malformed, Mutant, NamedTest, apply, mutants, read

ALL = mutants()


def plain(text: str) -> str:
    """A page's words without its marks for links and emphasis, on one line."""
    return re.sub(r"\s+", " ", re.sub(r"[*`]|\[|\]\([^)]*\)", "", text))


@cache
def titles(file: str) -> list[re.Pattern[str]]:
    """What tests of a vitest file are called: each text in it that may be a title, with its placeholders open."""
    literals = re.findall(r'"((?:[^"\\\n]|\\.)+)"', (ROOT / file).read_text())
    # `$name` and `%s` stand for a parameter; what is nothing else is no name.
    holes = [re.split(r"%s|\$\w+", literal) for literal in literals]
    return [
        re.compile(".+".join(map(re.escape, parts)))
        for parts in holes
        if any(map(str.strip, parts))
    ]


@cache
def python_names(file: str) -> set[str]:
    """The tests of a module, with their class where they have one."""
    names = set()
    for node in ast.parse((ROOT / file).read_text()).body:
        if isinstance(node, ast.ClassDef):
            names |= {f"{node.name}::{inner.name}" for inner in node.body if hasattr(inner, "name")}
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            names.add(node.name)
    return names


def exists(test: NamedTest) -> bool:
    """Whether a test of this name stands in its file."""
    if not (ROOT / test.file).is_file():
        return False
    if test.is_python:
        return test.name.partition("[")[0] in python_names(test.file)
    # The name of a test follows those of its groups.
    return any(re.search(rf"(?:^|\s){title.pattern}$", test.name) for title in titles(test.file))


@pytest.mark.parametrize("mutant", ALL, ids=lambda mutant: mutant.name)
def test_it_still_applies(mutant: Mutant) -> None:
    assert apply(mutant, ROOT, "--check") == ""


@pytest.mark.parametrize("mutant", ALL, ids=lambda mutant: mutant.name)
def test_its_tests_are_there(mutant: Mutant) -> None:
    assert [str(test) for test in mutant.tests if not exists(test)] == []


@pytest.mark.parametrize("mutant", ALL, ids=lambda mutant: mutant.name)
def test_its_claim_stands_where_it_says(mutant: Mutant) -> None:
    pages = re.findall(r"[\w./-]+\.md\b", mutant.claim)
    assert [page for page in pages if not (ROOT / page).is_file()] == []
    if mutant.source is not None:
        page, sentence = mutant.source
        assert plain(sentence) in plain((ROOT / page).read_text()), (
            f"{page} does not say so (any more)"
        )


def test_it_breaks_code_and_no_test() -> None:
    for mutant in ALL:
        touched = re.findall(r"^\+\+\+ b/(\S+)", mutant.path.read_text(), re.MULTILINE)
        assert touched, mutant.name
        assert [file for file in touched if file.startswith(("tests/", "worker/test/"))] == [], (
            mutant.name
        )


@pytest.mark.parametrize(
    "text",
    [
        "Claim: x\nTests: a.py::b\n",
        "Claim: x\n\ndiff --git a/x b/x\n",
        "Tests: a.py::b\n\ndiff --git a/x b/x\n",
        "Claim: x\nTests: a.py\n\ndiff --git a/x b/x\n",
    ],
    ids=["no diff", "no test", "no claim", "no name"],
)
def test_one_without_a_head_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "bad.patch").write_text(text)
    with pytest.raises(Malformed):
        read(tmp_path / "bad.patch")


def test_a_test_that_is_not_there_is_noticed() -> None:
    assert exists(NamedTest.of("tests/unit/docs/test_mutants.py::test_it_still_applies[some]"))
    assert not exists(NamedTest.of("tests/unit/docs/test_mutants.py::test_it_never_was"))
    assert exists(NamedTest.of("worker/test/vault.test.ts::the vault > notices a changed row"))
    assert not exists(NamedTest.of("worker/test/vault.test.ts::the vault > was never written"))
