//! `UsageService`.

use tonic::{Request, Response, Status};

use broker_proto::{Failure, ModelName, RateLimit, convert::InvalidField, pb};

use super::status;
use crate::{
    core::{Command, Query, Reply},
    engine,
    intake::{Intake, bound},
};

/// What every model has left.
#[derive(Debug)]
pub struct UsageService {
    pub intake: Intake,
}

fn report(request: pb::ReportUsageRequest) -> Result<(ModelName, Command), InvalidField> {
    let model = ModelName::parse(&request.model)
        .map_err(|invalid| InvalidField::new("model", invalid.to_string()))?;
    let limits = request.limits.into_iter().map(RateLimit::try_from);
    let command = Command::Report {
        model: model.clone(),
        usage: request.usage.map(Into::into).unwrap_or_default(),
        limits: bound::limits(limits.collect::<Result<_, _>>()?),
        failure: request.failure.map(Failure::try_from).transpose()?.map(bound::failure),
    };
    Ok((model, command))
}

#[tonic::async_trait]
impl pb::usage_service_server::UsageService for UsageService {
    async fn report_usage(
        &self,
        request: Request<pb::ReportUsageRequest>,
    ) -> Result<Response<pb::ReportUsageResponse>, Status> {
        let (given, mut command) = report(request.into_inner())?;
        let known = self.intake.model(&given).map_err(status::intake)?;
        if let Command::Report { model, .. } = &mut command {
            *model = known;
        }
        self.intake.engine.command(command).await.map_err(status::engine)?;
        Ok(Response::new(pb::ReportUsageResponse {}))
    }

    async fn get_usage_status(
        &self,
        _: Request<pb::GetUsageStatusRequest>,
    ) -> Result<Response<pb::GetUsageStatusResponse>, Status> {
        match self.intake.engine.query(Query::Usage).await.map_err(status::engine)? {
            Reply::Usage(models) => {
                let models = models.into_iter().map(Into::into).collect();
                Ok(Response::new(pb::GetUsageStatusResponse { models }))
            }
            _ => Err(status::engine(engine::Error::Unknown)),
        }
    }
}
