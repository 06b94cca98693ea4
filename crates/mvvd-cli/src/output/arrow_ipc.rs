//! Arrow IPC: one stream per result, types and metadata as they are.

use std::io::{self, Write};

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;
use arrow::ipc::writer::StreamWriter;

use super::Printer;
use crate::error::Failure;

/// Writes the schema, each batch as it comes, and the end mark.
pub(super) struct Ipc {
    writer: StreamWriter<Box<dyn Write>>,
}

impl Ipc {
    pub(super) fn new(schema: &SchemaRef, out: Box<dyn Write>) -> Result<Self, Failure> {
        Ok(Self { writer: StreamWriter::try_new(out, schema).map_err(failure)? })
    }
}

impl Printer for Ipc {
    fn rows(&mut self, batch: &RecordBatch) -> Result<(), Failure> {
        self.writer.write(batch).map_err(failure)?;
        Ok(self.writer.get_mut().flush()?)
    }

    fn finish(&mut self) -> Result<(), Failure> {
        self.writer.finish().map_err(failure)?;
        Ok(self.writer.get_mut().flush()?)
    }
}

/// Arrow wraps what the pipe said.
fn failure(e: ArrowError) -> Failure {
    match e {
        ArrowError::IoError(_, e) => e.into(),
        ArrowError::ExternalError(e) => match e.downcast::<io::Error>() {
            Ok(e) => Failure::from(*e),
            Err(e) => Failure::from(ArrowError::ExternalError(e)),
        },
        e => e.into(),
    }
}
