//! The way of log lines out of the process: a bounded queue, and a thread of its own that writes it to stderr.
//!
//! Whoever logs never waits: neither a shard nor the thread that takes signals may depend on who reads the log. What
//! does not fit, or can't be written, is counted, and said as soon as there is room again.

use std::backtrace::{Backtrace, BacktraceStatus};
use std::cell::RefCell;
use std::io::{self, IsTerminal, Write};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TryRecvError, sync_channel};
use std::sync::{Condvar, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

use crate::{output, printable};

/// Lines, and bytes of them, that may wait to be written to the log; further ones are counted and dropped. They are some
/// minutes of a busy log at the default level.
const LOG_QUEUE_LINES: usize = 1_024;

/// See [`LOG_QUEUE_LINES`].
const LOG_QUEUE_BYTES_MAX: usize = 1 << 20;

/// Milliseconds between two log lines that tell of dropped ones.
const LOG_NOTICE_MS: u64 = 1_000;

/// Milliseconds that the end of the program waits for its last log lines to be written, and those that an exit without a
/// drain waits.
const LOG_END_MS: (u64, u64) = (1_000, 100);

/// The process's queue, once it is started.
static QUEUE: OnceLock<Queue> = OnceLock::new();

thread_local! {
    /// On the writer's thread, while it makes a line of its own: what takes that line in place of the queue.
    static OWN_LINE: RefCell<Option<Vec<u8>>> = const { RefCell::new(None) };
}

/// Lines on their way, and what became of others.
struct Queue {
    lines: SyncSender<Line>,
    /// Bytes in it.
    bytes: AtomicUsize,
    /// Lines that were put in.
    queued: AtomicU64,
    /// Lines that were lost since the process began.
    dropped: AtomicU64,
    /// Those of them that no line in the queue tells of yet.
    unsaid: AtomicU64,
    /// Lines that were taken out, and written or counted.
    settled: Mutex<u64>,
    /// The above has changed.
    changed: Condvar,
}

/// One line, with its line feed.
struct Line {
    text: Vec<u8>,
    /// Lines that were lost between the one before it and itself.
    lost_before: u64,
}

impl Queue {
    /// Puts a line in, or counts it as lost. Never waits.
    fn push(&self, text: &[u8]) {
        let len = text.len();
        let fits = self.bytes.fetch_add(len, Ordering::Relaxed) + len <= LOG_QUEUE_BYTES_MAX;
        if fits {
            let line = Line { text: text.to_vec(), lost_before: self.unsaid.swap(0, Ordering::Relaxed) };
            let lost_before = line.lost_before;
            if self.lines.try_send(line).is_ok() {
                self.queued.fetch_add(1, Ordering::Relaxed);
                return;
            }
            self.unsaid.fetch_add(lost_before, Ordering::Relaxed);
        }
        self.bytes.fetch_sub(len, Ordering::Relaxed);
        self.unsaid.fetch_add(1, Ordering::Relaxed);
        self.dropped.fetch_add(1, Ordering::Relaxed);
    }

    fn settle(&self, len: usize) {
        self.bytes.fetch_sub(len, Ordering::Relaxed);
        *self.settled.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        self.changed.notify_all();
    }
}

/// Where the subscriber's lines go.
#[derive(Clone, Copy)]
struct Sink {
    has_colours: bool,
}

impl<'a> MakeWriter<'a> for Sink {
    type Writer = Sink;

    fn make_writer(&'a self) -> Sink {
        *self
    }
}

impl Write for Sink {
    /// Takes a whole line, as the subscriber gives it.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        // What is logged may come from a peer, a file or the kernel.
        let text = printable::log_line(&String::from_utf8_lossy(line), self.has_colours);
        let is_own =
            OWN_LINE.with_borrow_mut(|own| own.as_mut().map(|own| own.extend_from_slice(text.as_bytes())).is_some());
        if let Some(queue) = QUEUE.get().filter(|_| !is_own) {
            queue.push(text.as_bytes());
        }
        // Whoever logs can't help it if it is lost, and the subscriber would complain on stderr.
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Starts the queue and its writer. A second call changes nothing.
///
/// # Errors
/// The thread can't be started.
pub(crate) fn start() -> io::Result<()> {
    let (to, lines) = sync_channel(LOG_QUEUE_LINES);
    let queue = Queue {
        lines: to,
        bytes: AtomicUsize::new(0),
        queued: AtomicU64::new(0),
        dropped: AtomicU64::new(0),
        unsaid: AtomicU64::new(0),
        settled: Mutex::new(0),
        changed: Condvar::new(),
    };
    if QUEUE.set(queue).is_err() {
        return Ok(());
    }
    let write = || {
        if let Some(queue) = QUEUE.get() {
            Writer { queue, lines, lost: 0, told: None, is_torn: false, is_heard: true }.run();
        }
    };
    std::thread::Builder::new().name("log".into()).spawn(write).map(drop)
}

/// Sends what is logged, and panics, through the queue.
pub(crate) fn subscribe(filter: EnvFilter, is_json: bool) {
    let has_colours = io::stderr().is_terminal();
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(Sink { has_colours })
        // It would complain on stderr, which may block.
        .log_internal_errors(false)
        .with_ansi(has_colours);
    if is_json {
        builder.json().flatten_event(true).init();
    } else {
        builder.with_target(false).init();
    }
    // The hook that Rust brings writes to stderr on the thread that panics, which may be a shard's.
    std::panic::set_hook(Box::new(|panic| {
        let thread = std::thread::current();
        let thread = thread.name().unwrap_or("unnamed");
        let text = panic.to_string().replace('\n', " ");
        let backtrace = Backtrace::capture();
        if backtrace.status() == BacktraceStatus::Captured {
            tracing::error!(thread, %backtrace, "{text}");
        } else {
            tracing::error!(thread, "{text}");
        }
    }));
}

/// Writes a line, or more, to stderr, with what a terminal must not be given escaped: through the queue, or at once where
/// there is none.
pub(crate) fn say(line: &str) {
    match QUEUE.get() {
        Some(queue) => queue.push(format!("{}\n", printable::lines(line)).as_bytes()),
        None => output::complain(line),
    }
}

/// Waits until what has been logged so far is written, but not for a reader that has stalled.
pub(crate) fn finish() {
    flush(Duration::from_millis(LOG_END_MS.0));
}

/// Ends the process at once, whatever its threads do. The last log lines have a moment to be written.
pub(crate) fn exit(code: u8) -> ! {
    flush(Duration::from_millis(LOG_END_MS.1));
    // Nothing that runs at an ordinary exit may stand in the way.
    signal_hook::low_level::exit(code.into())
}

fn flush(patience: Duration) {
    let Some(queue) = QUEUE.get() else { return };
    let queued = queue.queued.load(Ordering::Relaxed);
    let settled = queue.settled.lock().unwrap_or_else(PoisonError::into_inner);
    let _ = queue.changed.wait_timeout_while(settled, patience, |settled| *settled < queued);
}

/// Log lines that were lost since the process began.
pub(crate) fn lines_dropped() -> u64 {
    // A program with a log of its own loses none here.
    QUEUE.get().map_or(0, |queue| queue.dropped.load(Ordering::Relaxed))
}

/// What the thread knows.
struct Writer {
    queue: &'static Queue,
    lines: Receiver<Line>,
    /// Lines that were lost and that nobody was told of.
    lost: u64,
    /// When somebody was told last.
    told: Option<Instant>,
    /// The last line was written in part.
    is_torn: bool,
    /// The last write succeeded.
    is_heard: bool,
}

impl Writer {
    fn run(mut self) {
        while let Some(line) = self.next() {
            if let Some(Line { text, lost_before }) = line {
                self.lost += lost_before;
                self.tell();
                if !self.write(&text) {
                    self.queue.dropped.fetch_add(1, Ordering::Relaxed);
                    self.lost += 1;
                }
                self.queue.settle(text.len());
            } else {
                self.tell();
            }
        }
    }

    /// The next line; without one, if it is time to tell of lost ones. `None`: there will be no more.
    fn next(&mut self) -> Option<Option<Line>> {
        match self.lines.try_recv() {
            Ok(line) => return Some(Some(line)),
            Err(TryRecvError::Disconnected) => return None,
            Err(TryRecvError::Empty) => self.lost += self.queue.unsaid.swap(0, Ordering::Relaxed),
        }
        if self.lost == 0 || !self.is_heard {
            // Where nothing can be written, only a further line is worth a try.
            return self.lines.recv().ok().map(Some);
        }
        match self.lines.recv_timeout(self.pause()) {
            Ok(line) => Some(Some(line)),
            Err(RecvTimeoutError::Timeout) => Some(None),
            Err(RecvTimeoutError::Disconnected) => None,
        }
    }

    /// Time until lost lines may be told of.
    fn pause(&self) -> Duration {
        let told = self.told.map_or(Duration::MAX, |told| told.elapsed());
        Duration::from_millis(LOG_NOTICE_MS).saturating_sub(told)
    }

    /// Tells how many lines were lost, if some were, and not too often.
    fn tell(&mut self) {
        if self.lost == 0 || !self.pause().is_zero() {
            return;
        }
        OWN_LINE.set(Some(Vec::new()));
        tracing::warn!(count = self.lost, "log lines were dropped: their reader was too slow, or gone");
        let line = OWN_LINE.take().unwrap_or_default();
        if self.write(&line) {
            self.lost = 0;
            self.told = Some(Instant::now());
        }
    }

    /// Writes a line; whether all of it could be written.
    fn write(&mut self, line: &[u8]) -> bool {
        let mend: &[u8] = if self.is_torn { b"\n" } else { b"" };
        let written = output::write_whole(io::stderr(), mend).and_then(|()| {
            self.is_torn = false;
            output::write_whole(io::stderr(), line)
        });
        if let Err((_, written)) = written {
            self.is_torn |= written > 0;
        }
        self.is_heard = written.is_ok();
        self.is_heard
    }
}
