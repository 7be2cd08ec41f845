# From the summary to the table in Markdown, with what each server's row stands for below it.
def grouped: tostring | [while(length > 0; .[:-3]) | .[-3:]] | reverse | join(",");
# So many digits behind the point, zeros included.
def fixed($digits): (. * pow(10; $digits) | round) as $n | if $digits == 0 then $n | grouped else
    ($n % pow(10; $digits) | tostring) as $rest |
    "\($n / pow(10; $digits) | floor | grouped).\("0" * ($digits - ($rest | length)) // "")\($rest)" end;
def shown(f): if . == null then "–" else f end;
def micros: shown(if . < 10 then "\(fixed(2)) µs" else "\(fixed(1)) µs" end);
def trouble: . as $server |
    ["lost", "duplicated", "reordered", "corrupted", "refused", "closed", "unconnected"] |
    map(select($server[.] > 0) | "\($server[.] | grouped) \(.)") |
    if length == 0 then "none" else join(", ") end;
.settings as $settings |
"\($settings.connections | grouped) connections, \($settings.message_bytes) bytes a message, loopback, the "
    + "server alone on CPU \($settings.server_cpu), the client on CPU \($settings.client_cpu), Linux "
    + "\($settings.kernel); medians of \($settings.rounds).\n",
"| server | version | process memory per connection | one message to all: server CPU per delivered message | "
    + "\($settings.burst) messages in one burst: CPU per message | one message to all, "
    + "\($settings.publish_per_s)/s: p99 latency | echo/s, \($settings.echo_connections | grouped) connections | "
    + "WebSocket echo/s, \($settings.websocket_bytes) bytes | "
    + "losses |",
"| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
(.servers[] | [
    .name, .version, (.memory_bytes_per_connection | shown("\(. / 1024 | fixed(1)) KiB")),
    (.fanout_cpu_us_per_message | micros), (.burst_cpu_us_per_message | micros),
    (.fanout_latency_us_p99 | shown("\(. / 1000 | fixed(1)) ms")), (.echo_per_s | shown(fixed(0))),
    (.websocket_echo_per_s | shown(fixed(0))), trouble
] | "| \(join(" | ")) |"),
"", (.servers[] | "- \(.name): \(.settings)"), (.left_out[] | "- \(.name): left out, \(.left_out)")
