# shellcheck shell=bash
# The servers that benches/peers.sh compares: what they need, who they are, and how they are started. Each of them gets
# what makes it as fast and as small as it can be for this.
# shellcheck disable=SC2034,SC2154 # variables come from there, and go there

readonly all=(bare corecast tokio fastwebsockets classic nats redis mosquitto nchan)
readonly nchan_module=/usr/lib/nginx/modules/ngx_nchan_module.so

declare -A command_of=(
    [bare]=${CC:-cc} [tokio]=cargo [classic]=go [nats]=nats-server [redis]=redis-server [mosquitto]=mosquitto [nchan]=nginx
    [fastwebsockets]=cargo
)
declare -A packages_of=(
    [bare]='gcc libc6-dev' [tokio]='' [classic]=golang-go [nats]=nats-server [redis]=redis-server [mosquitto]=mosquitto
    [nchan]='nginx libnginx-mod-nchan' [fastwebsockets]=''
)

is_installed() {
    [[ $1 == corecast ]] && return
    command -v "${command_of[$1]}" >/dev/null && [[ $1 != nchan || -e $nchan_module ]]
}

framing_of() {
    case $1 in
    nats | redis | nchan) echo "$1" ;;
    mosquitto) echo mqtt ;;
    *) echo line ;;
    esac
}

# Whether it has topics; what has none is measured by echoes alone.
is_hub() { [[ $1 != fastwebsockets ]]; }

# Whether it sends back what comes over a WebSocket.
can_echo_websocket() { [[ " corecast fastwebsockets " == *" $1 "* ]]; }

can_echo() { [[ " bare corecast tokio classic redis " == *" $1 "* ]]; }

version_of() {
    case $1 in
    bare) echo "C, $("${CC:-cc}" -dumpfullversion)" ;;
    corecast) "$corecast" --version | cut -d ' ' -f 2 ;;
    tokio) echo "tokio $(sed -n '/^name = "tokio"$/{n;s/version = "\(.*\)"/\1/p}' "$here/peers/tokio/Cargo.lock")" ;;
    fastwebsockets) sed -n '/^name = "fastwebsockets"$/{n;s/version = "\(.*\)"/\1/p}' "$here/peers/fastwebsockets/Cargo.lock" ;;
    classic) go version | sed 's/^go version go\([^ ]*\).*/Go \1/' ;;
    nats) nats-server --version | sed 's/^nats-server: v//' ;;
    redis) redis-server --version | sed 's/.* v=\([^ ]*\).*/\1/' ;;
    # Its help ends with an error.
    mosquitto) { mosquitto -h || true; } | sed -n '1s/^mosquitto version //p' ;;
    nchan) echo "nginx $(nginx -v 2>&1 | sed 's|.*/||'), nchan $(nchan_version)" ;;
    esac
}

nchan_version() {
    dpkg-query -W -f '${Version}' libnginx-mod-nchan 2>/dev/null | sed 's/^[0-9]*://; s/[+-].*//' || echo '?'
}

# The settings of each, in words for the table's foot.
settings_of() {
    case $1 in
    bare) echo 'epoll and a loop of send, one thread; the floor' ;;
    corecast) echo 'the defaults, --shards 1, --client-publish' ;;
    tokio) echo 'one thread, a task and an mpsc of 64 a connection; what gathered goes out in one write' ;;
    fastwebsockets) echo 'an echo alone: tokio, one thread, a task a connection' ;;
    classic) echo 'two goroutines and a channel of 64 a connection; what gathered goes out in one writev' ;;
    nats) echo 'no log, write_deadline 60s, max_pending 256MB, ping_interval 1h' ;;
    redis) echo 'no persistence, client-output-buffer-limit pubsub 0, no log' ;;
    mosquitto) echo 'QoS 0, no log, no persistence, no statistics, no limit on queues, set_tcp_nodelay' ;;
    nchan) echo 'one worker, WebSocket subscribers, memory store, no log' ;;
    esac
}

nats_settings() {
    cat <<EOF
host: 127.0.0.1
port: $1
log_file: "/dev/null"
write_deadline: "60s"
max_pending: 256MB
max_connections: $((connections + 1000))
ping_interval: "1h"
EOF
}

mosquitto_settings() {
    cat <<EOF
listener $1 127.0.0.1
allow_anonymous true
persistence false
log_type none
sys_interval 0
max_queued_messages 0
max_queued_bytes 0
set_tcp_nodelay true
EOF
}

nginx_settings() {
    cat <<EOF
load_module $nchan_module;
daemon off;
worker_processes 1;
worker_rlimit_nofile $(ulimit -n);
pid $scratch/nginx.pid;
error_log $scratch/nginx.log crit;
events { worker_connections $((connections + 1000)); multi_accept on; }
http {
    access_log off;
    tcp_nodelay on;
    keepalive_timeout 1h;
    keepalive_requests 1000000000;
    client_max_body_size 1m;
    client_body_temp_path $scratch/nginx-body;
    proxy_temp_path $scratch/nginx-proxy;
    fastcgi_temp_path $scratch/nginx-fastcgi;
    uwsgi_temp_path $scratch/nginx-uwsgi;
    scgi_temp_path $scratch/nginx-scgi;
    nchan_shared_memory_size 512M;
    server {
        listen 127.0.0.1:$1 backlog=4096;
        location = /sub { nchan_subscriber websocket; nchan_subscriber_first_message newest; nchan_channel_id \$arg_id; }
        location = /pub { nchan_publisher http; nchan_message_buffer_length 1000; nchan_channel_id \$arg_id; }
    }
}
EOF
}

# command_line PEER APP: sets `command` to what starts a server for `hub`, `echo` or `websocket` (an echo, too) on `port`.
command_line() {
    local peer=$1 app=$2 control framing
    case $peer in
    bare)
        command=("$scratch/bare" "$port")
        [[ $app != echo ]] || command+=(echo)
        ;;
    corecast)
        control=$port framing=line
        choose_port
        if [[ $app == websocket ]]; then
            app=echo framing=http
        fi
        command=("$corecast" serve --app "$app" --listen "$framing=127.0.0.1:$port" --control "127.0.0.1:$control")
        command+=(--shards 1 --cpus "$server_cpu" --client-publish)
        ;;
    tokio)
        command=("$scratch/tokio" --listen "127.0.0.1:$port")
        [[ $app != echo ]] || command+=(--echo)
        ;;
    fastwebsockets) command=("$scratch/fastwebsockets" --listen "127.0.0.1:$port") ;;
    classic)
        command=("$scratch/classic" -listen "127.0.0.1:$port")
        [[ $app != echo ]] || command+=(-echo)
        ;;
    nats)
        nats_settings "$port" >"$scratch/nats.conf"
        command=(nats-server -c "$scratch/nats.conf")
        ;;
    redis)
        command=(redis-server --bind 127.0.0.1 --port "$port" --protected-mode no --save '' --appendonly no)
        command+=(--client-output-buffer-limit 'pubsub 0 0 0' --maxclients "$((connections + 1000))")
        command+=(--tcp-backlog 4096 --tcp-keepalive 0 --logfile /dev/null --dir "$scratch")
        ;;
    mosquitto)
        mosquitto_settings "$port" >"$scratch/mosquitto.conf"
        command=(mosquitto -c "$scratch/mosquitto.conf")
        ;;
    nchan)
        nginx_settings "$port" >"$scratch/nginx.conf"
        command=(nginx -c "$scratch/nginx.conf" -p "$scratch")
        ;;
    esac
}
