# Tasks and options of ckptrules for fish, written by: ckptrules completion fish

function _ckptrules
    set -l current (commandline -ct)
    sh -c '@WORDS@
_ckptrules_words "$@"' sh (commandline -opc) "$current" | while read -l one
        if test "$one" = @
            set -l start (string replace -r '^([^=]*=)?.*' '$1' -- $current)
            printf '%s\n' $start(__fish_complete_path (string replace -r '^[^=]*=' '' -- $current))
        else
            printf '%s\n' $one
        end
    end
end

complete -c ckptrules -f -a '(_ckptrules)'
complete -c doit -n 'grep -qs ckptrules dodo.py' -f -a '(_ckptrules)'
