// Runs before the first paint, so that a chosen theme does not flash up in the other one.
(() => {
  const KEY = 'corecast-theme';
  const root = document.documentElement;
  const dark = matchMedia('(prefers-color-scheme: dark)');
  const read = () => {
    try {
      return localStorage.getItem(KEY);
    } catch {
      return null; // storage may be forbidden; the system's choice then holds
    }
  };
  const show = (theme) => {
    root.dataset.theme = theme ?? (dark.matches ? 'dark' : 'light');
    root.dispatchEvent(new CustomEvent('themechange'));
  };
  show(read());
  dark.addEventListener('change', () => show(read()));
  window.toggleTheme = () => {
    const next = root.dataset.theme === 'dark' ? 'light' : 'dark';
    try {
      localStorage.setItem(KEY, next);
    } catch { /* it holds for this page then */ }
    show(next);
    return next;
  };
})();
