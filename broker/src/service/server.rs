//! The services as the server takes them, so that whoever wires them needs no generated type.

use broker_proto::pb::{
    self, agent_link_service_server::AgentLinkServiceServer,
    consult_service_server::ConsultServiceServer, content_service_server::ContentServiceServer,
    event_service_server::EventServiceServer, handoff_service_server::HandoffServiceServer,
    message_service_server::MessageServiceServer, registry_service_server::RegistryServiceServer,
    session_service_server::SessionServiceServer, task_service_server::TaskServiceServer,
    usage_service_server::UsageServiceServer,
};

use super::{
    AgentLinkService, ConsultService, ContentService, EventService, HandoffService, MessageService,
    RegistryService, SessionService, TaskService, UsageService,
};

/// The compiled descriptors of every service, for reflection.
pub const DESCRIPTORS: &[u8] = pb::DESCRIPTORS;

macro_rules! server {
    ($($service:ident => $server:ident),+ $(,)?) => {$(
        impl $service {
            /// Takes requests of at most `largest` bytes.
            #[must_use]
            pub fn server(self, largest: usize) -> $server<Self> {
                $server::new(self).max_decoding_message_size(largest)
            }
        }
    )+};
}

server!(
    AgentLinkService => AgentLinkServiceServer,
    ConsultService => ConsultServiceServer,
    ContentService => ContentServiceServer,
    EventService => EventServiceServer,
    HandoffService => HandoffServiceServer,
    MessageService => MessageServiceServer,
    RegistryService => RegistryServiceServer,
    SessionService => SessionServiceServer,
    TaskService => TaskServiceServer,
    UsageService => UsageServiceServer,
);
