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
