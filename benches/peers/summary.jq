# From all runs of the load generator to one object with a figure for each measure: the median of the rounds, the sum of
# what went wrong.
def median: map(select(. != null)) | sort | if length == 0 then null
    elif length % 2 == 1 then .[length / 2 | floor] else (.[length / 2 - 1] + .[length / 2]) / 2 end;
def of($peer; $measure): $results | map(select(.peer == $peer and .measure == $measure).result);
def total(f): map(f // 0) | add // 0;
{
    settings: {
        $connections, $rounds, $message_bytes, $burst, $echo_connections, $websocket_bytes,
        publish_per_s: ($publish_per_s | tonumber), $server_cpu, $client_cpu, $kernel
    },
    servers: $servers | map(select(.left_out | not) | .name as $name |
        of($name; "memory") as $memory | of($name; "fanout") as $fanout | of($name; "burst") as $burst |
        of($name; "echo") as $echo | of($name; "websocket") as $websocket | ($echo + $websocket) as $echoes |
        ($fanout + $burst) as $sent | . + {
            memory_bytes_per_connection: $memory | map(.server.memory_bytes_per_connection) | median,
            fanout_cpu_us_per_message: $fanout | map(.server.cpu_us_per_message) | median,
            fanout_latency_us_p99: $fanout | map(.fanout.latency_us_p99) | median,
            burst_cpu_us_per_message: $burst | map(.server.cpu_us_per_message) | median,
            burst_latency_us_p99: $burst | map(.fanout.latency_us_p99) | median,
            echo_per_s: $echo | map(.echo.round_trips_per_s) | median,
            websocket_echo_per_s: $websocket | map(.echo.round_trips_per_s) | median,
            expected: $sent | total(.fanout.expected),
            lost: (($sent | total(.fanout.lost + .fanout.gaps_reported)) + ($echoes | total(.echo.unanswered))),
            duplicated: (($sent | total(.fanout.duplicated)) + ($echoes | total(.echo.duplicated))),
            reordered: $sent | total(.fanout.reordered),
            corrupted: (($sent | total(.fanout.corrupted)) + ($echoes | total(.echo.corrupted))),
            refused: $sent | total(.fanout.refused),
            closed: ($memory + $sent + $echoes) | total(.idle.closed // .fanout.closed // .echo.closed),
            unconnected: ($memory + $sent + $echoes) | total(.connect.failed),
            runs: $results | map(select(.peer == $name))
        }),
    left_out: $servers | map(select(.left_out))
}
