//! `HandoffService`.

use bytes::Bytes;
use futures::{StreamExt, stream::BoxStream};
use prost::Message as _;
use tonic::{Request, Response, Status};

use broker_proto::{
    ContentHash, HandoffFilter, HandoffId, NewPackage, PackageFilter, PackageId, PreparePackage,
    TrustedKey,
    convert::{
        InvalidField, handoff_id, handoff_line, model_name, optional_model_name,
        optional_session_id, package_id, session_id,
    },
    pb,
};

use super::{Caller, session::on_conflict, status};
use crate::{
    context::package::document,
    core::handoff::By,
    handoffs::{Bridges, Handoffs},
    packages::{File, Loaded, Packages, Prepared, Restore, Template},
};

/// Bytes of a document or a file in one frame.
const CHUNK: usize = 256 * 1024;

/// Packages: what work needs to go on with another model.
#[derive(Debug)]
pub struct HandoffService {
    pub packages: Packages,
    pub handoffs: Handoffs,
    pub bridges: Bridges,
}

/// Who answers for a receiver.
fn by(caller: Caller) -> By {
    match caller {
        Caller::Local => By::Person,
        Caller::Agent(name) => By::Agent(name),
    }
}

fn handoff_page(token: &str) -> Result<Option<HandoffId>, InvalidField> {
    let id = || handoff_id(token).map(Some);
    if token.is_empty() { Ok(None) } else { id() }
        .map_err(|_| InvalidField::new("page_token", "is not one that a list gave"))
}

fn file(wire: Option<pb::PackageFile>) -> Result<File, InvalidField> {
    use pb::package_file::File as Wire;
    match wire.and_then(|wire| wire.file) {
        Some(Wire::Inline(bytes)) => Ok(File::Inline(bytes)),
        Some(Wire::Hash(hash)) => {
            let hash = hash[..].try_into();
            let hash = hash.map_err(|_| InvalidField::new("file.hash", "is not 32 bytes"))?;
            Ok(File::Uploaded(ContentHash(hash)))
        }
        None => Err(InvalidField::new("file", "is missing")),
    }
}

impl HandoffService {
    /// The request itself, or the one that was uploaded because no frame holds it.
    async fn whole(
        &self,
        request: pb::SavePackageRequest,
    ) -> Result<pb::SavePackageRequest, Status> {
        if request.uploaded.is_empty() {
            return Ok(request);
        }
        let hash = request.uploaded[..].try_into();
        let hash = hash.map_err(|_| InvalidField::new("uploaded", "is not 32 bytes"))?;
        let bytes = self.packages.uploaded(ContentHash(hash)).await.map_err(status::packages)?;
        let problem = "is no request to save a package";
        let whole = pb::SavePackageRequest::decode(bytes)
            .map_err(|_| InvalidField::new("uploaded", problem))?;
        Ok(whole)
    }
}

fn filter(wire: Option<pb::PackageFilter>) -> Result<PackageFilter, InvalidField> {
    wire.map(PackageFilter::try_from).transpose().map(Option::unwrap_or_default)
}

fn optional_id(text: &str) -> Result<Option<PackageId>, InvalidField> {
    if text.is_empty() { Ok(None) } else { package_id(text).map(Some) }
}

fn page(token: &str) -> Result<Option<PackageId>, InvalidField> {
    optional_id(token).map_err(|_| InvalidField::new("page_token", "is not one that a list gave"))
}

/// Bytes in frames; nothing is one empty frame.
fn chunks(mut bytes: Bytes) -> Vec<Bytes> {
    let mut chunks = Vec::new();
    while bytes.len() > CHUNK {
        chunks.push(bytes.split_to(CHUNK));
    }
    chunks.push(bytes);
    chunks
}

#[tonic::async_trait]
impl pb::handoff_service_server::HandoffService for HandoffService {
    type LoadPackageStream = BoxStream<'static, Result<pb::LoadPackageResponse, Status>>;
    type ExportPackageStream = BoxStream<'static, Result<pb::ExportPackageResponse, Status>>;

    async fn begin_handoff(
        &self,
        request: Request<pb::BeginHandoffRequest>,
    ) -> Result<Response<pb::BeginHandoffResponse>, Status> {
        let ask = request.into_inner().try_into()?;
        let handoff = self.handoffs.begin(ask).await.map_err(status::handoffs)?;
        Ok(Response::new(pb::BeginHandoffResponse { handoff: Some(handoff.into()) }))
    }

    async fn accept_handoff(
        &self,
        request: Request<pb::AcceptHandoffRequest>,
    ) -> Result<Response<pb::AcceptHandoffResponse>, Status> {
        let by = by(Caller::of(&request));
        let accept = request.into_inner().try_into()?;
        let handoff = self.handoffs.accept(accept, by).await.map_err(status::handoffs)?;
        Ok(Response::new(pb::AcceptHandoffResponse { handoff: Some(handoff.into()) }))
    }

    async fn decline_handoff(
        &self,
        request: Request<pb::DeclineHandoffRequest>,
    ) -> Result<Response<pb::DeclineHandoffResponse>, Status> {
        let by = by(Caller::of(&request));
        let request = request.into_inner();
        let id = handoff_id(&request.handoff_id)?;
        let reason = handoff_line(request.reason, "reason")?;
        let handoff = self.handoffs.decline(id, by, reason, request.for_model).await;
        let handoff = handoff.map_err(status::handoffs)?;
        Ok(Response::new(pb::DeclineHandoffResponse { handoff: Some(handoff.into()) }))
    }

    async fn complete_handoff(
        &self,
        request: Request<pb::CompleteHandoffRequest>,
    ) -> Result<Response<pb::CompleteHandoffResponse>, Status> {
        let by = by(Caller::of(&request));
        let request = request.into_inner();
        let id = handoff_id(&request.handoff_id)?;
        let outcome = handoff_line(request.outcome, "outcome")?;
        let handoff = self.handoffs.complete(id, by, outcome).await.map_err(status::handoffs)?;
        Ok(Response::new(pb::CompleteHandoffResponse { handoff: Some(handoff.into()) }))
    }

    async fn give_back_handoff(
        &self,
        request: Request<pb::GiveBackHandoffRequest>,
    ) -> Result<Response<pb::GiveBackHandoffResponse>, Status> {
        let request = request.into_inner();
        let id = handoff_id(&request.handoff_id)?;
        let reason = handoff_line(request.reason, "reason")?;
        let handoff = self.handoffs.give_back(id, reason).await.map_err(status::handoffs)?;
        Ok(Response::new(pb::GiveBackHandoffResponse { handoff: Some(handoff.into()) }))
    }

    async fn get_handoff(
        &self,
        request: Request<pb::GetHandoffRequest>,
    ) -> Result<Response<pb::GetHandoffResponse>, Status> {
        let id = handoff_id(&request.into_inner().handoff_id)?;
        let handoff = self.handoffs.get(id).await.map_err(status::handoffs)?;
        Ok(Response::new(pb::GetHandoffResponse { handoff: Some(handoff.into()) }))
    }

    async fn report_handoff(
        &self,
        request: Request<pb::ReportHandoffRequest>,
    ) -> Result<Response<pb::ReportHandoffResponse>, Status> {
        let id = handoff_id(&request.into_inner().handoff_id)?;
        let handoff = self.handoffs.get(id).await.map_err(status::handoffs)?;
        let report = self.packages.report_handoff(handoff).await.map_err(status::packages)?;
        Ok(Response::new(report.into()))
    }

    async fn list_handoffs(
        &self,
        request: Request<pb::ListHandoffsRequest>,
    ) -> Result<Response<pb::ListHandoffsResponse>, Status> {
        let request = request.into_inner();
        let filter = HandoffFilter::try_from(&request)?;
        let before = handoff_page(&request.page_token)?;
        let listed = self.handoffs.list(filter, before, request.page_size).await;
        let (handoffs, next) = listed.map_err(status::handoffs)?;
        Ok(Response::new(pb::ListHandoffsResponse {
            handoffs: handoffs.into_iter().map(Into::into).collect(),
            next_page_token: next.map(|id| id.to_string()).unwrap_or_default(),
        }))
    }

    async fn get_handoff_policy(
        &self,
        _: Request<pb::GetHandoffPolicyRequest>,
    ) -> Result<Response<pb::GetHandoffPolicyResponse>, Status> {
        let settings = self.handoffs.policy().await.map_err(status::handoffs)?;
        let settings = settings.into_iter().map(Into::into).collect();
        Ok(Response::new(pb::GetHandoffPolicyResponse { settings }))
    }

    async fn set_handoff_policy(
        &self,
        request: Request<pb::SetHandoffPolicyRequest>,
    ) -> Result<Response<pb::SetHandoffPolicyResponse>, Status> {
        let change = request.into_inner().try_into()?;
        let settings = self.handoffs.set_policy(change).await.map_err(status::handoffs)?;
        let settings = settings.into_iter().map(Into::into).collect();
        Ok(Response::new(pb::SetHandoffPolicyResponse { settings }))
    }

    async fn check_handoff(
        &self,
        request: Request<pb::CheckHandoffRequest>,
    ) -> Result<Response<pb::CheckHandoffResponse>, Status> {
        let pb::CheckHandoffRequest { session_id, warning_only } = request.into_inner();
        let session = handoff_line(session_id, "session_id")?;
        let check = self.handoffs.check(session, warning_only).await.map_err(status::handoffs)?;
        Ok(Response::new(check.into()))
    }

    async fn get_handoff_status(
        &self,
        request: Request<pb::GetHandoffStatusRequest>,
    ) -> Result<Response<pb::GetHandoffStatusResponse>, Status> {
        let session = handoff_line(request.into_inner().session_id, "session_id")?;
        let session = Some(session).filter(|name| !name.is_empty());
        let status = self.handoffs.status(session).await.map_err(status::handoffs)?;
        Ok(Response::new(status.into()))
    }

    async fn open_bridge(
        &self,
        request: Request<pb::OpenBridgeRequest>,
    ) -> Result<Response<pb::OpenBridgeResponse>, Status> {
        let request = request.into_inner();
        let session = session_id(&request.session_id, "session_id")?;
        let (from, to) = (model_name(&request.from, "from")?, model_name(&request.to, "to")?);
        let opened = self.bridges.open(session, from, to).await.map_err(status::packages)?;
        Ok(Response::new(pb::OpenBridgeResponse { bridge: Some(opened.into()) }))
    }

    async fn sync_bridge(
        &self,
        request: Request<pb::SyncBridgeRequest>,
    ) -> Result<Response<pb::SyncBridgeResponse>, Status> {
        let request = request.into_inner();
        let session = session_id(&request.session_id, "session_id")?;
        let to = optional_model_name(&request.to, "to")?;
        let bridges = self.bridges.sync(session, to).await.map_err(status::packages)?;
        let bridges = bridges.into_iter().map(Into::into).collect();
        Ok(Response::new(pb::SyncBridgeResponse { bridges }))
    }

    async fn list_bridges(
        &self,
        request: Request<pb::ListBridgesRequest>,
    ) -> Result<Response<pb::ListBridgesResponse>, Status> {
        let session = optional_session_id(&request.into_inner().session_id, "session_id")?;
        let bridges = self.bridges.list(session).await.map_err(status::packages)?;
        let bridges = bridges.into_iter().map(Into::into).collect();
        Ok(Response::new(pb::ListBridgesResponse { bridges }))
    }

    async fn close_bridge(
        &self,
        request: Request<pb::CloseBridgeRequest>,
    ) -> Result<Response<pb::CloseBridgeResponse>, Status> {
        let request = request.into_inner();
        let session = session_id(&request.session_id, "session_id")?;
        let to = optional_model_name(&request.to, "to")?;
        let bridges = self.bridges.close(session, to).await.map_err(status::packages)?;
        let bridges = bridges.into_iter().map(Into::into).collect();
        Ok(Response::new(pb::CloseBridgeResponse { bridges }))
    }

    async fn prepare_package(
        &self,
        request: Request<pb::PreparePackageRequest>,
    ) -> Result<Response<pb::PreparePackageResponse>, Status> {
        let caller = Caller::of(&request).sender()?.to_string();
        let mut request = request.into_inner();
        request.package = Some(self.whole(request.package.unwrap_or_default()).await?);
        let prepare = PreparePackage::try_from(request)?;
        let prepared = self.packages.prepare(caller, prepare).await;
        let Prepared { info, summary, .. } = prepared.map_err(status::packages)?;
        Ok(Response::new(pb::PreparePackageResponse { package: Some(info.into()), summary }))
    }

    async fn save_package(
        &self,
        request: Request<pb::SavePackageRequest>,
    ) -> Result<Response<pb::SavePackageResponse>, Status> {
        let caller = Caller::of(&request).sender()?.to_string();
        let new = NewPackage::try_from(self.whole(request.into_inner()).await?)?;
        let info = self.packages.save(caller, new).await.map_err(status::packages)?;
        Ok(Response::new(pb::SavePackageResponse { package: Some(info.into()) }))
    }

    async fn get_package(
        &self,
        request: Request<pb::GetPackageRequest>,
    ) -> Result<Response<pb::GetPackageResponse>, Status> {
        let id = package_id(&request.into_inner().package_id)?;
        let info = self.packages.get(id).await.map_err(status::packages)?;
        Ok(Response::new(pb::GetPackageResponse { package: Some(info.into()) }))
    }

    async fn load_package(
        &self,
        request: Request<pb::LoadPackageRequest>,
    ) -> Result<Response<Self::LoadPackageStream>, Status> {
        let request = request.into_inner();
        let (id, filter) = (optional_id(&request.package_id)?, filter(request.filter)?);
        let Loaded { info, contents, verified_at } =
            self.packages.load(id, filter).await.map_err(status::packages)?;
        let document = document(&info, &contents, verified_at).to_string();
        let mut package = Some(info.into());
        let frames = chunks(document.into())
            .into_iter()
            .map(move |document| Ok(pb::LoadPackageResponse { package: package.take(), document }));
        Ok(Response::new(futures::stream::iter(frames).boxed()))
    }

    async fn restore_package(
        &self,
        request: Request<pb::RestorePackageRequest>,
    ) -> Result<Response<pb::RestorePackageResponse>, Status> {
        let request = request.into_inner();
        let restore = Restore {
            id: package_id(&request.package_id)?,
            session: optional_session_id(&request.session_id, "session_id")?,
            on_conflict: on_conflict(request.on_conflict)?,
            new_id: optional_session_id(&request.new_session_id, "new_session_id")?,
        };
        let (session, outcome) = self.packages.restore(restore).await.map_err(status::packages)?;
        let outcome = outcome.to_wire();
        Ok(Response::new(pb::RestorePackageResponse { session: Some(session.into()), outcome }))
    }

    async fn list_packages(
        &self,
        request: Request<pb::ListPackagesRequest>,
    ) -> Result<Response<pb::ListPackagesResponse>, Status> {
        let request = request.into_inner();
        let (filter, before) = (filter(request.filter)?, page(&request.page_token)?);
        let (packages, next) = self
            .packages
            .list(filter, before, request.page_size)
            .await
            .map_err(status::packages)?;
        Ok(Response::new(pb::ListPackagesResponse {
            packages: packages.into_iter().map(Into::into).collect(),
            next_page_token: next.map(|id| id.to_string()).unwrap_or_default(),
        }))
    }

    async fn delete_package(
        &self,
        request: Request<pb::DeletePackageRequest>,
    ) -> Result<Response<pb::DeletePackageResponse>, Status> {
        let id = package_id(&request.into_inner().package_id)?;
        self.packages.delete(id).await.map_err(status::packages)?;
        Ok(Response::new(pb::DeletePackageResponse {}))
    }

    async fn report_package(
        &self,
        request: Request<pb::ReportPackageRequest>,
    ) -> Result<Response<pb::ReportPackageResponse>, Status> {
        let request = request.into_inner();
        let id = package_id(&request.package_id)?;
        let template = match (request.plain, request.template) {
            (true, _) => Template::Plain,
            (false, template) if template.is_empty() => Template::Configured,
            (false, template) => Template::Own(template),
        };
        let report = self.packages.report(id, template).await.map_err(status::packages)?;
        Ok(Response::new(pb::ReportPackageResponse {
            markdown: report.markdown,
            problem: report.problem.unwrap_or_default(),
        }))
    }

    async fn export_package(
        &self,
        request: Request<pb::ExportPackageRequest>,
    ) -> Result<Response<Self::ExportPackageStream>, Status> {
        let id = package_id(&request.into_inner().package_id)?;
        let file = self.packages.file(id).await.map_err(status::packages)?;
        let frames = chunks(file).into_iter().map(|chunk| Ok(pb::ExportPackageResponse { chunk }));
        Ok(Response::new(futures::stream::iter(frames).boxed()))
    }

    async fn import_package(
        &self,
        request: Request<pb::ImportPackageRequest>,
    ) -> Result<Response<pb::ImportPackageResponse>, Status> {
        let file = file(request.into_inner().file)?;
        let info = self.packages.import(file).await.map_err(status::packages)?;
        Ok(Response::new(pb::ImportPackageResponse { package: Some(info.into()) }))
    }

    async fn verify_package(
        &self,
        request: Request<pb::VerifyPackageRequest>,
    ) -> Result<Response<pb::VerifyPackageResponse>, Status> {
        let file = file(request.into_inner().file)?;
        let info = self.packages.verify(file).await.map_err(status::packages)?;
        Ok(Response::new(pb::VerifyPackageResponse { package: Some(info.into()) }))
    }

    async fn trust_key(
        &self,
        request: Request<pb::TrustKeyRequest>,
    ) -> Result<Response<pb::TrustKeyResponse>, Status> {
        let key = TrustedKey::try_from(request.into_inner())?;
        self.packages.trust(key).await.map_err(status::packages)?;
        Ok(Response::new(pb::TrustKeyResponse {}))
    }

    async fn list_trusted_keys(
        &self,
        _: Request<pb::ListTrustedKeysRequest>,
    ) -> Result<Response<pb::ListTrustedKeysResponse>, Status> {
        let keys = self.packages.keys().await.map_err(status::packages)?;
        let keys = keys.into_iter().map(Into::into).collect();
        Ok(Response::new(pb::ListTrustedKeysResponse { keys, next_page_token: String::new() }))
    }

    async fn remove_trusted_key(
        &self,
        request: Request<pb::RemoveTrustedKeyRequest>,
    ) -> Result<Response<pb::RemoveTrustedKeyResponse>, Status> {
        let name = request.into_inner().name;
        self.packages.distrust(name).await.map_err(status::packages)?;
        Ok(Response::new(pb::RemoveTrustedKeyResponse {}))
    }
}
