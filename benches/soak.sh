#!/usr/bin/env bash
# Puts a server of its own under everything that wears one out, round after round, and fails on whatever stays behind:
# clients that come and go, clients that stall, publishes from clients and over HTTP, and now and then a whole drain.
# CORECAST_BIN names the program; without it, the release build is made first.

set -uo pipefail
export LC_ALL=C

here=$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")
readonly here

usage() {
    cat <<'TEXT'
usage: soak.sh [--minutes N | --hours N | --smoke] [--connections N] [--rate N] [--memory-allowance MIB]

  --minutes N             how long to go on (default 2); the last round is finished
  --hours N               the same in hours
  --smoke                 two short rounds with few clients and a drain: whether the soak itself works
  --connections N         clients of the part that stalls, and of the part that is published to (default 400 each)
  --rate N                connects per second of those who come and go (default 400)
  --memory-allowance MIB  how far resident memory may be above that after round 2 of the same server (default 24)

One line a round, and a summary. After each round, when its clients are gone, the server must be where it began: file
descriptors, sockets, polls, connections, topics and queues. Every message must be accounted for: matched = delivered + dropped
for a named reason, in the server's counters and in each receipt; and the load generator, which checks every message
that it gets, must be content. A drain must end with exit code 0.

Exit code: 0 all is well, 1 something stayed behind, was lost or broke, 2 wrong usage.
TEXT
}

wrong() {
    echo "soak.sh: $1" >&2
    usage >&2
    exit 2
}

# A whole number from 1 on.
number() {
    [[ $2 =~ ^[1-9][0-9]{0,8}$ ]] || wrong "$1 is '$2'; write a whole number from 1 on"
}

seconds=120
smoke=0
connections=400
rate=400
allowance_mib=24
# A server lives for so many rounds before it is drained and started again. Memory is judged from its second round on.
rounds_a_server=6
part_s=8
# How long the server may take to come to rest.
rest_s=10
drain_s=2
while (($# > 0)); do
    case $1 in
    --minutes | --hours | --connections | --rate | --memory-allowance)
        (($# >= 2)) || wrong "$1 needs a value"
        number "$1" "$2"
        case $1 in
        --minutes) seconds=$(($2 * 60)) ;;
        --hours) seconds=$(($2 * 3600)) ;;
        --connections) connections=$2 ;;
        --rate) rate=$2 ;;
        --memory-allowance) allowance_mib=$2 ;;
        esac
        shift 2
        ;;
    --smoke)
        smoke=1
        shift
        ;;
    --help | -h)
        usage
        exit 0
        ;;
    *) wrong "unknown argument '$1'" ;;
    esac
done
if ((smoke)); then
    seconds=0 connections=40 rate=50 rounds_a_server=1 part_s=1 rest_s=5 drain_s=1
fi
for tool in curl jq; do
    command -v "$tool" >/dev/null || wrong "$tool is not installed, and the soak needs it"
done

# ---- Ends ---------------------------------------------------------------------------------------

scratch=$(mktemp -d)
server=
clients=()

# Nothing is left running, however the script ends.
clean_up() {
    local pid
    for pid in "${clients[@]}" $server; do
        kill -KILL "$pid" 2>/dev/null
    done
    wait 2>/dev/null
    rm -rf "$scratch"
}
trap clean_up EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

failures=0
# Notes what went wrong, with what the server has logged last.
fail() {
    failures=$((failures + 1))
    printf 'FAIL  round %s: %s\n' "$round" "$1" >&2
}

give_up() {
    fail "$1"
    sed 's/^/      | /' "$scratch/server.log" 2>/dev/null | tail -n 20 >&2
    exit 1
}

# ---- The server ---------------------------------------------------------------------------------

program=${CORECAST_BIN:-}
if [[ -z $program ]]; then
    cargo build --release --quiet --manifest-path "$here/../Cargo.toml" || exit 1
    target=$(cargo metadata --format-version 1 --no-deps --manifest-path "$here/../Cargo.toml" | jq -r .target_directory)
    program=$target/release/corecast
fi
[[ -x $program ]] || wrong "$program is no program; CORECAST_BIN names the one to soak"

# On ports that the kernel chooses, so that any number of soaks may run side by side.
start_server() {
    : >"$scratch/server.log"
    "$program" serve --client-publish --drain-time "${drain_s}s" --control 127.0.0.1:0 --report-every 1h \
        --listen line=127.0.0.1:0 --listen length=127.0.0.1:0 --listen http=127.0.0.1:0 \
        >/dev/null 2>"$scratch/server.log" &
    server=$!
    local ready='' step
    for ((step = 0; step < 300; step++)); do
        ready=$(grep -m 1 'ready: ' "$scratch/server.log") && break
        kill -0 "$server" 2>/dev/null || break
        sleep 0.1
    done
    [[ -n $ready ]] || give_up "the server did not become ready"
    local framing
    declare -gA address=()
    for framing in line length http; do
        address[$framing]=$(grep -o "$framing=[0-9.:]*" <<<"$ready" | head -n 1 | cut -d = -f 2)
    done
    control=$(grep -o 'http://[0-9.:]*' <<<"$ready")
    server_rounds=0
    base_kib=0
    # The control plane opens its files with the first calls.
    stats >/dev/null && stats >/dev/null
    base_fds=$(open_fds)
}

# Drains the server while clients are there, and waits for its end.
drain_server() {
    hold_clients line "drain" 50 60s
    local code=0
    kill -TERM "$server"
    wait "$server" || code=$?
    server=
    ((code == 0)) || fail "the drain ended with exit code $code"
    # The clients were told to go, so their own result is of no use; they must have noticed.
    local pid
    for pid in "${clients[@]}"; do
        wait "$pid" 2>/dev/null
    done
    clients=()
    grep -q "BYE drain" "$scratch/drain.log" || fail "clients were not told of the drain: $(tail -n 1 "$scratch/drain.log")"
    drains=$((drains + 1))
}

stats() { curl -sS --max-time 10 "$control/v1/stats"; }

# The server's own sockets and files; calls to the control plane are over by now.
open_fds() { find "/proc/$server/fd" -mindepth 1 2>/dev/null | wc -l; }

# Sockets of clients that the kernel still holds for the server, though no descriptor may lead to them any more. Those
# that only wait out their time (TIME_WAIT, 06) and those that listen (0A) are none.
held_sockets() {
    local port ports=''
    for port in "${address[@]}"; do
        ports+=$(printf ' %04X' "${port##*:}")
    done
    awk -v ports="$ports" 'BEGIN { n = split(ports, list, " "); for (i = 1; i <= n; i++) own[list[i]] = 1 }
        { split($2, local, ":") } local[2] in own && $4 != "06" && $4 != "0A" { held++ } END { print held + 0 }' \
        "/proc/$server/net/tcp"
}

resident_kib() { awk '/^VmRSS:/ { print $2 }' "/proc/$server/status" 2>/dev/null; }

# ---- The parts of a round -----------------------------------------------------------------------

# load NAME ARGUMENT...: a load generator in the background, whose verdict `verdicts` asks for.
load() {
    local name=$1
    shift
    "$program" load "$@" --quiet --json "$scratch/$name.json" >"$scratch/$name.log" 2>&1 &
    clients+=($!)
    names[$!]=$name
}

# hold_clients FRAMING NAME COUNT TIME: subscribers of topic NAME; returns when they are there.
hold_clients() {
    load "$2" idle --framing "$1" --target "${address[$1]}" --topic "$2" --connections "$3" --duration "$4"
    local step
    for ((step = 0; step < 300; step++)); do
        (($(curl -sS --max-time 10 "$control/v1/topics/$2" | jq '.subscribers // 0' 2>/dev/null || echo 0) == $3)) && return
        sleep 0.1
    done
    fail "$3 clients of topic $2 did not come: $(tail -n 1 "$scratch/$2.log")"
}

# Waits for every load generator; each must be content.
verdicts() {
    local pid
    for pid in "${clients[@]}"; do
        wait "$pid" || fail "${names[$pid]}: $(jq -r '.problems | join("; ")' "$scratch/${names[$pid]}.json" 2>/dev/null ||
            tail -n 3 "$scratch/${names[$pid]}.log")"
    done
    clients=()
}

# Publishes over HTTP to $1 subscribers of topic `http`, until the time is up; every receipt must add up.
publish_over_http() {
    local wanted=$1 until=$((SECONDS + part_s)) receipt
    receipts=0
    while ((SECONDS < until)); do
        receipt=$(head -c 2000 /dev/zero | tr '\0' x |
            curl -sS --max-time 10 --data-binary @- "$control/v1/topics/http/messages?receipt=true")
        if ! jq -e --argjson wanted "$wanted" \
            '.matched == $wanted and .matched == .written + .queued + (.dropped | add)' <<<"$receipt" >/dev/null 2>&1; then
            fail "a receipt for $wanted subscribers does not add up: $receipt"
            return
        fi
        receipts=$((receipts + 1))
        sleep 0.05
    done
}

run_round() {
    local framings=(line length ws sse) framing target
    framing=${framings[$((round % 4))]}
    case $framing in
    ws | sse) target=${address[http]} ;;
    *) target=${address[$framing]} ;;
    esac
    hold_clients line http "$connections" "$((part_s + 1))s"
    load churn churn --framing "$framing" --target "$target" --rate "$rate" --connections $((rate * 4)) \
        --stay 100ms-1s --abrupt-percent 30 --publish-rate 20 --duration "${part_s}s"
    # Bursts of large messages: those who stall, and some who don't, miss messages, and are told.
    load stalled fanout --target "${address[line]}" --connections "$connections" --stalled-percent 20 \
        --publish-rate 5 --burst 20 --message-size 8KiB --duration "${part_s}s"
    publish_over_http "$connections"
    verdicts
}

# ---- What must be as before ---------------------------------------------------------------------

# at_rest: whether all clients are gone, from the figures in $now.
at_rest() {
    jq -e '.totals | .connections == 0 and .polls == 0 and .topics == 0 and .queued_messages == 0 and .queued_bytes == 0
        and .publish_queue == 0 and .mesh_backlog == 0' <<<"$now" >/dev/null
}

check_rest() {
    local step fds=0 held listed
    now='{}'
    for ((step = 0; step < rest_s * 10; step++)); do
        now=$(stats)
        fds=$(open_fds)
        at_rest && ((fds <= base_fds)) && break
        sleep 0.1
    done
    at_rest || fail "not at rest after $rest_s s: $(jq -c '.totals | {connections, polls, topics, queued_messages, queued_bytes,
        publish_queue, mesh_backlog}' <<<"$now")"
    ((fds <= base_fds)) || fail "$fds file descriptors are open, $base_fds were open at the start"
    held=$(held_sockets)
    ((held == 0)) || fail "the kernel still holds $held sockets of clients that are gone"
    listed=$(curl -sS --max-time 10 "$control/v1/connections" | jq '.connections | length')
    [[ $listed == 0 ]] || fail "the registry lists $listed connections"
    jq -e '.totals | .matched == .delivered + .queued_messages + (.dropped | add)' <<<"$now" >/dev/null ||
        fail "messages are unaccounted for: $(jq -c '.totals | {matched, delivered, queued_messages, dropped}' <<<"$now")"
    check_memory
}

check_memory() {
    local kib limit
    kib=$(resident_kib)
    resident_mib=$(((kib + 1023) / 1024))
    # The first round fills pools and allocators; what comes after the second must not grow on.
    if ((server_rounds == 2)); then
        base_kib=$kib
    elif ((server_rounds > 2)); then
        limit=$((base_kib + allowance_mib * 1024))
        ((kib <= limit)) || fail "resident memory is $kib KiB, above $base_kib KiB after round 2 and the $allowance_mib MiB allowed"
    fi
}

# ---- Rounds -------------------------------------------------------------------------------------

declare -A names=()
round=0
drains=0
rounds_total=0
receipts_total=0
matched_total=0
dropped_total=0
accepted_total=0
began=$SECONDS
start_server
echo "soaking pid $server for $seconds s: $rate connects/s, $connections stalling or not, $connections over HTTP"
while :; do
    round=$((round + 1))
    server_rounds=$((server_rounds + 1))
    run_round
    check_rest
    kill -0 "$server" 2>/dev/null || give_up "the server has ended by itself"
    rounds_total=$((rounds_total + 1))
    receipts_total=$((receipts_total + receipts))
    read -r accepted matched dropped < <(jq -r '.totals | "\(.accepted) \(.matched) \(.dropped | add)"' <<<"$now")
    printf 'round %-4d %5d s  accepted %-8s matched %-10s dropped %-9s receipts %-4s fds %-3s memory %s MiB  %s\n' \
        "$round" $((SECONDS - began)) "$accepted" "$matched" "$dropped" "$receipts" "$(open_fds)" "$resident_mib" \
        "$( ((failures == 0)) && echo ok || echo FAILED)"
    ((failures == 0)) || break
    is_last=$((SECONDS - began >= seconds && round >= 2))
    if ((is_last || server_rounds >= rounds_a_server)); then
        accepted_total=$((accepted_total + accepted))
        matched_total=$((matched_total + matched))
        dropped_total=$((dropped_total + dropped))
        drain_server
        ((failures == 0)) || break
        ((is_last)) && break
        start_server
    fi
done

printf '%s rounds in %s s, %s drains: %s connections, %s messages matched, %s dropped by named reasons, %s receipts\n' \
    "$rounds_total" $((SECONDS - began)) "$drains" "$accepted_total" "$matched_total" "$dropped_total" "$receipts_total"
if ((failures > 0)); then
    echo "result: FAILED, $failures times"
    exit 1
fi
echo "result: all well"
