//! Who may call.

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use corecast::control::{Control, ControlError, ControlLimits, ControlOptions, TokenError};

use super::http::Http;
use super::{Plane, config};
use crate::support::{DEADLINE, Fixture, Program};

/// A file that is removed with the test.
struct TokenFile(PathBuf);

impl TokenFile {
    fn new(name: &str, content: impl AsRef<[u8]>, mode: u32) -> TokenFile {
        let path = std::env::temp_dir().join(format!("corecast-{}-{name}", std::process::id()));
        fs::write(&path, content).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        TokenFile(path)
    }

    fn options(&self) -> ControlOptions {
        let addr = "127.0.0.1:0".parse().unwrap();
        ControlOptions { addr, token_file: Some(self.0.clone()), limits: ControlLimits::default() }
    }
}

impl Drop for TokenFile {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

#[test]
fn with_a_token_every_call_but_health_and_the_page_must_show_it() {
    let server = Fixture::hub(config());
    let file = TokenFile::new("token", "s3cret-T0ken\n", 0o600);
    let control = Control::start(server.clone(), &file.options()).unwrap();
    let http = || Http::connect(control.addr());
    let calls = [
        ("GET", "/v1/stats"),
        ("GET", "/v1/connections"),
        ("GET", "/v1/topics/a"),
        ("GET", "/v1/events"),
        ("GET", "/metrics"),
        ("GET", "/openapi.json"),
        ("GET", "/nope"),
        ("POST", "/v1/broadcast"),
        ("POST", "/v1/batch"),
        ("POST", "/v1/drain"),
        ("PUT", "/v1/topics/a"),
        ("DELETE", "/v1/connections/1"),
        ("OPTIONS", "/v1/stats"),
        ("GET", "/healthz/"),
        ("GET", "//healthz"),
    ];
    for (method, path) in calls {
        for wrong in [
            None,
            Some("Authorization: Bearer s3cret-T0keN"),
            Some("Authorization: Bearer s3cret-T0ken2"),
            Some("Authorization: Bearer s3cret-T0ke"),
            Some("Authorization: Bearer "),
            Some("Authorization: Basic s3cret-T0ken"),
            Some("Authorization: s3cret-T0ken"),
        ] {
            let response = http().send(method, path, wrong.as_slice(), b"");
            response.is_problem(401, "unauthorized");
            assert!(response.header("www-authenticate").is_some_and(|value| value.starts_with("Bearer")));
        }
    }
    assert!(!server.is_draining());
    for path in ["/healthz", "/readyz", "/"] {
        assert_eq!(http().get(path).status, 200, "{path}");
    }
    for right in ["Authorization: Bearer s3cret-T0ken", "authorization: bearer s3cret-T0ken"] {
        let mut http = http().with(right);
        assert_eq!(http.get("/v1/stats").status, 200);
        assert_eq!(http.post("/v1/broadcast", "x").status, 202);
        http.get("/nope").is_problem(404, "not-found");
    }
    // With a token the server may have any name.
    let mut named = http().with("Authorization: Bearer s3cret-T0ken");
    named.headers = named.headers.replace(&control.addr().to_string(), "push.example");
    assert_eq!(named.get("/v1/stats").status, 200);
    control.stop();
}

#[test]
fn callers_without_the_token_are_answered_and_closed_and_drive_nobody_out() {
    let server = Fixture::hub(config());
    let file = TokenFile::new("slots", "s3cret", 0o600);
    let limits = ControlLimits { connections: 2, lobby: 4, head_time: 10 * DEADLINE, ..ControlLimits::default() };
    let control = Control::start(server.clone(), &ControlOptions { limits, ..file.options() }).unwrap();
    let mut known = Http::connect(control.addr()).with("Authorization: Bearer s3cret");
    assert_eq!(known.get("/v1/stats").status, 200);
    for path in ["/v1/stats", "/metrics", "/nope", "/healthz", "/readyz", "/", "/assets/api.js"] {
        let mut stranger = Http::connect(control.addr());
        stranger.headers.push_str("Connection: keep-alive\r\n");
        assert_eq!(stranger.get(path).header("connection"), Some("close"), "{path}");
        assert!(stranger.is_closed());
    }
    let mut held = Vec::new();
    for sent in
        ["", "GET /v1/stats HTTP/1.1\r\nHost: a\r\nX: ", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\n"]
    {
        for _ in 0..20 {
            let mut stranger = Http::connect(control.addr());
            stranger.stream.write_all(sent.as_bytes()).unwrap();
            held.push(stranger);
        }
    }
    assert_eq!(Http::connect(control.addr()).get("/healthz").status, 200);
    // On the same connection: nobody took its place.
    known.write("GET", "/v1/stats", &[], b"");
    assert_eq!(known.response(false).header("connection"), None);
    control.stop();
}

#[test]
fn a_token_file_that_cannot_be_used_is_refused_with_the_remedy() {
    let start = |file: &TokenFile| match Control::bind(&file.options()) {
        Err(ControlError::Token { path, source }) => {
            assert_eq!(path, file.0);
            source
        }
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("{} was taken", file.0.display()),
    };
    for mode in [0o604, 0o602, 0o644, 0o666] {
        let error = start(&TokenFile::new("open", "token", mode));
        assert!(matches!(error, TokenError::Open { mode: found } if found == mode), "{error}");
        assert!(error.to_string().contains("chmod o="), "{error}");
    }
    for empty in ["", "\n", " \t\r\n"] {
        assert!(matches!(start(&TokenFile::new("empty", empty, 0o600)), TokenError::Empty));
    }
    for bad in ["two words", "two\nlines", "t\u{f6}ken", "nul\0"] {
        assert!(matches!(start(&TokenFile::new("bad", bad, 0o600)), TokenError::BadCharacter), "{bad:?}");
    }
    assert!(matches!(start(&TokenFile::new("large", "x".repeat(5000), 0o600)), TokenError::TooLarge));
    assert!(matches!(start(&TokenFile(PathBuf::from("/no/such/token"))), TokenError::Read(_)));
    assert!(matches!(start(&TokenFile(PathBuf::from("/proc/self"))), TokenError::Read(_) | TokenError::Open { .. }));
    assert!(Control::bind(&TokenFile::new("group", "token", 0o640).options()).is_ok());
    let open =
        ControlOptions { addr: "0.0.0.0:0".parse().unwrap(), token_file: None, limits: ControlLimits::default() };
    assert!(matches!(Control::bind(&open), Err(ControlError::Open { .. })));
}

#[test]
fn the_program_refuses_settings_that_would_leave_it_open() {
    let listen = "--listen=line=127.0.0.1:0";
    let ended = Program::run([listen, "--control=0.0.0.0:0"]);
    assert_eq!(ended.code, Some(2), "{}", ended.stderr);
    for part in ["control is 0.0.0.0:0", "control_token_file", "127.0.0.1:8081"] {
        assert!(ended.stderr.contains(part), "{}", ended.stderr);
    }
    let file = TokenFile::new("program", "", 0o600);
    let ended = Program::run([listen, "--control=127.0.0.1:0", &format!("--control-token-file={}", file.0.display())]);
    assert_eq!(ended.code, Some(2), "{}", ended.stderr);
    assert!(ended.stderr.contains("is empty") && ended.stderr.contains(file.0.to_str().unwrap()), "{}", ended.stderr);
}

#[test]
fn a_port_in_use_ends_the_program_with_its_address_and_the_remedy() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = taken.local_addr().unwrap();
    let ended = Program::run(["--listen=line=127.0.0.1:0", &format!("--control={addr}")]);
    assert_eq!(ended.code, Some(1), "{}", ended.stderr);
    assert!(ended.stderr.contains(&addr.to_string()) && ended.stderr.contains("--control"), "{}", ended.stderr);
    assert!(!ended.stderr.contains("ready:"), "{}", ended.stderr);
}

#[test]
fn pages_of_other_sites_cannot_call_a_server_without_a_token() {
    let plane = Plane::hub();
    let own = plane.addr();
    for foreign in
        ["http://evil.example", "https://127.0.0.1", "null", &format!("http://{own}.evil.example"), "http://"]
    {
        let header = format!("Origin: {foreign}");
        plane.http().send("POST", "/v1/broadcast", &[&header], b"x").is_problem(403, "foreign-origin");
        plane.http().send("GET", "/v1/stats", &[&header], b"").is_problem(403, "foreign-origin");
    }
    let header = format!("Origin: http://{own}");
    let receipt = plane.http().send("POST", "/v1/broadcast?receipt=true", &[&header], b"x");
    assert_eq!(receipt.status, 200);
    // A name that its owner lets lead to this address.
    for name in ["evil.example", "evil.example:8081", "localhost.evil.example", "127.0.0.1.evil.example", "a b"] {
        let mut http = plane.http();
        http.headers = format!("Host: {name}\r\n");
        http.get("/v1/stats").is_problem(403, "foreign-origin");
        assert_eq!(http.get("/healthz").status, 200);
    }
    for name in ["localhost", "LOCALHOST:8081", "[::1]:8081", "192.0.2.1"] {
        let mut http = plane.http();
        http.headers = format!("Host: {name}\r\n");
        assert_eq!(http.get("/v1/stats").status, 200, "{name}");
    }
    assert_eq!(plane.sum(|shard| shard.publishes.get()), 2, "one publish, on each of two shards");
}
