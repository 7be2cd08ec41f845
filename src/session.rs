//! Who is at the other end of a connection, and what a handler keeps of it.

use std::any::Any;
use std::fmt;
use std::sync::Arc;

/// Who is at the other end of a connection, as [`Handler::on_open`](crate::Handler::on_open) has found out, and whatever the
/// handler keeps of it. It goes with the connection.
///
/// An anonymous session without a state takes no memory.
#[derive(Default)]
pub struct Session {
    user: Option<Arc<str>>,
    state: Option<Box<dyn Any + Send>>,
}

impl Session {
    /// Nobody in particular.
    pub fn anonymous() -> Self {
        Session::default()
    }

    /// A user, by the name that the handler's own world knows.
    pub fn of(user: impl Into<Arc<str>>) -> Self {
        Session { user: Some(user.into()), state: None }
    }

    /// The same, with a value of the handler's own, which [`Context::state`](crate::Context::state) gives back.
    pub fn with_state<T: Any + Send>(self, state: T) -> Self {
        Session { state: Some(Box::new(state)), ..self }
    }

    /// The user's name; `None`: it is anonymous.
    pub fn user(&self) -> Option<&str> {
        self.user.as_deref()
    }

    /// The handler's own value, if it is of this type.
    pub fn state<T: Any + Send>(&mut self) -> Option<&mut T> {
        self.state.as_mut()?.downcast_mut()
    }

    /// Whether there is nothing to keep.
    pub(crate) fn is_empty(&self) -> bool {
        self.user.is_none() && self.state.is_none()
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.state.as_ref().map(|_| "…");
        f.debug_struct("Session").field("user", &self.user).field("state", &state).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_comes_back_as_what_it_is_alone() {
        let mut session = Session::of("ann").with_state(vec![1, 2]);
        session.state::<Vec<i32>>().unwrap().push(3);
        assert_eq!(session.state::<Vec<i32>>(), Some(&mut vec![1, 2, 3]));
        assert_eq!(session.state::<String>(), None);
        assert_eq!((session.user(), session.is_empty()), (Some("ann"), false));
        assert!(Session::anonymous().is_empty() && !Session::anonymous().with_state(()).is_empty());
    }
}
