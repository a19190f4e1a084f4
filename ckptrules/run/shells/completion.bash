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
