//! The fields of a request's head.

use httparse::Header;

use super::refusal::Refusal;

pub(super) fn values<'a>(fields: &'a [Header<'a>], name: &str) -> impl Iterator<Item = &'a [u8]> {
    fields.iter().filter(move |field| field.name.eq_ignore_ascii_case(name)).map(|field| field.value)
}

/// The value of a field that may be there once at the most.
pub(super) fn single<'a>(fields: &'a [Header<'a>], name: &'static str) -> Result<Option<&'a str>, Refusal> {
    let mut values = values(fields, name);
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(Refusal::new(400, format!("the {name} header appears twice")));
    }
    let value = std::str::from_utf8(value).map_err(|_| Refusal::new(400, format!("the {name} header is not text")))?;
    Ok(Some(value.trim_ascii()))
}

/// The values of a field that is a list, over all its occurrences.
pub(super) fn tokens<'a>(fields: &'a [Header<'a>], name: &str) -> impl Iterator<Item = &'a str> {
    let texts = values(fields, name).filter_map(|value| std::str::from_utf8(value).ok());
    texts.flat_map(|text| text.split(',')).map(str::trim_ascii).filter(|token| !token.is_empty())
}

pub(super) fn has_token(fields: &[Header<'_>], name: &str, token: &str) -> bool {
    tokens(fields, name).any(|value| value.eq_ignore_ascii_case(token))
}
