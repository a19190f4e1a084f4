"""Every console block of every page is run, the YAML blocks are loaded, links lead somewhere, and every task is told.

A page is one session on a fresh sample tree. A comment ``<!-- first: COMMAND -->`` makes what the next block needs.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from ckptrules.commands.demo import sample_tree
from ckptrules.rules.load import load_rules
from ckptrules.run.declared import TASKS
from tests.conftest import ROOT
from tests.rules.test_load_docs import anchor_of

PAGES = {
    str(path.relative_to(ROOT)): path.read_text(encoding="utf-8")
    for path in (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")))
}
README = PAGES["README.md"]
GUIDES = ("README.md", "docs/guide.md", "docs/protocol.md")
CHECKED_BY = {  # pages whose blocks need another tree, and the tests that make it
    "docs/extending.md": "tests/whole/test_extending.py",
    "docs/init.md": "tests/run/test_init.py",
}
FENCED = re.compile(r"^```(.*?)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SESSION = re.compile(r"^<!-- first: (.*?) -->$|^```console\n(.*?)^```$", re.MULTILINE | re.DOTALL)
CONSOLE = [name for name, text in PAGES.items() if "\n```console\n" in text]
YAML = [block for name in GUIDES for kind, block in FENCED.findall(PAGES[name]) if kind == "yaml"]
RUN = re.compile(r"\d{8}T\d{6}Z-\d+")
LISTS = {"protected", "ignored", "legacy", "formats"}
MOST = 7000  # bytes


def test_the_readme_is_short() -> None:
    assert len(README.encode()) < MOST


@pytest.mark.parametrize("name", [name for name in CONSOLE if name not in CHECKED_BY])
def test_the_console_blocks_of_a_page_show_what_really_comes(name: str, tmp_path: Path) -> None:
    shutil.copy(ROOT / "dodo.py", tmp_path)
    shutil.copytree(ROOT / "rules", tmp_path / "rules")
    sample_tree(str(tmp_path / "outputs"))
    for first, block in SESSION.findall(PAGES[name]):
        if first:
            done = run(first, tmp_path)
            assert done.returncode == 0, done.stdout
            continue
        commands = re.findall(r"^\$ (.*)$", block, re.MULTILINE)
        shown = "".join(f"$ {command}\n{run(command, tmp_path).stdout}" for command in commands)
        assert RUN.sub("<run>", shown) == RUN.sub("<run>", block)


def run(command: str, folder: Path) -> subprocess.CompletedProcess[str]:
    here = os.path.dirname(sys.executable)
    environment = {**os.environ, "PYTHONIOENCODING": "utf-8", "PATH": f"{here}:{os.environ['PATH']}"}
    environment.pop("NO_COLOR", None)
    return subprocess.run(
        ["bash", "-c", command],
        cwd=folder,
        env=environment,
        text=True,
        encoding="utf-8",
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
    )


@pytest.mark.parametrize("name", [name for name in CONSOLE if name in CHECKED_BY])
def test_the_other_console_blocks_have_a_test_of_their_own(name: str) -> None:
    assert Path(name).name in (ROOT / CHECKED_BY[name]).read_text(encoding="utf-8")


@pytest.mark.parametrize("block", YAML)
def test_the_yaml_blocks_are_rules_that_hold(block: str) -> None:
    claimed = set(yaml.safe_load(block)) - LISTS
    files = {f"rules/{path.name}": path.read_text(encoding="utf-8") for path in (ROOT / "rules").glob("*.yaml")}
    texts = {name: text for name, text in files.items() if not claimed & set(yaml.safe_load(text))}
    assert load_rules({**texts, "rules/readme.yaml": block})


@pytest.mark.parametrize("name", PAGES)
def test_the_links_of_a_page_lead_to_a_file_and_a_heading(name: str) -> None:
    text = FENCED.sub("", PAGES[name])
    for target in re.findall(r"\]\((?!https?:)([^)\s]+)\)", text):
        file, _, anchor = target.partition("#")
        path = os.path.normpath(os.path.join(os.path.dirname(name), file)) if file else name
        assert (ROOT / path).exists(), target
        assert not anchor or anchor in anchors(PAGES[path]), target


@pytest.mark.parametrize("name", PAGES)
def test_each_row_of_a_table_has_its_columns(name: str) -> None:
    """A bar in a pattern of a regular expression ended the cell."""
    for table in re.findall(r"(?m)^(?:\|.*\n)+", FENCED.sub("", PAGES[name])):
        bars = {len(re.findall(r"(?<!\\)\|", row)) for row in table.splitlines()}
        assert len(bars) == 1, table


def anchors(page: str) -> set[str]:
    return {anchor_of(heading) for heading in re.findall(r"(?m)^#+ (.*)$", FENCED.sub("", page))}


@pytest.mark.parametrize("name", [name for name in PAGES if name.count("/") < 2 and name != "README.md"])
def test_the_readme_leads_to_every_page(name: str) -> None:
    assert f"]({name})" in README


@pytest.mark.parametrize("task", TASKS)
def test_every_task_is_documented(task: str) -> None:
    told = "".join(PAGES[name] for name in (*GUIDES, "docs/options.md"))
    assert re.search(rf"doit {task}\b(?!_)", told), task


def test_ci_runs_the_commands_of_the_readme() -> None:
    ci = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    for words in re.findall(r"readme_command \"(.*)\"\)", ci):
        assert words in README
