//! Queues and dead letters, for whoever operates the broker.

use broker_proto::{
    Counters, DeadLetter, LettersHandled, MessageInfo, MessageName, QueueInfo, Recipient, pb,
};

use crate::{Client, Error, PAGE, Page, each, required};

/// Which dead letters are meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LetterSelection {
    All,
    To(Recipient),
    Named(Vec<MessageName>),
}

impl LetterSelection {
    fn wire(&self) -> Option<pb::DeadLetterSelection> {
        let none = pb::DeadLetterSelection::default;
        Some(match self {
            Self::All => pb::DeadLetterSelection { all: true, ..none() },
            Self::To(recipient) => pb::DeadLetterSelection { to: recipient.to_string(), ..none() },
            Self::Named(names) => {
                let message_ids = names.iter().map(ToString::to_string).collect();
                pb::DeadLetterSelection { message_ids, ..none() }
            }
        })
    }
}

fn token(next_page_token: String) -> Option<String> {
    Some(next_page_token).filter(|token| !token.is_empty())
}

impl Client {
    /// Every queue, by name.
    ///
    /// # Errors
    /// What every call may meet.
    pub async fn queues(&self) -> Result<Vec<QueueInfo>, Error> {
        let (mut all, mut page_token) = (Vec::new(), String::new());
        loop {
            let request =
                self.unary_request(pb::ListQueuesRequest { page_size: PAGE, page_token })?;
            let reply = self.reply(self.mail().list_queues(request).await)?;
            all.extend(each(reply.queues)?);
            page_token = reply.next_page_token;
            if page_token.is_empty() {
                return Ok(all);
            }
        }
    }

    /// One queue.
    ///
    /// # Errors
    /// [`Error::Refused`] when there is no such queue.
    pub async fn queue(&self, queue: &Recipient) -> Result<QueueInfo, Error> {
        let request = self.unary_request(pb::GetQueueRequest { queue: queue.to_string() })?;
        let reply = self.reply(self.mail().get_queue(request).await)?;
        Ok(required(reply.queue, "queue")?.try_into()?)
    }

    /// A page of what is ready in a queue, without content: the most urgent first, each priority in its order.
    ///
    /// # Errors
    /// [`Error::Refused`] when there is no such queue, or the page token is not one.
    pub async fn peek(
        &self,
        queue: &Recipient,
        page_size: u32,
        page_token: Option<String>,
    ) -> Result<Page<MessageInfo>, Error> {
        let request = self.unary_request(pb::PeekQueueRequest {
            queue: queue.to_string(),
            page_size,
            page_token: page_token.unwrap_or_default(),
        })?;
        let reply = self.reply(self.mail().peek_queue(request).await)?;
        let next_page_token = token(reply.next_page_token);
        Ok(Page { items: each(reply.messages)?, next_page_token })
    }

    /// Delivers nothing more from a queue, over restarts too, until it is resumed.
    ///
    /// # Errors
    /// [`Error::Refused`] when there is no such queue.
    pub async fn pause_queue(&self, queue: &Recipient) -> Result<QueueInfo, Error> {
        let request = self.unary_request(pb::PauseQueueRequest { queue: queue.to_string() })?;
        let reply = self.reply(self.mail().pause_queue(request).await)?;
        Ok(required(reply.queue, "queue")?.try_into()?)
    }

    /// Delivers from a queue again.
    ///
    /// # Errors
    /// [`Error::Refused`] when there is no such queue.
    pub async fn resume_queue(&self, queue: &Recipient) -> Result<QueueInfo, Error> {
        let request = self.unary_request(pb::ResumeQueueRequest { queue: queue.to_string() })?;
        let reply = self.reply(self.mail().resume_queue(request).await)?;
        Ok(required(reply.queue, "queue")?.try_into()?)
    }

    /// How many messages were accepted, for one recipient or in all, and where they stand.
    ///
    /// # Errors
    /// What every call may meet.
    pub async fn counters(&self, of: Option<&Recipient>) -> Result<Counters, Error> {
        let queue = of.map(ToString::to_string).unwrap_or_default();
        let request = self.unary_request(pb::GetCountersRequest { queue })?;
        let reply = self.reply(self.mail().get_counters(request).await)?;
        Ok(required(reply.counters, "counters")?.into())
    }

    /// A page of dead letters, newest first.
    ///
    /// # Errors
    /// [`Error::Refused`] when the page token is not one.
    pub async fn dead_letters(
        &self,
        to: Option<&Recipient>,
        page_size: u32,
        page_token: Option<String>,
    ) -> Result<Page<DeadLetter>, Error> {
        let request = self.unary_request(pb::ListDeadLettersRequest {
            page_size,
            page_token: page_token.unwrap_or_default(),
            to: to.map(ToString::to_string).unwrap_or_default(),
        })?;
        let reply = self.reply(self.mail().list_dead_letters(request).await)?;
        let next_page_token = token(reply.next_page_token);
        Ok(Page { items: each(reply.letters)?, next_page_token })
    }

    /// One dead letter with its whole chain of errors.
    ///
    /// # Errors
    /// [`Error::Refused`] when there is no such message, or it is no dead letter.
    pub async fn dead_letter(&self, message: impl Into<MessageName>) -> Result<DeadLetter, Error> {
        let message_id = message.into().to_string();
        let request = self.unary_request(pb::GetDeadLetterRequest { message_id })?;
        let reply = self.reply(self.mail().get_dead_letter(request).await)?;
        Ok(required(reply.letter, "letter")?.try_into()?)
    }

    /// Gives dead letters another life; with `dry_run` only says how many would get one.
    ///
    /// # Errors
    /// [`Error::Refused`] when one that is named is no dead letter.
    pub async fn redrive(
        &self,
        which: &LetterSelection,
        dry_run: bool,
    ) -> Result<LettersHandled, Error> {
        let request = pb::RedriveDeadLettersRequest { selection: which.wire(), dry_run };
        let request = self.unary_request(request)?;
        Ok(self.reply(self.mail().redrive_dead_letters(request).await)?.try_into()?)
    }

    /// Ends dead letters for good, and says how many; with `dry_run` how many it would be.
    ///
    /// # Errors
    /// [`Error::Refused`] when one that is named is no dead letter.
    pub async fn purge(&self, which: &LetterSelection, dry_run: bool) -> Result<u64, Error> {
        let request = pb::PurgeDeadLettersRequest { selection: which.wire(), dry_run };
        let request = self.unary_request(request)?;
        Ok(self.reply(self.mail().purge_dead_letters(request).await)?.purged)
    }
}
