//! Packages: made, shown, given out, taken in.

use bytes::Bytes;
use futures::TryStreamExt;
use prost::Message as _;

use broker_proto::{
    NewPackage, OnConflict, PackageFilter, PackageId, PackageInfo, PackageKey, PreparePackage,
    SessionId, SessionInfo, SessionOutcome, TrustedKey, pb,
};

use crate::{Client, Error, Page, each, required};

/// Bytes of a file that go in one frame; more are uploaded by hash first. Source: `handoff.proto`.
const INLINE: usize = 512 * 1024;

/// How a package is reported.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Template {
    /// As the broker's `packages.report_template` says, if it says anything.
    Configured,
    Plain,
    Own(String),
}

impl Client {
    /// Makes a package of what is said here.
    ///
    /// # Errors
    /// [`Error::Refused`] names the field that cannot be used.
    pub async fn save_package(&self, new: NewPackage) -> Result<PackageInfo, Error> {
        let request = self.fitting(pb::SavePackageRequest::from(new)).await?;
        let request = self.unary_request(request)?;
        let reply = self.reply(self.handoffs().save_package(request).await)?;
        Ok(required(reply.package, "package")?.try_into()?)
    }

    /// Makes a package of a session for one model. Says what became of the summary that was asked for, else nothing.
    ///
    /// # Errors
    /// [`Error::Refused`] when there is no such session, or the level does not hold what must be kept.
    pub async fn prepare_package(
        &self,
        prepare: PreparePackage,
    ) -> Result<(PackageInfo, String), Error> {
        let mut request = pb::PreparePackageRequest::from(prepare);
        if let Some(package) = request.package.take() {
            request.package = Some(self.fitting(package).await?);
        }
        let request = self.unary_request(request)?;
        let reply = self.reply(self.handoffs().prepare_package(request).await)?;
        Ok((required(reply.package, "package")?.try_into()?, reply.summary))
    }

    /// Puts a package into a session: this one, else the package's own, else a new one.
    ///
    /// # Errors
    /// [`Error::Refused`] as for [`Client::load_package`], and when the session went on and nobody chose what to do then.
    pub async fn restore_package(
        &self,
        id: PackageId,
        session: Option<SessionId>,
        on_conflict: OnConflict,
        new_id: Option<SessionId>,
    ) -> Result<(SessionInfo, SessionOutcome), Error> {
        let text = |id: Option<SessionId>| id.map(|id| id.to_string()).unwrap_or_default();
        let request = pb::RestorePackageRequest {
            package_id: id.to_string(),
            session_id: text(session),
            on_conflict: on_conflict.to_wire(),
            new_session_id: text(new_id),
        };
        let request = self.unary_request(request)?;
        let reply = self.reply(self.handoffs().restore_package(request).await)?;
        let outcome = required(SessionOutcome::from_wire(reply.outcome), "outcome")?;
        Ok((required(reply.session, "session")?.try_into()?, outcome))
    }

    /// A package without its contents.
    ///
    /// # Errors
    /// [`Error::Refused`] when there is none of this id.
    pub async fn package(&self, id: PackageId) -> Result<PackageInfo, Error> {
        let request = self.unary_request(pb::GetPackageRequest { package_id: id.to_string() })?;
        let reply = self.reply(self.handoffs().get_package(request).await)?;
        Ok(required(reply.package, "package")?.try_into()?)
    }

    /// The document of a package, as JSON text: of this one, or of the newest that has not expired.
    ///
    /// # Errors
    /// [`Error::Refused`] when there is none, or it is not (any more) what was signed.
    pub async fn load_package(
        &self,
        id: Option<PackageId>,
        filter: PackageFilter,
    ) -> Result<String, Error> {
        let package_id = id.map(|id| id.to_string()).unwrap_or_default();
        let request = pb::LoadPackageRequest { package_id, filter: Some(filter.into()) };
        let request = self.request(request, None)?;
        let frames = self.reply(self.handoffs().load_package(request).await)?;
        let bytes = self.whole(frames.map_ok(|frame| frame.document)).await?;
        String::from_utf8(bytes).map_err(|_| {
            broker_proto::convert::InvalidField::new("document", "is not UTF-8").into()
        })
    }

    /// One page of packages, newest first.
    ///
    /// # Errors
    /// [`Error::Refused`] when the page token is not one.
    pub async fn packages(
        &self,
        filter: PackageFilter,
        page_size: u32,
        page_token: Option<String>,
    ) -> Result<Page<PackageInfo>, Error> {
        let request = self.unary_request(pb::ListPackagesRequest {
            filter: Some(filter.into()),
            page_size,
            page_token: page_token.unwrap_or_default(),
        })?;
        let reply = self.reply(self.handoffs().list_packages(request).await)?;
        let next_page_token = Some(reply.next_page_token).filter(|token| !token.is_empty());
        Ok(Page { items: each(reply.packages)?, next_page_token })
    }

    /// Forgets a package.
    ///
    /// # Errors
    /// [`Error::Refused`] when there is none of this id.
    pub async fn delete_package(&self, id: PackageId) -> Result<(), Error> {
        let request =
            self.unary_request(pb::DeletePackageRequest { package_id: id.to_string() })?;
        self.reply(self.handoffs().delete_package(request).await)?;
        Ok(())
    }

    /// A package in Markdown, and why the template was not followed, if it was not.
    ///
    /// # Errors
    /// As [`Client::load_package`]; one that has expired is reported, too.
    pub async fn report_package(
        &self,
        id: PackageId,
        template: Template,
    ) -> Result<(String, Option<String>), Error> {
        let (template, plain) = match template {
            Template::Configured => (String::new(), false),
            Template::Plain => (String::new(), true),
            Template::Own(template) => (template, false),
        };
        let request = pb::ReportPackageRequest { package_id: id.to_string(), template, plain };
        let reply =
            self.reply(self.handoffs().report_package(self.unary_request(request)?).await)?;
        Ok((reply.markdown, Some(reply.problem).filter(|problem| !problem.is_empty())))
    }

    /// The file of a package, as it was signed.
    ///
    /// # Errors
    /// [`Error::Refused`] when there is none of this id.
    pub async fn export_package(&self, id: PackageId) -> Result<Vec<u8>, Error> {
        let request = pb::ExportPackageRequest { package_id: id.to_string() };
        let request = self.request(request, None)?;
        let frames = self.reply(self.handoffs().export_package(request).await)?;
        self.whole(frames.map_ok(|frame| frame.chunk)).await
    }

    /// Takes a package in.
    ///
    /// # Errors
    /// [`Error::Refused`] with a reason of its own for each way to be bad.
    pub async fn import_package(&self, file: Bytes) -> Result<PackageInfo, Error> {
        let file = Some(self.package_file(file).await?);
        let request = self.unary_request(pb::ImportPackageRequest { file })?;
        let reply = self.reply(self.handoffs().import_package(request).await)?;
        Ok(required(reply.package, "package")?.try_into()?)
    }

    /// As [`Client::import_package`], and keeps nothing.
    ///
    /// # Errors
    /// As [`Client::import_package`].
    pub async fn verify_package(&self, file: Bytes) -> Result<PackageInfo, Error> {
        let file = Some(self.package_file(file).await?);
        let request = self.unary_request(pb::VerifyPackageRequest { file })?;
        let reply = self.reply(self.handoffs().verify_package(request).await)?;
        Ok(required(reply.package, "package")?.try_into()?)
    }

    /// Takes packages that are signed with this key from now on.
    ///
    /// # Errors
    /// [`Error::Refused`] when the name has another key.
    pub async fn trust_key(&self, name: &str, key: PackageKey) -> Result<(), Error> {
        let key = key.0.to_vec().into();
        let request = self.unary_request(pb::TrustKeyRequest { name: name.to_owned(), key })?;
        self.reply(self.handoffs().trust_key(request).await)?;
        Ok(())
    }

    /// The keys whose packages are taken, the broker's own first.
    ///
    /// # Errors
    /// What every call may meet.
    pub async fn trusted_keys(&self) -> Result<Vec<TrustedKey>, Error> {
        let request = self.unary_request(pb::ListTrustedKeysRequest {})?;
        each(self.reply(self.handoffs().list_trusted_keys(request).await)?.keys)
    }

    /// Takes packages that are signed with this key no more.
    ///
    /// # Errors
    /// [`Error::Refused`] when no key has this name.
    pub async fn remove_trusted_key(&self, name: &str) -> Result<(), Error> {
        let request = self.unary_request(pb::RemoveTrustedKeyRequest { name: name.to_owned() })?;
        self.reply(self.handoffs().remove_trusted_key(request).await)?;
        Ok(())
    }

    /// The request itself, or where it does not fit one frame the name of what was uploaded.
    async fn fitting(
        &self,
        request: pb::SavePackageRequest,
    ) -> Result<pb::SavePackageRequest, Error> {
        if request.encoded_len() <= INLINE {
            return Ok(request);
        }
        let hash = self.upload_bytes(request.encode_to_vec().into()).await?;
        Ok(pb::SavePackageRequest { uploaded: hash.0.to_vec().into(), ..Default::default() })
    }

    async fn package_file(&self, file: Bytes) -> Result<pb::PackageFile, Error> {
        use pb::package_file::File;
        let file = if file.len() <= INLINE {
            File::Inline(file)
        } else {
            File::Hash(self.upload_bytes(file).await?.0.to_vec().into())
        };
        Ok(pb::PackageFile { file: Some(file) })
    }

    /// All bytes of a stream of chunks.
    async fn whole(
        &self,
        chunks: impl futures::Stream<Item = Result<Bytes, tonic::Status>>,
    ) -> Result<Vec<u8>, Error> {
        let whole = chunks.try_fold(Vec::new(), async |mut all, chunk| {
            all.extend_from_slice(&chunk);
            Ok(all)
        });
        whole.await.map_err(|status| self.error(status))
    }
}
