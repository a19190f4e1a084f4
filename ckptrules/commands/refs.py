"""`doit refs`: show where texts name checkpoints by old names, and with ``apply=1`` write the new names."""

from __future__ import annotations

import codecs
import os
import stat
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import groupby
from typing import NamedTuple

from ckptrules import stopping
from ckptrules.changes.references import OldNames, Reference, find, folder_before, renames, rewritten, stays_valid
from ckptrules.changes.transaction import JournalledTree, transact
from ckptrules.engine.actions import Step, Unit
from ckptrules.engine.entries import Spot
from ckptrules.engine.measures import count_of
from ckptrules.outputs.versioned import GitIndex, how_changed
from ckptrules.report.style import Style
from ckptrules.run import records
from ckptrules.run.hints import command
from ckptrules.run.options import RUN, Common, OptionError, a_path, flag, option
from ckptrules.run.outcome import Done, Prepared
from ckptrules.run.past import runs_with
from ckptrules.run.session import Session
from ckptrules.storage import believing, metadata, state
from ckptrules.storage.reading import why_of
from ckptrules.storage.texts import keep_content

DEFAULT_PATHS = ("scripts", "notebooks", "docs", "configs")
SUFFIXES = tuple(".py .ipynb .yaml .yml .json .md .rst .txt .sh .bash .zsh .toml .cfg .ini".split())
MANIFEST = ".manifest.json"  # of an archive: its old names must stay
LONGEST = 50_000_000  # bytes
UTF_16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
CONTEXT = 1  # lines shown around a change
REFERENCES = "references"  # experiment and directory of these changes in the journal


class TextFile(NamedTuple):
    """A file that names checkpoints by old names: its bytes, its text and the encoding, and the references."""

    path: str
    content: bytes
    text: str
    encoding: str
    references: tuple[Reference, ...]

    @property
    def new_text(self) -> str:
        """The text with the new names, as far as they are certain."""
        return rewritten(self.text, self.references)


class Options(Common, takes="wait"):
    """The options of `doit refs`."""

    reads_journals = True
    changes = True
    run: str | None = RUN
    paths: str | None = option(None, a_path, "files and folders to look in, with spaces between")
    apply: bool = flag("rewrite the files")
    force: bool = flag("also files with changes that are not committed")

    @property
    def will_change(self) -> bool:
        """Whether this run rewrites the texts."""
        return self.apply and not self.dry_run


def prepare(session: Session, options: Options) -> Prepared:
    """Find the files to look in, and the names that were changed."""
    options, paths = options.but(apply=options.will_change), paths_of(options)
    renamed = renames(runs_with(options.outputs_dir, options.run), options.run)
    return Prepared(partial(work, session, options, paths, renamed))


def paths_of(options: Options) -> list[str]:
    """Return the files and folders to look in: those of the option, or the usual folders.

    Raises:
        OptionError: a path does not exist, or none of the usual folders does.
    """
    if options.paths is None:
        usual = [path for path in DEFAULT_PATHS if os.path.isdir(path)]
        if not usual:
            hint = "'doit refs paths=.' looks below this folder; paths='a b' below two"
            raise OptionError(f"none of {', '.join(DEFAULT_PATHS)} is here", hint)
        return usual
    for path in options.paths.split():
        if not os.path.exists(path):
            hint = "paths='scripts notebooks' names files and folders, with spaces between"
            raise OptionError(f"paths: '{path}' is not there", hint)
    return options.paths.split()


def work(session: Session, options: Options, paths: Sequence[str], renamed: Mapping[str, Sequence[Spot]]) -> Done:
    """Show the references to renamed checkpoints; rewrite them, if asked to."""
    style = session.style(options)
    names, texts = OldNames(renamed), list[TextFile]()
    unread: dict[str, str] = {}
    for path in files(paths, options.outputs_dir, unread):
        stopping.heed()
        texts += [text] if (text := read(path, names, unread)) else []
    known: dict[str, GitIndex] = {}
    obstacles = {text.path: why for text in texts if (why := obstacle(text, known, force=options.force))}
    sure = [text for text in texts if text.new_text != text.text and text.path not in obstacles]
    lines = [line for text in sure for line in diff(text, style)]
    failed: dict[str, str] = {}
    if options.apply and sure:
        failed = write(session, options, sure)
    lines += unsure_lines(texts, style)
    problems = unread | obstacles | failed
    lines += [f"{style.signs['problem']} Problem: {style.name(path)}: {why}" for path, why in problems.items()]
    lines += summary(session, options, texts, [text for text in sure if text.path not in failed], renamed)
    left = problems or any(not reference.new for text in texts for reference in text.references)
    return Done("\n".join([*lines, ""]), as_it_is=True, failed=bool(left))


# --- reading ---------------------------------------------------------------------------------------------------------


def files(paths: Iterable[str], outputs_dir: str, unread: dict[str, str]) -> Iterator[str]:
    """Yield the files to look in, sorted; pass over hidden folders, links, and the experiments.

    ``unread`` collects what cannot be read, with the error.
    """
    outputs = os.path.realpath(outputs_dir)
    seen = set()
    for top in paths:
        for path in [top] if os.path.isfile(top) else _below(top, outputs, unread):
            if (absolute := os.path.abspath(path)) not in seen:
                seen.add(absolute)
                yield path


def _below(top: str, outputs: str, unread: dict[str, str]) -> Iterator[str]:
    def note(error: OSError) -> None:
        unread[str(error.filename)] = f"cannot be read: {why_of(error)}"

    for folder, inner, names in os.walk(top, onerror=note):
        inner[:] = sorted(
            name
            for name in inner
            if not name.startswith(".") and os.path.realpath(os.path.join(folder, name)) != outputs
        )
        for name in sorted(names):
            path = os.path.join(folder, name)
            if name.endswith(MANIFEST) or not name.lower().endswith(SUFFIXES):
                continue
            try:
                is_file = stat.S_ISREG(os.lstat(path).st_mode)
            except OSError as error:
                unread[path] = f"cannot be read: {why_of(error)}"
                continue
            if is_file:
                yield path


def read(path: str, names: OldNames, unread: dict[str, str]) -> TextFile | None:
    """Read a file and find the old names in it; None if there are none, or the file is no text.

    ``unread`` gets the path of a file that cannot be read, with the error.
    """
    try:
        if os.path.getsize(path) > LONGEST:
            return None
        with open(path, "rb") as file:
            content = file.read()
    except OSError as error:
        unread[path] = f"cannot be read: {why_of(error)}"
        return None
    encoding = encoding_of(content)
    if not encoding:
        return None
    text = content.decode(encoding)
    exists: dict[str, bool] = {}
    found = tuple(r for r in find(text, names) if not _exists(path, text, r, exists))
    return TextFile(path, content, text, encoding, found) if found else None


def encoding_of(content: bytes) -> str:
    """Return an encoding that gives the same bytes back; empty if the content is no text."""
    if content.startswith(UTF_16):
        encoding = "utf-16-le" if content.startswith(codecs.BOM_UTF16_LE) else "utf-16-be"
        return encoding if _round_trip(content, encoding) else ""
    if b"\0" in content:
        return ""
    return "utf-8" if _round_trip(content, "utf-8") else "latin-1"


def _round_trip(content: bytes, encoding: str) -> bool:
    try:
        return content.decode(encoding).encode(encoding) == content
    except UnicodeError:
        return False


def _exists(path: str, text: str, reference: Reference, exists: dict[str, bool]) -> bool:
    """Say whether a reference leads to a file, so that it is right as it is; ``exists`` keeps the answers by path."""
    folder = folder_before(text, reference.start).rpartition("=")[2]
    written = folder + reference.old
    if folder and written not in exists:
        paths = (written, os.path.join(os.path.dirname(path), written))
        exists[written] = any(os.path.isfile(path) and not os.path.islink(path) for path in paths)
    return bool(folder) and exists[written]


def obstacle(text: TextFile, known: dict[str, GitIndex], *, force: bool) -> str:
    """Say why a file must not be rewritten, or return an empty text."""
    if text.new_text == text.text:
        return ""
    if not stays_valid(os.path.splitext(text.path)[1].lower(), text.references):
        return "may be no JSON any more; change it by hand"
    try:
        owner = believing.owner_of_other(os.stat(text.path))
    except OSError as error:
        return f"cannot be looked at: {why_of(error)}"
    if owner:
        return f"belongs to {owner}; {metadata.NOT_OURS}"
    if not force and (how := how_changed(text.path, text.content, known)):
        return f"{how}; commit them first, or say force=1"
    return ""


# --- writing ---------------------------------------------------------------------------------------------------------


def write(session: Session, options: Options, texts: Sequence[TextFile]) -> dict[str, str]:
    """Rewrite files, each wholly or not at all; return the paths of those that failed, with the errors.

    Old contents and journal go to the user's own state: others may be able to write below ``outputs_dir``, and what
    they write there must not change texts.
    """
    units = []
    try:
        own = believing.own_state(options.outputs_dir)
        if not own:
            return dict.fromkeys((text.path for text in texts), "not begun: set XDG_STATE_HOME, to keep what it holds")
        state.make_own_state(own)
        for text in texts:
            new = text.new_text.encode(text.encoding)
            was, to = (keep_content(own, content) for content in (text.content, new))  # by their checksums
            folder, name = os.path.split(os.path.realpath(text.path))
            units.append(Unit("rewrite", len(new), (Step("rewrite", folder, name, "", to, was),)))
    except OSError as error:
        return dict.fromkeys((text.path for text in texts), f"not begun: {why_of(error)}")
    tree = JournalledTree(own, records.open_journal(session, "refs", options, own), texts=True)
    done = transact(tree, REFERENCES, REFERENCES, units)
    end = f": {done.unrecorded}" * bool(done.unrecorded)
    return {texts[place].path: why + end for place, why in done.failed.items()}


# --- showing ---------------------------------------------------------------------------------------------------------


def diff(text: TextFile, style: Style) -> Iterator[str]:
    """Yield the changed lines of a file, as a unified diff."""
    yield from (style.name(f"{sign} {text.path}") for sign in ("---", "+++"))
    old, new = (lines.split("\n") for lines in (text.text, text.new_text))  # equally many, as no name has a line end
    end = len(old) - (not old[-1])
    changed = {number for number, (one, other) in enumerate(zip(old, new, strict=True)) if one != other}
    around = {n for number in changed for n in range(max(0, number - CONTEXT), min(end, number + CONTEXT + 1))}
    for _, hunk in groupby(enumerate(sorted(around)), lambda pair: pair[1] - pair[0]):
        lines = [number for _, number in hunk]  # without a gap
        span = f"{lines[0] + 1},{len(lines)}" if len(lines) > 1 else f"{lines[0] + 1}"
        yield style.paint(f"@@ -{span} +{span} @@", "dim")
        for is_changed, block in groupby(lines, changed.__contains__):
            numbers = list(block)
            sides = (("-", old), ("+", new)) if is_changed else ((" ", old),)
            yield from (_shown(sign, side[number], style) for sign, side in sides for number in numbers)


def _shown(sign: str, line: str, style: Style) -> str:
    shown = sign + style.name(line.removesuffix("\r").replace("\t", "    "))
    return style.paint(shown, {"-": "red", "+": "green"}[sign]) if sign in "-+" else shown


def unsure_lines(texts: Iterable[TextFile], style: Style) -> list[str]:
    """Return a line for each reference that only a person can decide, with its place."""
    lines = []
    for text in texts:
        number, begin, seen = 1, 0, 0  # number and start of the line, and the offset up to which lines were counted
        for reference in text.references:
            number += text.text.count("\n", seen, reference.start)
            begin = max(begin, text.text.rfind("\n", seen, reference.start) + 1)
            seen = reference.start
            if not reference.new:
                place = f"{text.path}:{number}:{reference.start - begin + 1}"
                sign = style.paint(style.signs["skip"], "yellow")
                lines.append(
                    f"{sign} Unsure: {style.name(place)}: {style.name(reference.old)} ({style.name(reference.why)})"
                )
    return lines


def summary(
    session: Session,
    options: Options,
    texts: Sequence[TextFile],
    done: Sequence[TextFile],
    renamed: Mapping[str, object],
) -> list[str]:
    """Return the lines of the summary."""
    certain = sum(bool(reference.new) for text in done for reference in text.references)
    unsure = sum(not reference.new for text in texts for reference in text.references)
    verb = "Rewritten" if options.apply else "To rewrite"
    lines = [session.style(options).paint("Summary", "bold") + " (nothing was changed)" * (not options.apply)]
    lines.append(f"  {verb}: {count_of(certain, 'reference')} in {count_of(len(done), 'file')}")
    if unsure:
        lines.append(f"  Unsure: {count_of(unsure, 'reference')}, left as they are")
    if not renamed:
        lines.append("  No run has renamed anything yet.")
    elif certain and not options.apply:
        again = command("refs", apply=True, paths=options.paths, run=options.run)
        lines.append(session.completed(f"  {again} writes them; 'doit undo' takes that back"))
    return lines
