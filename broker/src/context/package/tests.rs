use std::time::Duration;

use broker_proto::{
    Checkpoint, CheckpointStatus, CreditState, CurrentWork, ModelName, NewPackage, PackageContents,
    PackageHeader, PackageId, PackedConversation, Preservation, QueuedTask, SessionItem,
    SessionTask, SharedValue, TokenShare, WallTime,
    package::{
        coding::{self, Decoded, Manifest, Packing, VERSION},
        seal,
    },
};

use super::{
    Guard, HOPS_MAX, Making, PACKED_MAX, PackError, RawPart, Refused, STORED_MAX, Signer, build,
    contents as contents_of, document, open, pack, read, report,
};
use crate::context::Tokenizer;
use sha2::{Digest as _, Sha256};

const NOW: WallTime = WallTime(1_800_000_000_000);
const DAY: Duration = Duration::from_secs(86_400);

fn signer() -> Signer {
    Signer::new(&[7; 32])
}

fn item(text: &str) -> SessionItem {
    SessionItem { id: 1, text: text.into(), is_done: false, entry: None }
}

fn contents() -> PackageContents {
    PackageContents {
        source_phase: "analysis".into(),
        target_phase: "synthesis".into(),
        created_by: "local".into(),
        pipeline_version: "2.1".into(),
        checkpoint: Checkpoint {
            phase: "analysis".into(),
            step: 2,
            total_steps: 5,
            status: CheckpointStatus::Error,
            resume_point: "parser::lists".into(),
        },
        task_queue: vec![QueuedTask {
            id: "t1".into(),
            priority: "high".into(),
            description: "Write the docs".into(),
        }],
        queue_left_out: 3,
        current_work: CurrentWork {
            task_id: "t0".into(),
            progress: "50%".into(),
            completed_subtasks: vec!["outline".into()],
            next_subtask: "module two".into(),
        },
        token_usage: TokenShare {
            total_tokens: 160_000,
            warning_threshold: 150_000,
            auto_switch_threshold: 180_000,
            percentage_used: 80.0,
        },
        credit_state: CreditState { rate_limit_count: 2, error_rate: 0.25, avg_response_time: 1.5 },
        task: SessionTask {
            goal: "Port the parser".into(),
            constraints: vec![item("No new crates")],
            decisions: vec![item("Keep the old names")],
            next_steps: vec![item("Read the grammar"), SessionItem { id: 2, ..item("Port lists") }],
            files: vec![item("src/parse.rs")],
            preferences: vec![item("Short answers")],
            progress: Some(0.5),
            ..SessionTask::default()
        },
        resumption_instructions: String::new(),
        context: r#"{"branch":"port","tries":[1,2]}"#.into(),
        shared: vec![SharedValue {
            key: "grammar".into(),
            value: r#"{"rules":12}"#.into(),
            source: "opus".into(),
            tags: vec!["input".into()],
            set_at: NOW,
        }],
        conversation: PackedConversation {
            text: "user: port it\n".into(),
            tokens: 5,
            tokenizer: "estimated".into(),
            score: Some(0.75),
            kept: vec![0, 3],
            partly: vec![4],
            dropped: vec![1, 2],
            must_keep_missing: Vec::new(),
            through: Some(4),
            unverified: vec![(3, "sonnet".into())],
        },
    }
}

fn new_package() -> NewPackage {
    NewPackage {
        project: "parser".into(),
        recipient: Some(ModelName::parse("sonnet").unwrap()),
        reason: "manual_save".into(),
        contents: contents(),
        ..NewPackage::default()
    }
}

fn making(signer: &Signer) -> Making<'_> {
    Making {
        id: PackageId::from_parts(NOW, 1),
        nonce: [9; 16],
        now: NOW,
        ttl: 7 * DAY,
        sender: "local".into(),
        level: Preservation::Complete,
        hops: 0,
        tokenizer: Tokenizer::estimated(3.0),
        signer,
    }
}

/// As it is kept.
fn file() -> Vec<u8> {
    build(new_package(), making(&signer())).unwrap().file
}

/// As it leaves.
fn exported(file: &[u8]) -> Vec<u8> {
    open(file, &guard(NOW)).unwrap().for_the_way(&signer()).unwrap()
}

fn part<'a>(name: &'a str, bytes: impl Into<Vec<u8>>) -> RawPart<'a> {
    RawPart { name: name.into(), bytes: bytes.into().into(), tokens: 1 }
}

/// A file of these parts, whatever they are.
fn packed(parts: &[RawPart<'_>]) -> Vec<u8> {
    let (header, _, _) = head(&file());
    pack(&header, parts, "estimated".into(), &signer()).unwrap().file
}

fn guard(now: WallTime) -> Guard<'static> {
    Guard {
        now,
        is_trusted: &|key| key == signer().public(),
        is_here: &|model| model.as_str() == "sonnet",
        is_replayed: &|_| false,
        takes_expired: false,
    }
}

fn opened(file: &[u8]) -> Result<PackageContents, Refused> {
    contents_of(&open(file, &guard(NOW))?)
}

/// Where the head is in a file.
fn head(file: &[u8]) -> (PackageHeader, Manifest, &[u8]) {
    let length = head_length(file);
    let decoded = coding::decode(&file[14..14 + length], VERSION).unwrap();
    let Decoded { header, manifest, .. } = decoded;
    (header, manifest, &file[14 + length + 96..])
}

/// A file of this head, with the signature and key of another one's.
fn with_old_signature(file: &[u8], header: &PackageHeader, manifest: &Manifest) -> Vec<u8> {
    let (_, _, packed) = head(file);
    let length = head_length(file);
    let head = coding::encode(header, manifest).bytes;
    let mut changed = file[..10].to_vec();
    changed.extend_from_slice(&(head.len() as u32).to_be_bytes());
    changed.extend_from_slice(&head);
    changed.extend_from_slice(&file[14 + length..14 + length + 96]);
    changed.extend_from_slice(packed);
    changed
}

#[test]
fn what_was_packed_is_what_is_read() {
    let made = build(new_package(), making(&signer())).unwrap();
    let read = opened(&made.file).unwrap();
    let instructions = read.resumption_instructions.clone();
    assert_eq!(
        read,
        PackageContents { resumption_instructions: instructions.clone(), ..contents() }
    );
    for word in ["Port the parser", "1. Read the grammar", "Step 2 of 5", "Keep the old names"] {
        assert!(instructions.contains(word), "{word} in {instructions}");
    }
    assert_eq!(made.info.header.expires_at, NOW.after(7 * DAY));
    assert_eq!(build(new_package(), making(&signer())).unwrap().file, made.file);
}

#[test]
fn a_package_with_one_byte_changed_is_refused_wherever_it_is() {
    let kept = file();
    for file in [exported(&kept), kept] {
        assert!(opened(&file).is_ok());
        let mut changed = file.clone();
        for at in 0..file.len() {
            for flip in [0x01, 0x80] {
                changed[at] ^= flip;
                assert!(opened(&changed).is_err(), "byte {at} of {} with {flip:#x}", file.len());
                changed[at] ^= flip;
            }
        }
    }
}

#[test]
fn a_package_that_lost_or_gained_bytes_is_refused() {
    let kept = file();
    for file in [exported(&kept), kept] {
        for length in 0..file.len() {
            assert!(opened(&file[..length]).is_err(), "{length} of {}", file.len());
        }
        let mut longer = file;
        longer.push(0);
        assert_eq!(opened(&longer).unwrap_err(), Refused::Damaged("packed parts".into()));
    }
}

#[test]
fn changed_contents_with_every_hash_made_anew_are_refused() {
    let kept = file();
    for (file, packing) in [(exported(&kept), zstd as fn(&[u8]) -> Packing), (kept, stored)] {
        let (header, mut manifest, packed) = head(&file);
        let whole = match packing(&[]) {
            Packing::Stored => packed.to_vec(),
            Packing::Zstd { .. } => zstd::stream::decode_all(packed).unwrap(),
        };
        let changed = String::from_utf8(whole).unwrap().replace("No new crates", "Any new crate");
        let mut rest = changed.as_bytes();
        for part in &mut manifest.parts {
            let (bytes, behind) = rest.split_at(part.size_bytes as usize);
            part.sha256 = Sha256::digest(bytes).into();
            rest = behind;
        }
        let packed = match packing(&[]) {
            Packing::Stored => changed.into_bytes(),
            Packing::Zstd { .. } => zstd::stream::encode_all(changed.as_bytes(), 3).unwrap(),
        };
        manifest.packing = packing(&packed);
        let length = coding::encode(&header, &manifest).bytes.len();
        let mut forged = with_old_signature(&file, &header, &manifest);
        forged.truncate(14 + length + 96);
        forged.extend_from_slice(&packed);

        assert_eq!(opened(&forged).unwrap_err(), Refused::Signature);

        // And whoever signs it anew is not trusted.
        let sealed =
            |signer: &Signer| seal(&coding::encode(&header, &manifest), signer, [&packed[..]]);
        let stranger = Signer::new(&[8; 32]);
        let refused = opened(&sealed(&stranger)).unwrap_err();
        assert_eq!(refused, Refused::UnknownKey(stranger.public()));
        // The forgery is otherwise in order: signed by the right key it would be read.
        let read = opened(&sealed(&signer())).unwrap();
        assert_eq!(read.task.constraints[0].text, "Any new crate");
    }
}

fn zstd(packed: &[u8]) -> Packing {
    Packing::Zstd { bytes: packed.len() as u64, sha256: Sha256::digest(packed).into() }
}

fn stored(_packed: &[u8]) -> Packing {
    Packing::Stored
}

#[test]
fn a_package_is_compressed_when_it_leaves_and_is_the_same_one() {
    let contents = PackageContents {
        conversation: PackedConversation {
            text: (0..2_000).map(|n| format!("user: line {n}\n")).collect(),
            ..contents().conversation
        },
        ..contents()
    };
    let new = NewPackage { contents, ..new_package() };
    let made = build(new, making(&signer())).unwrap();
    let way = exported(&made.file);

    assert!(way.len() * 3 < made.file.len(), "{} of {}", way.len(), made.file.len());
    let guard = guard(NOW);
    let (here, there) = (open(&made.file, &guard).unwrap(), open(&way, &guard).unwrap());
    assert_eq!((&here.header, here.parts()), (&there.header, there.parts()));
    assert_eq!((here.checksum, here.checksum), (made.info.checksum, there.checksum));
    assert_eq!(contents_of(&here).unwrap(), contents_of(&there).unwrap());
    // The same bytes each time; another's, and what is compressed, leave as they are.
    assert_eq!(exported(&made.file), way);
    assert_eq!(there.for_the_way(&signer()), None);
    assert_eq!(here.for_the_way(&Signer::new(&[8; 32])), None);
}

#[test]
fn whatever_is_made_can_be_taken() {
    for size in [0, 1, STORED_MAX as usize / 2, STORED_MAX as usize + 1] {
        let mut state = 7_u32;
        let mut letter = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            char::from(b'a' + (state >> 24) as u8 % 26)
        };
        let text: String = (0..size).map(|_| letter()).collect();
        let conversation = PackedConversation { text, ..PackedConversation::default() };
        let contents = PackageContents { conversation, ..PackageContents::default() };
        let new = NewPackage { contents: contents.clone(), ..NewPackage::default() };
        let signer = signer();
        let made = build(new, making(&signer)).unwrap();
        let taken = open(&made.file, &guard(NOW)).unwrap();
        assert_eq!(taken.info(String::new(), made.file.len() as u64), made.info, "{size}");
        assert_eq!(contents_of(&taken).unwrap().conversation, contents.conversation, "{size}");
        let is_stored = made.file.len() > size;
        assert_eq!(is_stored, size as u64 <= STORED_MAX, "{size}");
    }
}

/// Made by the first version of the format: the text among JSON, compressed, hashed twice.
#[test]
fn packages_of_the_first_version_are_taken() {
    let file = include_bytes!("../../../fixtures/package-v1.pkg");
    let opened = open(file, &guard(NOW)).unwrap();
    assert_eq!(opened.tokenizer(), "estimated");
    let read = contents_of(&opened).unwrap();
    let resumption_instructions = read.resumption_instructions.clone();
    // Nothing was unverified then.
    let mut want = PackageContents { resumption_instructions, ..contents() };
    want.conversation.unverified.clear();
    assert_eq!(read, want);
    let mut changed = file.to_vec();
    for at in 0..file.len() {
        changed[at] ^= 0x10;
        assert!(self::opened(&changed).is_err(), "byte {at}");
        changed[at] ^= 0x10;
    }
}

#[test]
fn parts_are_counted_as_the_receiver_counts_and_the_manifest_names_it() {
    let signer = signer();
    let counted = |tokenizer: Tokenizer, talk: PackedConversation| {
        let contents = PackageContents { conversation: talk, ..contents() };
        let new = NewPackage { contents, ..new_package() };
        build(new, Making { tokenizer, ..making(&signer) }).unwrap().info
    };
    let tokens = |info: &broker_proto::PackageInfo, name: &str| {
        info.parts.iter().find(|part| part.name == name).unwrap().tokens
    };
    let talk = contents().conversation;
    let estimated = counted(Tokenizer::estimated(3.0), talk.clone());
    assert_eq!(estimated.tokenizer, "estimated at 3.0 bytes per token");
    assert_eq!(tokens(&estimated, "conversation_text"), 5);
    let own = counted(Tokenizer::O200k, talk.clone());
    assert_eq!(own.tokenizer, "o200k_base");
    assert_eq!(tokens(&own, "conversation_text"), Tokenizer::O200k.count(&talk.text));
    assert_eq!(tokens(&own, "files"), Tokenizer::O200k.count(r#"["src/parse.rs"]"#));
    // What its rendering counted with the same tokenizer stands.
    let named = PackedConversation { tokenizer: "o200k_base".into(), tokens: 77, ..talk };
    assert_eq!(tokens(&counted(Tokenizer::O200k, named), "conversation_text"), 77);
}

fn head_length(file: &[u8]) -> usize {
    u32::from_be_bytes(file[10..14].try_into().unwrap()) as usize
}

#[test]
fn every_change_of_the_header_breaks_the_signature() {
    let file = file();
    let (header, manifest, _) = head(&file);
    let week = WallTime(header.expires_at.0 + 1);
    let opus = ModelName::parse("opus").ok();
    let changes = [
        PackageHeader { expires_at: week, ..header.clone() },
        PackageHeader { recipient: opus, ..header.clone() },
        PackageHeader { recipient: None, ..header.clone() },
        PackageHeader { nonce: [1; 16], ..header.clone() },
        PackageHeader { hops: 1, ..header.clone() },
        PackageHeader { sender: "opus".into(), ..header.clone() },
        PackageHeader { reason: "other".into(), ..header },
    ];
    for changed in changes {
        let forged = with_old_signature(&file, &changed, &manifest);
        assert_eq!(opened(&forged).unwrap_err(), Refused::Signature, "{changed:?}");
    }
}

#[test]
fn an_expired_package_is_refused_by_time_and_not_by_its_spelling() {
    let file = file();
    let end = NOW.after(7 * DAY);
    assert!(open(&file, &guard(WallTime(end.0 - 1))).is_ok());
    assert_eq!(open(&file, &guard(end)).unwrap_err(), Refused::Expired(end));
    let late = Guard { takes_expired: true, ..guard(end.after(DAY)) };
    assert!(open(&file, &late).is_ok());
    // A sender whose clock is a day behind or ahead changes nothing about what broker time says.
    assert!(open(&file, &guard(WallTime(NOW.0 - 86_400_000))).is_ok());
}

#[test]
fn a_package_for_somebody_else_taken_before_or_passed_on_too_often_is_refused() {
    let file = file();
    let elsewhere = Guard { is_here: &|_| false, ..guard(NOW) };
    let sonnet = ModelName::parse("sonnet").unwrap();
    assert_eq!(open(&file, &elsewhere).unwrap_err(), Refused::Recipient(sonnet));
    let again = Guard { is_replayed: &|nonce| *nonce == [9; 16], ..guard(NOW) };
    assert_eq!(open(&file, &again).unwrap_err(), Refused::Replayed);
    let signer = signer();
    for hops in [HOPS_MAX, HOPS_MAX + 1] {
        let file = build(new_package(), Making { hops, ..making(&signer) }).map(|made| made.file);
        let taken = file.map(|file| open(&file, &guard(NOW)).map(|opened| opened.header.hops));
        match hops {
            HOPS_MAX => assert_eq!(taken, Ok(Ok(HOPS_MAX))),
            _ => assert!(taken.is_err()),
        }
    }
}

/// A file with these parts listed, whatever is really packed.
fn listing(parts: Vec<broker_proto::PackagePart>, packed: &[u8]) -> Vec<u8> {
    let (header, _, _) = head(&file());
    let manifest = Manifest { parts, tokenizer: String::new(), packing: zstd(packed) };
    seal(&coding::encode(&header, &manifest), &signer(), [packed])
}

fn listed(size_bytes: u64, sha256: [u8; 32]) -> broker_proto::PackagePart {
    broker_proto::PackagePart { name: "context".into(), sha256, size_bytes, tokens: 1 }
}

#[test]
fn a_bomb_is_refused_and_never_unpacked() {
    let zeros = vec![0; 64 << 20];
    let bomb = zstd::stream::encode_all(&zeros[..], 3).unwrap();
    assert!(bomb.len() < 64 << 10);
    let hash = Sha256::digest(&zeros).into();
    // As it is: too many times its size.
    assert_eq!(opened(&listing(vec![listed(64 << 20, hash)], &bomb)).unwrap_err(), Refused::Bomb);
    // With sizes that lie: found at the first byte too many.
    let short = Sha256::digest(&zeros[..1024]).into();
    let lying = listing(vec![listed(1024, short)], &bomb);
    assert_eq!(opened(&lying).unwrap_err(), Refused::Bomb);
    // With sizes that do not fit in a number.
    let huge = listing(vec![listed(u64::MAX, hash)], &bomb);
    assert_eq!(opened(&huge).unwrap_err(), Refused::Bomb);
    let too_large = listing(vec![listed(300 << 20, hash)], &vec![1; 4 << 20]);
    assert_eq!(opened(&too_large).unwrap_err(), Refused::Bomb);
    let file = vec![0; PACKED_MAX as usize + (2 << 20)];
    assert_eq!(opened(&file).unwrap_err(), Refused::TooLarge);
}

#[test]
fn what_repeats_itself_is_packed_so_that_it_can_be_taken() {
    let context = format!(r#"{{"log":"{}"}}"#, "a".repeat(1 << 20));
    let contents = PackageContents { context: context.clone(), ..contents() };
    let made = build(NewPackage { contents, ..new_package() }, making(&signer())).unwrap();
    assert_eq!(opened(&made.file).unwrap().context, context);
}

#[test]
fn json_nested_a_hundred_thousand_times_is_refused() {
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    let file = packed(&[part("context", format!("{{\"a\":{deep}}}"))]);
    assert_eq!(opened(&file).unwrap_err(), Refused::Contents("context".into()));
}

#[test]
fn what_would_take_too_much_memory_to_read_is_neither_made_nor_taken() {
    let list = format!("{{\"a\":[0{}]}}", ",0".repeat(5 << 20));
    let contents = PackageContents { context: list.clone(), ..contents() };
    let made = build(NewPackage { contents, ..new_package() }, making(&signer()));
    assert_eq!(made.unwrap_err(), PackError::OthersTooLarge);
    let file = file();
    let opened = open(&file, &guard(NOW)).unwrap();
    let mut parts = opened.unpack().unwrap();
    parts.retain(|part| part.name != "context");
    parts.push(part("context", list));
    assert_eq!(read(&parts).unwrap_err(), Refused::TooLarge);
}

#[test]
fn parts_that_are_missing_unknown_or_of_another_kind_are_refused() {
    let file = file();
    let opened = open(&file, &guard(NOW)).unwrap();
    let whole = opened.unpack().unwrap();
    assert!(read(&whole).is_ok());
    for missing in 0..whole.len() {
        let mut parts = whole.clone();
        let name = parts.remove(missing).name;
        // Not in the first packages.
        let is_optional = name == "task_queue_left_out";
        assert_eq!(read(&parts).is_ok(), is_optional, "{name}");
    }
    let with = |name: &str, bytes: &str| {
        let mut parts = whole.clone();
        parts.retain(|part| part.name != name);
        parts.push(part(name, bytes));
        read(&parts)
    };
    assert!(with("files", "[\"a\"]").is_ok());
    assert!(with("conversation_text", "\u{0}\"").is_ok());
    let twice = r#"{"text":"","tokens":0,"tokenizer":"","score":null,"kept":[],"partly":[],"dropped":[],
        "must_keep_missing":[],"through":null}"#;
    for (name, bytes) in [
        ("files", "7"),
        ("surprise", "[]"),
        ("files", "[\"a\""),
        ("checkpoint", "{}"),
        ("conversation_history", twice),
    ] {
        assert!(matches!(with(name, bytes), Err(Refused::Contents(_))), "{name} {bytes}");
    }
    let mut parts = whole.clone();
    parts.retain(|part| part.name != "conversation_text");
    parts.push(part("conversation_text", [0xff]));
    assert_eq!(read(&parts).unwrap_err(), Refused::Contents("conversation_text".into()));
}

#[test]
fn ids_and_names_that_are_paths_are_refused() {
    for bad in ["../../etc/passwd", "/etc/passwd", "..", "01JD3Q8ZK5T0V9Y2X4W6R8P1N", ""] {
        assert_eq!(PackageId::parse(bad), None, "{bad}");
    }
    for bad in ["../context", "a/b", "", "A", &"x".repeat(65)] {
        let refused = opened(&packed(&[part(bad, "1")]));
        assert!(matches!(refused, Err(Refused::Malformed(_))), "{bad}");
    }
}

#[test]
fn a_newer_version_says_so() {
    let mut file = file();
    file[9] = 3;
    assert_eq!(opened(&file).unwrap_err(), Refused::Version(3));
    assert!(matches!(opened(b"PK\x03\x04 something else"), Err(Refused::Malformed(_))));
}

#[test]
fn the_document_has_every_name_that_was_asked_for() {
    let made = build(new_package(), making(&signer())).unwrap();
    let read = opened(&made.file).unwrap();
    let document = document(&made.info, &read, NOW);
    for path in [
        "/id",
        "/version",
        "/created_at",
        "/hops",
        "/project",
        "/source_phase",
        "/target_phase",
        "/created_by",
        "/pipeline_version",
        "/reason",
        "/expires_at",
        "/checkpoint/phase",
        "/checkpoint/step",
        "/checkpoint/total_steps",
        "/checkpoint/status",
        "/checkpoint/resume_point",
        "/task_queue/0/id",
        "/task_queue/0/priority",
        "/task_queue/0/description",
        "/task_queue_left_out",
        "/current_work/task_id",
        "/current_work/progress",
        "/current_work/completed_subtasks/0",
        "/current_work/next_subtask",
        "/token_usage/total_tokens",
        "/token_usage/warning_threshold",
        "/token_usage/auto_switch_threshold",
        "/token_usage/percentage_used",
        "/credit_state/rate_limit_count",
        "/credit_state/error_rate",
        "/credit_state/avg_response_time",
        "/integrity/algorithm",
        "/integrity/checksum",
        "/integrity/verified_at",
        "/integrity/valid",
        "/files/0",
        "/next_steps/1",
        "/context/branch",
        "/session_id",
        "/source_model",
        "/target_model",
        "/conversation_history/text",
        "/memory_graph",
        "/active_patterns",
        "/user_preferences/0",
        "/current_task/primary_goal",
        "/pending_subagents",
        "/learning_state",
        "/preservation_level",
        "/shared_context/0/tags/0",
        "/resumption_instructions",
    ] {
        assert!(document.pointer(path).is_some(), "{path}");
    }
    assert_eq!(document["expires_at"], "2027-01-22T08:00:00Z");
    assert_eq!(document["shared_context"][0]["value"]["rules"], 12);
}

#[test]
fn a_report_says_what_where_and_what_next() {
    let made = build(new_package(), making(&signer())).unwrap();
    let read = opened(&made.file).unwrap();
    let plain = report(&made.info, &read, None);
    assert_eq!(plain.problem, None);
    for word in [
        "# Port the parser",
        "Step 2 of 5",
        "1. Read the grammar",
        "2. Port lists",
        "### Next steps",
        "Entries dropped: 1, 2",
        "- src/parse.rs",
        "- Write the docs (high)\n- and 3 more",
    ] {
        assert!(plain.markdown.contains(word), "{word} in {}", plain.markdown);
    }
    let own = report(&made.info, &read, Some("{task} {\"json\": 1} {} {next_steps}"));
    assert_eq!(
        own.markdown,
        "Port the parser {\"json\": 1} {} 1. Read the grammar\n2. Port lists\n"
    );
    let broken = report(&made.info, &read, Some("{task} {tsak}"));
    assert_eq!(broken.markdown, plain.markdown);
    assert!(broken.problem.unwrap().contains("{tsak}"));
}

/// Whatever may stand in a template has a value, and the plain report uses nothing else.
#[test]
fn every_placeholder_is_filled() {
    let made = build(new_package(), making(&signer())).unwrap();
    for name in super::PLACEHOLDERS {
        let filled = report(&made.info, &contents(), Some(&format!("{{{name}}}")));
        assert_eq!(filled.problem, None, "{name}");
    }
}

#[test]
fn nothing_of_a_package_is_printed_for_a_log() {
    let made = build(new_package(), making(&signer())).unwrap();
    let opened = open(&made.file, &guard(NOW)).unwrap();
    let shown = format!("{:?} {:?} {opened:?}", made.info, opened.unpack().unwrap());
    assert!(!shown.contains("parser::lists") && !shown.contains("Port the"), "{shown}");
}
