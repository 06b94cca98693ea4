//! Casts to and from the vector types, `UUID` and `JSON`: one conversion function for each target, checked row by row.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, StringArray, new_null_array};
use arrow::compute::{cast, concat};
use arrow::datatypes::{DataType, Field, FieldRef};
use datafusion::common::metadata::FieldMetadata;
use datafusion::common::{Result as DfResult, ScalarValue};
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::{
    ColumnarValue, Expr, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};
use mvvd_core::convert::{can_convert, to_text, to_vectors};
use mvvd_core::literal::wrong_dims;
use mvvd_core::vector_type::{DIMS_MAX, TYPE_KEY};
use mvvd_core::{Error, Result, VectorKind, VectorType};

use crate::error::to_df;
use crate::operand::{Operand, field_type_name, type_name};
use crate::types::{JSON, UUID};

/// What a cast makes.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Target {
    Vector(VectorType),
    /// Text of a vector.
    Text,
    /// A list with the elements of a vector.
    List(DataType),
    Json,
    Uuid,
}

impl Target {
    /// The target of a cast of `source` to `field`, if it is a cast that Arrow does not have.
    pub(crate) fn of(source: &Field, field: &Field) -> Option<Self> {
        if let Some(ty) = VectorType::of_field(field) {
            return Some(Self::Vector(ty));
        }
        let is_text = matches!(field.data_type(), DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View);
        match field.metadata().get(TYPE_KEY).map(String::as_str) {
            Some(JSON) if is_text => return Some(Self::Json),
            Some(UUID) if is_text => return Some(Self::Uuid),
            _ => {}
        }
        VectorType::of_field(source)?;
        match field.data_type() {
            _ if is_text => Some(Self::Text),
            list @ (DataType::List(_) | DataType::LargeList(_) | DataType::FixedSizeList(..)) => {
                Some(Self::List(list.clone()))
            }
            _ => None,
        }
    }

    fn name(&self) -> &'static str {
        match self {
            Self::Vector(ty) => match ty.kind {
                VectorKind::Dense => "to_vector",
                VectorKind::Half => "to_halfvec",
                VectorKind::Bit => "to_bitvec",
                VectorKind::Sparse => "to_sparsevec",
            },
            Self::Text => "to_text",
            Self::List(_) => "to_list",
            Self::Json => "to_json",
            Self::Uuid => "to_uuid",
        }
    }

    fn field(&self, nullable: bool) -> Field {
        match self {
            Self::Vector(ty) => ty.field(self.name(), nullable),
            Self::Text => Field::new(self.name(), DataType::Utf8, nullable),
            Self::List(data_type) => Field::new(self.name(), data_type.clone(), nullable),
            Self::Json | Self::Uuid => {
                let name = if *self == Self::Json { JSON } else { UUID };
                let metadata = [(TYPE_KEY.to_owned(), name.to_owned())].into();
                Field::new(self.name(), DataType::Utf8, nullable).with_metadata(metadata)
            }
        }
    }

    /// Whether values of `source` can be converted at all.
    fn check(&self, source: &Field) -> Result<()> {
        let from = Operand::of_field(source);
        let cannot = |to: &str| Err(Error::invalid(format!("cannot cast {} to {to}", field_type_name(source))));
        match self {
            Self::Vector(to) => {
                let fits = from != Operand::Other
                    || matches!(source.data_type(), DataType::Binary | DataType::LargeBinary | DataType::BinaryView);
                if !fits || !can_convert(source.data_type(), to.kind) {
                    return cannot(&to.to_string());
                }
                match from.dims() {
                    Some(dims) if dims != to.dims => Err(wrong_dims(*to, dims)),
                    _ => Ok(()),
                }
            }
            Self::Text | Self::List(_) if from.vector_type().is_none() => cannot("text or a list"),
            Self::List(to) => match from.vector_type() {
                Some(VectorType { kind: VectorKind::Bit, .. }) => cannot(&type_name(to, &Default::default())),
                Some(ty) if ty.dims > DIMS_MAX => {
                    Err(Error::unsupported(format!("cannot cast {ty} to a list: a list can have {DIMS_MAX} elements")))
                }
                _ => Ok(()),
            },
            Self::Text | Self::Json | Self::Uuid => Ok(()),
        }
    }

    /// Converts every row, or gives the first error.
    fn convert(&self, array: &ArrayRef, source: Option<VectorType>) -> Result<ArrayRef> {
        match self {
            Self::Vector(to) => Ok(to_vectors(array, source, *to)?),
            Self::Text => {
                let ty = source.ok_or_else(|| Error::internal("the type of the vector to write is not known"))?;
                Ok(Arc::new(to_text(array, ty)?))
            }
            Self::List(data_type) => {
                let dense = match source {
                    Some(ty @ VectorType { kind: VectorKind::Sparse, .. }) => {
                        to_vectors(array, source, VectorType { kind: VectorKind::Dense, ..ty })?
                    }
                    _ => Arc::clone(array),
                };
                Ok(cast(&dense, data_type)?)
            }
            Self::Json => {
                let text = cast(array, &DataType::Utf8)?;
                text.as_string::<i32>().iter().flatten().try_for_each(check_json)?;
                Ok(text)
            }
            Self::Uuid => {
                let text = cast(array, &DataType::Utf8)?;
                let canonical = text.as_string::<i32>().iter().map(|cell| cell.map(canonical_uuid).transpose());
                Ok(Arc::new(canonical.collect::<Result<StringArray>>()?))
            }
        }
    }

    /// Converts the rows that can be converted; the others become NULL.
    fn try_convert(&self, array: &ArrayRef, source: Option<VectorType>) -> Result<ArrayRef> {
        if let Ok(all) = self.convert(array, source) {
            return Ok(all);
        }
        let data_type = self.field(true).data_type().clone();
        let cells: Vec<ArrayRef> = (0..array.len())
            .map(|row| self.convert(&array.slice(row, 1), source).unwrap_or_else(|_| new_null_array(&data_type, 1)))
            .collect();
        Ok(concat(&cells.iter().map(|cell| &**cell).collect::<Vec<_>>())?)
    }
}

/// Checks one JSON text.
pub fn check_json(text: &str) -> Result<()> {
    serde_json::from_str::<serde::de::IgnoredAny>(text)
        .map(|_| ())
        .map_err(|e| Error::invalid(format!("invalid input syntax for type json: {e}")))
}

/// The canonical text of a UUID: lower case with hyphens.
pub fn canonical_uuid(text: &str) -> Result<String> {
    const CHARS_MAX: usize = 60;
    match uuid::Uuid::try_parse(text.trim()) {
        Ok(uuid) => Ok(uuid.to_string()),
        Err(_) => {
            let shown: String = text.chars().take(CHARS_MAX).collect();
            Err(Error::invalid(format!("invalid input syntax for type uuid: \"{shown}\"")))
        }
    }
}

/// `source` converted; `tolerant` makes NULL of what cannot be, as TRY_CAST does.
pub(crate) fn expr(source: Expr, target: Target, tolerant: bool) -> Expr {
    let udf = Convert { target, tolerant, signature: Signature::user_defined(Volatility::Immutable) };
    Expr::ScalarFunction(ScalarFunction::new_udf(Arc::new(ScalarUDF::new_from_impl(udf)), vec![source]))
}

/// A literal converted now.
pub(crate) fn fold(value: &ScalarValue, source: &Field, target: &Target, tolerant: bool) -> DfResult<Expr> {
    target.check(source).map_err(to_df)?;
    let array = value.to_array()?;
    let from = VectorType::of_field(source);
    let result = if tolerant { target.try_convert(&array, from) } else { target.convert(&array, from) };
    let field = target.field(true);
    let metadata = (!field.metadata().is_empty()).then(|| FieldMetadata::from(field.metadata()));
    Ok(Expr::Literal(ScalarValue::try_from_array(&result.map_err(to_df)?, 0)?, metadata))
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Convert {
    target: Target,
    tolerant: bool,
    signature: Signature,
}

impl ScalarUDFImpl for Convert {
    fn name(&self) -> &str {
        self.target.name()
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, arg_types: &[DataType]) -> DfResult<Vec<DataType>> {
        Ok(arg_types.to_vec())
    }

    fn return_type(&self, _: &[DataType]) -> DfResult<DataType> {
        Ok(self.target.field(true).data_type().clone())
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs) -> DfResult<FieldRef> {
        let source = &args.arg_fields[0];
        self.target.check(source).map_err(to_df)?;
        Ok(Arc::new(self.target.field(self.tolerant || source.is_nullable())))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> DfResult<ColumnarValue> {
        let source = VectorType::of_field(&args.arg_fields[0]);
        let convert = |array: &ArrayRef| {
            let result =
                if self.tolerant { self.target.try_convert(array, source) } else { self.target.convert(array, source) };
            result.map_err(to_df)
        };
        match &args.args[0] {
            ColumnarValue::Array(array) => Ok(ColumnarValue::Array(convert(array)?)),
            ColumnarValue::Scalar(value) => {
                Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(&convert(&value.to_array()?)?, 0)?))
            }
        }
    }
}
