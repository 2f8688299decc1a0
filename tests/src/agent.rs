//! An agent that does what its test says.

use broker_client::{
    Client, Endpoint,
    link::{Agent, AgentOptions, Ended, Job, LinkState, Report, SettleError},
};
use broker_proto::{
    AgentName, Delivery, Failure, FailureClass, ModelName, Part, RoleName, SettleOutcome,
    StopReason,
};
use std::time::Duration;
use tokio::runtime::{Builder, Runtime};

use crate::within;

/// Who an agent is, and what it takes.
#[derive(Debug, Clone)]
pub struct Plan {
    name: String,
    models: Vec<String>,
    roles: Vec<String>,
    capacity: u32,
    is_exclusive: bool,
    byte_credit: u64,
    takes_sessions: bool,
}

impl Plan {
    /// One delivery at a time, under a shared name.
    #[must_use]
    pub fn new(name: &str, models: &[&str]) -> Self {
        Self {
            name: name.to_owned(),
            models: models.iter().map(|&model| model.to_owned()).collect(),
            roles: Vec::new(),
            capacity: 1,
            is_exclusive: false,
            byte_credit: 8 << 20,
            takes_sessions: true,
        }
    }

    /// Leaves what it is offered to its test.
    #[must_use]
    pub fn leaves_offers(self) -> Self {
        Self { takes_sessions: false, ..self }
    }

    #[must_use]
    pub fn role(mut self, role: &str) -> Self {
        self.roles.push(role.to_owned());
        self
    }

    #[must_use]
    pub fn exclusive(self) -> Self {
        Self { is_exclusive: true, ..self }
    }

    #[must_use]
    pub fn capacity(self, capacity: u32) -> Self {
        Self { capacity, ..self }
    }

    #[must_use]
    pub fn byte_credit(self, byte_credit: u64) -> Self {
        Self { byte_credit, ..self }
    }
}

/// An agent in a runtime of its own, so that it can be killed like a process.
#[derive(Debug)]
pub struct ScriptedAgent {
    options: AgentOptions,
    life: Option<Life>,
}

#[derive(Debug)]
struct Life {
    link: Agent,
    runtime: Option<Runtime>,
}

impl Drop for Life {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl ScriptedAgent {
    /// Gets a token, greets, and returns once it is linked.
    pub async fn join(endpoint: &Endpoint, plan: Plan) -> Self {
        let client = Client::lazy(endpoint);
        let name = AgentName::parse(&plan.name).expect("the test names an agent");
        let token = client.create_token(&name).await.expect("a token is made");
        let models = plan.models.iter().map(|m| ModelName::parse(m).expect("a model's name"));
        let roles = plan.roles.iter().map(|r| RoleName::parse(r).expect("a role's name"));
        let options = AgentOptions {
            roles: roles.collect(),
            is_exclusive: plan.is_exclusive,
            capacity: plan.capacity,
            byte_credit: plan.byte_credit,
            takes_sessions: plan.takes_sessions,
            reconnect_min: Duration::from_millis(20),
            reconnect_max: Duration::from_millis(200),
            ..AgentOptions::new(endpoint.clone(), name, token, models.collect())
        };
        Self::start(options).linked().await
    }

    /// Starts with these options; nothing is waited for.
    #[must_use]
    pub fn start(options: AgentOptions) -> Self {
        let life = Some(Life::begin(&options));
        Self { options, life }
    }

    async fn linked(mut self) -> Self {
        self.until_linked().await;
        self
    }

    /// Returns once the link stands.
    pub async fn until_linked(&mut self) {
        let mut state = self.link().state();
        let linked = state.wait_for(|state| matches!(state, LinkState::Connected));
        within("the agent's link", linked).await.expect("the link is being kept");
    }

    /// A client that calls as this agent.
    #[must_use]
    pub fn client(&self) -> Client {
        Client::lazy(&self.options.endpoint).with_token(self.options.token.clone())
    }

    /// Another process of the same agent: the same name, token and models.
    pub async fn sibling(&self) -> Self {
        Self::start(self.options.clone()).linked().await
    }

    fn link(&mut self) -> &mut Agent {
        &mut self.life.as_mut().expect("the agent was not killed").link
    }

    /// The next delivery.
    pub async fn next(&mut self) -> Work {
        let job = within("a delivery", self.link().next()).await;
        Work { job: job.expect("the link stands"), said: String::new() }
    }

    /// What there is to take at once; `None` when nothing was delivered so far.
    pub fn at_hand(&mut self) -> Option<Work> {
        use futures::FutureExt as _;
        let job = self.link().next().now_or_never()??;
        Some(Work { job, said: String::new() })
    }

    /// Takes the next delivery and answers it.
    pub async fn answer(&mut self, text: &str) {
        self.next().await.answer(text).await;
    }

    /// Is gone without a word, as by SIGKILL.
    pub fn crash(&mut self) {
        self.life = None;
    }

    /// Starts again as a new process.
    pub async fn restart(&mut self) {
        self.life = None;
        self.life = Some(Life::begin(&self.options));
        self.until_linked().await;
    }

    /// Leaves as by SIGTERM: takes nothing new, lets running work settle for `grace`.
    pub async fn drain(&mut self, grace: Duration) {
        within("the agent's drain", self.link().drain(grace)).await;
    }

    /// Why the link ended for good.
    pub async fn ended(&mut self) -> Ended {
        let mut state = self.link().state();
        let ended = state.wait_for(|state| matches!(state, LinkState::Ended));
        within("the link's end", ended).await.expect("the link says how it ended");
        self.link().ended().expect("it has ended")
    }
}

impl Life {
    fn begin(options: &AgentOptions) -> Self {
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.expect("a runtime");
        let inside = runtime.enter();
        let link = Agent::start(options.clone());
        drop(inside);
        Self { link, runtime: Some(runtime) }
    }
}

/// One delivery in hand.
#[derive(Debug)]
pub struct Work {
    job: Job,
    said: String,
}

impl Work {
    #[must_use]
    pub fn delivery(&self) -> &Delivery {
        self.job.delivery()
    }

    /// The texts of what is asked.
    #[must_use]
    pub fn question(&self) -> String {
        let texts = self.delivery().message.payload.request.iter().filter_map(|part| match part {
            Part::Text(text) => Some(text.as_str()),
            _ => None,
        });
        texts.collect()
    }

    /// Streams the next piece of the answer.
    pub async fn stream(&mut self, text: &str) {
        if self.said.is_empty() {
            self.job.start_part(0, Part::text("")).await;
        }
        self.job.delta(0, text).await;
        self.said.push_str(text);
    }

    /// Settles as done: what was streamed, then `rest`.
    pub async fn answer(self, rest: &str) {
        self.settle(rest).await.expect("the settlement counts");
    }

    /// As [`Work::answer`], where it may not count.
    ///
    /// # Errors
    /// What the broker said to it.
    pub async fn settle(self, rest: &str) -> Result<(), SettleError> {
        let parts = vec![Part::text(self.said + rest)];
        within("the settlement", settle_done(self.job, parts)).await
    }

    /// Settles as done with these parts.
    pub async fn answer_parts(self, parts: Vec<Part>) {
        within("the settlement", settle_done(self.job, parts)).await.expect("it counts");
    }

    /// Settles as failed, with what was streamed.
    pub async fn fail(self, class: FailureClass) {
        self.fail_with(Failure::new(class, "anthropic", "as the test wants")).await;
    }

    /// Settles as failed in this way, with what was streamed.
    pub async fn fail_with(self, failure: Failure) {
        let partial = if self.said.is_empty() { Vec::new() } else { vec![Part::text(self.said)] };
        let outcome = SettleOutcome::Failed { failure, partial };
        let settled = within("the settlement", self.job.settle(outcome, Report::default())).await;
        settled.expect("the settlement counts");
    }

    /// Settles with any outcome.
    pub async fn settle_as(self, outcome: SettleOutcome) {
        let settled = within("the settlement", self.job.settle(outcome, Report::default())).await;
        settled.expect("the settlement counts");
    }

    /// Returns once this work was cancelled, or its lease is lost.
    pub async fn cancelled(&self) {
        within("the cancellation", self.job.cancelled().cancelled()).await;
    }
}

async fn settle_done(job: Job, parts: Vec<Part>) -> Result<(), SettleError> {
    let outcome = SettleOutcome::Done { parts, stop_reason: Some(StopReason::End) };
    job.settle(outcome, Report::default()).await
}
