"""Load the rules and find the checkpoint directories, once in a session."""

from __future__ import annotations

import contextlib
import hashlib
import sys
from collections.abc import Mapping

from ckptrules import __version__
from ckptrules.engine.entries import Directory
from ckptrules.engine.ruleset import RuleSet
from ckptrules.engine.state_folder import PROOF
from ckptrules.outputs.mounts import shared_kind
from ckptrules.outputs.picking import Tree, rules_here, survey_by
from ckptrules.rules.load import load_rules
from ckptrules.rules.shipped import rule_texts
from ckptrules.run.options import Common
from ckptrules.run.session import Session, once
from ckptrules.storage import notes
from ckptrules.storage.posix import Disk

SETTLE = 60  # seconds: the default on a file system that hosts share

Survey = tuple[list[Directory], list[str], frozenset[str]]


def load(session: Session, options: Common) -> RuleSet:
    """Load the rules, once; test them by their examples, unless `note_proof` has noted that these rules hold."""
    return _load(session, options.rules_dir, options.outputs_dir)


@once
def _load(session: Session, rules_dir: str | None, outputs_dir: str) -> RuleSet:
    texts = read_rules(session, rules_dir)
    rules = load_rules(texts, proved=notes.read_note(Disk(outputs_dir), PROOF) == proof_of(texts))
    if not rules.says_settle and (shared := shared_with(session, outputs_dir)):
        return rules._replace(settle=SETTLE, shared=shared)
    return rules


@once
def shared_with(_: Session, outputs_dir: str) -> str:
    """Return the kind of a shared file system that has the outputs, or an empty text; look for it once."""
    return shared_kind(outputs_dir)


def go_by(session: Session, options: Common, rules: RuleSet) -> None:
    """Let `load` return these rules, which are in no file yet."""
    session.answers[_load] = {(options.rules_dir, options.outputs_dir): rules}


@once
def read_rules(_: Session, rules_dir: str | None) -> Mapping[str, str]:
    """Read the rule files, once, so that the same texts are tested and noted as proved, also if they are edited now."""
    return rule_texts(rules_dir)


def note_proof(session: Session, options: Common) -> None:
    """Note that the rules hold, as the test takes longer than a run that has nothing to do."""
    proof = proof_of(read_rules(session, options.rules_dir))
    with contextlib.suppress(OSError):  # then the next run tests them again
        if notes.read_note(Disk(options.outputs_dir), PROOF) != proof:
            notes.write_note(Disk(options.outputs_dir), PROOF, proof)


def proof_of(texts: Mapping[str, str]) -> str:
    """Return a digest of the rules, this version and this Python: whether the rules hold depends on nothing else."""
    return hashlib.sha256(repr((__version__, sys.version, sorted(texts.items()))).encode()).hexdigest()


def find_anew(session: Session) -> None:
    """Forget the directories and their packs: they may have changed while this run waited for the lock."""
    for function in (_survey, _rules_of, _tree):
        session.answers.pop(function, None)


def find(session: Session, options: Common) -> list[Directory]:
    """Find the checkpoint directories, once."""
    return survey(session, options)[0]


def names_of(session: Session, options: Common) -> list[str]:
    """Return the names of all experiments."""
    return [found.experiment for found in find(session, options)]


def survey(session: Session, options: Common) -> Survey:
    """Find the checkpoint directories, once; those that lie in a checkpoint; and those that are passed over.

    A directory is passed over if only the layout of packs covers it and no pack knows a name in it.
    """
    return _survey(session, options.outputs_dir, load(session, options))


@once
def _survey(session: Session, path: str, rules: RuleSet) -> Survey:
    every, inner = survey_by(path, rules)
    if not rules.layout_of_packs:
        return every, inner, frozenset()
    # The layout of packs fits nearly any folder, so a checkpoint directory must hold something that a pack knows.
    directories = [found for found in every if _rules_of(session, path, rules, found.directory).packs]
    known = {found.directory for found in directories}
    return directories, inner, frozenset(found.directory for found in every) - known


def rules_of(session: Session, options: Common, directory: str) -> RuleSet:
    """Return the rules for one checkpoint directory, with the packs that its evidence picks."""
    rules = load(session, options)
    return _rules_of(session, options.outputs_dir, rules, directory) if rules.packs else rules


@once
def _rules_of(session: Session, path: str, rules: RuleSet, directory: str) -> RuleSet:
    return rules_here(_tree(session, path, rules), rules, directory)


@once
def _tree(_: Session, path: str, __: RuleSet) -> Tree:  # other rules may have another pack of the same name
    return Tree(path)
