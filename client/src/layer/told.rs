//! What a layer has told and prepared of each session, so that it does so once.

use std::{
    collections::VecDeque,
    sync::{Mutex, PoisonError},
};

use broker_proto::{ModelName, SessionId};

use super::Due;

/// Sessions that are remembered; of one that is forgotten, it is told again.
const MOST: usize = 1_024;

#[derive(Debug)]
struct Known {
    session: SessionId,
    owner: ModelName,
    due: Due,
    is_prepared: bool,
}

/// The sessions looked at, the last one first.
#[derive(Debug, Default)]
pub(super) struct Told(Mutex<VecDeque<Known>>);

impl Told {
    /// Whether more is due than was told of, of this session with this owner.
    pub(super) fn is_news(&self, session: &SessionId, owner: &ModelName, due: Due) -> bool {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let at = all.iter().position(|known| known.session == *session);
        let known = at.and_then(|at| all.remove(at)).filter(|known| known.owner == *owner);
        let told = known.as_ref().map_or(Due::Nothing, |known| known.due);
        let is_prepared = known.is_some_and(|known| known.is_prepared);
        if due > Due::Nothing {
            let (session, owner) = (session.clone(), owner.clone());
            all.push_front(Known { session, owner, due, is_prepared });
            all.truncate(MOST);
        }
        due > told
    }

    pub(super) fn is_prepared(&self, session: &SessionId) -> bool {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.iter().any(|known| known.session == *session && known.is_prepared)
    }

    pub(super) fn prepared(&self, session: &SessionId) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = all.iter_mut().find(|known| known.session == *session) {
            known.is_prepared = true;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_level_is_news_once_until_it_falls_or_the_owner_is_another() {
        let told = Told::default();
        let id = |text: &str| SessionId::parse(text).unwrap();
        let model = |name: &str| ModelName::parse(name).unwrap();
        let is_news = |owner: &str, due| told.is_news(&id("s"), &model(owner), due);
        assert!(!is_news("opus", Due::Nothing));
        assert!(is_news("opus", Due::Warning));
        assert!(!is_news("opus", Due::Warning));
        assert!(is_news("opus", Due::Preparation));
        told.prepared(&id("s"));
        assert!(!is_news("opus", Due::Warning));
        assert!(told.is_prepared(&id("s")), "a lower level leaves what is prepared");
        assert!(is_news("sonnet", Due::Warning));
        assert!(!told.is_prepared(&id("s")), "that was for another owner's");
        assert!(!is_news("sonnet", Due::Nothing));
        assert!(is_news("sonnet", Due::Warning));
        assert!(told.is_news(&id("t"), &model("opus"), Due::Warning), "each session by itself");
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let told = Told::default();
        let opus = ModelName::parse("opus").unwrap();
        for number in 0..=MOST {
            let id = SessionId::parse(&format!("s{number}")).unwrap();
            assert!(told.is_news(&id, &opus, Due::Move));
        }
        assert_eq!(told.0.lock().unwrap().len(), MOST);
    }
}
