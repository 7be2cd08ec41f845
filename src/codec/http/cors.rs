//! Which pages may connect, and what their browsers are told.

use super::answer::Refusal;
use super::{Outcome, Request, Site};
use crate::config::Standing;

impl Request<'_> {
    /// Who the page is that sent the request, if one did.
    fn standing(&self, site: &Site) -> Option<Standing> {
        self.origin.map(|origin| site.origins.standing(origin, self.host, None))
    }

    pub(super) fn check_origin(&self, site: &Site) -> Result<(), Refusal> {
        match self.standing(site) {
            Some(standing) if !standing.is_allowed() => {
                let text = "pages of this origin may not connect; the server allows it with --allow-origin";
                Err(Refusal::new(403, text))
            }
            _ => Ok(()),
        }
    }

    /// The headers that let a page of another origin read the answer, if it may.
    pub(super) fn cors(&self, site: &Site) -> String {
        let vary = if site.origins.is_any_alone() { "" } else { "Vary: Origin\r\n" };
        match (self.standing(site), self.origin) {
            (Some(Standing::Listed | Standing::Own), Some(origin)) if !site.origins.is_any_alone() => {
                format!("Access-Control-Allow-Origin: {origin}\r\nAccess-Control-Allow-Credentials: true\r\n{vary}")
            }
            (Some(Standing::Any | Standing::Own), Some(_)) => format!("Access-Control-Allow-Origin: *\r\n{vary}"),
            _ => vary.into(),
        }
    }

    pub(super) fn preflight(&self, site: &Site) -> Outcome {
        let cors = self.cors(site);
        let head = format!(
            "HTTP/1.1 204 No Content\r\n{cors}Access-Control-Allow-Methods: GET\r\n\
             Access-Control-Allow-Headers: Cache-Control, Last-Event-ID\r\nAccess-Control-Max-Age: 86400\r\n\
             Connection: close\r\n\r\n"
        );
        Outcome::Answer(head.into_bytes())
    }
}
