//! The query of a request, read parameter by parameter: each refusal names the parameter and what it may be.

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use percent_encoding::percent_decode_str;
use utoipa::openapi::schema::{AnyOfBuilder, SchemaType};
use utoipa::openapi::{ObjectBuilder, RefOr, Schema, Type};
use utoipa::{PartialSchema, ToSchema};

use crate::config::QUERY_PAGE_MAX;
use crate::control::api::Api;
use crate::control::problem::{Problem, ProblemCode};

/// The parameters of a query, which a call takes one by one.
pub(super) struct Query {
    /// Names with their values; `None`: there was no `=`.
    pairs: Vec<(String, Option<String>)>,
}

/// What a call takes from its query.
pub(super) trait Parameters: Sized {
    /// The names of all its parameters.
    const NAMES: &'static [&'static str];

    /// Takes them.
    fn take(query: &mut Query) -> Result<Self, Problem>;
}

/// The query, read into `T`. What `T` does not know is refused: a misspelt parameter must not go unnoticed.
pub(super) struct Params<T>(pub(super) T);

impl<T: Parameters> FromRequestParts<Api> for Params<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &Api) -> Result<Self, Problem> {
        let mut query = Query::read(parts.uri.query().unwrap_or_default())?;
        query.check_names(T::NAMES)?;
        T::take(&mut query).map(Params)
    }
}

/// The query of a call that has no parameters.
pub(super) struct NoParams;

impl Parameters for NoParams {
    const NAMES: &'static [&'static str] = &[];

    fn take(_: &mut Query) -> Result<Self, Problem> {
        Ok(NoParams)
    }
}

fn bad(detail: impl Into<String>) -> Problem {
    Problem::new(ProblemCode::BadQuery, detail)
}

impl Query {
    /// Reads a query as forms write it: `+` is a blank, and bytes may be percent-encoded.
    fn read(text: &str) -> Result<Self, Problem> {
        let decode = |part: &str| {
            let blanks = part.replace('+', " ");
            let decoded = percent_decode_str(&blanks).decode_utf8().map(|text| text.into_owned());
            decoded.map_err(|_| bad(format!("`{part}` in the query is not UTF-8 once its %XX are decoded")))
        };
        let pair = |part: &str| match part.split_once('=') {
            Some((name, value)) => Ok((decode(name)?, Some(decode(value)?))),
            None => Ok((decode(part)?, None)),
        };
        let parts = text.split('&').filter(|part| !part.is_empty());
        Ok(Query { pairs: parts.map(pair).collect::<Result<_, Problem>>()? })
    }

    /// Refuses what the call does not know, and what is there twice.
    fn check_names(&self, names: &[&str]) -> Result<(), Problem> {
        for (number, (name, _)) in self.pairs.iter().enumerate() {
            if !names.contains(&name.as_str()) {
                let takes = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
                return Err(bad(format!("there is no parameter `{name}` here; this call takes {takes}")));
            }
            if self.pairs[..number].iter().any(|(earlier, _)| earlier == name) {
                return Err(bad(format!("`{name}` appears more than once; give it once")));
            }
        }
        Ok(())
    }

    /// The value of a parameter; `None`: it is not there.
    pub(super) fn text(&mut self, name: &str) -> Option<String> {
        self.value(name).map(Option::unwrap_or_default)
    }

    /// A number from 1 to what a page may hold.
    pub(super) fn limit(&mut self, name: &str) -> Result<usize, Problem> {
        let Some(text) = self.text(name) else { return Ok(PAGE_LIMIT) };
        // `parse` alone would take a sign.
        let number = text.parse().ok().filter(|_| text.bytes().all(|byte| byte.is_ascii_digit()));
        number
            .filter(|number| (1..=QUERY_PAGE_MAX).contains(number))
            .ok_or_else(|| bad(format!("{name} is `{text}`; it must be a number from 1 to {QUERY_PAGE_MAX}")))
    }

    /// Whether a flag is set. It may stand alone, as in `?receipt`.
    pub(super) fn flag(&mut self, name: &str) -> Result<bool, Problem> {
        let Some(value) = self.value(name) else { return Ok(false) };
        let Some(text) = value else { return Ok(true) };
        let word = |words: &[&str]| words.contains(&text.as_str());
        match (word(Flag::YES), word(Flag::NO)) {
            (true, _) => Ok(true),
            (_, true) => Ok(false),
            _ => Err(bad(format!("{name} is `{text}`; write {name}=true or {name}=false (1 and 0 will do)"))),
        }
    }

    fn value(&mut self, name: &str) -> Option<Option<String>> {
        let at = self.pairs.iter().position(|(found, _)| found == name)?;
        Some(self.pairs.swap_remove(at).1)
    }
}

/// Items on a page where nothing else is asked for.
const PAGE_LIMIT: usize = 100;

/// How the API's description calls a flag.
pub(super) struct Flag;

impl Flag {
    const YES: &'static [&'static str] = &["true", "1", "yes", "on", "True", "TRUE"];
    const NO: &'static [&'static str] = &["false", "0", "no", "off", "False", "FALSE"];
}

impl PartialSchema for Flag {
    fn schema() -> RefOr<Schema> {
        let words = Flag::YES.iter().chain(Flag::NO).copied();
        let boolean = ObjectBuilder::new().schema_type(SchemaType::Type(Type::Boolean));
        let word = ObjectBuilder::new().schema_type(SchemaType::Type(Type::String)).enum_values(Some(words));
        AnyOfBuilder::new().item(boolean).item(word).into()
    }
}

impl ToSchema for Flag {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_is_read_as_forms_write_it() {
        let mut query = Query::read("&name=a%2Fb+c%2B&receipt&&empty=").unwrap();
        assert_eq!(query.text("name").as_deref(), Some("a/b c+"));
        assert!(query.flag("receipt").unwrap());
        assert_eq!(query.text("empty").as_deref(), Some(""));
        assert_eq!(query.text("name"), None);
        assert!(Query::read("name=%FF").is_err());
    }
}
