// Numbers and times as people read them. Everything here is pure.

const whole = new Intl.NumberFormat('en', { maximumFractionDigits: 0 });
const SCALES = [[1e12, 'T'], [1e9, 'G'], [1e6, 'M'], [1e3, 'k']];
/** The scale of a number; 999,999 is rounded to 1M, not to 1000k. */
const scaleOf = (n) => SCALES.find(([unit]) => Math.abs(n) >= unit * 0.9995);
export const NONE = '–';

/** Digits enough to tell neighbours apart, and no more: 3 significant ones. */
function brief(n) {
  const size = Math.abs(n);
  const text = n.toFixed(size >= 99.95 ? 0 : size >= 9.995 ? 1 : 2);
  return text.includes('.') ? text.replace(/\.?0+$/, '') : text;
}

/** 1234567 → "1,234,567". */
export const count = (n) => (n == null ? NONE : whole.format(n));

/** 1234567 → "1.23M"; below ten thousand in full. */
export function short(n) {
  if (n == null) return NONE;
  if (Math.abs(n) < 1e4) return Number.isInteger(n) ? whole.format(n) : Math.abs(n) < 1000 ? brief(n) : whole.format(n);
  const [unit, letter] = scaleOf(n);
  return brief(n / unit) + letter;
}

/** For axes: 15000 → "15k", 2500 → "2.5k". */
export function tick(n) {
  if (n === 0) return '0';
  const scale = scaleOf(n);
  return scale ? brief(n / scale[0]) + scale[1] : brief(n);
}

/** A rate per second. */
export const rate = (n) => (n == null ? NONE : short(n >= 10 ? Math.round(n) : Math.round(n * 10) / 10));

/** 936 → "936 B", 104857600 → "100 MiB". */
export function bytes(n) {
  if (n == null) return NONE;
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB'];
  let step = 0;
  while (Math.abs(n) >= 1024 && step < units.length - 1) {
    n /= 1024;
    step += 1;
  }
  return `${step === 0 ? Math.round(n) : brief(n)} ${units[step]}`;
}

/** Microseconds: 40 → "40 µs", 1500 → "1.5 ms", 2e6 → "2 s". */
export function micros(us) {
  if (us == null) return NONE;
  if (us < 1000) return `${brief(us)} µs`;
  if (us < 1e6) return `${brief(us / 1000)} ms`;
  return `${brief(us / 1e6)} s`;
}

/** A quantile: the end of the histogram's bucket that holds it. */
export const atMost = (us) => (us == null ? NONE : `≤ ${micros(us)}`);

/** 1.25 → "+1.3 %". */
export function percent(n) {
  if (n == null) return NONE;
  const text = Math.abs(n).toFixed(Math.abs(n) < 10 ? 1 : 0);
  return `${Number(text) === 0 ? '' : n < 0 ? '−' : '+'}${text} %`;
}

/** Seconds as the two largest units: 93784 → "1 d 2 h". */
export function span(seconds) {
  if (seconds == null) return NONE;
  const s = Math.floor(seconds);
  const parts = [[Math.floor(s / 86400), 'd'], [Math.floor(s / 3600) % 24, 'h'], [Math.floor(s / 60) % 60, 'min'], [s % 60, 's']];
  const first = parts.findIndex(([n]) => n > 0);
  if (first < 0) return '0 s';
  return parts.slice(first, first + 2).map(([n, unit]) => `${n} ${unit}`).join(' ');
}

/** A moment's time of day. */
export const clockSeconds = new Intl.DateTimeFormat('en', { hour: '2-digit', minute: '2-digit', second: '2-digit', hourCycle: 'h23' });

/** "1 connection", "2 connections". */
export const plural = (n, one, many = `${one}s`) => `${count(n)} ${n === 1 ? one : many}`;

/** Quotes a text for a POSIX shell. */
export const shellWord = (text) => (/^[\w./:=?&%-]+$/.test(text) && !/[?&]/.test(text) ? text : `'${text.replaceAll("'", "'\\''")}'`);
