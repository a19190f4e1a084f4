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
        printf "%s\n" "$start$line"
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
            *"=@") printf "@\n" ;;
            *"=+") _ckptrules_asked "$program" "$name=" "$name" "$outputs" "$rules" ;;
            *"=") ;;
            *) printf "%s\n" "$one" ;;
            esac
            ;;
        *=*) ;;
        *) # its name; options only behind a task, or where one was begun
            case $one in
            *=1 | *=) [ -z "$task$1" ] || printf "%s\n" "$one" ;;
            *=*) ;;
            *) printf "%s\n" "$one" ;;
            esac
            ;;
        esac
    done
}
