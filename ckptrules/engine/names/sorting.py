"""Sort the entries of one listing by the rules: checkpoints and their parts, sidecars, links, and the rest. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import NamedTuple

from ckptrules.engine.actions import Problem, Skipped
from ckptrules.engine.checkpoints import Checkpoint, Claim, Evidence, Named, Part
from ckptrules.engine.entries import NO_CHECKPOINT_ENDINGS, Entry, Listing, in_part_folder
from ckptrules.engine.names.companions import Sidecar, suffix_of
from ckptrules.engine.names.naming import CHECKPOINTS, Reader, reader, stem_of
from ckptrules.engine.names.packs import PACKS_DIFFER
from ckptrules.engine.ruleset import RuleSet

HOLDING = ("file", "directory")  # kinds of entries that can be a checkpoint
NamedEntry = tuple[Entry, Named]  # an entry, and what the rules read from its name
PartKey = tuple[object, ...]  # equal for the parts of one checkpoint


class Sorted(NamedTuple):
    """The entries of a listing, each in exactly one field.

    ``protected`` are checkpoints that keep their names, which may have no number. ``sidecars`` are by the name of
    their checkpoint. ``empty`` are checkpoints of 0 bytes: each is also a problem, and shows which files a training
    saves together.
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
        """Whether any checkpoint consists of parts."""
        return any(checkpoint.parts for checkpoint in self.every)

    @property
    def others(self) -> Iterator[str]:
        """The names that are no checkpoints: those that no rule reads, those that are ignored, and sidecars."""
        yield from (row.name for row in self.skipped)
        yield from (one.name for owned in self.sidecars.values() for one in owned if one.suffix)

    @property
    def heads(self) -> dict[str, str]:
        """The head of the checkpoint, by the name of each part and of each sidecar that no other checkpoint shares."""
        parts = {
            name: checkpoint.entry.name for checkpoint in self.every if checkpoint.parts for name in checkpoint.names
        }
        own = {sidecar.name: head for head, owned in self.sidecars.items() for sidecar in owned if not sidecar.shared}
        return parts | own


def stray_logs(skipped: Iterable[Skipped], listing: Listing, rules: RuleSet) -> set[str]:
    """Return the unrecognised names that look like logs and the like; none where the rules list no packs."""
    if not rules.user:
        return set()
    from ckptrules.engine.names.lookalikes import stands_beside  # imported here, as only trees with packs need it

    folders = {entry.name for entry in listing.entries if entry.kind == "directory"}
    unknown = (row.name for row in skipped if row.kind == "unrecognised")
    free = (name for name in unknown if not name.endswith(rules.sidecars))
    return {name for name in free if stands_beside(name, folder=name in folders)}


@lru_cache(maxsize=2)  # a plan of one directory is made several times, and looked at
def sort_entries(rules: RuleSet, listing: Listing) -> Sorted:
    """Sort every entry by what the rules say of its name; checkpoints come in order of age, all others by name."""
    sound: list[NamedEntry] = []
    links: list[Entry] = []
    left_links: list[Entry] = []
    skipped: list[Skipped] = []
    texts: list[Skipped] = []  # apart from the skipped: a protected text is no sidecar
    problems: list[Problem] = []
    empty: list[Checkpoint] = []
    read = reader(rules, len(listing.entries))
    for entry in sorted(listing.entries):
        name = name_of(entry, read)
        claim = name.claim
        is_checkpoint = claim.kind in CHECKPOINTS or claim.kind == "protected"
        if is_protected_text(entry, claim):
            texts.append(Skipped(entry.name, "ignored", claim.reason))
        elif is_checkpoint and entry.kind in HOLDING and entry.size and not (name.fault or entry.hollow):
            sound.append((entry, name))
        elif entry.kind == "link" and is_left_link(entry, name):
            left_links.append(entry)
        elif entry.kind == "link" and not entry.dangling:
            links.append(entry)
        elif claim.kind in ("ignored", "unrecognised"):
            skipped.append(Skipped(entry.name, claim.kind, claim.reason))
        elif entry.kind == "link":
            problems.append(dangling(entry))
        else:
            problems.append(unsound(entry) or ambiguous(entry, claim) or nameless(entry, name))
            if claim.kind in CHECKPOINTS and problems[-1].id == "empty":
                empty.append(Checkpoint(entry, name.fields, name.target, claim.reason, rule=claim.rule))
    checkpoints, protected = checkpoints_of(read, sound, listing)
    heads = {name: checkpoint.entry.name for checkpoint in (*checkpoints, *protected) for name in checkpoint.names}
    sidecars = sidecars_of(heads, [row.name for row in skipped], left_links, listing, rules)
    belong = {sidecar.name for owned in sidecars.values() for sidecar in owned}
    free = [link for link in left_links if link.name not in belong]
    return Sorted(
        checkpoints=tuple(checkpoints),
        protected=tuple(protected),
        links=(*links, *(link for link in free if not link.dangling)),
        skipped=tuple(sorted([*(row for row in skipped if row.name not in belong), *texts])),
        problems=(*problems, *(dangling(link) for link in free if link.dangling)),
        sidecars=sidecars,
        empty=tuple(empty),
    )


def sidecars_of(
    heads: Mapping[str, str], names: Iterable[str], left_links: Iterable[Entry], listing: Listing, rules: RuleSet
) -> dict[str, tuple[Sidecar, ...]]:
    """Return the sidecars by head: names with a suffix of the rules after the stem of a checkpoint, and the left links.

    ``heads`` maps each name of a checkpoint to its head. ``names`` are those that are no checkpoints.
    """
    can_belong = {entry.name for entry in listing.entries if entry.kind in HOLDING} if rules.sidecars else ()
    candidates = sorted(name for name in names if name in can_belong and name.endswith(rules.sidecars))
    sidecars: dict[str, tuple[Sidecar, ...]] = {}
    by_stem: dict[str, list[str]] = defaultdict(list)
    for owner in heads if candidates else ():
        by_stem[stem_of(owner)].append(owner)
    for name in candidates:
        suffix = suffix_of(name, rules.sidecars)
        belongs_to = {heads[owner]: owner for owner in by_stem.get(name.removesuffix(suffix), ())}
        for head, owner in belongs_to.items():
            own = Sidecar(name, suffix, len(belongs_to) > 1, owner)
            sidecars[head] = (*sidecars.get(head, ()), own)
    for link in left_links:
        if leads_to := heads.get(link.sibling or ""):
            sidecars[leads_to] = (*sidecars.get(leads_to, ()), Sidecar(link.name, "", shared=False))
    return sidecars


def checkpoints_of(
    read: Reader, sound: Sequence[NamedEntry], listing: Listing
) -> tuple[list[Checkpoint], list[Checkpoint]]:
    """Make checkpoints of sound entries, joining parts: first the unprotected by age, then the protected by name."""
    by_age: list[tuple[tuple[int, ...], int, str, Checkpoint]] = []
    protected: list[Checkpoint] = []
    parts: dict[PartKey, list[NamedEntry]] = defaultdict(list)
    for entry, name in sound:
        rule = name.claim.rule
        if (rule and rule.has_parts) or "/" in entry.name:
            parts[part_key(entry, name)].append((entry, name))
        elif name.claim.kind == "protected":
            protected.append(Checkpoint(entry, name.fields, entry.name, name.claim.reason, rule=rule))
        else:
            checkpoint = Checkpoint(entry, name.fields, name.target, name.claim.reason, rule=rule, order=name.order)
            by_age.append((name.order, entry.mtime_ns, entry.name, checkpoint))
    if parts:
        names = {entry.name for entry, _ in sound}
        flaws = flaws_of(read, parts, [entry for entry in sorted(listing.entries) if entry.name not in names])
        for key, members in parts.items():
            checkpoint = joined_parts(members)
            checkpoint = checkpoint._replace(flaw=checkpoint.flaw or flaws.get(key, ""))
            if any(name.claim.kind == "protected" for _, name in members):
                protected.append(checkpoint)
            else:
                by_age.append((members[0][1].order, checkpoint.entry.mtime_ns, checkpoint.entry.name, checkpoint))
    checkpoints = [row[-1] for row in sorted(by_age)]
    return checkpoints, sorted(protected, key=lambda checkpoint: checkpoint.entry.name)


# --- parts ------------------------------------------------------------------------------------------------------------


def part_key(entry: Entry, name: Named) -> PartKey:
    """Return a key that only the parts of one checkpoint share; an empty one for a checkpoint without parts.

    The key is the format and the text of every field except ``part``. In a part folder, a name that no format fits is
    its own key.
    """
    folder, base = in_part_folder(entry.name)
    rule = name.claim.rule
    if rule and (folder or rule.has_parts):
        return rule.id, bool(folder), *sorted((key, text) for key, text in name.claim.fields.items() if key != "part")
    return ("", True, base) if folder else ()


def joined_parts(members: Sequence[NamedEntry]) -> Checkpoint:
    """Join parts to one checkpoint; the part with an empty ``part`` is its head. One protected part protects all."""
    ordered = sorted(members, key=lambda pair: (bool(pair[1].claim.fields.get("part")), pair[0].name))
    stays = any("/" in entry.name for entry, _ in members)  # a framework with part folders finds the files by name
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


def flaws_of(read: Reader, keys: Collection[PartKey], others: Iterable[Entry]) -> dict[PartKey, str]:
    """Map checkpoints, by `part_key`, to what is wrong with a part: empty, a link, or without a certain or new name."""
    flaws = {}
    for entry in others:
        name = name_of(entry, read)
        if (key := part_key(entry, name)) in keys:
            whys = (
                (name.claim.kind == "ambiguous", "is claimed by two rules"),
                (name.fault, "gets no usable name"),
                (entry.kind == "link", "is a link"),
                (entry.hollow, f"holds {entry.hollow}"),
            )
            flaws[key] = f"{entry.name} {next((why for applies, why in whys if applies), 'is empty')}"
    return flaws


def by_heads(evidence: Evidence, found: Sorted) -> Evidence:
    """Return the evidence with that of each part under the head of its checkpoint.

    Parts have no number in ``same``: equal parts do not make equal checkpoints.
    """
    if not found.has_parts:
        return evidence
    of_parts = [checkpoint for checkpoint in found.every if checkpoint.parts]
    parts = {name for checkpoint in of_parts for name in checkpoint.names}
    in_use = {name: why for name, why in evidence.in_use.items() if name not in parts}
    metrics = {name: values for name, values in evidence.metrics.items() if name not in parts}
    same = {name: number for name, number in evidence.same.items() if name not in parts}
    verified = evidence.verified
    for checkpoint in of_parts:
        head = checkpoint.entry.name
        if used := next((name for name in checkpoint.names if name in evidence.in_use), ""):
            in_use[head] = evidence.in_use[used] + f" ({used})" * (used != head)
        of_each = [evidence.metrics.get(name, {}) for name in reversed(checkpoint.names)]  # those of the head win
        metrics[head] = {key: text for of_one in of_each for key, text in of_one.items()}
        if verified is not None and not verified.issuperset(checkpoint.names):
            verified -= {head}
    return evidence._replace(in_use=in_use, metrics=metrics, verified=verified, same=same)


def with_metrics(checkpoint: Checkpoint, evidence: Evidence) -> Checkpoint:
    """Return a checkpoint with the metrics that sidecars and facts give for it."""
    metrics = evidence.metrics.get(checkpoint.entry.name)
    return checkpoint._replace(metrics=metrics) if metrics else checkpoint


def all_names(found: Sorted, heads: Iterable[str]) -> tuple[str, ...]:
    """Return all names of the checkpoints with these heads."""
    names = {checkpoint.entry.name: checkpoint.names for checkpoint in found.every if checkpoint.parts}
    return tuple(dict.fromkeys(name for head in heads for name in names.get(head, (head,))))


# --- single entries ---------------------------------------------------------------------------------------------------


def name_of(entry: Entry, read: Reader) -> Named:
    """Read the name of an entry without its part folder; of a link, nobody knows if it leads to a file or a folder."""
    return read(in_part_folder(entry.name)[1], None if entry.kind == "link" else entry.kind == "directory")


def is_left_link(entry: Entry, name: Named) -> bool:
    """Return whether a link is one that ``leave_links=1`` left under the old name of a renamed checkpoint."""
    return name.claim.kind == "legacy" and name.target == entry.link_text


def nameless(entry: Entry, name: Named) -> Problem:
    """Return the problem that a rule gives an entry no usable name."""
    reason = name.claim.reason
    place = f" ({reason.place.file_line})" if reason.place else ""
    text = f"{reason.text}{place} gives no usable name: {name.fault}"
    return Problem("bad_target", (entry.name,), text, "correct the rule, or protect the name")


def is_protected_text(entry: Entry, claim: Claim) -> bool:
    """Return whether an entry is protected and no checkpoint: a text, a picture, or a folder of these."""
    is_protected = claim.kind == "protected" and claim.rule is None
    return is_protected and ((entry.kind == "file" and entry.name.endswith(NO_CHECKPOINT_ENDINGS)) or entry.only_texts)


def unsound(entry: Entry) -> Problem | None:
    """Return why an entry is no checkpoint although its name says so; None where nothing is wrong."""
    if entry.kind == "other":
        return Problem("not_a_file", (entry.name,), "is neither a file nor a directory")
    if entry.unread:
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


def ambiguous(entry: Entry, claim: Claim) -> Problem | None:
    """Return the problem that the rules of two files, or of two packs, claim a name; None where they do not."""
    if claim.kind != "ambiguous":
        return None
    hint = "let one file hold both rules, the narrower one first"
    if claim.reason.id == PACKS_DIFFER:
        hint = "list under 'packs' only the one that wrote it; 'doit packs' shows the evidence"
    return Problem("ambiguous", (entry.name,), claim.reason.text, hint)


def dangling(entry: Entry) -> Problem:
    """Return the problem that a link leads nowhere."""
    hint = "remove it (one left by leave_links: 'doit drop_links'), or point it to a checkpoint that exists"
    return Problem("dangling_link", (entry.name,), f"is a link to '{entry.link_text}', which does not exist", hint)
