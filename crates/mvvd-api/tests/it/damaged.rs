//! Batches that were damaged on their way give an error that says so.

use std::sync::Arc;

use arrow::array::{ArrayRef, ListArray, RecordBatch, StringArray};
use arrow::datatypes::Float32Type;
use arrow::ipc::CompressionType;
use arrow::ipc::writer::IpcWriteOptions;
use arrow_flight::encode::FlightDataEncoderBuilder;
use arrow_flight::sql::{
    CommandStatementIngest, ProstMessageExt, TableDefinitionOptions, TableExistsOption, TableNotExistOption,
};
use arrow_flight::{FlightData, FlightDescriptor};
use futures::{TryStreamExt, stream};
use prost::Message;
use tonic::{Code, Status};

use crate::{Client, Server, ids, rows, vectors};

/// The schema and one batch of many types.
async fn messages(options: IpcWriteOptions) -> [FlightData; 2] {
    let texts: ArrayRef =
        Arc::new(StringArray::from(vec![Some("a"), None, Some("a longer text, which packs well well well")]));
    let lists = ListArray::from_iter_primitive::<Float32Type, _, _>([Some([Some(1.0)]), None, Some([None])]);
    let batch = RecordBatch::try_from_iter([
        ("id", ids(&[1, 2, 3])),
        ("s", texts),
        ("l", Arc::new(lists) as ArrayRef),
        ("v", vectors(&[[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])),
    ])
    .unwrap();
    let encoder = FlightDataEncoderBuilder::new().with_options(options).build(stream::iter([Ok(batch)]));
    let [mut schema, batch] = encoder.try_collect::<Vec<_>>().await.unwrap().try_into().unwrap();
    let command = CommandStatementIngest {
        table_definition_options: Some(TableDefinitionOptions {
            if_not_exist: TableNotExistOption::Create as i32,
            if_exists: TableExistsOption::Replace as i32,
        }),
        table: "t".to_owned(),
        ..Default::default()
    };
    schema.flight_descriptor = Some(FlightDescriptor::new_cmd(command.as_any().encode_to_vec()));
    [schema, batch]
}

async fn send(client: &mut Client, messages: [FlightData; 2]) -> Result<(), Status> {
    let answers = client.inner_mut().do_put(stream::iter(messages)).await?;
    answers.into_inner().try_for_each(async |_| Ok(())).await
}

/// The message with one byte of its header changed.
fn damage(message: &FlightData, at: usize, byte: u8) -> FlightData {
    let mut header = message.data_header.to_vec();
    header[at] = byte;
    FlightData { data_header: header.into(), ..message.clone() }
}

#[tokio::test(flavor = "multi_thread")]
async fn damaged_headers_are_the_callers_mistake() {
    let server = Server::start().await;
    let mut client = server.client().await;
    let [schema, batch] = messages(IpcWriteOptions::default()).await;
    send(&mut client, [schema.clone(), batch.clone()]).await.unwrap();
    let mut refused = 0;
    for which in 0..2 {
        let length = [&schema, &batch][which].data_header.len();
        for (at, byte) in (0..length).flat_map(|at| [(at, 0x7f), (at, 0xff)]) {
            let mut sent = [schema.clone(), batch.clone()];
            sent[which] = damage(&sent[which], at, byte);
            let Err(e) = send(&mut client, sent).await else { continue };
            assert!(!e.message().is_empty(), "message {which}, byte {at}: {e:?}");
            let codes = [Code::InvalidArgument, Code::Unimplemented, Code::ResourceExhausted];
            assert!(codes.contains(&e.code()), "message {which}, byte {at}: {e:?}");
            refused += 1;
        }
    }
    assert!(refused > 100, "{refused}");
    assert_eq!(rows(&mut client, "SELECT 1").await, ["1"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_cannot_claim_more_memory_than_there_is() {
    let server = Server::start().await;
    let mut client = server.client().await;
    let options = IpcWriteOptions::default().try_with_compression(Some(CompressionType::LZ4_FRAME)).unwrap();
    let [schema, batch] = messages(options).await;
    send(&mut client, [schema.clone(), batch.clone()]).await.unwrap();
    // The first buffer with content: its length before it was compressed comes first.
    let mut body = batch.data_body.to_vec();
    let at = (0..body.len())
        .step_by(8)
        .find(|&at| body[at..at + 8] == 24_i64.to_le_bytes() || body[at..at + 8] == (-1_i64).to_le_bytes());
    let at = at.unwrap();
    body[at..at + 8].copy_from_slice(&(1_i64 << 50).to_le_bytes());
    let e = send(&mut client, [schema, FlightData { data_body: body.into(), ..batch }]).await.unwrap_err();
    assert_eq!(e.code(), Code::ResourceExhausted, "{e:?}");
    assert!(e.message().contains("when it is unpacked"), "{e:?}");
    assert_eq!(rows(&mut client, "SELECT 1").await, ["1"]);
}
