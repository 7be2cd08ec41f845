//! What the push server serves over HTTP.

use crate::message::Dialect;
use crate::routes::{Events, Page, Routes, Topics, WebSocket};

const HELP: &str = "\
corecast, a push server.

  /ws?topic=a&topic=b    a WebSocket; subprotocols corecast.v1 (text) and corecast.v1.json
  /sse?topic=a&topic=b   server-sent events, as for EventSource
  /sse?all               those that are sent to everyone
  /readyz, /healthz      whether the server takes clients, and whether it is alive

Inside a WebSocket, SUB topic subscribes, UNSUB topic ends it, PING proves that both sides live.
";

const SCRIPT: &str = "text/javascript; charset=utf-8";

/// The files of the demo page, beside it: path, type and content.
const FILES: [(&str, &str, &str); 3] = [
    ("/demo.css", "text/css; charset=utf-8", include_str!("../../deploy/web/demo.css")),
    ("/demo.js", SCRIPT, include_str!("../../deploy/web/demo.js")),
    ("/corecast.js", SCRIPT, include_str!("../../deploy/web/corecast.js")),
];

/// The demo page loads nothing from elsewhere and is not shown inside other pages. The policy is the page's: the module goes
/// wherever it is imported, into workers, too.
const DEMO_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; \
                           connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// The routes of the hub; `demo`: with the demo page.
pub(super) fn routes(demo: bool) -> Routes {
    let socket = WebSocket::new()
        .subprotocol("corecast.v1", Dialect::Text)
        .subprotocol("corecast.v1.json", Dialect::Json)
        .topics(Topics::Checked);
    let routes =
        Routes::new().websocket("/ws", socket).events("/sse", Events::new().topics(Topics::Required)).help(HELP);
    if !demo {
        let paths = FILES.iter().map(|file| file.0).chain(["/demo"]);
        return paths
            .fold(routes, |routes, path| routes.missing(path, "the demo page is switched off; --demo serves it"));
    }
    let page = Page::html(include_str!("../../deploy/web/demo.html")).header("Content-Security-Policy", DEMO_POLICY);
    FILES
        .into_iter()
        .fold(routes.page("/demo", page), |routes, (path, kind, body)| routes.page(path, Page::new(kind, body)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::routes::Target;

    #[test]
    fn the_demo_is_served_where_it_is_switched_on() {
        let (with, without) = (routes(true), routes(false));
        for path in ["/demo", "/demo.css", "/demo.js", "/corecast.js"] {
            assert!(matches!(with.find(path), Some(Target::Page(_))), "{path}");
            let Some(Target::Missing(why)) = without.find(path) else { panic!("{path}") };
            assert!(why.contains("--demo"), "{why}");
        }
    }

    #[test]
    fn the_policy_of_the_demo_lets_nothing_run_that_stands_in_the_page() {
        let Some(Target::Page(page)) = routes(true).find("/demo").cloned() else { panic!() };
        let text = std::str::from_utf8(&page.body).unwrap();
        assert!(text.contains("/demo.js"));
        for inline in ["<style", "<script>", " style=", " on"] {
            assert!(!text.contains(inline), "{inline}");
        }
        assert_eq!(page.fields, [("Content-Security-Policy".to_owned(), DEMO_POLICY.to_owned())]);
    }
}
