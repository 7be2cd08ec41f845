#!/usr/bin/env bash
# Looks at, sets, keeps and takes back the kernel settings and limits that many connections need.
# The values stand in sysctl.d/90-corecast.conf and limits.d/90-corecast.conf beside this script, nowhere else.

# No -e: one setting that can't be read or written must not keep the others from their turn. Failures are counted.
set -uo pipefail
# Numbers are compared as text, and the reasons of failed writes are taken from messages: both need plain English.
export LC_ALL=C
umask 022

here=$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")
readonly here
readonly sysctl_template=$here/sysctl.d/90-corecast.conf
readonly limits_template=$here/limits.d/90-corecast.conf
# The first line of what persist writes. revert removes only files that begin with it.
readonly mark='# Written by corecast tune.sh persist'
readonly template_connections=1000000
# Below this a stock kernel does, and what a process needs besides its connections would outweigh them.
readonly connections_min=10000
# The most that the server's own max_connections allows.
readonly connections_max=16000000

usage() {
    cat <<'TEXT'
usage: tune.sh check|apply|persist|revert [--connections N] [--user NAME] [--load-generator] [--root DIR]

  check     compare this machine with what N connections need; changes nothing
  apply     set the running kernel (root); never takes away what is already better; remembers what was there
  persist   write /etc/sysctl.d/90-corecast.conf and /etc/security/limits.d/90-corecast.conf (root)
  revert    put back what was there before the first change and remove what persist wrote (root)

  --connections N    connections to hold, up to 16000000 (default 1000000; fewer than 10000 count as 10000)
  --user NAME        whose login limits persist writes (default corecast)
  --load-generator   also what a machine needs that opens the connections
  --root DIR         work on a copy of the files below DIR (DIR/proc/sys, DIR/etc, ...), not on this machine

Exit code: 0 all is well, 1 something is not enough or could not be done, 2 wrong usage.
TEXT
}

bad_usage() {
    printf 'tune.sh: %s\n\n' "$1" >&2
    usage >&2
    exit 2
}

# ---- Arguments ----------------------------------------------------------------------------------

command=
connections=$template_connections
user=corecast
load_generator=false
root=

while (($# > 0)); do
    case $1 in
    --*=*) set -- "${1%%=*}" "${1#*=}" "${@:2}" ;;
    esac
    case $1 in
    check | apply | persist | revert)
        [[ -z $command ]] || bad_usage "$1 after $command; give one command"
        command=$1
        shift
        ;;
    --connections | --user | --root)
        (($# >= 2)) || bad_usage "$1 needs a value"
        case $1 in
        --connections) connections=$2 ;;
        --user) user=$2 ;;
        --root) root=$2 ;;
        esac
        [[ -n $2 ]] || bad_usage "$1 needs a value"
        shift 2
        ;;
    --load-generator)
        load_generator=true
        shift
        ;;
    -h | --help)
        usage
        exit 0
        ;;
    *) bad_usage "what is $1?" ;;
    esac
done

[[ -n $command ]] || bad_usage 'no command given'
if [[ ! $connections =~ ^[1-9][0-9]{0,7}$ ]] || ((connections > connections_max)); then
    bad_usage "--connections is $connections; it must be a number from 1 to $connections_max"
fi
[[ $user =~ ^[@%]?[A-Za-z0-9_][A-Za-z0-9_.-]*\$?$ || $user == '*' ]] ||
    bad_usage "--user is $user; it must be a user's name (or @group, or *)"
[[ -z $root || -d $root ]] || bad_usage "--root is $root; there is no such folder"
for template in "$sysctl_template" "$limits_template"; do
    [[ -r $template ]] || bad_usage "$template can't be read, and the values stand there; keep tune.sh in its folder"
done
((connections >= connections_min)) || connections=$connections_min

if [[ $command != check && -z $root && $EUID -ne 0 ]]; then
    echo "tune.sh: $command changes this machine and needs root; run it again with sudo" >&2
    exit 1
fi

root=${root%/}
readonly state=$root/var/lib/corecast/tune.saved
readonly sysctl_file=$root/etc/sysctl.d/90-corecast.conf
readonly limits_file=$root/etc/security/limits.d/90-corecast.conf

# ---- Templates ----------------------------------------------------------------------------------

# One entry for each setting of the templates: parallel arrays, because bash has no records.
names=() rules=() wants=() reasons=() optionals=()
problems=0

# Bytes of memory this machine has, or nothing if that can't be told.
memory_bytes() {
    local key value
    while read -r key value _; do
        [[ $key == MemTotal: ]] && echo $((value * 1024)) && return
    done 2>/dev/null <"$root/proc/meminfo"
}

# want VALUE MARKS: the template's value (one number or several) for the wanted number of connections.
want() {
    local marks=$2 number page memory most last out=()
    local -a numbers
    read -ra numbers <<<"$1"
    for number in "${numbers[@]}"; do
        if [[ $marks == *,scaled,* ]]; then
            number=$(((number * connections + template_connections - 1) / template_connections))
        fi
        out+=("$number")
    done
    if [[ $marks == *,pages,* ]]; then
        page=$(getconf PAGESIZE)
        memory=$(memory_bytes)
        most=$((${memory:-0} / 2 / page)) last=$((out[-1] * 4096 / page))
        for number in "${!out[@]}"; do
            out[number]=$((out[number] * 4096 / page))
            # All by the same share: the first numbers must stay below the last, or there is no warning before it.
            ((most == 0 || last <= most)) || out[number]=$((out[number] * most / last))
        done
    fi
    echo "${out[*]}"
}

# read_template FILE: appends the file's settings that are asked for. A sysctl is named as in the file, a limit
# `TYPE ITEM`.
read_template() {
    local line rule='' why='' marks='' name value
    while IFS= read -r line; do
        if [[ $line =~ ^'#: '([^:]+)': '(.+)$ ]]; then
            why=${BASH_REMATCH[2]}
            marks=,${BASH_REMATCH[1]//, /,},
            rule=${marks#,} rule=${rule%%,*}
            continue
        fi
        [[ $line =~ ^(#|$) ]] && continue
        if [[ $line =~ ^-?([a-z0-9_.-]+)' = '([0-9 ]+)$ ]]; then
            name=${BASH_REMATCH[1]} value=${BASH_REMATCH[2]}
        elif [[ $line =~ ^corecast' '((soft|hard)' '[a-z]+)' '([0-9]+)$ ]]; then
            name=${BASH_REMATCH[1]} value=${BASH_REMATCH[3]}
        else
            bad_usage "$1 has a line that is neither comment nor setting: $line"
        fi
        [[ $rule =~ ^(at least|at most|exactly)$ ]] || bad_usage "$1: $name has no line '#: RULE: why' above it"
        if [[ $marks != *,load\ generator,* || $load_generator == true ]]; then
            names+=("$name") rules+=("$rule") reasons+=("$why")
            wants+=("$(want "$value" "$marks")")
            [[ $marks == *,optional,* ]] && optionals+=(true) || optionals+=(false)
        fi
        rule=
    done <"$1"
}

is_limit() { [[ $1 == *' '* ]]; }

# ---- Values -------------------------------------------------------------------------------------

path_of() { echo "$root/proc/sys/${1//.//}"; }

# limit_of 'TYPE ITEM': the limit of this shell, in the unit of limits.conf.
limit_of() {
    local line title soft hard value
    case $1 in
    *nofile) title='Max open files' ;;
    *memlock) title='Max locked memory' ;;
    *) return 1 ;;
    esac
    while IFS= read -r line; do
        [[ $line == "$title"* ]] || continue
        read -r soft hard _ <<<"${line#"$title"}"
        [[ $1 == soft* ]] && value=$soft || value=$hard
        [[ $1 == *memlock && $value != unlimited ]] && value=$((value / 1024))
        echo "$value"
        return
    done <"$root/proc/self/limits"
    return 1
}

# read_now NAME: sets `raw` (as it stands there), `now` (one space between numbers) and returns 0; or sets `trouble`
# and returns 1 (not there) or 2 (there, but of no use).
read_now() {
    local path
    raw='' now='' trouble=''
    if is_limit "$1"; then
        raw=$(limit_of "$1" 2>/dev/null) || { trouble='not there' && return 1; }
    else
        path=$(path_of "$1")
        [[ -e $path ]] || { trouble='not there' && return 1; }
        if ! raw=$(cat "$path" 2>&1); then
            trouble="can't be read: ${raw##*: }"
            return 2
        fi
    fi
    local -a words
    read -ra words <<<"$raw"
    now="${words[*]}"
    [[ $now =~ ^(unlimited|[0-9]+( [0-9]+)*)$ ]] && return 0
    trouble="holds '$raw', which is not a number"
    return 2
}

# not_below A B: whether A >= B. As text, because fs.file-max may be larger than bash can count.
not_below() {
    [[ $1 == unlimited ]] && return 0
    [[ $2 == unlimited ]] && return 1
    ((${#1} != ${#2})) && { ((${#1} > ${#2})) && return 0 || return 1; }
    [[ ! $1 < $2 ]]
}

# goal RULE NOW WANT: the value to set so that RULE holds and nothing gets worse. Equal to NOW if all is well.
goal() {
    local index out=()
    local -a have wanted
    read -ra have <<<"$2"
    read -ra wanted <<<"$3"
    if [[ $1 == exactly || ${#have[@]} -ne ${#wanted[@]} ]]; then
        echo "$3"
        return
    fi
    for index in "${!wanted[@]}"; do
        if not_below "${have[index]}" "${wanted[index]}"; then
            [[ $1 == 'at least' ]] && out+=("${have[index]}") || out+=("${wanted[index]}")
        else
            [[ $1 == 'at least' ]] && out+=("${wanted[index]}") || out+=("${have[index]}")
        fi
    done
    echo "${out[*]}"
}

problem() { problems=$((problems + 1)); }

# row STATE NAME NOW WANTED WHY: one line of check's table.
row() { printf '%-7s %-32s %-24s %-32s %s\n' "$@"; }

# event WORD NAME TEXT: one line of what happened to a setting.
event() { printf '%-8s %-32s %s\n' "$@"; }

# ---- Saved values -------------------------------------------------------------------------------

saved() { [[ -f $state ]] && grep -q "^$1 = " "$state"; }

# save NAME RAW: remembers what was there, once; a later change must not overwrite the oldest value.
save() {
    local message
    saved "$1" && return 0
    if ! message=$({ mkdir -p "${state%/*}" && printf '%s = %s\n' "$1" "$2" >>"$state"; } 2>&1); then
        echo "tune.sh: $state can't be written (${message##*: }), so revert would not know $1; it is left as it is" >&2
        return 1
    fi
}

# write_value NAME VALUE: sets a sysctl; on failure `trouble` holds the reason.
write_value() {
    local path
    path=$(path_of "$1")
    if ! trouble=$({ printf '%s\n' "$2" >"$path"; } 2>&1); then
        trouble=${trouble##*: }
        return 1
    fi
    read_now "$1" || return 1
    local -a words
    read -ra words <<<"$2"
    [[ $now == "${words[*]}" ]] && return 0
    trouble="the kernel took the write and made it $now"
    return 1
}

# ---- Commands -----------------------------------------------------------------------------------

check() {
    local index name rule state_word
    echo "What $connections connections need${root:+ (below $root)}:"
    echo
    row '' setting now wanted why
    for index in "${!names[@]}"; do
        name=${names[index]} rule=${rules[index]}
        if read_now "$name"; then
            if [[ $(goal "$rule" "$now" "${wants[index]}") == "$now" ]]; then
                state_word=ok
            else
                case $rule in
                'at least') state_word=low ;;
                'at most') state_word=high ;;
                *) state_word=differs ;;
                esac
                problem
            fi
        else
            now=$trouble state_word=-
            [[ ${optionals[index]} == true && $trouble == 'not there' ]] || { state_word='?' && problem; }
        fi
        row "$state_word" "$name" "$now" "$rule ${wants[index]}" "${reasons[index]}"
    done
    echo
    echo 'The limits (soft, hard) are those of this shell; a server under systemd has those of its unit.'
    if ((problems == 0)); then
        echo 'All is enough.'
    else
        echo "$problems not as wanted. As root, with --connections $connections, tune.sh apply sets the sysctls at once;"
        echo 'tune.sh persist sets them from the next boot on, and the limits from the next login on.'
        echo 'A setting marked ? can not be read here; a container does not see every sysctl of its host.'
    fi
}

apply() {
    local index name old new
    for index in "${!names[@]}"; do
        name=${names[index]}
        is_limit "$name" && continue
        if ! read_now "$name"; then
            if [[ ${optionals[index]} == true && $trouble == 'not there' ]]; then
                event skipped "$name" 'not there: this kernel has no such setting now'
            else
                event FAILED "$name" "$trouble; if this is a container, set it on the host"
                problem
            fi
            continue
        fi
        old=$now new=$(goal "${rules[index]}" "$now" "${wants[index]}")
        if [[ $new == "$old" ]]; then
            event ok "$name" "$old"
        elif ! save "$name" "$raw"; then
            problem
        elif write_value "$name" "$new"; then
            event set "$name" "$old -> $new"
        else
            event FAILED "$name" "$old -> $new: $trouble"
            problem
        fi
    done
    echo
    [[ -f $state ]] && echo "What was there before is in $state; tune.sh revert puts it back."
    echo 'Limits are not set here: the systemd unit brings its own, and tune.sh persist sets those of a login.'
    ((problems == 0)) || echo "$problems could not be set." >&2
}

# write_file PATH TEXT: writes a file of ours as a whole, and never over one that somebody else wrote.
write_file() {
    local path=$1 message
    if [[ -e $path ]] && ! ours "$path"; then
        echo "FAILED   $path was not written by tune.sh; move it away first" && problem
    elif [[ -e $path && $(<"$path") == "$2" ]]; then
        echo "ok       $path is already so"
    elif message=$({ mkdir -p "${path%/*}" && printf '%s\n' "$2" >"$path.new" && mv "$path.new" "$path"; } 2>&1); then
        echo "wrote    $path"
    else
        echo "FAILED   $path: ${message##*: }" && problem
    fi
}

ours() {
    local first=''
    IFS= read -r first <"$1"
    [[ $first == "$mark"* ]]
}

persist() {
    local index name value hard_nofile='' nr_open='' sysctls limits
    sysctls="$mark for $connections connections; tune.sh revert removes it."
    limits=$sysctls
    for index in "${!names[@]}"; do
        name=${names[index]} value=${wants[index]}
        # What is running and better (set by hand, or by another file) must not be lowered by the next boot.
        if read_now "$name"; then
            value=$(goal "${rules[index]}" "$now" "$value")
            if ! is_limit "$name" && [[ $value != "$now" ]] && ! save "$name" "$raw"; then
                problem
            fi
        fi
        if is_limit "$name"; then
            limits+=$'\n\n'"# ${reasons[index]}"$'\n'"$user $name $value"
            [[ $name == 'hard nofile' ]] && hard_nofile=$value
        else
            [[ ${optionals[index]} == true ]] && name=-$name
            sysctls+=$'\n\n'"# ${reasons[index]}"$'\n'"$name = $value"
        fi
    done
    write_file "$sysctl_file" "$sysctls"
    warn_of_later_files

    # A login whose nofile is above fs.nr_open is refused by PAM: nobody must be locked out until the next boot.
    read_now fs.nr_open && nr_open=$now
    if [[ -n $nr_open ]] && ! not_below "$nr_open" "$hard_nofile"; then
        echo "FAILED   $limits_file: nofile $hard_nofile is above fs.nr_open ($nr_open) and would keep $user from" \
            'logging in; run tune.sh apply first, then persist again'
        problem
    else
        write_file "$limits_file" "$limits"
    fi
    echo
    echo 'sysctl.d counts from the next boot (tune.sh apply sets the running kernel), limits.d from the next login.'
    ((problems == 0)) || echo "$problems could not be done." >&2
}

# The boot reads sysctl.d in the order of the names, and the last line about a setting wins.
warn_of_later_files() {
    local file name
    for file in "$root"/etc/sysctl.d/*.conf "$root"/etc/sysctl.conf; do
        [[ -f $file && (${file##*/} > ${sysctl_file##*/} || ${file##*/} == sysctl.conf) ]] || continue
        for name in "${names[@]}"; do
            is_limit "$name" && continue
            if grep -Eq "^[[:space:]]*-?${name//./[./]}[[:space:]]*=" "$file"; then
                echo "warning  $file also sets $name and is read later; take the line out there"
            fi
        done
    done
}

revert() {
    local line name old left='' file
    if [[ -f $state ]]; then
        while IFS= read -r line; do
            name=${line%% = *} old=${line#* = }
            # The file decides what root writes to: take nothing for a name that could lead out of /proc/sys.
            if [[ ! $line == *' = '* || ! $name =~ ^[a-z0-9_-]+(\.[a-z0-9_-]+)+$ ]]; then
                echo "FAILED   $state has a line that tune.sh did not write: $line" && problem
                left+=$line$'\n'
            elif ! read_now "$name" && [[ $trouble == 'not there' ]]; then
                event skipped "$name" "not there now; it was $old"
            elif [[ $raw == "$old" ]]; then
                event ok "$name" "$now: as it was"
            else
                local before=$now
                if write_value "$name" "$old"; then
                    event restored "$name" "$before -> $now"
                else
                    event FAILED "$name" "$before -> $old: $trouble"
                    problem
                    left+=$line$'\n'
                fi
            fi
        done <"$state"
        if [[ -n $left ]]; then
            printf '%s' "$left" >"$state"
            echo "What could not be put back stays in $state."
        else
            rm -f "$state" && rmdir --ignore-fail-on-non-empty "${state%/*}"
        fi
    else
        echo "No sysctl to put back: there is no $state."
    fi
    for file in "$sysctl_file" "$limits_file"; do
        [[ -e $file ]] || continue
        if ! ours "$file"; then
            echo "kept     $file: it was not written by tune.sh"
        elif rm -f "$file"; then
            echo "removed  $file"
        else
            echo "FAILED   $file could not be removed" && problem
        fi
    done
    ((problems == 0)) || echo "$problems could not be put back." >&2
}

read_template "$sysctl_template"
read_template "$limits_template"
"$command"
((problems == 0))
