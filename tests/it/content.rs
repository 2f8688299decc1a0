//! Parts apart: what is too large for a frame passes by hash, both ways.

use broker_client::ListFilter;
use broker_proto::{AskOptions, ContentHash, Entry, Part, PartRef, Role};
use broker_tests::{Place, Reader, TestBroker, question, upload_chunk};
use bytes::Bytes;
use tonic::Code;

/// Text of this many bytes that is not all the same.
fn text(bytes: usize) -> String {
    (0..)
        .map(|number: u64| format!("{number} "))
        .flat_map(String::into_bytes)
        .take(bytes)
        .map(char::from)
        .collect()
}

async fn assert_nothing_stored(broker: &TestBroker) {
    let page = broker.client().messages(ListFilter::default()).await.unwrap();
    assert_eq!(page.items, []);
}

#[tokio::test]
async fn large_parts_pass_unharmed_both_ways() {
    let broker = TestBroker::with(Place::Folder, "").await;
    let mut agent = broker.agent("a", &["opus"]).await;
    let image = Part::Image { media_type: "image/png".into(), data: Bytes::from(text(300_000)) };
    let result = Part::ToolResult {
        call_id: "c1".into(),
        parts: vec![Part::text(text(200_000)), image.clone()],
        is_error: false,
    };
    let mut asked = question("opus", "what of it?");
    asked.payload.context = vec![
        Entry { role: Role::User, name: String::new(), parts: vec![Part::text(text(3_000_000))] },
        Entry { role: Role::Tool, name: String::new(), parts: vec![result] },
    ];
    asked.payload.request.push(image);
    let sent = asked.payload.clone();
    let reader = Reader::ask(&broker.client(), asked, AskOptions::default()).await;

    let work = agent.next().await;
    assert!(work.delivery().message.payload == sent, "what is delivered is what was sent");
    let answer = vec![Part::text(text(2_000_000)), Part::text("and that")];
    work.answer_parts(answer.clone()).await;

    let whole = reader.whole().await;
    assert!(whole.parts == answer, "what is read is what was answered");
}

/// I-2, I-4
#[tokio::test]
async fn a_part_that_was_never_uploaded_is_refused_and_nothing_is_stored() {
    let broker = TestBroker::start().await;
    let mut asked = question("opus", "hi");
    let hash = ContentHash::of(b"nowhere");
    asked.payload.request.push(Part::Ref(PartRef { hash, size_bytes: 100_000 }));

    let refused = broker.client().submit(asked, AskOptions::default()).await.unwrap_err();

    assert_eq!(refused.reason(), Some("UNKNOWN_CONTENT"));
    assert_nothing_stored(&broker).await;
}

#[tokio::test]
async fn bytes_with_another_hash_are_refused() {
    let broker = TestBroker::start().await;
    let hash = ContentHash::of(b"one thing");
    let chunk = Bytes::from_static(b"something");

    let refused = upload_chunk(&broker.endpoint(), hash, 9, 0, chunk).await.unwrap_err();

    assert_eq!(refused.code(), Code::InvalidArgument);
    let part = PartRef { hash, size_bytes: 9 };
    assert_eq!(broker.client().fetch(part).await.unwrap_err().reason(), Some("UNKNOWN_CONTENT"));
    let right = Bytes::from_static(b"one thing");
    assert!(upload_chunk(&broker.endpoint(), hash, 9, 0, right).await.unwrap());
}

#[tokio::test]
async fn a_chunk_out_of_its_turn_is_refused_and_the_upload_goes_on() {
    let broker = TestBroker::start().await;
    let endpoint = broker.endpoint();
    let whole = Bytes::from(text(500_000));
    let hash = ContentHash::of(&whole);
    let send = async |from: usize, to: usize| {
        upload_chunk(&endpoint, hash, 500_000, from as u64, whole.slice(from..to)).await
    };

    assert!(!send(0, 200_000).await.unwrap());
    assert_eq!(send(300_000, 500_000).await.unwrap_err().code(), Code::FailedPrecondition);
    assert!(!send(0, 200_000).await.unwrap(), "a chunk that came before is no harm");
    assert!(!send(200_000, 400_000).await.unwrap());
    assert!(send(400_000, 500_000).await.unwrap());
}

/// I-2, I-4
#[tokio::test]
async fn a_message_over_the_limit_is_refused_with_the_limit_and_nothing_is_stored() {
    let settings = "[broker]\nmax_message = \"1 MiB\"\n";
    let broker = TestBroker::with(Place::Memory, settings).await;

    // In one part, in many, and in parts that went up by hash.
    for parts in [1, 40] {
        let mut asked = question("opus", "hi");
        let part = || Part::text(text((1 << 20) / parts + 1));
        asked.payload.request = (0..parts).map(|_| part()).collect();
        let refused = broker.client().submit(asked, AskOptions::default()).await.unwrap_err();
        let broker_client::Error::Refused { reason, message, .. } = refused else {
            panic!("{refused:?}")
        };
        assert!(["TOO_LARGE", "INVALID_FIELD"].contains(&reason.as_str()), "{reason}");
        assert!(message.contains("1048576"), "{message}");
    }
    assert_nothing_stored(&broker).await;
}

/// I-2, I-4
#[tokio::test]
async fn an_empty_question_is_refused_and_nothing_is_stored() {
    let broker = TestBroker::start().await;
    for asked in ["", " \n\t"] {
        let refused = broker.client().submit(question("opus", asked), AskOptions::default()).await;
        assert_eq!(refused.unwrap_err().reason(), Some("EMPTY_QUESTION"));
    }
    assert_nothing_stored(&broker).await;
}

#[tokio::test]
async fn every_kind_of_part_passes_through_an_answer_unharmed() {
    let broker = TestBroker::start().await;
    let mut agent = broker.agent("a", &["opus"]).await;
    let reader = Reader::ask(&broker.client(), question("opus", "hi"), AskOptions::default()).await;
    let parts = vec![
        Part::Thinking {
            text: "hm".into(),
            signature: "signed".into(),
            provider: "anthropic".into(),
        },
        Part::text("first I look"),
        Part::ToolCall {
            id: "c1".into(),
            name: "grep".into(),
            arguments: Bytes::from_static(b"{\"pattern\": \"not quite JSON"),
        },
        Part::Image { media_type: "image/png".into(), data: Bytes::from_static(b"\x89PNG\0\xff") },
        Part::Opaque {
            provider: "anthropic".into(),
            kind: "server_tool_use".into(),
            data: Bytes::from_static(b"{}"),
        },
        Part::text("zum Schluß \u{1f600}"),
    ];

    agent.next().await.answer_parts(parts.clone()).await;

    let whole = reader.whole().await;
    assert!(whole.parts == parts, "{:?}", whole.parts);
}
