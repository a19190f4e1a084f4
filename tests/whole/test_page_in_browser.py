"""The page in a real browser: it is quiet, hostile names are inert, the keyboard does all, and its sums are right."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from ckptrules.engine.measures import human_size, visible
from ckptrules.report.page.drawing import draw
from tests.conftest import ROOT, Project, default, run_program
from tests.support.browsing import LACKS, Opened, browser, opened
from tests.support.page_data import GOES, HOSTILE, HOUR, NOW, checkpoint, experiment, plan, sample
from tests.whole.test_json import TREES

if TYPE_CHECKING:
    from playwright.sync_api import Browser

pytestmark = pytest.mark.skipif(bool(LACKS), reason=LACKS)
Data = dict[str, Any]
NO_CLIPBOARD = "Object.defineProperty(navigator, 'clipboard', {value: undefined})"
SCHEMES = ("light", "dark")
LONG = "n" * 200


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with browser() as started:
        yield started


def drawn(folder: Path, data: Data) -> Path:
    """Write the page of some data."""
    file = folder / "checkpoints.html"
    file.write_text(draw(data), encoding="utf-8")
    return file


def long_names() -> Data:
    """Make a plan whose names have 200 letters, and no place to break."""
    one, other = experiment(0, 12, LONG), experiment(1, 5)
    for number, row in enumerate(one["checkpoints"]):
        row["name"] = f"{LONG}{number}.ckpt"
    one["problems"] = [
        {"id": "empty", "names": [f"{LONG}0.ckpt"], "text": f"{LONG} is empty", "hint": f"'doit explain name={LONG}' says more", "remarks": []}
    ]  # fmt: skip
    one["policy"] = {"text": f"policy {LONG}", "rule": f"rules/{LONG}.yaml:4"}
    one["metric"] = {"name": LONG, "mode": "max"}
    return plan([one, other])


def history() -> Data:
    return plan([], command="history", runs=plan([])["history"], history=[], what_if=[], space=None)


def undone() -> Data:
    action = {"action": "restore", "name": "a.ckpt", "to": None, "bytes": 5, "reasons": [GOES]}
    return plan([{**experiment(0, 0), "actions": [action]}], command="undo", dry_run=False, what_if=[], history=[])


PAGES = {
    "all there is": sample,
    "long names": long_names,
    "nothing": lambda: plan([], space=None, what_if=[], history=[]),
    "history": history,
    "an undo": undone,
}


def use_all(one: Opened) -> None:
    """Touch all that can be touched."""
    page = one.page
    for summary in page.locator("summary").all():
        summary.click()
    if page.locator("#filter").is_visible():
        page.fill("#filter", "e")
        page.wait_for_timeout(100)
        page.locator("#table thead input").check()
        for head in page.locator("#table thead button").all():
            head.click()
        page.select_option("#action", "pin")
        page.click("#copy-commands")
        page.locator("#more").click() if page.locator("#more").is_visible() else None
    if page.locator(".copy[data-text]").count():
        page.locator(".copy[data-text]").first.click()
    page.click("#copy-json")


# --- quiet and inert -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PAGES)
def test_nothing_is_said_and_nothing_but_the_file_is_asked_for(chromium: Browser, tmp_path: Path, name: str) -> None:
    file = drawn(tmp_path, PAGES[name]())
    with opened(chromium, file) as one:
        use_all(one)
        one.page.wait_for_timeout(100)
        assert one.told == []
        assert one.asked == [file.as_uri()]


@pytest.mark.parametrize("tree", ["golden", "hostile"])
def test_the_pages_of_real_runs_are_quiet_and_tell_of_them(chromium: Browser, project: Project, tree: str) -> None:
    TREES[tree](project)
    for words in ("page", "verify", "plan delete_old=1", "migrate delete_old=1", "history", "undo"):
        arguments = [*words.split(), "out=it.html" if words == "page" else "html=it.html"]
        code, out, _ = run_program("doit", *arguments, folder=project.folder, environment=default())
        assert code in (0, 1), out
        with opened(chromium, project.folder / "it.html") as one:
            use_all(one)
            assert len(one.page.locator("h1").text_content() or "") > 10
            assert (one.told, one.asked) == ([], [(project.folder / "it.html").as_uri()]), words
            one.page.set_viewport_size({"width": 390, "height": 800})
            assert one.page.evaluate("document.documentElement.scrollWidth") <= 390


def test_the_saved_json_is_that_of_the_page(chromium: Browser, tmp_path: Path) -> None:
    data = sample()
    with opened(chromium, drawn(tmp_path, data)) as one:
        with one.page.expect_download() as download:
            one.page.click("#save")
        download.value.save_as(tmp_path / "saved.json")
        assert json.loads((tmp_path / "saved.json").read_text()) == data
        one.page.click("#copy-json")
        assert json.loads(one.copied()) == data
        assert one.told == []


def hostile(name: str) -> Data:
    """Make a plan in which a hostile text stands everywhere where one can stand."""
    one = experiment(0, 4, name)
    reason = {"text": name, "rule": name}
    for row in one["checkpoints"]:
        row |= {
            "name": name,
            "becomes": name,
            "pack": name,
            "reasons": [reason],
            "metrics": {name: 0.5},
            "fields": {name: 5},
        }
    one |= {"metric": {"name": name, "mode": "max"}, "number": name, "policy": reason, "notes": [reason]}
    one["problems"] = [{"id": "x", "names": [name], "text": name, "hint": f"'doit explain name={name}'", "remarks": []}]
    one["skipped"] = [
        {"name": name, "kind": "unrecognised", "bytes": 1, "time_ns": NOW, "reasons": [reason], "draft": f"- {name}"}
    ]
    data = plan([one], who=name, host=name, refused=name, does_it=f"doit migrate {name}")
    data["rules"]["lines"][0] |= {"key": name, "value": name, "policy": name, "rule": name}
    data["what_if"][0] |= {"policy": name, "command": name}
    data["history"][0] |= {"command": name, "run": name, "state": name}
    return data


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_name_is_inert_wherever_it_stands_and_shown_escaped(
    chromium: Browser, tmp_path: Path, name: str
) -> None:
    count = (
        "[...document.querySelectorAll('img, script, iframe, a[href^=javascript], [onerror], [onmouseover]')].length"
    )
    with opened(chromium, drawn(tmp_path, hostile(name))) as one:
        use_all(one)
        page = one.page
        page.locator("th.label code").first.hover()
        assert page.evaluate("window.pwned") is None
        assert page.evaluate(count) == 2
        for place in (
            "#table tbody th code",
            ".inside tbody th code",
            "summary .name",
            ".needs .names code",
            "#rules code",
        ):
            assert visible(name) in page.locator(place).first.text_content()
        shown = page.evaluate("document.body.innerText + document.title + document.querySelector('.chart').outerHTML")
        assert not [c for c in shown if not c.isprintable() and c not in "\n\t\u202f\u00a0"]
        assert one.told == []


# --- the keyboard ----------------------------------------------------------------------------------------------------


def test_filter_sort_select_and_copy_go_by_the_keyboard_alone(chromium: Browser, tmp_path: Path) -> None:
    data = plan([experiment(0, 30), experiment(1, 20)])
    with opened(chromium, drawn(tmp_path, data)) as one:
        page, keys, shown = one.page, one.page.keyboard, one.page.locator("#shown")
        one.tab_to("summary")
        keys.press("Enter")
        page.wait_for_selector(".inside table")
        one.tab_to("#filter")
        keys.type("exp_0001")
        one.has("#shown", "20")
        one.tab_to("input[name=show]")
        keys.press("ArrowRight")
        assert page.evaluate("document.activeElement.value") == "stays"
        stays = [row["name"] for row in data["experiments"][1]["checkpoints"] if row["state"] == "stays"]
        assert (shown.text_content() or "").startswith(f"{len(stays)}\u00a0checkpoints")
        one.tab_to("#table thead th button")
        keys.press("Enter")
        names = page.locator("#table tbody th code").all_text_contents()
        assert names == sorted(stays)
        keys.press("Enter")
        assert page.locator("#table tbody th code").all_text_contents() == names[::-1]
        assert page.evaluate("document.activeElement.closest('th').getAttribute('aria-sort')") == "descending"
        one.tab_to("#table tbody input")
        keys.press("Space")
        assert "1\u00a0checkpoint selected" in (page.locator("#sum").text_content() or "")
        one.tab_to("#action")
        keys.press("ArrowDown")
        one.tab_to("#copy-commands")
        keys.press("Enter")
        one.has("#copy-commands", "Copied")
        assert one.copied() == f"doit pin name=outputs/exp_0001/checkpoints/{names[-1]}"
        assert page.evaluate("document.activeElement.id") == "copy-commands"


def test_with_the_fallback_the_focus_stays_where_it_was(chromium: Browser, tmp_path: Path) -> None:
    with opened(chromium, drawn(tmp_path, sample()), before=NO_CLIPBOARD) as one:
        one.tab_to(".copy")
        one.page.keyboard.press("Enter")
        assert one.page.evaluate("document.activeElement.matches('.copy')")
        assert one.told == []


# --- commands --------------------------------------------------------------------------------------------------------


def arguments(command: str) -> list[bytes]:
    """Return what a real bash makes of a command: its arguments, byte for byte."""
    told = subprocess.run(
        ["bash", "-c", f"doit() {{ printf '%s\\0' \"$@\"; }}\n{command}"], stdout=subprocess.PIPE, check=True
    )
    return told.stdout.split(b"\0")[:-1]


@pytest.mark.parametrize("before", ["", NO_CLIPBOARD], ids=["clipboard", "fallback"])
def test_a_copied_command_comes_back_from_bash_as_the_name_that_it_was(
    chromium: Browser, tmp_path: Path, before: str
) -> None:
    one = experiment(0, 0, "*?[x] 'exp")
    one["checkpoints"] = [checkpoint(name, bytes=1, time_ns=NOW - HOUR) for name in HOSTILE]
    with (
        opened(chromium, drawn(tmp_path, plan([one])), before=before) as page,
        opened(chromium, drawn(tmp_path, plan([one]))) as reader,
    ):
        boxes = page.page.locator("#table tbody input")
        shown = page.page.locator("#table tbody th code").all_text_contents()
        assert sorted(shown) == sorted(map(visible, HOSTILE))
        for name in HOSTILE:
            at = shown.index(visible(name))
            boxes.nth(at).check()
            reader.clear_clipboard()
            page.page.bring_to_front()
            page.page.click("#copy-commands")
            command = reader.copied()
            page.page.bring_to_front()
            path = f"outputs/{one['directory']}/{name}"
            assert arguments(command) == [b"explain", b"name=" + os.fsencode(path)]
            page.page.click("#none")


def in_bash(command: str, project: Project, programs: Path) -> str:
    """Run a command, as it was copied, by a real bash in the folder of the project."""
    programs.mkdir(exist_ok=True)
    for name in ("doit", "ckptrules"):
        (programs / name).write_text(f'#!/bin/sh\nexec "{sys.executable}" -m {name} "$@"\n')
        (programs / name).chmod(0o755)
    done = subprocess.run(
        ["bash", "-c", command], cwd=project.folder, env={**default(), "PATH": f"{programs}:{os.environ['PATH']}"},
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False,
    )  # fmt: skip
    out = done.stdout.decode(errors="surrogateescape")
    assert done.returncode == 0, out
    return out


def test_copied_commands_find_the_checkpoint_that_was_selected(
    chromium: Browser, project: Project, tmp_path: Path
) -> None:
    names = [name for name in HOSTILE if "/" not in name] + ["ax].ckpt", "abx.ckpt", "epoch=9-step=9.ckpt"]
    where = "it's *[x]?"
    (project.folder / "rules/mine.yaml").write_text(
        "{formats: [{id: any, match: '(?P<run>(?!epoch|best|last)(?s:.)+)\\.(ckpt|exe)', examples: {a.ckpt: {run: a}}}]}"
    )
    for folder in (where, "its a"):
        (project.outputs / folder / "checkpoints").mkdir(parents=True)
        for name in names:
            (
                project.outputs / folder / "checkpoints" / os.fsencode(name).decode("utf-8", "surrogateescape")
            ).write_bytes(b"x")
    project.doit("page", "json=page.json", "max_delete=100%")
    data = json.loads((project.folder / "page.json").read_text())
    assert {row["name"] for row in data["experiments"][0]["checkpoints"]} == set(names)
    with opened(chromium, project.folder / "checkpoints.html") as one:
        one.page.fill("#filter", "it's")
        one.has("#shown", str(len(names)))
        one.page.locator("#table thead input").check()
        found = {}
        for task in ("explain", "pin"):
            one.page.select_option("#action", task)
            one.clear_clipboard()
            one.page.click("#copy-commands")
            found[task] = one.copied().split("\n")
            assert len(found[task]) == len(names)
        one.page.select_option("#action", "migrate")
        one.clear_clipboard()
        one.page.click("#copy-commands")
        migrate = one.copied()
    programs = tmp_path / "programs"
    told = in_bash("\n".join(found["explain"]), project, programs)
    heads = re.findall(r"(?m)^\S.*/checkpoints/.*$", told)
    assert sorted(heads) == sorted(visible(f"{where}/checkpoints/{name}") for name in names)
    in_bash("set -e\n" + "\n".join(found["pin"]), project, programs)
    pins = yaml.safe_load((project.folder / "rules/pins.yaml").read_text())["pins"]
    assert sorted(pin["path"] for pin in pins) == sorted(f"{where}/checkpoints/{name}" for name in names)
    in_bash(migrate + " json=migrate.json dry_run=1", project, programs)
    assert [one["experiment"] for one in json.loads((project.folder / "migrate.json").read_text())["experiments"]] == [
        where
    ]


def test_copied_commands_go_by_the_program_and_the_options_of_the_plan(chromium: Browser, tmp_path: Path) -> None:
    data = plan([experiment(0, 3, "it's")], does_it="ckptrules migrate keep_last=2 rules_dir='my rules'")
    data["options"] |= {"outputs_dir": "outputs", "rules_dir": "my rules", "keep_last": 2, "policy": "default"}
    data["experiments"][0]["checkpoints"] = [checkpoint("a b.ckpt", bytes=1)]
    said = {
        "explain": "ckptrules explain name='outputs/it'\"'\"'s/checkpoints/a b.ckpt' keep_last=2 rules_dir='my rules'",
        "pin": "ckptrules pin name='outputs/it'\"'\"'s/checkpoints/a b.ckpt' rules_dir='my rules'",
        "migrate": "ckptrules migrate keep_last=2 rules_dir='my rules' experiments='it'\"'\"'s'",
    }
    with opened(chromium, drawn(tmp_path, data)) as one:
        one.page.locator("#table tbody input").check()
        for task, command in said.items():
            one.page.select_option("#action", task)
            assert one.page.locator("#commands").text_content() == command
    with opened(chromium, drawn(tmp_path, data | {"does_it": None})) as one:  # there is nothing to migrate
        assert one.page.locator("#action option").all_text_contents() == ["explain", "pin"]


# --- sums ------------------------------------------------------------------------------------------------------------


def cases(project: Project) -> None:
    """Make an experiment of each golden plan that needs no rules of its own."""
    texts = [file.read_text(encoding="utf-8") for file in (ROOT / "tests/cases/plans").glob("*.yaml")]
    for number, case in enumerate(case for text in texts for case in yaml.safe_load(text)):
        listing = case.get("listing", {})
        if "rules" not in case and all(isinstance(size, int) for size in listing.values()):
            project.make({f"case_{number}/checkpoints/{name}": size for name, size in listing.items()})


def numbers(text: str | None) -> str:
    """Return a text without the spaces that keep a number and its unit in one line."""
    return (text or "").replace("\u202f", " ").replace("\u00a0", " ")


@pytest.mark.parametrize("make", [*TREES.values(), cases])
def test_rows_verdict_summary_and_json_have_the_same_sums(chromium: Browser, project: Project, make: Any) -> None:
    project.outputs.mkdir(exist_ok=True)
    make(project)
    code, out, _ = run_program("doit", "page", "json=it.json", folder=project.folder, environment=default())
    assert code in (0, 1), out
    data = json.loads((project.folder / "it.json").read_text())
    rows = [row for one in data["experiments"] for row in one["checkpoints"]]
    sums = {state: [row["bytes"] for row in rows if row["state"] == state] for state in ("stays", "goes", "undecided")}
    stays, goes, held = (sum(sizes) for sizes in sums.values())
    beside = sum(row["bytes"] for one in data["experiments"] for row in one["stays"])  # sidecars and the like
    assert (data["summary"]["bytes_deleted"], data["summary"]["bytes_kept"]) == (goes, stays + beside)
    with opened(chromium, project.folder / "checkpoints.html") as one:
        page = one.page
        for state, sizes in {**sums, "all": [row["bytes"] for row in rows]}.items():
            page.check(f"input[name=show][value={state}]", force=True)
            many = f"{len(sizes)} checkpoint{'s' * (len(sizes) != 1)}, {human_size(sum(sizes))}"
            assert numbers(page.locator("#shown").text_content()).partition(";")[0] == many
        verdict = numbers(page.locator("h1").text_content())
        total = human_size(goes + stays + beside + held)
        start = (
            f"{human_size(goes)} would go of {total}; {human_size(stays + beside)} stays"
            if goes
            else "Nothing would go"
        )
        assert verdict.startswith(start)
        parts = [numbers(text) for text in page.locator("#space dd").all_text_contents()]
        assert set(parts) >= {human_size(size) for size in (goes, held) if size}
        cells = [numbers(text) for text in page.locator("summary .number").all_text_contents()]
        wanted = []
        for tree in sorted(
            data["experiments"], key=lambda tree: (-sum(r["bytes"] for r in tree["checkpoints"]), tree["directory"])
        ):
            if tree["checkpoints"]:
                both = (
                    sum(row["bytes"] for row in tree["checkpoints"] if row["state"] == state)
                    for state in ("stays", "goes")
                )
                wanted += [human_size(size) for size in both]
        assert [re.sub(r"^(stays|goes) ", "", text).replace("–", "0 B") for text in cells] == wanted


# --- without JavaScript, on any screen, for any reader ---------------------------------------------------------------


def test_without_javascript_all_but_the_list_is_there(chromium: Browser, tmp_path: Path) -> None:
    with opened(chromium, drawn(tmp_path, sample()), java_script_enabled=False) as one:
        for section in ("verdict", "needs-you", "space", "experiments", "what-if", "history", "rules"):
            assert one.page.locator(f"#{section}").is_visible()
        for hidden in ("#checkpoints", ".copy", "#save", "nav a[href='#checkpoints']"):
            assert one.page.locator(hidden).count() == 0 or not one.page.locator(hidden).first.is_visible()
        assert "need JavaScript, which is off" in one.page.locator("main > noscript").inner_text()
        one.page.locator("summary").first.click()
        assert one.page.locator("details[open] .note").first.is_visible()
        assert one.told == []


@pytest.mark.parametrize("name", PAGES)
def test_nothing_but_tables_is_wider_than_the_screen(chromium: Browser, tmp_path: Path, name: str) -> None:
    with opened(chromium, drawn(tmp_path, PAGES[name]())) as one:
        for summary in one.page.locator("summary").all():
            summary.click()
        if one.page.locator("#table tbody input").count():
            one.page.locator("#table tbody input").first.check()
        for width in (320, 390, 768, 1280):
            one.page.set_viewport_size({"width": width, "height": 800})
            assert one.page.evaluate("document.documentElement.scrollWidth") <= width


def nodes_of(one: Opened) -> list[tuple[str, str, Mapping[str, Any]]]:
    """Return what a screen reader is told: role, name and properties of each node of the accessibility tree."""
    session = one.page.context.new_cdp_session(one.page)
    tree = session.send("Accessibility.getFullAXTree")["nodes"]
    return [
        (node["role"]["value"], node.get("name", {}).get("value", ""), {p["name"]: p["value"].get("value") for p in node.get("properties", ())})
        for node in tree
        if not node["ignored"]
    ]  # fmt: skip


def test_each_control_and_picture_has_a_name_and_headings_stand_in_order(chromium: Browser, tmp_path: Path) -> None:
    with opened(chromium, drawn(tmp_path, sample())) as one:
        one.page.locator("summary").first.click()
        one.page.locator("#table tbody input").first.check()
        nodes = nodes_of(one)
        sort = one.page.locator("th[aria-sort]").get_attribute("aria-sort")
    named = {
        "button",
        "checkbox",
        "radio",
        "searchbox",
        "combobox",
        "link",
        "image",
        "region",
        "navigation",
        "DisclosureTriangle",
        "table",
    }
    assert [(role, name) for role, name, _ in nodes if role in named and not name.strip()] == []
    assert {role for role, _, _ in nodes} >= named | {"columnheader", "rowheader", "main", "contentinfo"}
    levels = [given["level"] for role, _, given in nodes if role == "heading"]
    assert levels == [1] + [2] * 7
    assert sort == "descending"
    names = [name for role, name, _ in nodes if role == "button"]
    assert "Copy doit migrate delete_old=1" in names
    assert next(name for role, name, _ in nodes if role == "image").startswith("protected 6 GB, kept")


CONTRAST = """() => {
  const canvas = document.createElement("canvas").getContext("2d", {willReadFrequently: true});
  const rgb = (colour) => {
    canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = colour; canvas.fillRect(0, 0, 1, 1);
    return [...canvas.getImageData(0, 0, 1, 1).data];
  };
  const light = (colour) => colour.slice(0, 3).map((one) => one / 255).map((one) => (one <= 0.04045 ? one / 12.92 : ((one + 0.055) / 1.055) ** 2.4))
    .reduce((sum, one, at) => sum + one * [0.2126, 0.7152, 0.0722][at], 0);
  const ratio = (one, other) => { const [a, b] = [light(one), light(other)].sort((x, y) => y - x); return (a + 0.05) / (b + 0.05); };
  const mixed = (top, under, alpha) => top.slice(0, 3).map((one, at) => one * alpha + under[at] * (1 - alpha));
  const ground = (element) => {
    for (let at = element; at; at = at.parentElement) { const colour = rgb(getComputedStyle(at).backgroundColor); if (colour[3] === 255) return colour; }
    return rgb(getComputedStyle(document.documentElement).backgroundColor);
  };
  const found = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const home = walker.currentNode.parentElement, style = getComputedStyle(home);
    if (!walker.currentNode.data.trim() || !home.checkVisibility() || home.closest("script, style, noscript, .hidden, title, option")) continue;
    const colour = home.closest("svg") ? style.fill : style.color;
    found.push(["text", home.tagName + "." + (home.getAttribute("class") ?? ""), ratio(rgb(colour), ground(home))]);
  }
  for (const mark of document.querySelectorAll("svg rect, svg circle, svg path")) {
    const style = getComputedStyle(mark), under = ground(mark), kind = mark.tagName + "." + mark.getAttribute("class");
    if (/paper|area/.test(kind) || mark.closest(".patterns") && !/ink/.test(kind)) continue;
    const seen = [style.fill, style.stroke].filter((one) => one !== "none" && !one.startsWith("url"))
      .map((one) => ratio(mixed(rgb(one), under, +style.opacity), under));
    found.push(["mark", kind, Math.max(...seen)]);
  }
  return found;
}"""


@pytest.mark.parametrize("scheme", SCHEMES)
def test_text_and_marks_stand_out_from_the_ground(chromium: Browser, tmp_path: Path, scheme: str) -> None:
    with opened(chromium, drawn(tmp_path, sample()), color_scheme=scheme) as one:
        for summary in one.page.locator("summary").all()[:3]:
            summary.click()
        one.page.locator("#table tbody input").first.check()
        found = one.page.evaluate(CONTRAST)
    assert {kind for kind, _, _ in found} == {"text", "mark"}
    assert len({what for _, what, _ in found}) > 40
    least = {"text": 4.5, "mark": 3.0}
    assert {(what, round(ratio, 2)) for kind, what, ratio in found if ratio < least[kind]} == set()


def test_on_paper_all_sections_stand_and_no_button(chromium: Browser, tmp_path: Path) -> None:
    with opened(chromium, drawn(tmp_path, sample()), width=700, color_scheme="dark") as one:
        one.page.emulate_media(media="print")
        for section in ("verdict", "needs-you", "space", "experiments", "checkpoints", "what-if", "history", "rules"):
            assert one.page.locator(f"#{section}").is_visible()
        assert not [button for button in one.page.locator("button:not(th button), input").all() if button.is_visible()]
        assert one.page.locator("#table th button").first.is_visible()  # it heads a column
        assert one.page.evaluate("getComputedStyle(document.documentElement).backgroundColor") == "rgb(255, 255, 255)"
        assert one.page.evaluate("document.documentElement.scrollWidth") <= 700


def test_nothing_moves(chromium: Browser, tmp_path: Path) -> None:
    with opened(chromium, drawn(tmp_path, sample()), reduced_motion="reduce") as one:
        use_all(one)
        moving = """[...document.querySelectorAll("*")].filter((one) => { const style = getComputedStyle(one);
            return style.transitionDuration !== "0s" || style.animationName !== "none" || style.scrollBehavior !== "auto"; }).length"""
        assert one.page.evaluate(moving) == 0
        assert one.page.evaluate("document.getAnimations().length") == 0
