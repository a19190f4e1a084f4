"""What completes tasks, options and values: that the script has all that is declared."""

from __future__ import annotations

import contextlib
import functools
import io
import shlex
import shutil
import subprocess
from collections.abc import Iterable, Sequence
from pathlib import Path

import pytest

from ckptrules import cli
from ckptrules.rules import packs
from ckptrules.run.completion import SHELLS
from ckptrules.run.declared import TASKS, declared
from ckptrules.run.help import WITHOUT_OPTIONS
from ckptrules.run.options import OptionError
from tests.support.tables import every_row


@functools.cache
def script(shell: str) -> str:
    with contextlib.redirect_stdout(io.StringIO()) as out:
        assert cli.completion([shell]) == 0
    return out.getvalue()


def offered(text: str, *words: str) -> list[str]:
    return all_offered(text, [words])[0]


def all_offered(text: str, lines: Iterable[Sequence[str]]) -> list[list[str]]:
    """Return what bash offers for each line of words; one bash is asked for all."""
    asked = "".join(f"_ckptrules_words {shlex.join(words)}\nprintf '\\0'\n" for words in lines)
    said = subprocess.run(["bash", "-c", f"{text}\n{asked}"], capture_output=True, check=True)
    assert said.stderr == b""
    return [words.split() for words in said.stdout.decode().split("\0")[:-1]]


def test_every_option_of_every_task_is_offered() -> None:
    expected = dict[tuple[str, str], list[str]]()
    for task in TASKS:
        options = [] if task in WITHOUT_OPTIONS else declared(task).known().values()
        expected[task, ""] = [f"{one.name}={'1' * one.is_flag}" for one in options]
        for one in options:
            if one.values or one.is_path:
                expected[task, f"{one.name}="] = ["@"] if one.is_path else [f"{one.name}={word}" for word in one.values]
    found = all_offered(script("bash"), [("ckptrules", *words) for words in expected])
    assert dict(zip(expected, found, strict=True)) == expected


@every_row(
    ("words", "some", "none"),
    [
        ("ckptrules|", "plan migrate init completion help list", "outputs_dir="),
        ("doit|", "plan migrate help list", "init completion"),
        ("ckptrules|outp", "outputs_dir=", ""),  # those of plan
        ("ckptrules|help|", "plan init", "outputs_dir="),
        ("ckptrules|init|", "@ preset=", "outputs_dir= plan"),
        ("ckptrules|init|preset=", "preset=protocol preset=huggingface preset=lightning", "@ preset="),
        ("ckptrules|packs|copy=", "copy=huggingface", "copy=protocol copy="),
        ("ckptrules|completion|", "bash zsh fish", "plan"),
        ("ckptrules|plan:a b|", "delete_old=1", "plan"),
        ("ckptrules|plan|delete_old=1|", "outputs_dir= verbose=1", "delete_old=1"),
        ("ckptrules|plan|settle=", "", "settle= @"),
        ("ckptrules|plan|html=", "@", "html="),
        ("ckptrules|check|delete_old", "", "delete_old=1"),
        ("ckptrules|demo|", "", "outputs_dir="),
    ],
)
def test_what_may_follow(words: str, some: str, none: str) -> None:
    found = offered(script("bash"), *words.split("|"))
    assert [word for word in some.split() if word not in found] == []
    assert [word for word in none.split() if word in found] == []


def test_the_pack_of_another_package_is_among_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(packs, "sources", lambda: {"theirs": "/x.yaml"})
    assert offered(script.__wrapped__("bash"), "ckptrules", "packs", "copy=") == ["copy=theirs"]


@pytest.mark.parametrize("shell", SHELLS)
def test_shells_can_read_it(shell: str) -> None:
    if not shutil.which(shell):
        pytest.skip(f"{shell} is not installed")
    said = subprocess.run([shell, "-n"], input=script(shell), capture_output=True, text=True, check=False)
    assert (said.returncode, said.stdout, said.stderr) == (0, "", "")


@pytest.mark.parametrize("words", ["", "tcsh", "bash zsh"])
def test_another_shell_is_refused(words: str) -> None:
    with pytest.raises(OptionError, match="completion takes one shell: bash, zsh, fish"):
        cli.completion(words.split())


@pytest.mark.parametrize(
    ("words", "names"),
    [
        ("policy", "default best_and_last keep_all"),
        ("policy rules_dir=nowhere", ""),
        ("experiments", "ocr"),
        ("experiments outputs_dir='my runs'", "one"),
        ("experiments outputs_dir=my\\ runs", "one"),
        ("experiments outputs_dir=my runs", "one"),
        ("experiments outputs_dir='my", ""),
        ("experiments outputs_dir=nowhere", ""),
    ],
)
def test_what_the_script_asks_for(
    words: str, names: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("outputs/ocr", "my runs/one"):
        (tmp_path / name / "checkpoints").mkdir(parents=True)
        (tmp_path / name / "checkpoints/epoch-03_step-000103.ckpt").write_bytes(b"x")
    monkeypatch.chdir(tmp_path)
    option, _, where = words.partition(" ")
    assert cli.completion([option, *([where] if where else [])]) == 0
    assert capsys.readouterr().out.split() == names.split()
