# From the summary to the rows that plot.gp draws.
def over($unit): if . == null then null else . / $unit end;
.servers[] | select(.fanout_cpu_us_per_message) | [
    ({bare: "bare send", classic: "Go"}[.name] // .name),
    (.memory_bytes_per_connection | over(1024)), .fanout_cpu_us_per_message, .burst_cpu_us_per_message,
    (.echo_per_s | over(1000))
] | map(. // "-") | @tsv
