//! Type names of SQL that DataFusion does not know: the vector types, UUID, JSON, and some of PostgreSQL's.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef, TimeUnit};
use datafusion::common::Result as DfResult;
use datafusion::logical_expr::planner::TypePlanner;
use datafusion::sql::sqlparser::ast::{DataType as SqlType, ExactNumberInfo, ObjectName, TimezoneInfo};
use mvvd_core::vector_type::TYPE_KEY;
use mvvd_core::{Error, Result, VectorKind, VectorType};

use crate::error::to_df;

/// The [`TYPE_KEY`] metadata of a `UUID` column, which is text in canonical form.
pub const UUID: &str = "UUID";
/// The [`TYPE_KEY`] metadata of a `JSON` column, which is text.
pub const JSON: &str = "JSON";

/// Plans `VECTOR(n)`, `HALFVEC(n)`, `BITVEC(n)`, `BIT(n)`, `SPARSEVEC(n)`, `UUID`, `JSON`, `JSONB` and PostgreSQL's
/// other names of types that Arrow has.
#[derive(Debug, Default)]
pub struct VectorTypes;

impl TypePlanner for VectorTypes {
    fn plan_type_field(&self, sql_type: &SqlType) -> DfResult<Option<FieldRef>> {
        plan(sql_type).map_err(to_df)
    }
}

fn plan(sql_type: &SqlType) -> Result<Option<FieldRef>> {
    Ok(match sql_type {
        SqlType::Custom(name, arguments) => custom(name, arguments)?,
        SqlType::Bit(Some(n)) => Some(vector(VectorKind::Bit, &n.to_string())?),
        SqlType::Uuid => Some(marked_text(UUID)),
        SqlType::JSON | SqlType::JSONB => Some(marked_text(JSON)),
        other => plain(other).map(|data_type| Arc::new(Field::new("", data_type, true))),
    })
}

fn custom(name: &ObjectName, arguments: &[String]) -> Result<Option<FieldRef>> {
    let [part] = &name.0[..] else {
        return Ok(None);
    };
    let Some(ident) = part.as_ident() else {
        return Ok(None);
    };
    let Some(kind) = VectorType::kind_named(&ident.value) else {
        return Ok(None);
    };
    let upper = kind.name().to_uppercase();
    match arguments {
        [dims] => vector(kind, dims).map(Some),
        [] => {
            Err(Error::invalid(format!("type {upper} needs a number of dimensions"))
                .with_hint(format!("write {upper}(3)")))
        }
        _ => Err(Error::invalid(format!("type {upper} takes one number of dimensions, got {}", arguments.join(", ")))),
    }
}

fn vector(kind: VectorKind, dims: &str) -> Result<FieldRef> {
    let upper = kind.name().to_uppercase();
    let number: i128 = dims.trim().parse().map_err(|_| {
        Error::invalid(format!("the dimensions of type {upper} must be a whole number, got {dims}"))
            .with_hint(format!("write {upper}(3)"))
    })?;
    let ty = VectorType::new(kind, usize::try_from(number.max(0)).unwrap_or(usize::MAX))?;
    Ok(Arc::new(ty.field("", true)))
}

fn marked_text(name: &str) -> FieldRef {
    let metadata = HashMap::from([(TYPE_KEY.to_owned(), name.to_owned())]);
    Arc::new(Field::new("", DataType::Utf8, true).with_metadata(metadata))
}

/// Names that DataFusion refuses, or reads as text that it shows differently.
fn plain(sql_type: &SqlType) -> Option<DataType> {
    Some(match sql_type {
        SqlType::Text
        | SqlType::TinyText
        | SqlType::MediumText
        | SqlType::LongText
        | SqlType::Clob(_)
        | SqlType::Nvarchar(_)
        | SqlType::String(_) => DataType::Utf8,
        SqlType::Character(_)
        | SqlType::Char(_)
        | SqlType::CharacterVarying(_)
        | SqlType::CharVarying(_)
        | SqlType::Varchar(_) => DataType::Utf8,
        SqlType::Blob(_)
        | SqlType::TinyBlob
        | SqlType::MediumBlob
        | SqlType::LongBlob
        | SqlType::Binary(_)
        | SqlType::Varbinary(_)
        | SqlType::Bytes(_) => DataType::Binary,
        // More digits than a REAL has.
        SqlType::Float(ExactNumberInfo::Precision(25..)) => DataType::Float64,
        SqlType::Dec(info) => {
            let (precision, scale) = match *info {
                ExactNumberInfo::None => (38, 10),
                ExactNumberInfo::Precision(precision) => (precision, 0),
                ExactNumberInfo::PrecisionAndScale(precision, scale) => (precision, scale),
            };
            let (precision, scale) = (u8::try_from(precision).ok()?, i8::try_from(scale).ok()?);
            match precision {
                1..=38 if scale.unsigned_abs() <= precision => DataType::Decimal128(precision, scale),
                _ => return None,
            }
        }
        SqlType::Int16 => DataType::Int16,
        SqlType::Int32 => DataType::Int32,
        SqlType::Int64 => DataType::Int64,
        SqlType::UInt8 | SqlType::UTinyInt => DataType::UInt8,
        SqlType::UInt16 | SqlType::USmallInt => DataType::UInt16,
        SqlType::UInt32 => DataType::UInt32,
        SqlType::UInt64 | SqlType::UBigInt => DataType::UInt64,
        SqlType::Float32 => DataType::Float32,
        SqlType::Float64 => DataType::Float64,
        // DataFusion takes the precisions that are a unit; the others fit the next finer one.
        // One instant, whatever the session's time zone.
        SqlType::Timestamp(_, TimezoneInfo::Tz | TimezoneInfo::WithTimeZone) => {
            DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()))
        }
        SqlType::Timestamp(Some(digits @ (1 | 2 | 4 | 5)), TimezoneInfo::None | TimezoneInfo::WithoutTimeZone) => {
            DataType::Timestamp(if *digits < 3 { TimeUnit::Millisecond } else { TimeUnit::Microsecond }, None)
        }
        _ => return None,
    })
}
