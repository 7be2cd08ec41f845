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
        ControlOptions { addrs: vec![addr], token_file: Some(self.0.clone()), limits: ControlLimits::default() }
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
    let limits = settings! { connections: 2, lobby: 4, head_time: 10 * DEADLINE, ..ControlLimits::default() };
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
    for mode in [0o602, 0o666, 0o777] {
        let error = start(&TokenFile::new("open", "token", mode));
        assert!(matches!(error, TokenError::Open { mode: found } if found == mode), "{error}");
        assert!(error.to_string().contains("chmod o-w"), "{error}");
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
    let open = ControlOptions {
        addrs: vec!["0.0.0.0:0".parse().unwrap()],
        token_file: None,
        limits: ControlLimits::default(),
    };
    assert!(matches!(Control::bind(&open), Err(ControlError::Open { .. })));
}

#[test]
fn a_token_file_as_kubernetes_and_compose_mount_it_is_taken_with_a_warning() {
    for (mode, warned) in [
        (0o400, None),
        (0o440, None),
        (0o640, None),
        (0o604, Some("chmod o= ")),
        (0o444, Some("chmod o= ")),
        (0o644, Some("chmod o= ")),
        (0o660, Some("chmod g-w ")),
        (0o664, Some("chmod g-w,o= ")),
    ] {
        let file = TokenFile::new("mounted", "token", mode);
        let checked = file.options().check().unwrap();
        let bound = Control::bind(&file.options()).unwrap();
        assert_eq!(checked, bound.warnings(), "{mode:o}");
        match warned {
            None => assert!(checked.is_empty(), "{mode:o}: {checked:?}"),
            Some(remedy) => assert!(checked.len() == 1 && checked[0].contains(remedy), "{mode:o}: {checked:?}"),
        }
    }
    // Kubernetes: the file is a link into a folder that is a link.
    let folder = std::env::temp_dir().join(format!("corecast-{}-secret", std::process::id()));
    fs::create_dir_all(folder.join("..2026")).unwrap();
    fs::write(folder.join("..2026/token"), "s3cret").unwrap();
    fs::set_permissions(folder.join("..2026/token"), fs::Permissions::from_mode(0o644)).unwrap();
    std::os::unix::fs::symlink("..2026", folder.join("..data")).unwrap();
    std::os::unix::fs::symlink("..data/token", folder.join("token")).unwrap();
    let path = folder.join("token");
    let program = Program::serve(["--control=127.0.0.1:0", &format!("--control-token-file={}", path.display())]);
    let log = program.log();
    assert!(log.contains("WARN everybody on this machine can read the token file"), "{log}");
    fs::remove_dir_all(folder).unwrap();
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

/// The status of a GET of the statistics with these header lines, and nothing else.
fn status(addr: std::net::SocketAddr, request: &str, headers: &[String]) -> u16 {
    let mut http = Http::connect(addr);
    let lines: String = headers.iter().map(|line| format!("{line}\r\n")).collect();
    http.stream.write_all(format!("{request} HTTP/1.1\r\n{lines}\r\n").as_bytes()).unwrap();
    http.response(false).status
}

#[test]
fn pages_of_origins_that_are_listed_may_call_and_patterns_open_nothing() {
    let listed = ["https://ops.example", "https://*.example.org", "http://localhost:*", "null", "*"];
    let plane = Plane::over(Fixture::hub(settings! {
        allow_origin: listed.iter().map(|origin| origin.parse().unwrap()).collect(),
        host: vec!["push.example".parse().unwrap()],
        ..config()
    }));
    let own = plane.addr();
    let with = |host: &str, more: &[&str]| {
        let lines: Vec<_> =
            [format!("Host: {host}")].into_iter().chain(more.iter().map(|line| (*line).into())).collect();
        status(own, "GET /v1/stats", &lines)
    };
    let own = own.to_string();
    // As a proxy sends it that changes Host.
    assert_eq!(with(&own, &["Origin: https://ops.example"]), 200);
    assert_eq!(with(&own, &["Origin: https://OPS.example:443", "Sec-Fetch-Site: cross-site"]), 200);
    // As one that doesn't.
    assert_eq!(with("push.example", &["Origin: https://push.example"]), 200);
    assert_eq!(with("push.example", &["Origin: http://push.example", "X-Forwarded-Proto: https"]), 403);
    assert_eq!(with("localhost:9", &["Origin: https://localhost:9", "X-Forwarded-Proto: https, http"]), 200);
    assert_eq!(with("localhost:9", &["Origin: https://localhost:9"]), 403, "the scheme is another");
    assert_eq!(with("other.example", &["Origin: https://ops.example"]), 403, "a name that may be anybody's");
    for origin in [
        "http://ops.example",
        "https://ops.example:8443",
        "https://a.example.org",
        "http://localhost:1",
        "null",
        "https://x",
    ] {
        assert_eq!(with(&own, &[&format!("Origin: {origin}")]), 403, "{origin}");
    }
}

#[test]
fn what_other_sites_make_a_browser_load_is_refused() {
    let plane = Plane::hub();
    let host = format!("Host: {}", plane.addr());
    let with = |request: &str, more: &[&str]| {
        let lines: Vec<_> = [host.clone()].into_iter().chain(more.iter().map(|line| (*line).into())).collect();
        status(plane.addr(), request, &lines)
    };
    for site in ["cross-site", "same-site", "unheard-of"] {
        let site = format!("Sec-Fetch-Site: {site}");
        for request in
            ["GET /v1/stats", "GET /metrics", "GET /openapi.json", "GET /assets/api.js", "POST /v1/broadcast"]
        {
            assert_eq!(with(request, &[&site, "Sec-Fetch-Mode: no-cors"]), 403, "{request} {site}");
            assert_eq!(with(request, &[&site, "Sec-Fetch-Mode: navigate"]), 403, "{request} {site}");
        }
        assert_eq!(with("GET /", &[&site, "Sec-Fetch-Mode: navigate", "Sec-Fetch-Dest: document"]), 200, "a link");
        assert_eq!(with("GET /", &[&site, "Sec-Fetch-Mode: navigate", "Sec-Fetch-Dest: iframe"]), 403, "a frame");
        assert_eq!(with("GET /", &[&site, "Sec-Fetch-Mode: no-cors"]), 403);
        assert_eq!(with("GET /healthz", &[&site]), 200);
    }
    for site in ["same-origin", "none"] {
        assert_eq!(with("GET /v1/stats", &[&format!("Sec-Fetch-Site: {site}")]), 200);
    }
    assert_eq!(plane.sum(|shard| shard.publishes.get()), 0);
}

#[test]
fn a_request_that_names_two_servers_or_two_pages_is_refused() {
    let plane = Plane::hub();
    let own = plane.addr();
    let (host, evil) = (format!("Host: {own}"), "Host: evil.example".to_owned());
    let origin = format!("Origin: http://{own}");
    let foreign = "Origin: http://evil.example".to_owned();
    for path in ["/v1/stats", "/healthz", "/"] {
        let get = format!("GET {path}");
        assert_eq!(status(own, &get, &[host.clone(), host.clone()]), 400, "{path}");
        assert_eq!(status(own, &get, &[host.clone(), evil.clone()]), 400, "{path}");
        assert_eq!(status(own, &get, &[host.clone(), origin.clone(), foreign.clone()]), 400, "{path}");
        assert_eq!(status(own, &format!("GET http://evil.example{path}"), std::slice::from_ref(&host)), 400, "{path}");
    }
    assert_eq!(status(own, "GET http://evil.example/v1/stats", &[evil]), 403);
    assert_eq!(status(own, "GET http://evil.example/v1/stats", &[]), 403);
    assert_eq!(status(own, &format!("GET http://{own}/v1/stats"), std::slice::from_ref(&host)), 200);
    assert_eq!(status(own, &format!("GET http://{own}/v1/stats"), &[host, origin]), 200);
}
