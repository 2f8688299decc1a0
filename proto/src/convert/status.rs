//! The body of a status message, of `common.proto`.

use super::{
    InvalidField,
    common::{message_id, model, none_if_empty, optional, text_of},
    required,
};
use crate::{Severity, StatusKind, StatusNotice, pb};

/// Bytes of a status's text: it is for people, not for contents.
const TEXT: usize = 16 * 1024;
/// Bytes of the name of a step or a level.
const WORD: usize = 256;

fn bounded(text: String, most: usize, field: &'static str) -> Result<String, InvalidField> {
    if text.len() > most {
        return Err(InvalidField::new(field, format!("is longer than {most} bytes")));
    }
    Ok(text)
}

fn severity(number: i32) -> Result<Severity, InvalidField> {
    match pb::Severity::try_from(number) {
        Ok(pb::Severity::Unspecified | pb::Severity::Info) => Ok(Severity::Info),
        Ok(pb::Severity::Warning) => Ok(Severity::Warning),
        Ok(pb::Severity::Error) => Ok(Severity::Error),
        Err(_) => Err(InvalidField::new("status.severity", "is a number that is no severity")),
    }
}

impl TryFrom<pb::StatusNotice> for StatusNotice {
    type Error = InvalidField;

    fn try_from(wire: pb::StatusNotice) -> Result<Self, InvalidField> {
        use pb::status_notice::What as Wire;
        let what = match wire.what {
            None => StatusKind::Note,
            Some(Wire::Level(level)) => StatusKind::Level {
                model: model(&level.model, "status.level.model")?,
                level: required(
                    none_if_empty(bounded(level.level, WORD, "status.level.level")?),
                    "status.level.level",
                )?,
            },
            Some(Wire::Progress(progress)) => StatusKind::Progress {
                percent: match progress.percent {
                    None => None,
                    Some(percent) => {
                        Some(u8::try_from(percent).ok().filter(|p| *p <= 100).ok_or_else(|| {
                            InvalidField::new("status.progress.percent", "is over 100")
                        })?)
                    }
                },
                step: none_if_empty(bounded(progress.step, WORD, "status.progress.step")?),
            },
            Some(Wire::Heartbeat(pb::HeartbeatNotice {})) => StatusKind::Heartbeat,
            Some(Wire::Handoff(handoff)) => StatusKind::Handoff {
                from: model(&handoff.from_model, "status.handoff.from_model")?,
                to: model(&handoff.to_model, "status.handoff.to_model")?,
            },
        };
        Ok(Self {
            severity: severity(wire.severity)?,
            text: bounded(wire.text, TEXT, "status.text")?,
            subject: optional(&wire.subject, |text| message_id(text, "status.subject"))?,
            what,
        })
    }
}

impl From<StatusNotice> for pb::StatusNotice {
    fn from(notice: StatusNotice) -> Self {
        use pb::status_notice::What as Wire;
        let severity = match notice.severity {
            Severity::Info => pb::Severity::Info,
            Severity::Warning => pb::Severity::Warning,
            Severity::Error => pb::Severity::Error,
        };
        let what = match notice.what {
            StatusKind::Note => None,
            StatusKind::Level { model, level } => {
                Some(Wire::Level(pb::LevelNotice { model: model.to_string(), level }))
            }
            StatusKind::Progress { percent, step } => Some(Wire::Progress(pb::ProgressNotice {
                percent: percent.map(u32::from),
                step: step.unwrap_or_default(),
            })),
            StatusKind::Heartbeat => Some(Wire::Heartbeat(pb::HeartbeatNotice {})),
            StatusKind::Handoff { from, to } => Some(Wire::Handoff(pb::HandoffNotice {
                from_model: from.to_string(),
                to_model: to.to_string(),
            })),
        };
        Self {
            severity: severity.into(),
            text: notice.text,
            subject: text_of(notice.subject),
            what,
        }
    }
}
