// What the server said over the last minutes, and what follows from two reports in a row. Pure: time is an argument.

export const WINDOW_S = 300;
/** Reports come once a second; a longer silence is a gap, not a straight line. */
const GAP_S = 2.5;
/** What the server remembers ends so long before the first report. */
const LEAST_S = 0.5;
/** Publishes of so many seconds make one quantile: one second of a quiet server has too few. */
const QUANTILE_S = 10;
/** Connections from which memory per connection says something; and the balance, connections per shard. */
export const MEMORY_FROM = 100;
export const BALANCE_FROM = 10;

/** @returns {number} the sum of an object's values. */
export const sum = (counts) => Object.values(counts ?? {}).reduce((total, n) => total + n, 0);

/**
 * The quantile of a histogram.
 * @param {{up_to: number|null, count: number}[]} buckets upper end and count of each, the last has no end
 * @param {number} q from 0 to 1
 * @returns {number|null} the upper end of the bucket that holds it (twice the last end if it lies beyond), null without data
 */
export function quantile(buckets, q) {
  const total = buckets.reduce((n, { count }) => n + count, 0);
  if (total <= 0) return null;
  let rest = Math.max(1, Math.ceil(total * q));
  let last = 1;
  for (const { up_to: end, count } of buckets) {
    rest -= count;
    if (rest <= 0) return end ?? last * 2;
    last = end ?? last;
  }
  return last;
}

export class History {
  /** Points in order of time; a gap is a point that holds nothing but its time. */
  points = [];
  #last = null;

  /** @returns {boolean} whether the server is another process than the last time (its uptime went back). */
  push(stats, at) {
    const last = this.#last;
    const restarted = last !== null && stats.uptime_s < last.uptime_s;
    const known = last && !restarted ? last : null;
    const previous = this.points.at(-1);
    if (previous && (restarted || at - previous.t > GAP_S)) this.points.push({ t: (previous.t + at) / 2, gap: true });
    this.points.push(point(stats, known, at));
    this.#last = stats;
    this.#quantiles();
    while (this.points.length > 0 && this.points[0].t < at - WINDOW_S - GAP_S) this.points.shift();
    return restarted;
  }

  /**
   * Takes what the server remembers, in place of what was seen here at that time. Reports go on from there.
   * @param {{uptime_s: number, bucket_ends_us: (number|null)[], samples: object[]}} past the answer to v1/history
   */
  fill(past, at) {
    const when = ({ uptime_s: uptime }) => at - (past.uptime_s - uptime);
    // The next report may come at once, and a rate over so short a time would say nothing.
    const samples = past.samples.filter(({ uptime_s: uptime }) => past.uptime_s - uptime >= LEAST_S);
    if (samples.length === 0) return;
    const first = when(samples[0]);
    this.points = this.points.filter(({ t }) => t < first);
    this.#last = null;
    for (const sample of samples) this.push(report(sample, past.bucket_ends_us), when(sample));
  }

  /** The newest point, or null. */
  get newest() {
    return this.points.at(-1) ?? null;
  }

  #quantiles() {
    const newest = this.points.at(-1);
    if (!newest.spans) return;
    let sums = newest.spans.map((bucket) => ({ ...bucket, count: 0 }));
    for (let i = this.points.length - 1; i >= 0; i -= 1) {
      const { t, gap, spans } = this.points[i];
      if (gap || newest.t - t > QUANTILE_S) break;
      if (spans?.length === sums.length) sums = sums.map((bucket, n) => ({ ...bucket, count: bucket.count + spans[n].count }));
    }
    newest.p50 = quantile(sums, 0.5);
    newest.p99 = quantile(sums, 0.99);
  }
}

/** A sample of the server's history in the shape of its reports. */
function report(sample, ends) {
  const { connections_by_shard: shards, time_to_last: counts, messages_in, messages_out, queued_messages, dropped, ...rest } = sample;
  return {
    ...rest,
    totals: { messages_in, messages_out, queued_messages, dropped },
    shards: shards.map((connections) => ({ connections })),
    time_to_last_us: { buckets: counts.map((count, n) => ({ up_to: ends[n], count })) },
  };
}

/** One report, and the report before it for what happened in between. */
function point(stats, last, at) {
  const seconds = last ? stats.uptime_s - last.uptime_s : 0;
  const { totals } = stats;
  // Not from the report's own rates: they are nought in the first report after nobody had listened.
  const rate = (of) => (seconds > 0 ? Math.max(0, of(totals) - of(last.totals)) / seconds : null);
  const drops = {};
  for (const reason of Object.keys(totals.dropped)) drops[reason] = rate(({ dropped }) => dropped[reason] ?? 0);
  const even = stats.connections / stats.shards.length;
  const buckets = stats.time_to_last_us?.buckets;
  const before = last?.time_to_last_us?.buckets;
  return {
    t: at,
    connections: stats.connections,
    // With few connections for each shard, chance alone puts shards far from even.
    balance: stats.shards.map((shard) => (even >= BALANCE_FROM ? (shard.connections / even - 1) * 100 : null)),
    out: rate(({ messages_out }) => messages_out),
    in: rate(({ messages_in }) => messages_in),
    dropped: rate(({ dropped }) => sum(dropped)),
    drops,
    queued: totals.queued_messages,
    // A handful of connections would carry all that the process has grown by for other reasons.
    memory: stats.connections >= MEMORY_FROM ? stats.bytes_per_connection : null,
    spans: buckets && before?.length === buckets.length ? buckets.map((bucket, n) => ({ ...bucket, count: Math.max(0, bucket.count - before[n].count) })) : null,
    p50: null,
    p99: null,
  };
}
