"""Tab, pressed in real shells: what is typed becomes the words that a program would get."""

from __future__ import annotations

import os
import pty
import re
import select
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.conftest import Project, default, run_program

STARTS = {
    "bash": (["bash", "--norc", "--noprofile", "-i"], "bind 'set enable-bracketed-paste off'; . ./{}"),
    "zsh": (["zsh", "-f", "-i"], "autoload -Uz compinit; compinit -u -d dump; . ./{}"),
}
PATIENCE = 20  # seconds
CASES = {
    "ckptrules mig": "migrate",
    "doit mig": "migrate",
    "doit ini": "ini",  # only ckptrules knows init
    "ckptrules init preset=hug": "init|preset=huggingface",
    "ckptrules init my": "init|my runs/",
    "ckptrules help dr": "help|drop_",
    "ckptrules completion b": "completion|bash",
    "doit plan keep_m": "plan|keep_min_epoch=",
    "doit plan:ocr_training del": "plan:ocr_training|delete_old=1",
    "doit plan outputs_dir=outp": "plan|outputs_dir=outputs/",
    "doit plan outputs_dir=outputs/ocr": "plan|outputs_dir=outputs/ocr_training/",
    "doit plan outputs_dir=m": "plan|outputs_dir=my runs/",
    "doit plan outputs_dir='my runs' verb": "plan|outputs_dir=my runs|verbose=1",
    "doit plan on_conflict=keep_n": "plan|on_conflict=keep_newest",
    "doit plan policy=b": "plan|policy=best_and_last",
    "doit plan outputs_dir='my runs' experiments=": "plan|outputs_dir=my runs|experiments=only one",
    "doit plan:oc": "plan:ocr_training",
    "doit plan:not": "plan:notes from friday",
    "doit plan:lr": "plan:lr%3D0.1",
    "doit catalog format=j": "catalog|format=json",
    "doit plan verbose=1 verb": "plan|verbose=1|verb",
}


@pytest.fixture
def folder(project: Project) -> Path:
    names = ("outputs/ocr_training", "outputs/notes from friday", "outputs/lr=0.1", "my runs/only one")
    for name in names:
        (project.folder / name / "checkpoints").mkdir(parents=True)
        (project.folder / name / "checkpoints/epoch-03_step-000103.ckpt").write_bytes(b"x")
    programs = project.folder / "programs"
    programs.mkdir()
    for name in ("doit", "ckptrules"):
        (programs / name).write_text(f'#!/bin/sh\nexec "{sys.executable}" -m {name} "$@"\n')
        (programs / name).chmod(0o755)
    return project.folder


def script(shell: str, folder: Path) -> Path:
    if not shutil.which(shell):
        pytest.skip(f"{shell} is not installed")
    code, text, _ = run_program("ckptrules", "completion", shell, folder=folder, environment=default())
    assert code == 0
    (folder / f"script.{shell}").write_text(text)
    return folder / f"script.{shell}"


def environment(folder: Path) -> dict[str, str]:
    return {**default(), "TERM": "dumb", "HOME": str(folder), "PATH": f"{folder}/programs:{os.environ['PATH']}"}


class Terminal:
    """A shell that believes to have a person before it."""

    def __init__(self, words: list[str], folder: Path) -> None:
        self.terminal, inner = pty.openpty()
        self.shell = subprocess.Popen(
            words, cwd=folder, env=environment(folder), stdin=inner, stdout=inner, stderr=inner, start_new_session=True
        )
        os.close(inner)

    def typed(self, keys: str, mark: str) -> str:
        """Type, and return all that is shown until a mark is."""
        os.write(self.terminal, keys.encode())
        shown, end = b"", time.monotonic() + PATIENCE
        while mark.encode() not in shown and time.monotonic() < end:
            if select.select([self.terminal], [], [], 0.1)[0]:
                shown += os.read(self.terminal, 65536)
        assert mark.encode() in shown, shown
        return shown.decode(errors="replace")

    def close(self) -> None:
        self.shell.kill()
        self.shell.wait()
        os.close(self.terminal)


@pytest.mark.parametrize("shell", STARTS)
def test_a_tab_in_a_real_shell(shell: str, folder: Path) -> None:
    words, setup = STARTS[shell]
    file = script(shell, folder)
    terminal = Terminal(words, folder)
    try:
        terminal.typed(f"{setup.format(file.name)}; PS1='READY''> '\n", "READY> ")
        for typed, expected in CASES.items():
            shown = terminal.typed(f"{typed}\t\x01printf '<%s>' \x05 END\n", "<END>")
            got = re.findall(r"<(\w+)>((?:<[^<>]*>)*)<END>", shown)[-1][1]
            wanted = "".join(f"<{word}>" for word in expected.split("|"))
            assert got.replace("/>", ">") == wanted.replace("/>", ">"), typed  # zsh adds no slash before a blank
    finally:
        terminal.close()


def test_fish(folder: Path) -> None:
    file = script("fish", folder)
    for typed, expected in CASES.items():
        said = subprocess.run(
            ["fish", "--no-config", "-c", f"source {file.name}; complete -C $argv", "--", typed],
            cwd=folder, env=environment(folder), capture_output=True, text=True, check=True,
        )  # fmt: skip
        found = [line.partition("\t")[0] for line in said.stdout.splitlines()]
        last = expected.split("|")[-1]
        assert all(word.startswith(last) for word in found), typed
        assert found or typed.endswith(last), typed


@pytest.mark.parametrize("shell", STARTS)
def test_another_dodo_gets_file_names(shell: str, folder: Path) -> None:
    (folder / "dodo.py").write_text("def task_mine():\n    return {'actions': []}\n")
    words, setup = STARTS[shell]
    file = script(shell, folder)
    terminal = Terminal(words, folder)
    try:
        terminal.typed(f"{setup.format(file.name)}; PS1='READY''> '\n", "READY> ")
        shown = terminal.typed("doit outp\t\x01printf '<%s>' \x05 END\n", "<END>")
    finally:
        terminal.close()
    assert re.search(r"<doit><outputs/?><END>", shown)
