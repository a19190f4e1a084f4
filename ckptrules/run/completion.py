"""Write the scripts that complete tasks, options and values in a shell: functions of sh, and a caller for each shell.

The words are in the script, so a Tab starts no Python. Only the names of policies and experiments, which differ from
folder to folder, come from the program.
"""

from __future__ import annotations

import contextlib
import os
import shlex
from collections.abc import Iterator, Mapping, Sequence

from ckptrules.engine.ruleset import RuleError
from ckptrules.outputs.picking import survey_by
from ckptrules.rules.load import load_rules
from ckptrules.rules.shipped import rule_texts
from ckptrules.run.help import WITHOUT_OPTIONS
from ckptrules.run.options import Common, Option
from ckptrules.run.words import encode_task

LISTED = ("policy", "experiments")  # options with values that the program lists
PATH, ASKED = "@", "+"  # in place of a value: any path; a name that the program lists
WORDS = """\
_ckptrules_tasks="@TASKS@"

_ckptrules_options() { # TASK: its options, each with what it may be; @ is a path, + is to be asked for
    case $1 in
@ROWS@
    esac
}

_ckptrules_asked() { # PROGRAM START WHAT [name=value ...]: what the rules here name, one a line
    local start="$2" program="${1%doit}"
    shift 2
    "${program%ckptrules}ckptrules" completion "$@" 2>/dev/null | while IFS= read -r line; do
        printf "%s\\n" "$start$line"
    done
}

_ckptrules_words() { # PROGRAM WORD... CURRENT: what the current word may become, one a line; @ is any path
    local program="$1" task="" given="" outputs="x=" rules="x=" one="" name=""
    shift
    while [ $# -gt 1 ]; do
        case " $_ckptrules_tasks " in *" ${1%%:*} "*) task=${task:-${1%%:*}} ;; esac
        case $1 in outputs_dir=*) outputs=$1 ;; rules_dir=*) rules=$1 ;; esac
        given="$given $1"
        shift
    done
    case ${1%%=*} in
    *:*) _ckptrules_asked "$program" "${1%%:*}:" experiments "$outputs" "$rules" ;;
    esac
    for one in $([ "$task" ] || printf "%s " "$_ckptrules_tasks") $(_ckptrules_options "${task:-plan}"); do
        name=${one%%=*}
        case "$given " in *" $name="*) continue ;; esac # it is refused when it is given twice
        case $program:$one in *doit:init | *doit:completion) continue ;; esac
        case $1 in
        "$name="*) # its value
            case $one in
            *"=@") printf "@\\n" ;;
            *"=+") _ckptrules_asked "$program" "$name=" "$name" "$outputs" "$rules" ;;
            *"=") ;;
            *) printf "%s\\n" "$one" ;;
            esac
            ;;
        *=*) ;;
        *) # its name; options only behind a task, or where one was begun
            case $one in
            *=1 | *=) [ -z "$task$1" ] || printf "%s\\n" "$one" ;;
            *=*) ;;
            *) printf "%s\\n" "$one" ;;
            esac
            ;;
        esac
    done
}
"""
CALLED_BY = {
    "bash": """\
# Tasks and options of ckptrules for bash 4 or later, written by: ckptrules completion bash

@WORDS@
_ckptrules() {
    local rest="${COMP_LINE:0:COMP_POINT}" words=() word breaks="" left="" last=0 i
    [[ ${1##*/} != doit ]] || grep -qs ckptrules dodo.py || { compopt -o default; return; }
    rest=${rest#*"${COMP_WORDS[0]}"}
    for ((i = 1; i <= COMP_CWORD; i++)); do # bash divides words at '=' and ':', too
        [[ $rest == [[:space:]]* ]] && ((last++))
        rest=${rest#"${rest%%[![:space:]]*}"}
        word=${COMP_WORDS[i]}
        ((i < COMP_CWORD)) || word=$rest
        words[last]+=$word
        rest=${rest#"$word"}
    done
    [[ $COMP_WORDBREAKS == *=* ]] && breaks+="="
    [[ $COMP_WORDBREAKS == *:* ]] && breaks+=":"
    word=${words[last]}
    [[ $breaks ]] && left=${word%"${word##*[$breaks]}"} # stays: only what is behind is replaced
    COMPREPLY=()
    while IFS= read -r i; do
        if [[ $i == @ ]]; then
            compopt -o default -o filenames
            [[ $word == *=* ]] || compopt -o plusdirs
        elif [[ $i == "$word"* ]]; then
            printf -v i %q "${i#"$left"}"
            COMPREPLY+=("$i")
        fi
    done < <(_ckptrules_words "$1" "${words[@]}")
    [[ ${#COMPREPLY[@]} -eq 1 && ${COMPREPLY[0]} == *= ]] && compopt -o nospace
    return 0
}

complete -F _ckptrules ckptrules
complete -p doit >/dev/null 2>&1 || complete -F _ckptrules doit
""",
    "zsh": """\
#compdef ckptrules doit
# Tasks and options of ckptrules for zsh, written by: ckptrules completion zsh

@WORDS@
_ckptrules() {
    local one here="$PREFIX"
    [[ ${words[1]:t} != doit ]] || grep -qs ckptrules dodo.py || { _default; return }
    for one in ${(f)"$(_ckptrules_words "$words[1]" "${(@)words[2,CURRENT-1]}" "$here")"}; do
        case $one in
        @) compset -P '*='; _files ;;
        *=) compadd -Q -S '' -- $one ;;
        *) compadd -- $one ;;
        esac
    done
}

compdef _ckptrules ckptrules
(( $+_comps[doit] )) || compdef _ckptrules doit
""",
    "fish": """\
# Tasks and options of ckptrules for fish, written by: ckptrules completion fish

function _ckptrules
    set -l current (commandline -ct)
    sh -c '@WORDS@
_ckptrules_words "$@"' sh (commandline -opc) "$current" | while read -l one
        if test "$one" = @
            set -l start (string replace -r '^([^=]*=)?.*' '$1' -- $current)
            printf '%s\\n' $start(__fish_complete_path (string replace -r '^[^=]*=' '' -- $current))
        else
            printf '%s\\n' $one
        end
    end
end

complete -c ckptrules -f -a '(_ckptrules)'
complete -c doit -n 'grep -qs ckptrules dodo.py' -f -a '(_ckptrules)'
""",
}


SHELLS = tuple(CALLED_BY)


def script(shell: str, declared: Mapping[str, type[Common]], more: Mapping[str, Sequence[str]]) -> str:
    """Return the script for a shell.

    ``more`` holds the words that may stand behind each word that is no task, and the values of some options.
    """
    rows: dict[str, Sequence[str]] = {
        task: [] if task in WITHOUT_OPTIONS else [*_words(options, more)] for task, options in declared.items()
    }
    rows |= {word: behind for word, behind in more.items() if not any(word in one.known() for one in declared.values())}
    cases = "\n".join(f'    {word}) echo "{" ".join(words)}" ;;' for word, words in rows.items())
    words = WORDS.replace("@TASKS@", " ".join(rows)).replace("@ROWS@", cases)
    return CALLED_BY[shell].replace("@WORDS@", words)


def _words(options: type[Common], more: Mapping[str, Sequence[str]]) -> Iterator[str]:
    for option in options.known().values():
        yield from (f"{option.name}={value}" for value in _values(option, more))


def _values(option: Option, more: Mapping[str, Sequence[str]]) -> Sequence[str]:
    """Return what may stand behind the ``=``: first nothing, then each value; of a flag only 1."""
    if option.is_flag:
        return ["1"]
    one = PATH * option.is_path or ASKED * (option.name in LISTED)
    return ["", *([one] if one else more.get(option.name, option.values))]


def listed(option: str, words: Sequence[str]) -> list[str]:
    """List the policies of the rules, or the experiments as in names of tasks; none if they cannot be read.

    ``words`` are those of the command line, with ``rules_dir`` and ``outputs_dir``.
    """
    with contextlib.suppress(RuleError, OSError, ValueError):  # a Tab shows no errors
        given = dict(_unquoted(word).partition("=")[::2] for word in words)
        rules = load_rules(rule_texts(given.get("rules_dir")), proved=True)
        if option == "policy":
            return list(rules.policies)
        outputs_dir = os.path.expanduser(given.get("outputs_dir") or rules.outputs_dir or "outputs")
        directories, _ = survey_by(outputs_dir, rules)
        return [encode_task(found.experiment) for found in directories]
    return []


def _unquoted(word: str) -> str:
    """Remove the quotes of a typed word: bash and zsh hand them on, fish does not."""
    return "".join(shlex.split(word)) if set(word) & set("\"'\\") else word
