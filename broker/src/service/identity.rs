//! Who calls: whoever may open the socket, or an agent that shows its token.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
};

use http::{Request, Response, header::AUTHORIZATION};
use tonic::{Status, body::Body};
use tower::{Layer, Service};
use tracing::warn;

use broker_proto::{AgentName, Sender};

use super::reason;
use crate::{
    core::{Query, Reply},
    engine::EngineHandle,
    link::AgentToken,
};

/// The authenticated identity of a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Caller {
    /// A person or program of this user, by the socket's permissions and its peer's uid.
    Local,
    Agent(AgentName),
}

impl Caller {
    /// The caller of a request that passed the identity layer.
    pub(crate) fn of<T>(request: &tonic::Request<T>) -> Self {
        request.extensions().get().cloned().unwrap_or(Self::Local)
    }

    /// The agent that calls; whoever else does must show an agent's token.
    pub(crate) fn agent(self) -> Result<AgentName, Status> {
        match self {
            Self::Agent(name) => Ok(name),
            Self::Local => Err(reason::TOKEN_REJECTED.status(
                "only an agent takes deliveries: show the token of `brokerctl token create NAME`",
            )),
        }
    }

    /// The name that messages of this caller carry.
    pub(crate) fn sender(&self) -> Result<Sender, Status> {
        let name = match self {
            Self::Local => "local",
            Self::Agent(name) => name.as_str(),
        };
        Sender::parse(name).map_err(|invalid| reason::NOT_ALLOWED.status(invalid.to_string()))
    }

    /// Agents have their own queues and contents; only people decide about tokens and others' messages.
    fn may_call(&self, path: &str) -> bool {
        match self {
            Self::Local => true,
            Self::Agent(_) => {
                const OPEN: &[&str] = &[
                    "/broker.v1.AgentLinkService/",
                    "/broker.v1.ContentService/",
                    "/broker.v1.ConsultService/",
                    "/broker.v1.MessageService/SendMessage",
                    // Its own: what became of what it sent or gave out (I-6).
                    "/broker.v1.TaskService/",
                    "/broker.v1.MessageService/GetMessage",
                    "/broker.v1.MessageService/TraceMessage",
                    // What is offered to it, and the package that it must verify.
                    "/broker.v1.HandoffService/AcceptHandoff",
                    "/broker.v1.HandoffService/DeclineHandoff",
                    "/broker.v1.HandoffService/CompleteHandoff",
                    "/broker.v1.HandoffService/GetHandoff",
                    "/broker.v1.HandoffService/GetPackage",
                    "/broker.v1.HandoffService/ExportPackage",
                    "/grpc.health.v1.Health/",
                    "/grpc.reflection.",
                ];
                OPEN.iter().any(|open| path.starts_with(open))
            }
        }
    }
}

/// Looks tokens up.
#[derive(Debug, Clone)]
pub struct Verify {
    pub engine: EngineHandle,
}

impl Verify {
    async fn caller(&self, token: Option<String>) -> Result<Caller, Status> {
        let Some(token) = token else { return Ok(Caller::Local) };
        let hash = AgentToken::sent(&token).hash();
        match self.engine.query(Query::Token(hash)).await {
            Ok(Reply::Agent(Some(name))) => Ok(Caller::Agent(name)),
            Ok(_) => Err(reason::TOKEN_REJECTED.status(
                "this token is nobody's (any more); `brokerctl token create NAME` makes one",
            )),
            Err(error) => Err(super::status::engine(error)),
        }
    }
}

/// Puts the [`Caller`] into each request, or refuses it.
#[derive(Debug, Clone)]
pub struct IdentityLayer {
    verify: Verify,
}

impl IdentityLayer {
    #[must_use]
    pub fn new(verify: Verify) -> Self {
        Self { verify }
    }
}

impl<S> Layer<S> for IdentityLayer {
    type Service = Identity<S>;

    fn layer(&self, inner: S) -> Identity<S> {
        Identity { inner, verify: self.verify.clone() }
    }
}

/// The service that [`IdentityLayer`] makes.
#[derive(Debug, Clone)]
pub struct Identity<S> {
    inner: S,
    verify: Verify,
}

impl<S> Service<Request<Body>> for Identity<S>
where
    S: Service<Request<Body>, Response = Response<Body>> + Clone + Send + 'static,
    S::Future: Send,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<S::Response, S::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        // The service that was polled ready is the one that is called.
        let fresh = self.inner.clone();
        let mut inner = std::mem::replace(&mut self.inner, fresh);
        let verify = self.verify.clone();
        Box::pin(async move {
            let bearer = request.headers().get(AUTHORIZATION).map(|value| {
                let text = value.to_str().unwrap_or_default();
                text.strip_prefix("Bearer ").unwrap_or_default().to_owned()
            });
            let caller = match verify.caller(bearer).await {
                Ok(caller) => caller,
                Err(status) => {
                    warn!(path = request.uri().path(), reason = status.message(), "turned away");
                    return Ok(status.into_http());
                }
            };
            if !caller.may_call(request.uri().path()) {
                let status =
                    reason::NOT_ALLOWED.status("an agent's token does not allow this call");
                return Ok(status.into_http());
            }
            request.extensions_mut().insert(caller);
            inner.call(request).await
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use tonic::Code;
    use tower::{ServiceExt, service_fn};

    use crate::app::rehearsal::{Shell, soon};

    use super::*;

    type Reply = Result<Response<Body>, std::convert::Infallible>;

    /// Who called, as the service behind the layer saw it; or the code of the refusal.
    async fn call(shell: &Shell, bearer: Option<&str>, path: &str) -> Result<Caller, Code> {
        let seen = Arc::new(Mutex::new(None));
        let service = {
            let seen = Arc::clone(&seen);
            service_fn(move |request: Request<Body>| {
                *seen.lock().unwrap() = request.extensions().get::<Caller>().cloned();
                async { Reply::Ok(Response::new(Body::empty())) }
            })
        };
        let verify = Verify { engine: shell.engine.clone() };
        let mut request = Request::new(Body::empty());
        *request.uri_mut() = path.parse().unwrap();
        if let Some(bearer) = bearer {
            request.headers_mut().insert(AUTHORIZATION, bearer.parse().unwrap());
        }
        let answer = IdentityLayer::new(verify).layer(service).oneshot(request);
        let answer = soon(answer).await.unwrap();
        match Status::from_header_map(answer.headers()) {
            Some(status) => {
                assert!(seen.lock().unwrap().is_none());
                Err(status.code())
            }
            None => Ok(seen.lock().unwrap().clone().unwrap()),
        }
    }

    #[tokio::test]
    async fn a_call_is_its_tokens_or_the_users() {
        let shell = Shell::start().await;
        let token = shell.token("opus").await;
        let agent = Caller::Agent(AgentName::parse("opus").unwrap());
        let ask = "/broker.v1.ConsultService/Ask";
        let bearer = format!("Bearer {token}");

        assert_eq!(call(&shell, None, ask).await, Ok(Caller::Local));
        assert_eq!(call(&shell, Some(&bearer), ask).await, Ok(agent));
        for wrong in ["Bearer bat_0", "Bearer ", "Basic eA==", &token, "\u{fc}"] {
            let refused = call(&shell, Some(wrong), ask).await;
            assert_eq!(refused, Err(Code::Unauthenticated), "{wrong}");
        }
        let cancel = "/broker.v1.MessageService/CancelMessage";
        assert_eq!(call(&shell, Some(&bearer), cancel).await, Err(Code::PermissionDenied));
    }

    #[tokio::test]
    async fn a_revoked_token_is_nobodys() {
        let shell = Shell::start().await;
        let bearer = format!("Bearer {}", shell.token("opus").await);
        let agent = AgentName::parse("opus").unwrap();
        let command = crate::core::Command::SetToken { agent, hash: None };
        soon(shell.engine.command(command)).await.unwrap();
        let ask = "/broker.v1.ConsultService/Ask";
        assert_eq!(call(&shell, Some(&bearer), ask).await, Err(Code::Unauthenticated));
    }

    #[test]
    fn an_agent_may_not_make_tokens_or_end_others_messages() {
        let agent = Caller::Agent(AgentName::parse("opus").unwrap());
        for path in [
            "/broker.v1.RegistryService/CreateToken",
            "/broker.v1.MessageService/CancelMessage",
            "/broker.v1.UsageService/ReportUsage",
        ] {
            assert!(!agent.may_call(path), "{path}");
            assert!(Caller::Local.may_call(path), "{path}");
        }
        assert!(agent.may_call("/broker.v1.AgentLinkService/Connect"));
        assert!(agent.may_call("/broker.v1.ContentService/UploadChunk"));
    }
}
