//! The fields of a request's head.

use super::{Head, Refusal};

impl<'a> Head<'a> {
    /// The values of a field, as they came, over all its occurrences.
    pub(crate) fn values(&self, name: &str) -> impl Iterator<Item = &'a [u8]> {
        self.fields.iter().filter(move |field| field.name.eq_ignore_ascii_case(name)).map(|field| field.value)
    }

    /// The value of a field that may be there once at the most.
    ///
    /// # Errors
    /// It is there twice, or it is not text.
    pub(crate) fn single(&self, name: &'static str) -> Result<Option<&'a str>, Refusal> {
        let mut values = self.values(name);
        let Some(value) = values.next() else { return Ok(None) };
        if values.next().is_some() {
            return Err(Refusal::new(400, format!("the {name} header appears twice")));
        }
        let value =
            std::str::from_utf8(value).map_err(|_| Refusal::new(400, format!("the {name} header is not text")))?;
        Ok(Some(value.trim_ascii()))
    }

    /// The values of a field that is a list, over all its occurrences.
    pub(crate) fn tokens(&self, name: &str) -> impl Iterator<Item = &'a str> {
        let texts = self.values(name).filter_map(|value| std::str::from_utf8(value).ok());
        texts.flat_map(|text| text.split(',')).map(str::trim_ascii).filter(|token| !token.is_empty())
    }

    /// Whether a list names a token, in any case.
    pub(crate) fn has_token(&self, name: &str, token: &str) -> bool {
        self.tokens(name).any(|value| value.eq_ignore_ascii_case(token))
    }
}
