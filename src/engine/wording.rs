//! In whose words, and in which encoding, a connection is written to.

use crate::protocol::Encoding;

/// Connections of one wording read the same bytes, and share frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Wording {
    /// The number of the handler that serves the connection.
    pub(crate) handler: u8,
    pub(crate) encoding: Encoding,
}

/// A value for each wording. Those of the first handler, which is the only one of most servers, take no allocation.
pub(crate) struct ByWording<T> {
    first: [T; Encoding::ALL.len()],
    others: Vec<[T; Encoding::ALL.len()]>,
}

impl<T: Default> Default for ByWording<T> {
    fn default() -> Self {
        ByWording { first: Default::default(), others: Vec::new() }
    }
}

impl<T: Default> ByWording<T> {
    pub(crate) fn get_mut(&mut self, wording: Wording) -> &mut T {
        let encoding = wording.encoding as usize;
        let Some(other) = usize::from(wording.handler).checked_sub(1) else { return &mut self.first[encoding] };
        if self.others.len() <= other {
            self.others.resize_with(other + 1, Default::default);
        }
        &mut self.others[other][encoding]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_wording_has_a_value_of_its_own() {
        let mut values = ByWording::<u32>::default();
        let wordings = || (0..3).rev().flat_map(|handler| Encoding::ALL.map(|encoding| Wording { handler, encoding }));
        for (n, wording) in wordings().enumerate() {
            *values.get_mut(wording) = n as u32 + 1;
        }
        for (n, wording) in wordings().enumerate() {
            assert_eq!(*values.get_mut(wording), n as u32 + 1, "{wording:?}");
        }
    }
}
