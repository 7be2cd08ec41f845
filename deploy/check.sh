#!/usr/bin/env bash
# Checks what is in this folder, and every shell script of the repository. Changes nothing on this machine: tune.sh is
# tried on a made-up tree. One line a check; the output of a check is shown only if it fails.
# CORECAST_BIN names the program to try under the filters; otherwise it is looked for where cargo puts it.

# No -e out here: all checks run, whatever the first one says.
set -uo pipefail
export LC_ALL=C

here=$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")
top=$(dirname "$here")
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
chmod 755 "$scratch"
failed=0

# A check is a function. It passes if each of its commands does (errexit), and skips itself with `skip WHY`.
readonly skipped=77
check() {
    local name=$1 code
    shift
    (
        set -e
        "$@"
    ) >"$scratch/log" 2>&1
    code=$?
    case $code in
    0) echo "ok    $name" ;;
    "$skipped") echo "skip  $name: $(tail -n 1 "$scratch/log")" ;;
    *)
        echo "FAIL  $name"
        sed 's/^/      | /' "$scratch/log"
        failed=$((failed + 1))
        ;;
    esac
}

skip() {
    echo "$1"
    exit "$skipped"
}

needs() { command -v "$1" >/dev/null || skip "$1 is not installed"; }

# expect CODE COMMAND...: the command must end with CODE. Its output is kept in $scratch/out.
expect() {
    local wanted=$1 code=0
    shift
    "$@" >"$scratch/out" 2>&1 || code=$?
    [[ $code == "$wanted" ]] && return
    echo "exit code $code in place of $wanted: $*"
    cat "$scratch/out"
    return 1
}

# says PATTERN: the last command's output has a line like this (an extended regular expression).
says() {
    grep -Eq -- "$1" "$scratch/out" && return
    echo "no line like '$1' in:"
    cat "$scratch/out"
    return 1
}

# no_lines < FILE: fails, and shows them, if there are any.
no_lines() {
    local lines
    lines=$(cat)
    [[ -z $lines ]] && return
    printf 'not expected:\n%s\n' "$lines"
    return 1
}

# ---- Scripts ------------------------------------------------------------------------------------

# Every file of the repository that is named like a shell script or begins like one.
shell_scripts() {
    find "$top" \( -name target -o -name .git -o -name node_modules \) -prune -o -type f -print | while IFS= read -r file; do
        local first=''
        [[ $file == *.rs || $file == *.md ]] && continue
        IFS= read -r first <"$file" || true
        [[ $file == *.sh || $first =~ ^'#!'.*[/\ ](ba|da)?sh ]] && echo "$file"
    done 2>/dev/null
    true
}

scripts_are_clean() {
    needs shellcheck
    local -a files
    mapfile -t files < <(shell_scripts)
    ((${#files[@]} >= 2))
    shellcheck "${files[@]}"
}

python_compiles() {
    needs python3
    python3 -c 'import sys; compile(open(sys.argv[1]).read(), sys.argv[1], "exec")' "$here/seccomp_run.py"
}

# ---- tune.sh ------------------------------------------------------------------------------------

tune() { "$here/tune.sh" "$@" --root "$tree"; }

put() { printf '%s\n' "$2" >"$tree/proc/sys/$1"; }

now() { cat "$tree/proc/sys/$1"; }

# is PATH VALUE: what stands in the tree's /proc/sys/PATH.
is() {
    [[ $(now "$1") == "$2" ]] && return
    echo "$1 is '$(now "$1")' in place of '$2'"
    return 1
}

# A tree like a stock kernel's /proc, low in most and high in one value of each kind.
stock_tree() {
    tree=$scratch/tree
    rm -rf "$tree"
    mkdir -p "$tree"/proc/{self,sys/{fs,kernel,net/{core,ipv4,netfilter}}} "$tree/etc/sysctl.d"
    echo 'MemTotal:       65536000 kB' >"$tree/proc/meminfo"
    printf 'Max open files            1024                 4096                 files     \n' >"$tree/proc/self/limits"
    printf 'Max locked memory         8388608              unlimited            bytes     \n' >>"$tree/proc/self/limits"
    put fs/nr_open 1048576
    put fs/file-max 9223372036854775807
    put net/core/somaxconn 4096
    put net/core/netdev_max_backlog 1000
    put net/ipv4/tcp_max_syn_backlog 2048
    put net/ipv4/tcp_syncookies 2
    put net/ipv4/tcp_abort_on_overflow 1
    put net/ipv4/tcp_mem $'191316\t255088\t9000000'
    put net/ipv4/tcp_rmem $'4096\t131072\t6291456'
    put net/ipv4/tcp_wmem $'1024\t16384\t4194304'
    put net/ipv4/ip_local_port_range $'32768\t60999'
    put net/ipv4/tcp_tw_reuse 2
    put net/netfilter/nf_conntrack_max 262144
    put kernel/io_uring_disabled 2
}

# What revert must bring back: every file's name and bytes.
fingerprint() { (cd "$tree" && find . -type f -exec sha256sum {} + | sort); }

tune_refuses_bad_usage() {
    stock_tree
    local before
    before=$(fingerprint)
    for arguments in '' 'tune' 'check apply' 'apply --connections' 'apply --connections many' 'apply --connections 0' \
        'apply --connections 16000001' 'apply --user a:b' 'apply --fast'; do
        # shellcheck disable=SC2086 # split into words on purpose
        expect 2 tune $arguments
        says '^usage: tune.sh'
    done
    expect 2 "$here/tune.sh" check --root "$scratch/nowhere"
    [[ $(fingerprint) == "$before" ]]
}

tune_asks_for_root() {
    local run=()
    if ((EUID == 0)); then
        needs setpriv
        # A copy, because the repository may be where that user can't look.
        run=(setpriv --reuid 65534 --regid 65534 --clear-groups)
    fi
    cp -r "$here" "$scratch/copy"
    for command in apply persist revert; do
        expect 1 "${run[@]}" "$scratch/copy/tune.sh" "$command"
        says "^tune.sh: $command .*needs root"
    done
}

tune_check_finds_what_is_low() {
    stock_tree
    local before
    before=$(fingerprint)
    expect 1 tune check
    says '^low +net.core.somaxconn +4096 +at least 65535 '
    says '^ok +fs.file-max +9223372036854775807 '
    says '^ok +net.ipv4.tcp_syncookies +2 '
    says '^high +net.ipv4.tcp_rmem '
    says '^differs +kernel.io_uring_disabled +2 +exactly 0 '
    says '^low +soft nofile +1024 '
    says '^low +soft memlock +8192 '
    says '^ok +hard memlock +unlimited '
    [[ $(fingerprint) == "$before" ]]
}

tune_apply_raises_and_never_lowers() {
    stock_tree
    expect 0 tune apply
    says '^set +net.core.somaxconn +4096 -> 65535$'
    is fs/nr_open 1200000
    is fs/file-max 9223372036854775807
    is net/ipv4/tcp_syncookies 2
    is net/ipv4/tcp_abort_on_overflow 0
    is kernel/io_uring_disabled 0
    # Number by number: two raised, the third was better already. `at most` is the same the other way round.
    is net/ipv4/tcp_mem '786432 2097152 9000000'
    is net/ipv4/tcp_wmem '1024 16384 262144'
    # Only with --load-generator.
    is net/ipv4/tcp_tw_reuse 2
    expect 0 tune apply --load-generator
    is net/ipv4/tcp_tw_reuse 1
    is net/ipv4/ip_local_port_range '1024 65535'
}

tune_check_is_content_after_apply() {
    stock_tree
    printf 'Max open files            1200000              1200000              files     \n' >"$tree/proc/self/limits"
    printf 'Max locked memory         unlimited            unlimited            bytes     \n' >>"$tree/proc/self/limits"
    expect 1 tune check
    expect 0 tune apply
    expect 0 tune check
    says '^All is enough'
    expect 1 tune check --connections 2000000
    says '^low +fs.nr_open +1200000 +at least 2400000 '
}

tune_scales_with_connections() {
    stock_tree
    expect 0 tune apply --connections 4000000
    is fs/nr_open 4800000
    # Half of the tree's memory (8192000 pages) is less than four times the template's last number: all three shrink
    # by the same share, and the last one was better already.
    [[ $(getconf PAGESIZE) != 4096 ]] || is net/ipv4/tcp_mem '2048000 5461333 9000000'
    is net/core/somaxconn 65535
    stock_tree
    put fs/nr_open 1
    expect 0 tune apply --connections=5
    is fs/nr_open 12000
}

tune_second_apply_changes_nothing() {
    stock_tree
    expect 0 tune apply
    local before
    before=$(fingerprint)
    expect 0 tune apply
    no_lines < <(grep -E '^set' "$scratch/out")
    [[ $(fingerprint) == "$before" ]]
}

tune_revert_restores_every_byte() {
    stock_tree
    # Low enough that both applies change it: the first value must come back, not the one between.
    put fs/nr_open 1000
    local before
    before=$(fingerprint)
    expect 0 tune apply --connections 20000 --load-generator
    expect 0 tune apply --connections 2000000
    expect 0 tune persist
    [[ $(fingerprint) != "$before" ]]
    expect 0 tune revert
    says '^restored +net.ipv4.tcp_mem +.* -> 191316 255088 9000000$'
    says '^removed .*/etc/sysctl.d/90-corecast.conf$'
    diff <(echo "$before") <(fingerprint)
    expect 0 tune revert
    says '^No sysctl to put back'
}

tune_persist_writes_what_apply_sets() {
    stock_tree
    local sysctls=$tree/etc/sysctl.d/90-corecast.conf limits=$tree/etc/security/limits.d/90-corecast.conf
    expect 0 tune apply --connections 3000000
    expect 0 tune persist --connections 3000000 --user push
    local name value lines=0
    while read -r name _ value; do
        name=${name#-}
        is "${name//.//}" "$value"
        lines=$((lines + 1))
    done < <(grep -E '^-?[a-z]' "$sysctls")
    ((lines >= 12))
    grep -Fxq 'push soft nofile 3600000' "$limits"
    grep -Fxq 'push hard nofile 3600000' "$limits"
    grep -Fxq 'push hard memlock unlimited' "$limits"
    local before
    before=$(fingerprint)
    expect 0 tune persist --connections 3000000 --user push
    [[ $(fingerprint) == "$before" ]]
    echo 'net.core.somaxconn = 128' >"$tree/etc/sysctl.d/99-other.conf"
    expect 0 tune persist --connections 3000000 --user push
    says '^warning .*99-other.conf also sets net.core.somaxconn'
}

tune_persist_locks_nobody_out() {
    stock_tree
    expect 1 tune persist
    says '^FAILED .*above fs.nr_open \(1048576\).*tune.sh apply first'
    [[ ! -e $tree/etc/security/limits.d/90-corecast.conf ]]
}

tune_leaves_files_of_others_alone() {
    stock_tree
    echo 'vm.swappiness = 1' >"$tree/etc/sysctl.d/90-corecast.conf"
    local before
    before=$(fingerprint)
    expect 0 tune apply
    expect 1 tune persist
    says '^FAILED .*90-corecast.conf was not written by tune.sh'
    expect 0 tune revert
    says '^kept .*90-corecast.conf'
    diff <(echo "$before") <(fingerprint)
}

tune_skips_what_is_not_there() {
    stock_tree
    rm -r "$tree/proc/sys/net/netfilter" "$tree/proc/sys/kernel/io_uring_disabled"
    expect 0 tune apply
    says '^skipped +net.netfilter.nf_conntrack_max +not there'
    # A container lacks settings that every kernel has. Then the host is not tuned, and that must show.
    rm "$tree/proc/sys/net/core/netdev_max_backlog"
    put net/core/somaxconn 4096
    expect 1 tune apply
    says '^FAILED +net.core.netdev_max_backlog +not there'
    is net/core/somaxconn 65535
    expect 1 tune check
    says '^\? +net.core.netdev_max_backlog +not there'
    expect 0 tune revert
}

tune_reports_failed_writes_and_goes_on() {
    stock_tree
    # A file of the real /proc that nobody may write, root neither, and that holds a low number.
    local fixed=/proc/sys/kernel/cap_last_cap
    [[ -r $fixed ]] || skip "there is no $fixed"
    ln -sf "$fixed" "$tree/proc/sys/net/core/somaxconn"
    expect 1 tune apply
    says '^FAILED +net.core.somaxconn +[0-9]+ -> 65535: (Permission denied|Read-only file system)$'
    is net/core/netdev_max_backlog 16384
    expect 0 tune revert
    is net/core/netdev_max_backlog 1000
}

tune_revert_stays_in_proc_sys() {
    stock_tree
    local state=$tree/var/lib/corecast/tune.saved
    mkdir -p "${state%/*}" "$tree/proc/etc"
    echo untouched >"$tree/proc/etc/passwd"
    printf '%s\n' '../etc/passwd = root' '/etc/passwd = root' 'net.core.somaxconn = 128' >"$state"
    expect 1 tune revert
    says '^FAILED .*tune.sh did not write'
    is net/core/somaxconn 128
    [[ $(<"$tree/proc/etc/passwd") == untouched ]]
}

# ---- The unit -----------------------------------------------------------------------------------

# unit KEY: the value of the key's last line.
unit() { sed -n "s/^$1=//p" "$here/corecast.service" | tail -n 1; }

# default KEY: a setting's default, from the commented-out line in corecast.toml.
default() { sed -n "s/^# $1 = //p" "$here/corecast.toml" | tr -d '"'; }

unit_is_valid() {
    needs systemd-analyze
    # verify wants to see the program, which need not be installed here.
    local copy=$scratch/corecast.service
    sed "s|^ExecStart=[^ ]*|ExecStart=$(command -v true)|" "$here/corecast.service" >"$copy"
    systemd-analyze verify --man=no "$copy" >"$scratch/out" 2>&1 || { cat "$scratch/out" && return 1; }
    # The back-off keys are newer than Debian 12; the unit says so. Any other remark counts.
    no_lines < <(grep -Ev "Unknown key( name)? '(RestartSteps|RestartMaxDelaySec)'|^$" "$scratch/out")
}

unit_is_sandboxed() {
    needs systemd-analyze
    # The threshold is in tenths: 2.0 of 10, where 10 is an open door.
    systemd-analyze --no-pager security --offline=true --threshold=20 "$here/corecast.service" 2>&1
}

unit_agrees_with_limits_and_settings() {
    local limits=$here/limits.d/90-corecast.conf memlock drain
    [[ $(unit LimitNOFILE) == "$(sed -n 's/^corecast hard nofile //p' "$limits")" ]]
    memlock=$(sed -n 's/^corecast hard memlock //p' "$limits")
    [[ $(unit LimitMEMLOCK) == "$((memlock / 1048576))G" ]]
    drain=$(default drain_time)
    (($(unit TimeoutStopSec) > ${drain%s} + 10))
}

# The service's user does not exist while the service is down, and can't be given a file: systemd hands the token over.
token_can_be_read_by_the_dynamic_user() {
    local key=control_token_file name
    name=$(sed -n 's|^# LoadCredential=\([a-z-]*\):/.*|\1|p' "$here/corecast.service")
    [[ -n $name ]]
    grep -Fq -- "--${key//_/-} %d/$name" "$here/corecast.service"
    grep -Fq "LoadCredential=$name:" "$here/README.md"
    needs systemd-analyze
    # The drop-in that the README shows, in a unit that is verified.
    local copy=$scratch/credential.service
    sed "s|^ExecStart=[^ ]*|ExecStart=$(command -v true)|; s|^# LoadCredential=|LoadCredential=|" "$here/corecast.service" >"$copy"
    systemd-analyze verify --man=no "$copy" >"$scratch/out" 2>&1 || { cat "$scratch/out" && return 1; }
    no_lines < <(grep -Ev "Unknown key( name)? '(RestartSteps|RestartMaxDelaySec)'|^$" "$scratch/out")
}

# ---- Filters ------------------------------------------------------------------------------------

run_under() { python3 "$here/seccomp_run.py" "$@"; }

needs_filters() {
    needs python3
    python3 -c 'import ctypes; ctypes.CDLL("libseccomp.so.2")' 2>/dev/null || skip 'libseccomp2 is not installed'
    [[ $1 != *.service ]] || needs systemd-analyze
}

profile_is_well_formed() {
    needs_filters "$1"
    run_under --check "$1"
}

# filter_holds FILE: a ring can be made, a mount can't.
filter_holds() {
    needs_filters "$1"
    cat >"$scratch/calls.py" <<'PY'
import ctypes, errno, os, sys

libc = ctypes.CDLL(None, use_errno=True)
parameters = ctypes.create_string_buffer(120)
ring = libc.syscall(425, 8, parameters)  # io_uring_setup has this number everywhere
if ring < 0:
    sys.exit(f"io_uring_setup: {os.strerror(ctypes.get_errno())}")
if "free" in sys.argv:
    sys.exit()
def refused(name, result):
    if result != -1 or ctypes.get_errno() != errno.EPERM:
        sys.exit(f"{name} was not refused by the filter: {os.strerror(ctypes.get_errno())}")
refused("mount", libc.mount(b"", b"", b"", 0, None))
# To the user that it is already, which anybody may without a filter.
refused("setuid", libc.setuid(os.getuid()))
# Other families of sockets a unit refuses by RestrictAddressFamilies.
if "netlink" in sys.argv:
    refused("a netlink socket", libc.socket(16, 3, 0))
PY
    python3 "$scratch/calls.py" free || skip 'this kernel lets nobody use io_uring'
    if [[ $1 == *.json ]]; then
        run_under "$1" python3 "$scratch/calls.py" netlink
    else
        run_under "$1" python3 "$scratch/calls.py"
    fi
}

program() {
    local target=${CARGO_TARGET_DIR:-$top/target} file
    for file in "${CORECAST_BIN:-}" "$target/debug/corecast" "$target/release/corecast"; do
        [[ -x $file ]] && "$file" serve --help 2>/dev/null | grep -q -- --listen && echo "$file" && return
    done
    return 1
}

# server_runs_under FILE: the program starts, answers a client, shows its dashboard, publishes and drains under the
# filter, and so does `push`.
server_runs_under() {
    needs_filters "$1"
    local server
    server=$(program) || skip 'there is no program yet; cargo build makes it'
    cat >"$scratch/client.py" <<'PY'
import signal, socket, subprocess, sys, time, urllib.request

with socket.socket() as probe:
    probe.bind(("127.0.0.1", 0))
    port = probe.getsockname()[1]
with socket.socket() as probe:
    probe.bind(("127.0.0.1", 0))
    control = f"127.0.0.1:{probe.getsockname()[1]}"
flags = ["serve", "--listen", f"line=127.0.0.1:{port}", "--control", control, "--drain-time", "1s"]
server = subprocess.Popen(sys.argv[1:] + flags)
try:
    deadline = time.monotonic() + 20
    while True:
        try:
            client = socket.create_connection(("127.0.0.1", port), timeout=5)
            break
        except OSError as error:
            if server.poll() is not None or time.monotonic() > deadline:
                sys.exit(f"no answer on port {port}: {error}")
            time.sleep(0.02)
    client.sendall(b"PING corecast\n")
    answer = client.makefile("rb").readline()
    if answer != b"PONG corecast\n":
        sys.exit(f"the server answered {answer!r}")
    for path in ["/", "/metrics", "/v1/connections"]:
        with urllib.request.urlopen(f"http://{control}{path}", timeout=20) as response:
            response.read()
    push = subprocess.run(sys.argv[1:] + ["push", "--all", "hello", "--control", f"http://{control}"])
    if push.returncode != 0:
        sys.exit(f"push ended with {push.returncode}")
    server.send_signal(signal.SIGTERM)
    if server.wait(timeout=20) != 0:
        sys.exit(f"the server ended with {server.returncode}")
finally:
    server.kill()
PY
    RUST_BACKTRACE=0 NO_COLOR=1 python3 "$scratch/client.py" python3 "$here/seccomp_run.py" "$1" "$server"
}

# ---- The image ----------------------------------------------------------------------------------

image_agrees_with_settings() {
    local file=$here/Dockerfile ports
    # The port of each address, in the order of the settings.
    ports=$(default listen | grep -oE ':[0-9]+' | tr -d ':' | paste -sd ' ')
    grep -Fxq "EXPOSE $ports" "$file"
    grep -Fxq 'STOPSIGNAL SIGTERM' "$file"
    # No image without a version, and not root in the end.
    no_lines < <(grep -E '^ARG [A-Z]+_IMAGE=' "$file" | grep -Ev '=[a-z]+:[0-9]+\.[0-9]+')
    [[ $(grep '^USER ' "$file" | tail -n 1) =~ ^'USER '[1-9][0-9]*:[1-9] ]]
    # What is copied from the repository must get past the ignore file.
    local from
    while read -r from; do
        grep -Fxq "!$from" "$file.dockerignore" || { echo "$from is ignored" && return 1; }
        [[ -e $top/$from ]]
    done < <(sed -nE 's/^COPY ([a-z][^ ]*) .*/\1/p' "$file")
}

# ---- Prometheus and Grafana ---------------------------------------------------------------------

# Whether the metrics that these files name exist, the tests of the program check.

# Run in the folder, because the files name each other.
prom() { (cd "$here/prometheus" && promtool "$@"); }

scrape_config_is_valid() {
    needs promtool
    prom check config --syntax-only scrape.yml
}

alert_rules_are_valid() {
    needs promtool
    prom check rules alerts.yml
}

alert_rules_fire_where_they_should() {
    needs promtool
    prom test rules alerts_test.yml
}

# Each rule has a test in which it fires, and says what to do.
alert_rules_are_complete() {
    local rules=$here/prometheus/alerts.yml tests=$here/prometheus/alerts_test.yml name key
    local -a names
    mapfile -t names < <(sed -n 's/^ *- alert: //p' "$rules")
    ((${#names[@]} >= 15))
    for name in "${names[@]}"; do
        grep -q "^ *- alertname: $name\$" "$tests" || { echo "no test in which $name fires" && return 1; }
    done
    for key in 'severity: \(page\|ticket\)' 'summary: ' 'description: ' 'action: '; do
        [[ $(grep -c "$key" "$rules") -ge ${#names[@]} ]] || { echo "a rule lacks: $key" && return 1; }
    done
}

dashboard_is_well_formed() {
    needs python3
    python3 - "$here/grafana/dashboard.json" <<'PY'
import json, sys

panels = json.load(open(sys.argv[1]))["panels"]
ids = [panel["id"] for panel in panels]
assert len(ids) == len(set(ids)), "two panels have the same id"
taken = set()
for panel in panels:
    at = panel["gridPos"]
    cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
    assert not cells & taken and at["x"] + at["w"] <= 24, f"{panel['title']} lies over another panel or sticks out"
    taken |= cells
    assert panel["type"] == "row" or panel["targets"] and panel["description"], f"{panel['title']} is empty"
PY
}

# Every query of the dashboard, as a rule, so that promtool reads it.
dashboard_queries_are_valid() {
    needs promtool
    needs python3
    python3 - "$here/grafana/dashboard.json" >"$scratch/queries.yml" <<'PY'
import json, sys

board = json.load(open(sys.argv[1]))
queries = [target["expr"] for panel in board["panels"] for target in panel.get("targets", [])]
queries += [note["expr"] for note in board["annotations"]["list"]]
queries = [query.replace("$__rate_interval", "1m").replace("$instance", ".*") for query in queries]
rules = [{"record": f"query:{number}", "expr": query} for number, query in enumerate(queries)]
json.dump({"groups": [{"name": "dashboard", "rules": rules}]}, sys.stdout)
PY
    promtool check rules "$scratch/queries.yml"
}

check 'shell scripts pass shellcheck' scripts_are_clean
check 'seccomp_run.py compiles' python_compiles
check 'tune.sh: wrong usage exits with 2 and changes nothing' tune_refuses_bad_usage
check 'tune.sh: asks for root' tune_asks_for_root
check 'tune.sh: check finds what is low, and changes nothing' tune_check_finds_what_is_low
check 'tune.sh: apply raises, and never takes away what is better' tune_apply_raises_and_never_lowers
check 'tune.sh: check is content after apply' tune_check_is_content_after_apply
check 'tune.sh: values scale with --connections' tune_scales_with_connections
check 'tune.sh: a second apply changes nothing' tune_second_apply_changes_nothing
check 'tune.sh: revert restores every byte' tune_revert_restores_every_byte
check 'tune.sh: persist writes what apply sets' tune_persist_writes_what_apply_sets
check 'tune.sh: persist locks nobody out' tune_persist_locks_nobody_out
check 'tune.sh: leaves files of others alone' tune_leaves_files_of_others_alone
check 'tune.sh: skips what is not there' tune_skips_what_is_not_there
check 'tune.sh: reports failed writes and goes on' tune_reports_failed_writes_and_goes_on
check 'tune.sh: revert writes nowhere but in /proc/sys' tune_revert_stays_in_proc_sys
check 'corecast.service: systemd-analyze verify' unit_is_valid
check 'corecast.service: systemd-analyze security' unit_is_sandboxed
check 'corecast.service: limits and drain time agree with the other files' unit_agrees_with_limits_and_settings
check 'corecast.service: the token reaches the dynamic user' token_can_be_read_by_the_dynamic_user
check 'seccomp.json: well formed, nothing missing, nothing dangerous' profile_is_well_formed "$here/seccomp.json"
check 'seccomp.json: the kernel takes it; a ring is allowed, a mount, another user or netlink is not' filter_holds "$here/seccomp.json"
check 'seccomp.json: the server runs under it' server_runs_under "$here/seccomp.json"
check 'corecast.service: its filter allows a ring, no mount and no other user' filter_holds "$here/corecast.service"
check 'corecast.service: the server runs under its filter' server_runs_under "$here/corecast.service"
check 'Dockerfile: agrees with the settings' image_agrees_with_settings
check 'prometheus: the scrape config is valid' scrape_config_is_valid
check 'prometheus: the alert rules are valid' alert_rules_are_valid
check 'prometheus: each alert fires where it should, and a healthy server is quiet' alert_rules_fire_where_they_should
check 'prometheus: each alert has a test, a severity and something to do' alert_rules_are_complete
check 'grafana: the dashboard is well formed' dashboard_is_well_formed
check 'grafana: Prometheus understands the queries of the dashboard' dashboard_queries_are_valid

if ((failed > 0)); then
    echo "$failed failed" >&2
    exit 1
fi
