#!/usr/bin/env bash
# Compares corecast with other push servers: on the same core, with the same client, taking turns.
#
#   benches/peers.sh                            everything, in about ten minutes
#   benches/peers.sh --quick                    a small version, in a minute
#   benches/peers.sh --only corecast,redis      two of them
#
# Every server is started afresh in each round, alone on one CPU; corecast's load generator is on another one, checks
# every message, and reads what the server's processes take. The median of the rounds is shown. Servers that are missing
# are installed from Debian's packages, as root; their services are neither started nor touched: all of this runs on
# ports and with settings of its own, in a folder that is gone in the end.
# shellcheck disable=SC2154 # all and command_of come from peers/servers.sh
set -euo pipefail
export LC_ALL=C
PATH=$PATH:/usr/sbin:/sbin

here=$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")
top=$(dirname "$here")
readonly here top
# shellcheck source=/dev/null # checked by itself
source "$here/peers/servers.sh"

usage() {
    cat <<EOF
usage: peers.sh [OPTION]...
  --connections N     subscribers [default: 9000]
  --rounds R          turns of each server; the median counts [default: 3]
  --only A,B          some of: ${all[*]}
  --message-size B    bytes of a message [default: 128]
  --json FILE         write all figures to this file too
  --svg FILE          draw them, into this file; needs gnuplot
  --quick             a small version: 200 connections, one round, short runs
  --no-install        leave out what is not installed
  --corecast FILE     the program to measure, and to measure with [default: cargo build --release]
EOF
}

# ---- The command line ---------------------------------------------------------------------------

connections='' rounds='' message_bytes=128 json='' svg='' quick=0 installs=1 corecast='' selected=("${all[@]}")

bad_usage() {
    echo "peers.sh: $1" >&2
    usage >&2
    exit 2
}

# number OPTION VALUE LEAST MOST
number() {
    if ! [[ $2 =~ ^[1-9][0-9]{0,6}$ ]] || (($2 < $3 || $2 > $4)); then
        bad_usage "$1 is '$2'; it must be from $3 to $4"
    fi
}

while (($# > 0)); do
    option=$1
    case $option in
    --connections | --rounds | --only | --message-size | --json | --svg | --corecast)
        (($# > 1)) || bad_usage "$option needs a value"
        value=$2
        shift
        ;;
    esac
    case $option in
    --connections) number "$option" "$value" 1 1000000 && connections=$value ;;
    --rounds) number "$option" "$value" 1 100 && rounds=$value ;;
    --message-size) number "$option" "$value" 32 60000 && message_bytes=$value ;;
    --json) json=$value ;;
    --svg) svg=$value ;;
    --corecast) corecast=$(readlink -f "$value") ;;
    --only)
        IFS=, read -ra selected <<<"$value"
        for peer in "${selected[@]}"; do
            [[ " ${all[*]} " == *" $peer "* ]] || bad_usage "--only names '$peer'; use ${all[*]}"
        done
        ;;
    --quick) quick=1 ;;
    --no-install) installs=0 ;;
    -h | --help)
        usage
        exit
        ;;
    *) bad_usage "there is no option '$option'" ;;
    esac
    shift
done

# How long each measure takes, publishes a second, and the connections of the echo.
if ((quick)); then
    : "${connections:=200}" "${rounds:=1}"
    idle_time=300ms fanout_time=1s fanout_rate=8 burst_time=500ms burst_rate=4 echo_time=500ms echo_connections=50
else
    : "${connections:=9000}" "${rounds:=3}"
    idle_time=1500ms fanout_time=4s fanout_rate=2 burst_time=4s burst_rate=0.5 echo_time=2s echo_connections=1000
fi
readonly burst=32 websocket_bytes=512

# ---- Beginning and end --------------------------------------------------------------------------

scratch=$(mktemp -d)
# Servers that give up root must find their settings.
chmod 755 "$scratch"
server='' load='' policy=''

# What is still running ends with the script, whatever ends it.
clean_up() {
    [[ -z $load ]] || kill -KILL "$load" 2>/dev/null || true
    stop_server
    [[ -z $policy ]] || "${as_root[@]}" rm -f "$policy"
    rm -rf "$scratch"
}
trap clean_up EXIT
trap 'exit 129' HUP
trap 'exit 130' INT
trap 'exit 143' TERM

say() { echo "peers.sh: $*" >&2; }

fail() {
    say "$*"
    exit 1
}

declare -A left_out=()
failures=0

# leave_out PEER REASON: names the first reason, in one line.
leave_out() {
    [[ -z ${left_out[$1]:-} ]] || return 0
    left_out[$1]=$(tr '\n' ' ' <<<"$2" | sed 's/  */ /g; s/ $//')
    say "$1 is left out: ${left_out[$1]}"
}

# ---- What must be there -------------------------------------------------------------------------

as_root=()

# Installs the packages of the peers that are missing, without starting a service.
install_missing() {
    local peer unit missing=()
    for peer in "${selected[@]}"; do
        is_installed "$peer" || [[ -z ${packages_of[$peer]} ]] || missing+=("$peer")
    done
    ((${#missing[@]} > 0 && installs)) || return 0
    command -v apt-get >/dev/null || return 0
    if ((EUID != 0)); then
        sudo -n true 2>/dev/null || return 0
        as_root=(sudo -n)
    fi
    # dpkg asks this script whether a service may be started; one that is there already is the machine's own.
    if [[ ! -e /usr/sbin/policy-rc.d ]]; then
        policy=/usr/sbin/policy-rc.d
        printf '#!/bin/sh\nexit 101\n' | "${as_root[@]}" tee "$policy" >/dev/null
        "${as_root[@]}" chmod 755 "$policy"
    fi
    say "installing what ${missing[*]} need"
    "${as_root[@]}" apt-get -qq update >"$scratch/apt.log" 2>&1 || say "apt-get update failed; trying with what it knows"
    for peer in "${missing[@]}"; do
        # shellcheck disable=SC2086 # split into words on purpose
        "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -qq -y -o Dpkg::Use-Pty=0 install \
            --no-install-recommends ${packages_of[$peer]} >"$scratch/apt.log" 2>&1 ||
            leave_out "$peer" "apt-get install ${packages_of[$peer]} failed: $(tail -n 1 "$scratch/apt.log")"
        unit=${command_of[$peer]}
        # Nor shall the next start of the machine start it.
        if [[ -n $(compgen -G "/lib/systemd/system/$unit.service") ]] && command -v systemctl >/dev/null; then
            "${as_root[@]}" systemctl disable --quiet "$unit" >/dev/null 2>&1 || true
        fi
    done
}

# Makes the programs of this folder; what can't be made is left out.
build() {
    local peer target=${CARGO_TARGET_DIR:-$top/target}
    if [[ -z $corecast ]]; then
        say 'building corecast'
        cargo build --quiet --release --manifest-path "$top/Cargo.toml" || fail 'corecast could not be built'
        corecast=$target/release/corecast
    fi
    [[ -x $corecast ]] || fail "--corecast $corecast is no program"
    for peer in "${selected[@]}"; do
        if ! is_installed "$peer"; then
            leave_out "$peer" "not installed (apt-get install ${packages_of[$peer]:-cargo})"
            continue
        fi
        case $peer in
        bare) "${CC:-cc}" -std=c11 -O2 -o "$scratch/bare" "$here/peers/bare/bare.c" ;;
        classic) (cd "$here/peers/classic" && go build -o "$scratch/classic" .) ;;
        tokio | fastwebsockets)
            cargo build --quiet --release --locked --manifest-path "$here/peers/$peer/Cargo.toml" \
                --target-dir "$target/peers" && cp "$target/peers/release/corecast-peer-$peer" "$scratch/$peer"
            ;;
        esac >"$scratch/build.log" 2>&1 || leave_out "$peer" "could not be built: $(tail -n 3 "$scratch/build.log")"
    done
}

# The first CPU that this process may use is the server's, the second one the client's.
choose_cpus() {
    local list range
    list=$(sed -n 's/^Cpus_allowed_list:\t//p' /proc/self/status)
    local cpus=()
    for range in ${list//,/ }; do
        mapfile -t -O "${#cpus[@]}" cpus < <(seq "${range%-*}" "${range#*-}")
    done
    server_cpu=${cpus[0]}
    client_cpu=${cpus[1]:-$server_cpu}
    [[ $client_cpu != "$server_cpu" ]] || say 'there is one CPU only, so server and client disturb each other'
}

check_descriptors() {
    local needed=$((connections + 200)) limit
    ulimit -Sn "$(ulimit -Hn)"
    limit=$(ulimit -n)
    [[ $limit == unlimited ]] || ((limit >= needed)) ||
        fail "$connections connections need $needed file descriptors, but a process may open $limit; raise the limit" \
            "(ulimit -n $needed) or give fewer --connections"
}

# ---- The servers --------------------------------------------------------------------------------

next_port=21000

# Sets `port` to one that nobody uses; it is below those that the kernel gives to clients.
choose_port() {
    local hex
    while ((next_port < 32000)); do
        port=$((next_port++))
        printf -v hex ':%04X ' "$port"
        grep -Fq "$hex" /proc/net/tcp /proc/net/tcp6 2>/dev/null || return 0
    done
    fail 'no free port from 21000 to 32000'
}

# start PEER APP: starts a server for `hub`, `echo` or `websocket` on its CPU, and waits until it takes connections.
start() {
    local peer=$1 app=$2 command deadline=$((SECONDS + 20))
    choose_port
    command_line "$peer" "$app"
    taskset -c "$server_cpu" "${command[@]}" >"$scratch/server.log" 2>&1 &
    server=$!
    until (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; do
        if ! kill -0 "$server" 2>/dev/null; then
            echo "it did not start: $(tail -n 3 "$scratch/server.log")" >"$scratch/why"
            return 1
        fi
        if ((SECONDS > deadline)); then
            echo "it took no connection on port $port in 20 s: $(tail -n 3 "$scratch/server.log")" >"$scratch/why"
            return 1
        fi
        sleep 0.05
    done
}

# Ends the server: politely at first, with its children in the end.
stop_server() {
    [[ -n $server ]] || return 0
    local children try
    children=$(cat "/proc/$server/task/"*/children 2>/dev/null || true)
    kill -TERM "$server" 2>/dev/null || true
    # A server that drains is told once more.
    for try in {1..50}; do
        kill -0 "$server" 2>/dev/null || break
        ((try != 5)) || kill -TERM "$server" 2>/dev/null || true
        sleep 0.05
    done
    # shellcheck disable=SC2086 # split into words on purpose
    kill -KILL "$server" $children 2>/dev/null || true
    wait "$server" 2>/dev/null || true
    server=''
}

# ---- The measures -------------------------------------------------------------------------------

# measure PEER ROUND NAME ARGUMENT...: one run of the load generator, which adds a line to the results.
measure() {
    local peer=$1 round=$2 name=$3 code=0 framing
    shift 3
    framing=$(framing_of "$peer")
    [[ $name != websocket ]] || framing=ws
    rm -f "$scratch/run.json"
    taskset -c "$client_cpu" "$corecast" load "$@" --quiet --framing "$framing" \
        --target "127.0.0.1:$port" --server-pid "$server" --json "$scratch/run.json" >"$scratch/run.log" 2>&1 &
    load=$!
    # In the background, so that a signal is heeded at once.
    wait "$load" || code=$?
    load=''
    # A run that went wrong still has figures; one that could not be made has none.
    if ! jq -ce --arg peer "$peer" --arg measure "$name" --argjson round "$round" \
        '{peer: $peer, measure: $measure, round: $round, result: .}' "$scratch/run.json" \
        >>"$scratch/results" 2>/dev/null; then
        echo "$name failed (code $code): $(tail -n 3 "$scratch/run.log")" >"$scratch/why"
        return 1
    fi
    if ((code != 0)); then
        say "$peer, $name: $(jq -r '.problems | join("; ")' "$scratch/run.json")"
    fi
}

# One turn of a peer.
turn() {
    local peer=$1 round=$2
    if is_hub "$peer"; then
        turn_of_hub "$peer" "$round" || return 1
    fi
    if can_echo "$peer"; then
        start "$peer" echo || return 1
        measure "$peer" "$round" echo echo --connections "$echo_connections" --message-size "$message_bytes" \
            --duration "$echo_time" || return 1
        stop_server
    fi
    if can_echo_websocket "$peer"; then
        start "$peer" websocket || return 1
        measure "$peer" "$round" websocket echo --connections "$echo_connections" --message-size "$websocket_bytes" \
            --duration "$echo_time" || return 1
        stop_server
    fi
}

# What subscribers see.
turn_of_hub() {
    local peer=$1 round=$2
    start "$peer" hub || return 1
    measure "$peer" "$round" memory idle --connections "$connections" --duration "$idle_time" || return 1
    measure "$peer" "$round" fanout fanout --connections "$connections" --message-size "$message_bytes" \
        --publish-rate "$fanout_rate" --duration "$fanout_time" || return 1
    measure "$peer" "$round" burst fanout --connections "$connections" --message-size "$message_bytes" \
        --publish-rate "$burst_rate" --duration "$burst_time" --burst "$burst" || return 1
    stop_server
}

# ---- The result ---------------------------------------------------------------------------------

# All that is known, as one JSON object.
summary() {
    local peer
    for peer in "${selected[@]}"; do
        if [[ -n ${left_out[$peer]:-} ]]; then
            jq -n --arg name "$peer" --arg reason "${left_out[$peer]}" '{$name, left_out: $reason}'
        else
            jq -n --arg name "$peer" --arg version "$(version_of "$peer")" --arg settings "$(settings_of "$peer")" \
                '{$name, $version, $settings}'
        fi
    done >"$scratch/servers"
    jq -n --slurpfile servers "$scratch/servers" --slurpfile results "$scratch/results" \
        --argjson connections "$connections" --argjson rounds "$rounds" --argjson message_bytes "$message_bytes" \
        --argjson burst "$burst" --argjson websocket_bytes "$websocket_bytes" --argjson echo_connections "$echo_connections" --arg kernel "$(uname -r)" \
        --arg publish_per_s "$fanout_rate" --arg server_cpu "$server_cpu" --arg client_cpu "$client_cpu" \
        --from-file "$here/peers/summary.jq"
}

# draw SUMMARY: the figures as a picture.
draw() {
    jq --raw-output --from-file "$here/peers/rows.jq" "$1" >"$scratch/rows"
    gnuplot -e "rows='$scratch/rows'; connections=$connections" "$here/peers/plot.gp"
}

main() {
    local tool peer round
    for tool in jq taskset; do
        command -v "$tool" >/dev/null || fail "$tool is not installed (apt-get install jq util-linux)"
    done
    # Before the work, so that a bad path does not cost it.
    [[ -z $json ]] || : >"$json" || fail "--json $json can't be written"
    if [[ -n $svg ]]; then
        command -v gnuplot >/dev/null || fail "--svg needs gnuplot, which is not installed (apt-get install gnuplot-nox)"
        : >"$svg" || fail "--svg $svg can't be written"
    fi
    install_missing
    build
    choose_cpus
    check_descriptors
    : >"$scratch/results"
    for ((round = 1; round <= rounds; round++)); do
        for peer in "${selected[@]}"; do
            [[ -z ${left_out[$peer]:-} ]] || continue
            say "round $round of $rounds: $peer"
            turn "$peer" "$round" && continue
            leave_out "$peer" "$(cat "$scratch/why")"
            failures=$((failures + 1))
            stop_server
        done
    done
    summary >"$scratch/summary"
    [[ -z $json ]] || cp "$scratch/summary" "$json"
    [[ -z $svg ]] || draw "$scratch/summary" >"$svg"
    jq --raw-output --from-file "$here/peers/table.jq" "$scratch/summary"
    ((failures == 0)) || fail "$failures of the servers could not be measured"
}

main
