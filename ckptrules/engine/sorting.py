"""Pure: rules + one listing → what each entry is: a checkpoint, a part of one, protected, a link, or none of these."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import NamedTuple

from ckptrules.engine.actions import Problem, Skipped
from ckptrules.engine.checkpoints import Checkpoint, Claim, Evidence, Named, Part
from ckptrules.engine.companions import Sidecar, find_sidecars
from ckptrules.engine.entries import NOT_READ, TELLING, Entry, Listing, in_part_folder
from ckptrules.engine.naming import CHECKPOINTS, Reader, reader
from ckptrules.engine.packs import PACKS_DIFFER
from ckptrules.engine.ruleset import RuleSet

HOLDING = ("file", "directory")  # kinds of entries that can be a checkpoint
Read = tuple[Entry, Named]
Key = tuple[object, ...]  # what the parts of one checkpoint have in common


class Sorted(NamedTuple):
    """The entries of a listing, each in exactly one place. ``sidecars`` are by the checkpoint that they belong to.

    What is protected is a checkpoint that keeps its name; it may tell no number. What is ``empty`` is a problem as
    well: it is no checkpoint, and tells what is saved together.
    """

    checkpoints: tuple[Checkpoint, ...]
    protected: tuple[Checkpoint, ...]
    links: tuple[Entry, ...]
    skipped: tuple[Skipped, ...]
    problems: tuple[Problem, ...]
    sidecars: Mapping[str, tuple[Sidecar, ...]]
    empty: tuple[Checkpoint, ...] = ()

    @property
    def every(self) -> tuple[Checkpoint, ...]:
        """All checkpoints, the protected ones last."""
        return (*self.checkpoints, *self.protected)

    @property
    def has_parts(self) -> bool:
        """Whether some are several files."""
        return any(one.parts for one in self.every)

    @property
    def heads(self) -> dict[str, str]:
        """The name that a checkpoint goes by, for each other name of its own: a part, or a sidecar of its alone."""
        whole = [one for one in self.every if one.parts]
        parts = {name: one.entry.name for one in whole for name in one.names}
        own = {one.name: head for head, owned in self.sidecars.items() for one in owned if not one.shared}
        return parts | own


def beside(found: Sorted, listing: Listing, rules: RuleSet) -> set[str]:
    """Return the unknown names that are no business of ours, in a tree for which packs are listed."""
    if not rules.user:
        return set()
    from ckptrules.engine.lookalikes import stands_beside  # not above: only trees with packs need it

    folders = {entry.name for entry in listing.entries if entry.kind == "directory"}
    unknown = (row.name for row in found.skipped if row.kind == "unrecognised")
    free = (name for name in unknown if not name.endswith(rules.sidecars))
    return {name for name in free if stands_beside(name, folder=name in folders)}


def sort_entries(rules: RuleSet, listing: Listing) -> Sorted:
    """Ask the rules about every entry; checkpoints come by age, everything else by name."""
    found: list[Read] = []
    links: list[Entry] = []
    left: list[Entry] = []
    skipped: list[Skipped] = []
    texts: list[Skipped] = []  # protected, so that they are no sidecars that go along
    problems: list[Problem] = []
    empty: list[Checkpoint] = []
    read = reader(rules, len(listing.entries))
    for entry in sorted(listing.entries):
        name = name_of(entry, read)
        said = name.claim
        is_one = said.kind in CHECKPOINTS or said.kind == "protected"
        if only_tells(entry, said):
            texts.append(Skipped(entry.name, "ignored", said.reason))
        elif is_one and entry.kind in HOLDING and entry.size and not (name.fault or entry.hollow):
            found.append((entry, name))
        elif entry.kind == "link" and is_left_link(entry, name):
            left.append(entry)
        elif entry.kind == "link" and not entry.dangling:
            links.append(entry)
        elif said.kind in ("ignored", "unrecognised"):
            skipped.append(Skipped(entry.name, said.kind, said.reason))
        elif entry.kind == "link":
            problems.append(dangling(entry))
        else:
            problems.append(unsound(entry) or ambiguous(entry, said) or nameless(entry, name))
            if said.kind in CHECKPOINTS and problems[-1].id == "empty":
                empty.append(Checkpoint(entry, name.fields, name.target, said.reason, rule=said.rule))
    checkpoints, protected = whole_ones(read, found, listing)
    sidecars: dict[str, tuple[Sidecar, ...]] = {}
    heads = {name: one.entry.name for one in (*checkpoints, *protected) for name in one.names}
    if rules.sidecars:
        plain = {entry.name for entry in listing.entries if entry.kind in HOLDING}
        loose = [row.name for row in skipped if row.name in plain]
        sidecars = find_sidecars(heads, loose, rules.sidecars)
        belong = {sidecar.name for own in sidecars.values() for sidecar in own}
        skipped = [row for row in skipped if row.name not in belong]
    for link in left:
        if owner := heads.get(link.sibling or ""):
            sidecars[owner] = (*sidecars.get(owner, ()), Sidecar(link.name, "", shared=False))
        elif link.dangling:
            problems.append(dangling(link))
        else:
            links.append(link)
    left_alone = tuple(sorted([*skipped, *texts]))
    sound = tuple(checkpoints), tuple(protected), tuple(links)
    return Sorted(*sound, left_alone, tuple(problems), sidecars, tuple(empty))


def whole_ones(read: Reader, found: Sequence[Read], listing: Listing) -> tuple[list[Checkpoint], list[Checkpoint]]:
    """Make checkpoints of sound entries: those that come by age, and the protected ones by name."""
    by_age: list[tuple[tuple[int, ...], int, str, Checkpoint]] = []
    protected: list[Checkpoint] = []
    parts: dict[Key, list[Read]] = defaultdict(list)
    for entry, name in found:
        rule = name.claim.rule
        if (rule and rule.has_parts) or "/" in entry.name:
            parts[key_of(entry, name)].append((entry, name))
        elif name.claim.kind == "protected":
            protected.append(Checkpoint(entry, name.fields, entry.name, name.claim.reason, rule=rule))
        else:
            checkpoint = Checkpoint(entry, name.fields, name.target, name.claim.reason, rule=rule, order=name.order)
            by_age.append((name.order, entry.mtime_ns, entry.name, checkpoint))
    if parts:
        sound = {entry.name for entry, _ in found}
        flaws = flaws_of(read, parts, [entry for entry in sorted(listing.entries) if entry.name not in sound])
        for key, members in parts.items():
            one = as_one(members)
            one = one._replace(flaw=one.flaw or flaws.get(key, ""))
            if any(name.claim.kind == "protected" for _, name in members):
                protected.append(one)
            else:
                by_age.append((members[0][1].order, one.entry.mtime_ns, one.entry.name, one))
    checkpoints = [row[-1] for row in sorted(by_age)]
    return checkpoints, sorted(protected, key=lambda one: one.entry.name)


# --- parts ------------------------------------------------------------------------------------------------------------


def key_of(entry: Entry, name: Named) -> Key:
    """Return what the parts of one checkpoint have in common, or nothing where it has no parts.

    That is the format, and the text of every field but ``part``; in a part folder without a format, the name.
    """
    folder, base = in_part_folder(entry.name)
    rule = name.claim.rule
    if rule and (folder or rule.has_parts):
        return rule.id, bool(folder), *sorted((key, text) for key, text in name.claim.fields.items() if key != "part")
    return ("", True, base) if folder else ()


def as_one(members: Sequence[Read]) -> Checkpoint:
    """Make one checkpoint of its parts, the part without a text first. What protects one of them protects all."""
    ordered = sorted(members, key=lambda pair: (bool(pair[1].claim.fields.get("part")), pair[0].name))
    stays = any("/" in entry.name for entry, _ in members)  # what has part folders reads names there
    shield = next((name.claim.reason for _, name in ordered if name.claim.kind == "protected"), None)
    parts = tuple(
        Part(
            entry,
            entry.name if shield or stays else name.target,
            "/".join(filter(None, (in_part_folder(entry.name)[0], name.claim.fields.get("part", "")))),
        )
        for entry, name in ordered
    )
    head, name = ordered[0]
    entry = head._replace(
        size=sum(part.entry.size for part in parts),
        mtime_ns=max(part.entry.mtime_ns for part in parts),
        shared=tuple(link for part in parts for link in part.entry.shared),
    )
    fields = {key: text for key, text in name.fields.items() if key != "part"}
    flaw = "" if len({part.target for part in parts}) == len(parts) else "two of its parts would get one name"
    return Checkpoint(entry, fields, parts[0].target, shield or name.claim.reason, {}, parts, name.claim.rule, flaw)


def flaws_of(read: Reader, keys: Collection[Key], others: Iterable[Entry]) -> dict[Key, str]:
    """Say which checkpoints have a part that is no sound file: empty, a link, or without a usable or certain name."""
    found = {}
    for entry in others:
        name = name_of(entry, read)
        if (key := key_of(entry, name)) in keys:
            whys = (
                (name.claim.kind == "ambiguous", "is claimed by two rules"),
                (name.fault, "gets no usable name"),
                (entry.kind == "link", "is a link"),
                (entry.hollow, f"holds {entry.hollow}"),
            )
            found[key] = f"{entry.name} {next((why for applies, why in whys if applies), 'is empty')}"
    return found


def by_heads(evidence: Evidence, found: Sorted) -> Evidence:
    """Let what is known of one part be known of the whole checkpoint, under the name that it goes by."""
    if not found.has_parts:
        return evidence
    whole = {name: one for one in found.every if one.parts for name in one.names}
    in_use = {name: why for name, why in evidence.in_use.items() if name not in whole}
    metrics = {name: told for name, told in evidence.metrics.items() if name not in whole}
    verified = evidence.verified
    for head, one in {one.entry.name: one for one in whole.values()}.items():
        if used := next((name for name in one.names if name in evidence.in_use), ""):
            in_use[head] = evidence.in_use[used] + f" ({used})" * (used != head)
        metrics[head] = {
            key: text for name in reversed(one.names) for key, text in evidence.metrics.get(name, {}).items()
        }
        if verified is not None and not verified.issuperset(one.names):
            verified -= {head}
    same = {name: number for name, number in evidence.same.items() if name not in whole}
    return evidence._replace(in_use=in_use, metrics=metrics, verified=verified, same=same)


def with_metrics(checkpoint: Checkpoint, evidence: Evidence) -> Checkpoint:
    """Add what the sidecars of a checkpoint tell."""
    told = evidence.metrics.get(checkpoint.entry.name)
    return checkpoint._replace(metrics=told) if told else checkpoint


def all_names(found: Sorted, heads: Iterable[str]) -> tuple[str, ...]:
    """Return all names of some checkpoints."""
    whole = {one.entry.name: one.names for one in found.every if one.parts}
    return tuple(dict.fromkeys(name for head in heads for name in whole.get(head, (head,))))


# --- single entries ---------------------------------------------------------------------------------------------------


def name_of(entry: Entry, read: Reader) -> Named:
    """Read the name of an entry, a part folder left out; what a link leads to may be a file or a folder."""
    return read(in_part_folder(entry.name)[1], None if entry.kind == "link" else entry.kind == "directory")


def is_left_link(entry: Entry, name: Named) -> bool:
    """Say whether a link stands under an old name for the checkpoint that has got its new one (``leave_links=1``)."""
    return name.claim.kind == "legacy" and name.target == entry.link_text


def nameless(entry: Entry, name: Named) -> Problem:
    """Tell of a rule that gives a checkpoint no usable name."""
    reason = name.claim.reason
    place = f" ({reason.place.file_line})" if reason.place else ""
    text = f"{reason.text}{place} gives no usable name: {name.fault}"
    return Problem("bad_target", (entry.name,), text, "correct the rule, or protect the name")


def only_tells(entry: Entry, said: Claim) -> bool:
    """Say whether it is protected and no checkpoint: a text, a picture, or what else is told of checkpoints."""
    is_protected = said.kind == "protected" and said.rule is None
    return is_protected and ((entry.kind == "file" and entry.name.endswith(TELLING)) or entry.tells_only)


def unsound(entry: Entry) -> Problem | None:
    """Find what cannot be a checkpoint although it is named like one."""
    if entry.kind == "other":
        return Problem("not_a_file", (entry.name,), "is neither a file nor a directory")
    if entry.hollow.startswith(NOT_READ):
        return Problem("not_read", (entry.name,), f"holds {entry.hollow}", "look at the owner and the mode: ls -la")
    if entry.hollow:
        hint = "a crash or a full disk leaves such files; remove the whole directory or move it away"
        return Problem("empty", (entry.name,), f"holds {entry.hollow}", hint)
    if entry.size == 0:
        hint = "a crash or a full disk leaves such files; remove it or move it away"
        if entry.kind == "directory":
            hint = "no file is in it, and no link that leads to one: look at it, then remove it or move it away"
        return Problem("empty", (entry.name,), f"is an empty {entry.kind}", hint)
    return None


def ambiguous(entry: Entry, said: Claim) -> Problem | None:
    """Find names that the rules of two files, or of two packs, claim."""
    if said.kind != "ambiguous":
        return None
    hint = "let one file hold both rules, the narrower one first"
    if said.reason.text.startswith(PACKS_DIFFER):
        hint = "list under 'packs' only the one that wrote it; 'doit packs' shows the evidence"
    return Problem("ambiguous", (entry.name,), said.reason.text, hint)


def dangling(entry: Entry) -> Problem:
    """Tell of a link that leads nowhere."""
    hint = "remove it (one left by leave_links: 'doit drop_links'), or point it to a checkpoint that exists"
    return Problem("dangling_link", (entry.name,), f"is a link to '{entry.link_text}', which does not exist", hint)
