#!/usr/bin/env bash
# A million connections on an ordinary machine, without special rights.
#
# A process may open as many files as its hard limit says, and only root can lift that. So server and clients run in a
# guest of their own, a small Linux under qemu, where everything is allowed. Without /dev/kvm its processors are
# emulated: some 7 to 20 times slower, so times say little there, but memory is what it is, byte for byte.

set -euo pipefail
export LC_ALL=C
umask 022

here=$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")
top=$(dirname "$here")
readonly here top

# The goals: private bytes of the server for a connection at the last step, and how far the CPU time of a delivered
# message may stray up and down between the steps, in percent.
readonly bytes_max=1024
readonly spread_max=10

# Memory of the guest: its system, and both ends of each connection with a message to all under way.
readonly base_mb=1200
readonly bytes_a_connection=15000
# What qemu itself needs beside the guest's memory.
readonly qemu_mb=700

readonly guest_cpus=2
readonly kernel_package=linux-image-cloud-amd64

usage() {
    cat <<TEXT
usage: million.sh [--connections N | --steps N,N...] [--memory MB] [--timeout TIME] [--out DIR] [--messages N]
       million.sh --check

Boots a small Linux under qemu, runs \`corecast serve\` in it and climbs with \`corecast load ramp\` to a million
connections. Shows what happens, and leaves the figures as JSON and as a picture. Needs no root; what is missing
(qemu, a kernel, busybox) is downloaded from Debian's archive and unpacked below DIR, not installed.

  --connections N   connections at the last step, with k and M for thousands and millions (default 1M); the
                    steps are a tenth, a quarter, a half and all of them
  --steps N,N...    the steps themselves, rising
  --memory MB       memory of the guest (default: what the connections need, 15 KB each)
  --timeout TIME    when to give up, as \`timeout\` takes it (default 60m)
  --messages N      messages to all at each step, of which the median counts (default 3)
  --out DIR         where the results go, million.json and million.svg (default target/million)
  --no-build        take the program that target/release already has
  --check           tell whether this machine could do it, and what is missing; builds and downloads nothing

Exit code: 0 every message arrived, nothing was left behind and the goal for memory was met; 1 not so; 2 wrong
usage. The goal for CPU time can only warn: whatever else runs on the machine has a part in it.
A run to 20k takes about a minute, one to a million half an hour if the processors are emulated.
TEXT
}

bad_usage() {
    printf 'million.sh: %s\n\n' "$1" >&2
    usage >&2
    exit 2
}

say() { printf 'million: %s\n' "$*"; }

die() {
    printf 'million.sh: %s\n' "$*" >&2
    exit 1
}

# ---- Arguments ----------------------------------------------------------------------------------

# number TEXT: with its suffix resolved.
number() {
    local digits=${1%[kKM]} unit=1
    case $1 in
    *[kK]) unit=1000 ;;
    *M) unit=1000000 ;;
    esac
    [[ $digits =~ ^[0-9]{1,8}$ ]] || return 1
    echo $((10#$digits * unit))
}

connections=
steps=
memory=
limit=60m
messages=3
out=
build=true
check_only=false

while (($# > 0)); do
    case $1 in
    --*=*) set -- "${1%%=*}" "${1#*=}" "${@:2}" ;;
    esac
    case $1 in
    --connections | --steps | --memory | --timeout | --messages | --out)
        [[ -n ${2:-} ]] || bad_usage "$1 needs a value"
        case $1 in
        --connections) connections=$2 ;;
        --steps) steps=$2 ;;
        --memory) memory=$2 ;;
        --timeout) limit=$2 ;;
        --messages) messages=$2 ;;
        --out) out=$2 ;;
        esac
        shift 2
        ;;
    --no-build)
        build=false
        shift
        ;;
    --check)
        check_only=true
        shift
        ;;
    -h | --help)
        usage
        exit 0
        ;;
    *) bad_usage "what is $1?" ;;
    esac
done

[[ -z $connections || -z $steps ]] || bad_usage 'give --connections or --steps, not both'
if [[ -n $steps ]]; then
    last=0
    for step in ${steps//,/ }; do
        step=$(number "$step") || bad_usage "--steps $steps: write numbers as in 100k,500k,1M"
        ((step > last)) || bad_usage "--steps $steps: they must rise"
        last=$step
    done
    connections=$last
else
    asked=${connections:-1M}
    connections=$(number "$asked") || bad_usage "--connections $asked: write a number as in 20k or 1M"
    steps=$((connections / 10)),$((connections / 4)),$((connections / 2)),$connections
fi
first=${steps%%,*}
(($(number "$first") >= 100)) || bad_usage "the first step is $first; it must be 100 at least, so --connections 1000"
((connections <= 8000000)) || bad_usage "$connections connections; the addresses of the guest reach for 8M"
[[ $messages =~ ^[1-9][0-9]?$ ]] || bad_usage "--messages $messages; it must be from 1 to 99"
[[ $limit =~ ^[0-9]+(\.[0-9]+)?[smhd]?$ ]] || bad_usage "--timeout $limit; write 90s, 60m or 2h"
memory=${memory:-$((base_mb + connections * bytes_a_connection / 1000000))}
[[ $memory =~ ^[1-9][0-9]{2,6}$ ]] || bad_usage "--memory $memory; write megabytes, as in 16000"

target=$(readlink -m "${CARGO_TARGET_DIR:-$top/target}")
out=$(readlink -m "${out:-$target/million}")

# ---- What this machine must have ----------------------------------------------------------------

missing=()

available_mb() { awk '/^MemAvailable:/ { print int($2 / 1024) }' /proc/meminfo; }

look_around() {
    local free
    [[ $(uname -s) == Linux ]] || missing+=('Linux')
    [[ $(uname -m) == x86_64 ]] || missing+=("an x86-64 machine (this is $(uname -m)): the guest runs this machine's programs")
    for tool in awk base64 gzip ldd readlink tar timeout; do
        command -v "$tool" >/dev/null || missing+=("the program $tool")
    done
    if ! has_all_packages; then
        for tool in apt-get dpkg-deb; do
            command -v "$tool" >/dev/null || missing+=("the program $tool, to get qemu, a kernel and busybox from Debian")
        done
    fi
    $build && { command -v cargo >/dev/null || missing+=('cargo, to build the program'); }
    free=$(available_mb)
    if ((free < memory + qemu_mb)); then
        missing+=("memory: $((memory + qemu_mb)) MB for the guest and qemu, but $free MB are available; end something, or give fewer --connections")
    fi
}

# ---- Tools from Debian --------------------------------------------------------------------------

readonly tools=$out/tools

# Where the unpacked kernel lies; nothing if it does not.
kernel() { find "$tools/boot" -name 'vmlinuz-*' 2>/dev/null | sort -V | tail -n 1; }

busybox() { find "$tools" -path '*bin/busybox' -type f 2>/dev/null | head -n 1; }

qemu() {
    command -v qemu-system-x86_64 || find "$tools/usr/bin" -name qemu-system-x86_64 2>/dev/null
}

has_all_packages() { [[ -n $(kernel) && -n $(busybox) && -n $(qemu) ]]; }

# unpack PACKAGE...: downloads them in the version that apt would install, and unpacks them.
unpack() {
    local deb
    mkdir -p "$tools/debs"
    say "downloading $*"
    (cd "$tools/debs" && apt-get -qq -o APT::Sandbox::User=root download "$@") ||
        die "cannot download $* from Debian's archive; if the lists of packages are old, \`apt-get update\` as root helps"
    for deb in "$tools"/debs/*.deb; do
        dpkg-deb -x "$deb" "$tools" || die "cannot unpack $deb; remove $tools and try again"
        rm "$deb"
    done
}

# depends PACKAGE: the packages that installing it would add, itself among them.
added_with() {
    apt-get -qq -o Debug::NoLocking=true --no-install-recommends --print-uris install "$1" |
        awk -F "'" '/\.deb/ { print $3 }' | awk '{ sub(/_.*/, "", $1); print $1 }'
}

get_tools() {
    local package
    local -a packages
    if [[ -z $(kernel) ]]; then
        # The package of that name only points to the newest kernel.
        package=$(apt-cache depends "$kernel_package" | awk '/Depends: linux-image-/ { print $2; exit }')
        [[ -n $package ]] || die "apt knows no $kernel_package; this needs the lists of a Debian for x86-64 (\`apt-get update\`)"
        unpack "$package"
    fi
    [[ -n $(busybox) ]] || unpack busybox-static
    if [[ -z $(qemu) ]]; then
        mapfile -t packages < <(added_with qemu-system-x86)
        ((${#packages[@]} > 0)) || die 'apt does not tell what qemu-system-x86 needs; install it as root'
        unpack "${packages[@]}"
    fi
}

# ---- The guest ----------------------------------------------------------------------------------

# The settings that deploy/tune.sh finds right, as lines KEY=VALUE. It is a bash script with more needs than a guest
# without a system can meet, so it works out here, on a made-up tree, what the guest then sets. Both ends of each
# connection are in that one machine, hence twice the number.
tuned() {
    local tree=$work/tree
    mkdir -p "$tree"/proc/{self,sys/{fs,kernel,net/{core,ipv4,netfilter}}} "$tree"/etc/{sysctl.d,security/limits.d}
    echo "MemTotal: $((memory * 1024)) kB" >"$tree/proc/meminfo"
    printf 'Max open files 1024 4096 files\n' >"$tree/proc/self/limits"
    "$top/deploy/tune.sh" persist --connections $((connections * 2)) --load-generator --root "$tree" >"$work/tune.log" 2>&1 ||
        true
    sed -n 's/^-\{0,1\}\([a-z][a-z0-9_.-]*\) *= */\1=/p' "$tree/etc/sysctl.d/90-corecast.conf" 2>/dev/null
}

# The guest's first program. What it says on its first serial line is shown, on the second one it hands out results.
write_init() {
    cat <<'INIT'
#!/bin/busybox sh
/bin/busybox --install -s /bin
mkdir -p /proc /sys /dev /tmp
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
exec </dev/null >/dev/ttyS0 2>&1
echo 3 >/proc/sys/kernel/printk
. /settings

ip link set lo up
while IFS='=' read -r key value; do
    file=/proc/sys/$(echo "$key" | tr . /)
    # Optional settings that this kernel lacks are not missed.
    [ -e "$file" ] || continue
    echo "$value" >"$file" || echo "init: cannot set $key to $value"
done </tuned
ulimit -n "$(cat /proc/sys/fs/nr_open)" || echo 'init: cannot raise the limit of open files'
ulimit -l unlimited || echo 'init: cannot lift the limit of locked memory'

echo "init: Linux $(uname -r), $(nproc) processors, $(awk '/^MemTotal/ { print int($2 / 1024) }' /proc/meminfo) MB"
# Both processors are the server's as well as the clients': two shards show what crosses between shards too. A silent
# client is no dead one here, and a million keepalive probes or pings every half minute would be the load that is measured.
corecast serve --listen line=127.0.0.1:8888 --control 127.0.0.1:8081 --shards 2 --client-publish \
    --max-connections $((connections + 1000)) --read-timeout 0 --keepalive 0 --write-timeout 10m \
    --report-every 0 2>/tmp/server.log &
server=$!
tries=0
until grep -q 'ready: ' /tmp/server.log; do
    sleep 1
    tries=$((tries + 1))
    if [ "$tries" -gt 120 ] || ! kill -0 "$server"; then
        echo 'init: the server did not start'
        break
    fi
done
sed 's/^/server: /' /tmp/server.log

(corecast load ramp --target 127.0.0.1:8888 --control 127.0.0.1:8081 --server-pid "$server" --steps "$steps" \
    --messages "$messages" --settle 5s --patience 10m --ping-every 0 \
    --bytes-max "$bytes_max" --spread-max "$spread_max" --json /tmp/million.json --svg /tmp/million.svg 2>&1
    echo $? >/tmp/status) | tee /tmp/ramp.log
tail -n 20 /tmp/server.log | sed '1,/ready: /d; s/^/server: /'
dmesg | grep -iE 'out of memory|oom-kill|orphaned|hung|stall' | tail -n 5

stty raw -F /dev/ttyS1
cd /tmp
tar c status million.json million.svg ramp.log server.log | base64 >/dev/ttyS1
echo end >/dev/ttyS1
sync
sleep 1
poweroff -f
INIT
}

# file PATH [NAME]: copies a file into the guest, under its own name or another.
file() {
    mkdir -p "$root$(dirname "${2:-$1}")"
    cp -L "$1" "$root${2:-$1}"
}

make_initrd() {
    local library
    root=$work/root
    mkdir -p "$root"/{bin,dev,proc,sys,tmp}
    file "$(busybox)" /bin/busybox
    # Without its debug information: the initrd lies in the guest's memory.
    file "$target/release/corecast" /bin/corecast
    if command -v strip >/dev/null; then
        strip "$root/bin/corecast"
    fi
    while IFS= read -r library; do
        file "$library"
    done < <(ldd "$target/release/corecast" | grep -o '/[^ ]*')
    write_init >"$root/init"
    chmod +x "$root/init"
    tuned >"$root/tuned"
    [[ -s $root/tuned ]] || die "deploy/tune.sh told no settings: $(tail -n 1 "$work/tune.log")"
    printf '%s=%s\n' connections "$connections" steps "$steps" messages "$messages" \
        bytes_max "$bytes_max" spread_max "$spread_max" >"$root/settings"
    (cd "$root" && find . | "$(busybox)" cpio -o -H newc 2>/dev/null | gzip -1) >"$work/initrd"
}

# Whether qemu can run a guest on the processors themselves.
has_kvm() {
    [[ -r /dev/kvm && -w /dev/kvm ]] || return 1
    grep -qwE 'vmx|svm' /proc/cpuinfo || return 1
    timeout 10 "$(qemu)" -L "$tools/usr/share/qemu" -L "$tools/usr/share/seabios" -accel kvm -display none -S \
        -monitor stdio <<<quit >/dev/null 2>&1
}

boot() {
    local accel=tcg,thread=multi code=0
    has_kvm && accel=kvm
    say "booting a guest with $memory MB and $guest_cpus processors ($accel)"
    LD_LIBRARY_PATH=${LD_LIBRARY_PATH:-}:$tools/usr/lib/x86_64-linux-gnu:$tools/lib/x86_64-linux-gnu \
        timeout --kill-after=10 "$limit" "$(qemu)" \
        -L "$tools/usr/share/qemu" -L "$tools/usr/share/seabios" \
        -accel "$accel" -cpu max -m "$memory" -smp "$guest_cpus" -no-reboot -nodefaults -display none -net none \
        -kernel "$(kernel)" -initrd "$work/initrd" \
        -append 'console=ttyS0 quiet panic=-1 mitigations=off nowatchdog rcupdate.rcu_cpu_stall_suppress=1' \
        -serial "file:$work/console" -serial "file:$work/handed-out" >"$work/qemu.log" 2>&1 &
    guest=$!
    touch "$work/console"
    tail -n +1 -f --pid="$guest" "$work/console" 2>/dev/null | sed -u 's/\r$//; s/^/guest: /' &
    wait "$guest" || code=$?
    guest=
    # The last lines come with a delay.
    wait
    case $code in
    0) ;;
    124 | 137) die "the guest was not done within $limit; give a longer --timeout or fewer --connections" ;;
    *) die "qemu ended with $code: $(tail -n 1 "$work/qemu.log")" ;;
    esac
}

# ---- Results ------------------------------------------------------------------------------------

# figure KEY: its last value in the result.
figure() { sed -n "s/^ *\"$1\": \([0-9.]*\),\{0,1\}$/\1/p" "$out/million.json" | tail -n 1; }

# goal TEXT VALUE LIMIT UNIT MISSED: MISSED is what it is called if it was not met.
goal() {
    local verdict='not measured'
    if [[ -n $2 ]]; then
        verdict=$(awk -v value="$2" -v limit="$3" -v missed="$5" 'BEGIN { print (value <= limit) ? "met" : missed }')
    fi
    printf 'goal: %-52s %10s, at most %s: %s\n' "$1" "${2:-?} $4" "$3 $4" "$verdict"
}

hand_out() {
    local status
    tr -d '\r' <"$work/handed-out" | grep -q '^end$' ||
        die "the guest ended without handing out its results; its last words: $(tail -n 3 "$work/console" | tr -d '\r')"
    mkdir -p "$work/results"
    tr -d '\r' <"$work/handed-out" | sed '/^end$/d' | base64 -d | tar x -C "$work/results" ||
        die 'the results came out of the guest damaged; try again'
    for name in million.json million.svg ramp.log server.log; do
        cp "$work/results/$name" "$out/$name"
    done
    status=$(cat "$work/results/status")
    goal "private bytes of the server, a connection of $connections" "$(figure private_bytes_per_connection)" "$bytes_max" B \
        'not met'
    goal 'CPU time of a delivered message, ± between the steps' "$(figure cost_spread_percent)" "$spread_max" % \
        'not met, which is a warning; with nothing else running it may be'
    say "results: $out/million.json and $out/million.svg"
    if [[ $status != 0 ]]; then
        die "the ramp ended with $status; the lines above tell why"
    fi
    say 'all well'
}

# ---- Run ----------------------------------------------------------------------------------------

look_around
if ((${#missing[@]} > 0)); then
    printf 'million.sh: this machine lacks %s\n' "${missing[@]}" >&2
    exit 1
fi
if $check_only; then
    say "this machine can do it: $connections connections in a guest with $memory MB"
    has_all_packages || say "qemu, a kernel or busybox would be downloaded into $tools"
    exit 0
fi

mkdir -p "$out" || die "cannot write to $out; give another --out"
work=$(mktemp -d "$out/run.XXXXXX")
guest=
clean_up() {
    # timeout passes the signal on to qemu.
    [[ -z $guest ]] || kill "$guest" 2>/dev/null || true
    wait
    rm -rf "$work"
}
trap clean_up EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

get_tools
if $build; then
    say 'building the program'
    (cd "$top" && cargo build --release --quiet)
fi
[[ -x $target/release/corecast ]] || die "$target/release/corecast is missing; leave --no-build out"
make_initrd
boot
hand_out
