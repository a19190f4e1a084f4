"""Reads YAML of other programs, with limits on its length and depth. Tags are ignored, so no object is made."""

from __future__ import annotations

import re
from collections.abc import Hashable
from typing import Any

import yaml

LONGEST_YAML = 2**18  # bytes; the parser takes a third of a second for it
DEEPEST = 50
FAST = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # libyaml, if PyYAML was built with it
_NUMBER = re.compile(r"[-+]?(?:\d{1,19}|\d*\.?\d+(?:[eE][-+]?\d{1,4})?|\d+\.\d*(?:[eE][-+]?\d{1,4})?)", re.ASCII)
_OTHER_NUMBERS = {".nan": "nan", ".inf": "inf", "+.inf": "inf", "-.inf": "-inf"}
_WORDS: dict[str, Any] = {"": None, "~": None, "null": None, "true": True, "false": False}


def parse(data: bytes) -> list[object]:
    """Return the documents of a YAML text. Aliases are None: a short text with many could stand for a huge value.

    Raises:
        ValueError: it is no YAML, too long, or nested too deeply.
    """
    if len(data) > LONGEST_YAML:
        raise ValueError(f"YAML of more than {LONGEST_YAML >> 10} KB is not read")
    documents: list[object] = []
    open_lists: list[list[object]] = [documents]
    try:
        for event in yaml.parse(data, Loader=FAST):
            if isinstance(event, yaml.ScalarEvent):
                open_lists[-1].append(_scalar(event))
            elif isinstance(event, yaml.AliasEvent):
                open_lists[-1].append(None)
            elif isinstance(event, yaml.CollectionStartEvent):
                open_lists.append([])
                if len(open_lists) > DEEPEST:
                    raise ValueError("nested too deeply")
            elif isinstance(event, yaml.CollectionEndEvent):
                items = open_lists.pop()
                open_lists[-1].append(_mapping(items) if isinstance(event, yaml.MappingEndEvent) else items)
    except (yaml.YAMLError, UnicodeError) as error:
        raise ValueError(f"no YAML: {' '.join(str(getattr(error, 'problem', None) or 'unreadable').split())}") from None
    return documents


def _mapping(items: list[object]) -> dict[object, object]:
    """Return a mapping of keys and values in turn, without the keys that are lists or mappings themselves."""
    pairs = zip(items[::2], items[1::2], strict=True)
    return {key: value for key, value in pairs if isinstance(key, Hashable)}


def _scalar(event: yaml.ScalarEvent) -> object:
    text = str(event.value)
    if event.style not in (None, ""):
        return text
    if text.lower() in _WORDS:
        return _WORDS[text.lower()]
    number = _OTHER_NUMBERS.get(text.lower(), text if _NUMBER.fullmatch(text) else "")
    if not number:
        return text
    return int(number) if number.lstrip("+-").isdigit() else float(number)
