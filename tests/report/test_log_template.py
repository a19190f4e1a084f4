"""A log template can do what an entry needs, and ends; and nothing that it shows can be taken for Markdown."""

from __future__ import annotations

import re
from typing import Any

import pytest

from ckptrules.changes.history import Run
from ckptrules.changes.journal import UnitRef
from ckptrules.changes.record import Intent
from ckptrules.commands.log import code, entry_of, plain, threshold
from ckptrules.engine.actions import Unit
from ckptrules.report.log_template import LONGEST_ENTRY, LogTemplateError, render
from ckptrules.rules.shipped import log_template
from tests.conftest import Project
from tests.support.tables import every, every_row

VALUES: dict[str, Any] = {"run": "7", "renamed": 3, "deleted": 1, "kept": 2, "experiments": ["b", "a", "c"]}
HOSTILE = {
    "a loop in a loop": "{% for a in range(99999) %}{% for b in range(99999) %}x{% endfor %}{% endfor %}",
    "a loop in a loop over what is given": "{% for a in experiments %}{% for b in experiments %}x{% endfor %}{% endfor %}",
    "a loop that calls itself": "{% for a in experiments recursive %}{{ loop(experiments) }}{% endfor %}",
    "a loop in the condition of a loop": "{% for a in experiments if a %}{% for b in a %}{% endfor %}{% endfor %}",
    "a product": "{{ 'x' * 10**11 }}",
    "a power": "{{ 10**10**9 }}",
    "a quotient": "{{ renamed // (renamed - renamed) }}",
    "a remainder": "{{ renamed % 0 }}",
    "a format": "{{ '%999999999d' | format(1) }}",
    "a format by a remainder": "{{ '%999999999d' % 1 }}",
    "a macro that calls itself": "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
    "a call block": "{% call run() %}x{% endcall %}",
    "an endless cycle": "{% set c = cycler('a') %}{% for x in c %}x{% endfor %}",
    "a joiner": "{% set j = joiner(',') %}{{ j() }}",
    "lipsum": "{{ lipsum(n=10**9) }}",
    "a namespace": "{% set n = namespace(x='x') %}{% for a in experiments %}{% set n.x = n.x ~ n.x %}{% endfor %}",
    "doubling": "{% set x = run %}" + "{% set x = x ~ x %}" * 60 + "{{ x }}",
    "doubling by a sum": "{% set x = run %}" + "{% set x = x + x %}" * 60 + "{{ x }}",
    "doubling a list": "{% set x = experiments %}" + "{% set x = x + x %}" * 60 + "{{ x | length }}",
    "doubling by joining": "{% set x = run %}" + "{% set x = x | join('xx') %}" * 60 + "{{ x }}",
    "a list of lists": "{% set x = run %}" + "{% set x = [x, x] | join %}" * 60 + "{{ x }}",
    "a block in a variable": "{% set x %}{{ run }}{{ run }}{% endset %}",
    "a filter block": "{% filter upper %}x{% endfilter %}",
    "a wide text": "{{ run | center(10**11) }}",
    "an indented text": "{{ run | indent(10**9) }}",
    "a wrapped text": "{{ run | wordwrap(1, wrapstring='x' * 9) }}",
    "batches": "{{ experiments | batch(10**9, 'x') | list }}",
    "slices of lists": "{{ experiments | slice(10**9) | list }}",
    "a replaced text": "{{ run | replace('7', 'xxxxxxxx') }}",
    "a map": "{{ experiments | map('upper') | list }}",
    "an attribute": "{{ run.__class__ }}",
    "an attribute by its name": "{{ run['__class__'] }}",
    "an attribute by a filter": "{{ run | attr('__class__') }}",
    "a method": "{{ run.zfill(10**11) }}",
    "a file": "{% include 'rules/naming.yaml' %}",
    "an import": "{% import 'x' as x %}",
    "an import from": "{% from 'x' import y %}",
    "a parent": "{% extends 'x' %}",
    "a test by a name": "{{ run is divisibleby(0) }}",
    "a dictionary": "{{ dict(a=1) }}",
    "no such variable": "{{ nothing }}",
    "no such filter": "{{ run | nothing }}",
    "no such test": "{{ run is nothing }}",
    "no such function": "{{ nothing() }}",
    "no template": "{% if %}",
    "nothing to end": "{% endfor %}",
    "an open comment": "{# x",
    "a number and a text": "{{ renamed + run }}",
    "a text that is greater": "{{ run > renamed }}",
    "the joining of a number": "{{ renamed | join }}",
    "the length of a number": "{{ renamed | length }}",
    "the first of none": "{{ experiments[9] }}",
    "a step of nothing": "{{ experiments[::0] }}",
    "an odd text": "{{ run is odd }}",
    "a long number": "{{ " + "9" * 9000 + " }}",
    "a long template": "x" * 30_000,
    "many brackets": "{{ " + "(" * 9000 + "1" + ")" * 9000 + " }}",
    "many denials": "{{ " + "not " * 4000 + "1 }}",
    "many conditions": "{{ " + "1 and " * 3000 + "1 }}",
    "many filters": "{{ run" + " | lower" * 2000 + " }}",
    "many ifs": "{% if run %}" * 1500 + "{% endif %}" * 100,
}


@every(HOSTILE)
def test_what_a_template_may_not_do_is_one_sentence_with_its_line(template: str) -> None:
    with pytest.raises(LogTemplateError) as told:
        render("{{ run }}\n\n" + template, VALUES)
    assert str(told.value)
    assert len(str(told.value)) < 400
    assert 1 <= told.value.line <= 3


@pytest.mark.parametrize(
    "name", ["a loop in a loop", "a product", "a quotient", "no such variable", "a number and a text"]
)
def test_the_line_is_the_one_that_fails(name: str) -> None:
    with pytest.raises(LogTemplateError) as told:
        render("{{ run }}\n\n" + HOSTILE[name] + "\n\n{{ run }}", VALUES)
    assert told.value.line == 3


USEFUL = {
    "{{ experiments | sort | join(', ') }}": "a, b, c",
    "{{ experiments[:2] | join(' and ') }} of {{ experiments | length }}": "b and a of 3",
    "{{ experiments[-1] }}{{ experiments | first | upper }}": "cB",
    "{% for e in experiments | sort %}\n{{ loop.index }}. {{ e }}\n{% endfor %}": "1. a\n2. b\n3. c",
    "{% for e in experiments if e != 'a' %}{{ e }}{% if not loop.last %}, {% endif %}{% else %}none{% endfor %}": "b, c",
    "{% set all = renamed + deleted - 1 %}{{ all }} change{{ '' if all == 1 else 's' }}": "3 changes",
    "{% if deleted and not kept > 5 or renamed is odd %}yes{% elif 'a' in experiments %}no{% endif %}": "yes",
    "{# a comment #}{% raw %}{{ run }}{% endraw %}": "{{ run }}",
}


@every_row(("template", "entry"), USEFUL.items())
def test_what_an_entry_needs_a_template_may_do(template: str, entry: str) -> None:
    assert render(template, VALUES) == f"{entry}\n"


MANY = {**VALUES, "experiments": [f"experiment_{number:05d}" for number in range(20_000)]}


def test_an_entry_with_very_many_experiments_is_made() -> None:
    template = "{% for e in experiments %}\n- {{ e | upper }}{{ '' if loop.last else ',' }}\n{% endfor %}"
    assert render(template, MANY).count("\n") == 20_000
    assert "experiment_19999" in render(log_template(None), {**MANY, **dict.fromkeys(SHIPPED, "")})


SHIPPED = ("date", "deleted_size", "threshold", "who", "program", "command")
LONG = {
    "a list in a loop": "{% for e in experiments %}{{ experiments | join }}{% endfor %}",
    "a list in a loop, measured": "{% for e in experiments %}{{ experiments | join | length }}{% endfor %}",
    "a list under another name": "{% set x = experiments %}{% for e in experiments %}{{ x == x }}{% endfor %}",
    "a list again and again": "{{ experiments | join }}\n" * 40,
}


@pytest.mark.parametrize("template", LONG.values(), ids=list(LONG))
def test_what_would_take_too_long_or_too_much_room_is_refused(template: str) -> None:
    assert LONGEST_ENTRY < 40 * 16 * 20_000
    with pytest.raises(LogTemplateError):
        render(template, MANY)


@pytest.mark.parametrize("how", ["a product", "no such variable", "bytes", "a folder", "a link that leads nowhere"])
def test_the_command_says_where_and_refuses(project: Project, how: str) -> None:
    project.make({"a/checkpoints/epoch=3-step=30.ckpt": 100})
    project.doit("migrate")
    path = project.folder / "rules" / "experiment_log.md.j2"
    if how == "a folder":
        path.unlink()
        path.mkdir()
    elif how == "a link that leads nowhere":
        path.unlink()
        path.symlink_to("away/log.md.j2")
    else:
        path.write_bytes(b"\xff" if how == "bytes" else f"\n{HOSTILE[how]}".encode())
    out = project.doit("log", check=3)
    place = "rules/experiment_log.md.j2:2: " if how in HOSTILE else "rules/experiment_log.md.j2: "
    assert out.startswith(f"ERROR: {place}")
    assert out.count("\n") == 1 + ("\n    hint: " in out)


# --- names -----------------------------------------------------------------------------------------------------------

NAMES = {
    "a comment": ("x<!-- run 1 -->", r"x\<!-- run 1 --\>"),
    "a heading": ("# x", r"\# x"),
    "a heading on a line of its own": ("a\n## 2026-01-01: x", r"a\n\#\# 2026-01-01: x"),
    "an underline": ("===", r"\==="),
    "a rule": ("---", r"\---"),
    "a link": ("[x](https://evil.example)", r"\[x\](https\://evil.example)"),
    "an address": ("www.evil.example", r"www\.evil.example"),
    "an image": ("![x](y)", r"!\[x\](y)"),
    "a tag": ("<img src=x onerror=alert(1)>", r"\<img src=x onerror=alert(1)\>"),
    "an entity": ("&lt;script&gt;", r"\&lt;script\&gt;"),
    "code": ("`x`", r"\`x\`"),
    "a table": ("a|b", r"a\|b"),
    "emphasis": ("**x**", r"\*\*x\*\*"),
    "what would undo the escaping": (r"\[x](y)", r"\\\[x\](y)"),
    "an escape": ("\x1b]0;x\x07\x1b[2J", r"\x1b\]0;x\x07\x1b\[2J"),
    "a bidi mark": ("a\u202etpkc.", r"a\u202etpkc."),
    "a line end of another system": ("a\r\u2028\x85b", r"a\r\u2028\x85b"),
    "bytes": ("a\udcffb", r"a\xffb"),
    "what is usual": ("sweep_3/lr=0.1,bs=32-größe", "sweep_3/lr=0.1,bs=32-größe"),
}


@every_row(("name", "shown"), NAMES.values(), ids=list(NAMES))
def test_a_name_is_shown_as_it_is_and_is_no_markdown(name: str, shown: str) -> None:
    assert plain(name) == shown


@every(NAMES)
def test_nothing_that_a_journal_says_forges_an_entry(row: tuple[str, str]) -> None:
    """The name stands wherever a journal tells something: a template takes longer to compile than to fill in."""
    name, shown = row
    header: dict[str, Any] = dict.fromkeys(("command", "when", "who", "host"), name)
    header |= {"options": {"experiments": name}, "selected": [name], "policy": {"name": name, "lines": {name: name}}}
    intent = Intent(UnitRef("20260101T100000Z-1", "1", 1, 0), name, "a", (Unit("rename", 1, ()),))
    run = Run(
        intent.first.run,
        header,
        (intent,),
        dict(zip(intent.refs, intent.units, strict=True)),
        {},
        frozenset(),
        interrupted=False,
    )
    entry = render(
        log_template(None) + "{% if deleted == 0 %}\n({{ threshold }}) {{ when }}\n{% endif %}", entry_of(run)
    )
    assert entry.isascii() or "größe" in entry
    assert entry.replace("\n", "").isprintable()
    lines = entry.splitlines()
    assert len(lines) == 6
    assert re.fullmatch(r"<!-- run [0-9TZ-]+ -->", lines[1])
    assert entry.count("<!--") - entry.count(r"\<!--") == 1
    assert len(re.findall(r"(?<!\\)`", entry)) == 2
    assert not re.search(r"(?<!\\)\]\(|(?<!\\)<(?!!--| epoch)", entry)
    assert entry.count(shown) >= len(("when", "who", "host", "experiment", "policy", "key", "value"))


def test_code_keeps_its_own_mark_out() -> None:
    assert code("a `b` <c> [d](e) | *f*") == r"a \x60b\x60 \x3cc\x3e [d\x5d(e) \x7c *f*"


@pytest.mark.parametrize(
    "policy", [None, [], "x", {"lines": 3}, {"name": 1}, {"name": "x", "lines": {"min_epoch": "1\n"}}]
)
def test_whatever_a_journal_says_of_a_policy_is_told(policy: object) -> None:
    assert threshold({"policy": policy}).isprintable()


def test_an_experiment_that_looks_like_an_entry_forges_none(project: Project) -> None:
    name = "a\n\n## 2026-01-01: Checkpoint Migration\n<!-- run 1 -->"
    project.make({f"{name}/checkpoints/epoch=3-step=30.ckpt": 100})
    project.doit("migrate")
    entry = project.doit("log")
    assert len(re.findall("^## ", entry, re.MULTILINE)) == 1
    assert len(entry.splitlines()) == 5
