use super::*;

fn origin(text: &str) -> Origin {
    text.parse().unwrap_or_else(|error| panic!("{error}"))
}

/// Each listed origin, what it matches, and what it does not.
#[test]
fn an_origin_is_matched_in_every_form_it_is_written_in() {
    for (listed, pages, others) in [
        ("*", &["https://a.example", "null", "file://", "what ever"][..], &[][..]),
        (
            "https://example.com",
            &["https://example.com", "HTTPS://Example.COM", "https://example.com:443"],
            &[
                "http://example.com",
                "https://example.com:8443",
                "https://www.example.com",
                "https://example.com.evil.example",
                "https://evilexample.com",
                "null",
                "",
            ],
        ),
        ("https://example.com:443", &["https://example.com"], &["https://example.com:80", "http://example.com:443"]),
        ("http://example.com:80/", &["http://example.com"], &["https://example.com"]),
        ("https://example.com/", &["https://example.com"], &[]),
        ("HTTPS://EXAMPLE.COM", &["https://example.com"], &[]),
        ("https://example.com.", &["https://example.com", "https://example.com."], &[]),
        ("https://example.com", &["https://example.com."], &["https://example.com.."]),
        (
            "https://bücher.example",
            &["https://xn--bcher-kva.example", "https://BÜCHER.example"],
            &["https://bucher.example"],
        ),
        ("https://xn--bcher-kva.example", &["https://xn--bcher-kva.example"], &[]),
        ("http://localhost:3000", &["http://localhost:3000"], &["http://localhost", "http://localhost:3001"]),
        (
            "http://localhost:*",
            &["http://localhost", "http://localhost:3000"],
            &["https://localhost:3000", "http://a.localhost"],
        ),
        (
            "https://*.example.com",
            &["https://a.example.com", "https://b.a.example.com", "https://A.EXAMPLE.com"],
            &[
                "https://example.com",
                "https://.example.com",
                "https://evilexample.com",
                "https://a.example.com:8443",
                "http://a.example.com",
                "https://a.example.com.evil.example",
            ],
        ),
        ("https://*.example.com:8443", &["https://a.example.com:8443"], &["https://a.example.com"]),
        ("https://*.example.com:*", &["https://a.example.com:8443", "https://a.example.com"], &["https://example.com"]),
        ("https://*.bücher.example", &["https://a.xn--bcher-kva.example"], &[]),
        ("http://[::1]:8080", &["http://[::1]:8080", "http://[0:0::1]:8080"], &["http://[::2]:8080", "http://[::1]"]),
        ("http://127.0.0.1:8080", &["http://127.0.0.1:8080"], &["http://127.0.0.2:8080"]),
        ("http://my_host", &["http://my_host"], &[]),
        ("null", &["null"], &["file://", "https://null", ""]),
        ("NULL", &["null"], &[]),
        ("file://", &["null", "file://"], &["file://host", "https://a.example"]),
        ("file:///", &["null", "file://"], &[]),
        (
            "chrome-extension://abcdefghijklmnop",
            &["chrome-extension://abcdefghijklmnop"],
            &["chrome-extension://other"],
        ),
        (
            "moz-extension://*",
            &["moz-extension://6b1f-42", "moz-extension://other"],
            &["chrome-extension://other", "https://a"],
        ),
        ("capacitor://localhost", &["capacitor://localhost"], &["ionic://localhost", "http://localhost"]),
    ] {
        let origin = origin(listed);
        for page in pages {
            assert!(origin.matches(page), "{listed} does not match {page}");
        }
        for other in others {
            assert!(!origin.matches(other), "{listed} matches {other}");
        }
        assert_eq!(origin.to_string().parse(), Ok(origin), "{listed} does not survive being written");
    }
}

#[test]
fn what_could_never_match_is_refused_with_what_would() {
    for (text, told) in [
        ("", "write a scheme and a host"),
        ("example.com", "write https://example.com"),
        ("*.example.com", "write https://*.example.com"),
        ("example.com:8443/", "write https://example.com:8443"),
        ("https://", "not a name or an address"),
        ("https:///", "not a name or an address"),
        ("https://example.com/app", "write https://example.com"),
        ("https://example.com//", "write https://example.com"),
        ("https://example.com?a=b", "write https://example.com"),
        ("https://example.com#a", "write https://example.com"),
        ("https://a.example,https://b.example", "each origin by itself"),
        ("https://a.example,b.example", "each origin by itself"),
        ("https://a.example https://b.example", "each origin by itself"),
        ("https://me@example.com", "user name"),
        ("https://example.com:99999", "its port"),
        ("https://example.com:http", "its port"),
        ("https://*", "write * for that"),
        ("http://*:8080", "write * for that"),
        ("*://example.com", "a scheme is letters"),
        ("https://a.*.example.com", "first labels"),
        ("https://*example.com", "first labels"),
        ("https://*.*.example.com", "first labels"),
        ("https://*.127.0.0.1", "first labels"),
        ("https://*.[::1]", "first labels"),
        ("https://[::1", "not a name or an address"),
        ("https://a..b", "not a name or an address"),
        ("https://.", "not a name or an address"),
        ("https://exa mple.com", "white space"),
        ("https://%65xample.com", "not a name or an address"),
        ("wss://example.com", "write https://example.com"),
        ("ws://example.com:8080/", "write http://example.com:8080"),
        ("ftp://example.com", "no pages from ftp"),
        ("file:///home/me", "write file:// or null"),
        ("data:text/html", "write a scheme and a host"),
    ] {
        let error = text.parse::<Origin>().expect_err(text);
        assert!(
            error.to_string().contains(told) && error.to_string().starts_with(&format!("`{text}` is not an origin")),
            "{error}"
        );
    }
}

fn origins(listed: &[&str], names: &[&str]) -> Origins {
    let listed: Vec<_> = listed.iter().map(|text| text.parse().unwrap()).collect();
    let names: Vec<_> = names.iter().map(|text| text.parse().unwrap()).collect();
    Origins::new(&listed, &names)
}

#[test]
fn own_are_addresses_localhost_and_the_names_that_are_listed() {
    use Standing::{Foreign, OtherScheme, Own, UnknownName};
    let names = origins(&["https://other.example"], &["push.example.com", "*.apps.example", "bücher.example"]);
    for (page, host, standing) in [
        ("http://127.0.0.1:8080", "127.0.0.1:8080", Own),
        ("http://127.0.0.1", "127.0.0.1:80", Own),
        ("http://127.0.0.1:80", "127.0.0.1", Own),
        ("http://127.0.0.1:8080", "127.0.0.1:8081", Foreign),
        ("http://192.0.2.7:8080", "192.0.2.7:8080", Own),
        ("http://[::1]:8080", "[::1]:8080", Own),
        ("http://[::1]:8080", "[0::0:1]:8080", Own),
        ("http://localhost:8080", "localhost:8080", Own),
        ("http://LOCALHOST:8080", "localhost:8080", Own),
        ("http://app.localhost:8080", "app.localhost:8080", Own),
        ("http://localhost:8080", "127.0.0.1:8080", Foreign),
        ("http://push.example.com", "push.example.com", Own),
        ("https://push.example.com", "push.example.com", Own),
        ("https://push.example.com", "PUSH.example.com.:443", Own),
        ("https://push.example.com", "push.example.com:80", Foreign),
        ("https://a.b.apps.example:8443", "a.b.apps.example:8443", Own),
        ("https://apps.example", "apps.example", UnknownName),
        ("https://xn--bcher-kva.example", "xn--bcher-kva.example", Own),
        ("http://evil.example:8080", "evil.example:8080", UnknownName),
        ("http://localhost.evil.example", "localhost.evil.example", UnknownName),
        ("http://127.0.0.1.evil.example", "127.0.0.1.evil.example", UnknownName),
        ("http://evil.example:8080", "127.0.0.1:8080", Foreign),
        ("https://127.0.0.1:8080", "127.0.0.1:8080", OtherScheme),
        ("chrome-extension://127.0.0.1", "127.0.0.1", Foreign),
        ("null", "null", Foreign),
        ("", "", Foreign),
        ("http://", "", Foreign),
        ("http://a@127.0.0.1", "127.0.0.1", Foreign),
        ("http://127.0.0.1/", "127.0.0.1", Foreign),
    ] {
        assert_eq!(names.standing(page, Some(host), None), standing, "{page} at {host}");
    }
    assert_eq!(names.standing("http://127.0.0.1", None, None), Foreign);
    assert_eq!(names.standing("https://other.example", None, None), Standing::Listed);
    // What a proxy says about the scheme holds for names and addresses.
    for (page, scheme, standing) in [
        ("https://127.0.0.1", "https", Own),
        ("http://127.0.0.1", "https", OtherScheme),
        ("http://127.0.0.1", "HTTP", Own),
    ] {
        assert_eq!(names.standing(page, Some("127.0.0.1"), Some(scheme)), standing, "{page} by {scheme}");
    }
    assert_eq!(names.standing("http://push.example.com", Some("push.example.com"), Some("https")), OtherScheme);
    let any_name = origins(&[], &["*"]);
    assert_eq!(any_name.standing("http://what.ever", Some("what.ever"), None), Own);
}

#[test]
fn a_listed_origin_stays_listed_beside_any() {
    let mixed = origins(&["*", "https://named.example"], &[]);
    assert_eq!(mixed.standing("https://named.example", Some("x"), None), Standing::Listed);
    assert_eq!(mixed.standing("https://other.example", Some("x"), None), Standing::Any);
    assert_eq!(mixed.standing("http://evil.example", Some("evil.example"), None), Standing::Any);
    assert!(!mixed.is_any_alone() && origins(&["*"], &[]).is_any_alone());
}

#[test]
fn a_host_is_own_by_itself_too() {
    let names = origins(&[], &["push.example.com"]);
    for own in ["127.0.0.1:8080", "[::1]", "localhost", "LOCALHOST:1", "push.example.com:8443", "Push.Example.Com."] {
        assert!(names.is_own_host(own), "{own}");
    }
    for other in ["evil.example", "a.push.example.com", "", ":8080", "a b", "x@localhost", "localhost:port"] {
        assert!(!names.is_own_host(other), "{other}");
    }
}

#[test]
fn a_host_name_that_could_never_match_is_refused() {
    for (text, told) in [
        ("https://push.example.com:8443/app", "write push.example.com"),
        ("push.example.com:8443", "write push.example.com"),
        ("push.example.com/app", "write push.example.com"),
        ("a.example,b.example", "each name by itself"),
        ("*example.com", "write push.example.com"),
        ("", "write push.example.com"),
    ] {
        let error = text.parse::<HostName>().expect_err(text);
        assert!(
            error.to_string().contains(told) && error.to_string().starts_with(&format!("`{text}` is not a host name")),
            "{error}"
        );
    }
    for name in ["push.example.com", "PUSH.example.com.", "*.example.com", "*", "127.0.0.1", "[::1]", "localhost"] {
        let read: HostName = name.parse().unwrap();
        assert_eq!(read.to_string().parse(), Ok(read), "{name}");
    }
}

#[test]
fn authorities_are_compared_as_hosts_are() {
    for (one, other, is_same) in [
        ("example.com", "EXAMPLE.com:80", true),
        ("example.com", "example.com:8080", false),
        ("a.example", "b.example", false),
        ("[::1]:80", "[0::1]", true),
        ("", "", false),
    ] {
        assert_eq!(is_same_authority(one, other, "http"), is_same, "{one} {other}");
    }
    assert!(is_authority("my_host:80") && !is_authority("a b") && !is_authority("a/b") && !is_authority("a:b"));
}

proptest::proptest! {
    #[test]
    fn noise_never_panics(text in "\\PC{0,40}", rest in "[a-z:/*.\\[\\]@0-9é]{0,20}") {
        for text in [text.clone(), rest.clone(), format!("https://{text}"), format!("http://*.{rest}")] {
            if let Ok(origin) = text.parse::<Origin>() {
                let _ = origin.matches(&rest);
                proptest::prop_assert_eq!(origin.to_string().parse(), Ok(origin));
            }
            if let Ok(name) = text.parse::<HostName>() {
                proptest::prop_assert_eq!(name.to_string().parse(), Ok(name));
            }
            let _ = origins(&[], &[]).standing(&text, Some(&rest), None);
        }
    }
}
