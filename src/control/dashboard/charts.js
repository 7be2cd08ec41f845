// The charts: uPlot draws them, the rest of what a chart needs is here: legend, keyboard, colours, gaps.

import { BALANCE_FROM, MEMORY_FROM, WINDOW_S } from './history.js';
import { atMost, bytes, clockSeconds, count, micros, NONE, percent, rate, short, tick } from './format.js';

/** Above so many shards, lines can't be told apart: the lowest, middle and highest are shown then. */
const LINES_MAX = 6;

const line = (label, color, value) => ({ label, color, value });

function shardLines(newest) {
  const shards = newest?.balance.length ?? 0;
  if (shards <= LINES_MAX) return Array.from({ length: shards }, (_, n) => line(`shard ${n}`, n + 1, (p) => p.balance[n] ?? null));
  const rank = (at) => (p) => {
    const sorted = p.balance.filter((n) => n !== null).sort((a, b) => a - b);
    return sorted.length ? sorted[Math.round((sorted.length - 1) * at)] : null;
  };
  return [line('highest', 2, rank(1)), line('median', 1, rank(0.5)), line('lowest', 4, rank(0))];
}

const dropLines = (newest) => Object.keys(newest?.drops ?? {}).map((reason, n) => line(reason, n + 1, (p) => p.drops[reason] ?? null));

const upFromZero = (least) => (_, __, max) => [0, Math.max(max * 1.1, least)];

/** Every chart, in reading order. `lines` may depend on what the server has. */
const SPECS = [
  { title: 'Connections', unit: 'open', show: count, tick, range: upFromZero(10), lines: () => [line('', 1, (p) => p.connections)] },
  {
    title: 'Shard balance',
    unit: '% off an even share',
    show: percent,
    tick: (n) => (n > 0 ? `+${tick(n)}` : tick(n).replace('-', '−')),
    range: (_, min, max) => {
      const most = Math.max(10, Math.abs(min ?? 0) * 1.1, Math.abs(max ?? 0) * 1.1);
      return [-most, most];
    },
    lines: shardLines,
    none: `Shown from ${BALANCE_FROM} connections per shard.`,
  },
  { title: 'Messages out', unit: 'per second', show: rate, tick, range: upFromZero(10), lines: () => [line('', 1, (p) => p.out)] },
  { title: 'Messages in', unit: 'per second', show: rate, tick, range: upFromZero(10), lines: () => [line('', 1, (p) => p.in)] },
  { title: 'Time to last recipient', unit: 'upper bound, log scale', show: atMost, tick: micros, log: true, lines: () => [line('p50', 1, (p) => p.p50), line('p99', 2, (p) => p.p99)], none: 'Nothing was published.' },
  { title: 'Dropped', unit: 'messages per second, by reason', show: rate, tick, range: upFromZero(10), lines: dropLines, onlyNonZero: true },
  { title: 'Queued for slow clients', unit: 'messages', show: short, tick, range: upFromZero(10), lines: () => [line('', 1, (p) => p.queued)] },
  {
    title: 'Memory per connection',
    unit: 'bytes',
    show: bytes,
    tick: bytes,
    steps: [1, 2, 4, 8, 16, 32, 64, 128, 256, 512].flatMap((n) => [n, n * 1024, n * 1048576]).sort((a, b) => a - b),
    range: upFromZero(2048),
    lines: () => [line('', 1, (p) => p.memory)],
    none: `Shown from ${MEMORY_FROM} connections.`,
  },
];

const style = () => getComputedStyle(document.documentElement);
const clock = new Intl.DateTimeFormat(undefined, { hour: '2-digit', minute: '2-digit', hourCycle: 'h23' });

const make = (tag, className, ...children) => {
  const element = document.createElement(tag);
  if (className) element.className = className;
  element.append(...children);
  return element;
};

class Chart {
  #spec;
  #lines = [];
  #plot = null;
  #data = [[]];
  #now = 0;
  #hover;

  constructor(spec, parent, hover) {
    this.#spec = spec;
    this.#hover = hover;
    this.legend = make('ul', 'legend');
    this.area = make('div', 'plot');
    this.area.tabIndex = 0;
    this.area.setAttribute('role', 'img');
    this.none = make('p', 'none');
    this.none.hidden = true;
    const title = make('h3', '', spec.title);
    const caption = make('figcaption', '', make('div', 'titles', title, make('span', 'dim unit', spec.unit)), this.legend);
    parent.append(make('figure', 'card chart', caption, this.area, this.none));
    this.area.addEventListener('keydown', (event) => this.#key(event));
    this.area.addEventListener('blur', () => this.#hover(null));
    new ResizeObserver(() => this.#resize()).observe(this.area);
  }

  show(points, now) {
    this.#now = now;
    const newest = points.findLast((p) => !p.gap) ?? null;
    const lines = this.#spec.lines(newest);
    if (!this.#plot || lines.map((l) => l.label).join() !== this.#lines.map((l) => l.label).join()) this.#build(lines);
    this.#lines = lines;
    const seen = lines.map(() => false);
    this.#data = [points.map((p) => p.t), ...lines.map((l, n) => points.map((p) => {
      const value = p.gap ? null : l.value(p);
      // On a log scale there is no zero; and a span of nought means "under the smallest bucket".
      const shown = this.#spec.log && value !== null ? Math.max(1, value) : value;
      seen[n] ||= this.#spec.onlyNonZero ? shown > 0 : shown !== null;
      return shown;
    }))];
    this.#plot.setData(this.#data, false);
    this.#plot.batch(() => {
      lines.forEach((_, n) => {
        if (this.#plot.series[n + 1].show !== seen[n]) this.#plot.setSeries(n + 1, { show: seen[n] });
      });
      this.#plot.setScale('x', { min: now - WINDOW_S, max: now });
    });
    this.none.hidden = seen.includes(true);
    this.none.textContent = this.#spec.none ?? 'None in the last 5 minutes.';
    this.seen = seen;
  }

  /** Shows the values at a point of time, by its index; null: the newest. */
  values(index) {
    const at = index ?? this.#data[0].length - 1;
    const spoken = [];
    const items = this.#lines.flatMap((l, n) => {
      if (!this.seen?.[n] && l.label !== '') return [];
      const value = this.#data[n + 1]?.[at] ?? null;
      const text = value === null ? NONE : this.#spec.show(value);
      spoken.push(`${l.label} ${text}`.trim());
      const words = make('span', 'value', text);
      return [l.label === '' ? make('li', '', words) : make('li', '', make('i', `swatch c${l.color}`), l.label, ' ', words)];
    });
    this.legend.replaceChildren(...items);
    this.area.setAttribute('aria-label', `${this.#spec.title}, ${this.#spec.unit}: ${this.none.hidden ? spoken.join(', ') : this.none.textContent}`);
    return `${this.#spec.title}: ${spoken.join(', ')}`;
  }

  restyle() {
    this.#plot?.redraw(false, true);
  }

  cursor(index) {
    if (!this.#plot) return;
    const left = index === null ? -10 : this.#plot.valToPos(this.#data[0][index], 'x');
    this.#plot.setCursor({ left, top: index === null ? -10 : 1 }, false);
  }

  #key(event) {
    const step = { ArrowLeft: -1, ArrowRight: 1, PageUp: -30, PageDown: 30, Home: -Infinity, End: Infinity, Escape: 0 }[event.key];
    if (step === undefined) return;
    event.preventDefault();
    if (step === 0) return this.#hover(null);
    const last = this.#data[0].length - 1;
    const from = this.#plot.cursor.idx ?? last;
    this.#hover(Math.min(last, Math.max(0, from + step)), this);
  }

  #resize() {
    const width = this.area.clientWidth;
    if (this.#plot && width > 0 && width !== this.#plot.width) this.#plot.setSize({ width, height: this.area.clientHeight });
  }

  #build(lines) {
    this.#plot?.destroy();
    const color = (n) => style().getPropertyValue(`--c${n}`);
    const dim = () => style().getPropertyValue('--dim');
    const grid = { stroke: () => style().getPropertyValue('--grid'), width: 1 };
    const font = `11px ${style().fontFamily}`;
    const spec = this.#spec;
    const axis = { stroke: dim, font, grid, ticks: { show: false } };
    this.#plot = new globalThis.uPlot({
      width: this.area.clientWidth || 300,
      height: this.area.clientHeight || 130,
      legend: { show: false },
      padding: [8, 16, 0, 0],
      cursor: { y: false, drag: { x: false, y: false }, points: { size: 6 }, focus: { prox: -1 } },
      scales: {
        x: { time: true, auto: false, range: () => [this.#now - WINDOW_S, this.#now] },
        y: spec.log ? { distr: 3, log: 10, range: logRange } : { range: spec.range },
      },
      axes: [
        { ...axis, size: 22, gap: 4, space: 44, incrs: [60, 120, 300], values: (_, ticks) => ticks.map((t) => clock.format(t * 1000)) },
        { ...axis, size: 52, gap: 6, space: 28, ...(spec.steps && { incrs: spec.steps }), values: (_, ticks) => ticks.map((n) => (n === null ? null : spec.tick(n))), ...(spec.log && { splits: decades }) },
      ],
      series: [{}, ...lines.map((l) => ({
        stroke: () => color(l.color),
        width: 1.6,
        spanGaps: false,
        points: { show: false },
        ...(lines.length === 1 && { fill: () => style().getPropertyValue('--fill') }),
      }))],
      hooks: { setCursor: [(plot) => this.area.matches(':hover') && this.#hover(plot.cursor.idx ?? null, this)] },
    }, this.#data, this.area);
    this.#plot.over.addEventListener('mouseleave', () => this.#hover(null));
  }
}

/** Whole decades, at least two, so that the axis has labels. */
function logRange(_, min, max) {
  if (min === null) return [10, 10_000];
  const low = 10 ** Math.floor(Math.log10(Math.max(1, min)));
  const high = 10 ** Math.ceil(Math.log10(Math.max(1, max)) + 1e-9);
  return [low, Math.max(high, low * 100)];
}

function decades(_, __, min, max) {
  const ticks = [];
  for (let n = min; n <= max * 1.001; n *= 10) ticks.push(n);
  return ticks;
}

/** All charts, with one cursor for all of them. */
export class Charts {
  #charts;
  #index = null;
  #points = [];
  #time;
  #spoken;

  constructor(parent, time, spoken) {
    this.#time = time;
    this.#spoken = spoken;
    this.#charts = SPECS.map((spec) => new Chart(spec, parent, (index, by) => this.#hover(index, by)));
    document.documentElement.addEventListener('themechange', () => this.#charts.forEach((chart) => chart.restyle()));
  }

  show(points, now) {
    // The cursor stays where the eye is: on its moment, which moves left.
    const moment = this.#index === null ? null : this.#points[this.#index]?.t;
    this.#points = [...points];
    const index = moment == null ? -1 : this.#points.findIndex((p) => p.t === moment);
    this.#index = index < 0 ? null : index;
    for (const chart of this.#charts) chart.show(this.#points, now);
    this.#values();
  }

  #hover(index, by = null) {
    if (index === this.#index) return;
    this.#index = index;
    for (const chart of this.#charts) if (index === null || chart !== by || !by.area.matches(':hover')) chart.cursor(index);
    const text = this.#values(by);
    if (by && by.area === document.activeElement && index !== null) this.#spoken.textContent = `${this.#time.textContent} ${text}`;
  }

  #values(by = null) {
    let text = '';
    for (const chart of this.#charts) {
      const values = chart.values(this.#index);
      if (chart === by) text = values;
    }
    const at = this.#index === null ? null : this.#points[this.#index];
    this.#time.textContent = at ? `at ${clockSeconds.format(at.t * 1000)}` : '';
    return text;
  }
}
