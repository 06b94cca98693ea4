//! What every vector function has in common, and how DataFusion sees one.

use std::fmt::Debug;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use arrow::array::ArrayRef;
use arrow::datatypes::{DataType, Field, FieldRef};
use datafusion::common::{Result as DfResult, ScalarValue};
use datafusion::logical_expr::{
    ColumnarValue, Expr, ExpressionPlacement, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature,
    Volatility,
};
use mvvd_core::vector_type::may_be_vector;
use mvvd_core::{Error, Result, VectorKind, VectorType};

use crate::bound::Query;
use crate::distance::Distance;
use crate::error::to_df;
use crate::name;
use crate::operand::{Operand, field_type_name, kind_of_text};

/// A SQL function with vectors among its arguments.
///
/// Types that DataFusion would coerce are taken as they come: text and lists become vectors in here, because Arrow has
/// no cast for them, and because a query must not be rounded to the type of the column beside it.
pub(crate) trait VectorFunction: Debug + Send + Sync + 'static {
    fn name(&self) -> &'static str;

    fn aliases(&self) -> &'static [&'static str] {
        &[]
    }

    /// Fewest and most arguments.
    fn arity(&self) -> (usize, usize) {
        (self.vectors(), self.vectors())
    }

    /// How many of the first arguments are vectors.
    fn vectors(&self) -> usize;

    /// The kind that a text or list literal becomes, next to a vector of kind `beside`.
    fn literal_kind(&self, beside: Option<VectorKind>, text: Option<&str>) -> VectorKind {
        beside.unwrap_or_else(|| text.map_or(VectorKind::Dense, kind_of_text))
    }

    /// The type of the result, or why the arguments are wrong. The place for all that can be known at plan time.
    fn returns(&self, args: &[Arg]) -> Result<Returns>;

    /// Computes the rows.
    fn invoke(&self, call: &Call) -> Result<ColumnarValue>;

    /// The distance that the function computes, if it is one.
    fn distance(&self) -> Option<Distance> {
        None
    }

    /// The query that the function carries; see [`Distance::udf_of`].
    fn query(&self) -> Option<&Arc<Query>> {
        None
    }

    /// DataFusion's function of the same name, which goes on to serve plain lists.
    fn original(&self) -> Option<&Arc<ScalarUDF>> {
        None
    }
}

/// An argument at plan time.
pub(crate) struct Arg<'a> {
    pub(crate) operand: Operand,
    pub(crate) field: &'a Field,
    /// Its value, if it is a literal.
    pub(crate) literal: Option<&'a ScalarValue>,
}

impl Arg<'_> {
    pub(crate) fn type_name(&self) -> String {
        field_type_name(self.field)
    }

    /// The value of an argument that must be a whole number written out, such as a number of dimensions.
    pub(crate) fn whole_number(&self, function: &str, argument: &str) -> Result<i64> {
        let known = self.literal.filter(|value| !value.is_null());
        known
            .and_then(|value| ScalarValue::cast_to(value, &DataType::Int64).ok())
            .and_then(|value| match value {
                ScalarValue::Int64(number) if known.is_some_and(|v| v.data_type().is_integer()) => number,
                _ => None,
            })
            .ok_or_else(|| {
                Error::invalid(format!("{argument} of {function} must be a whole number written out"))
                    .with_hint("the type of the result depends on it, so it cannot be a column or a parameter")
            })
    }
}

/// What a function returns.
pub(crate) enum Returns {
    Plain(DataType),
    Vector(VectorType),
}

/// One call over a batch.
pub(crate) struct Call<'a> {
    pub(crate) args: &'a [ColumnarValue],
    pub(crate) fields: &'a [FieldRef],
    pub(crate) rows: usize,
    /// Where the function returns a vector: its type.
    pub(crate) result: Option<VectorType>,
}

impl Call<'_> {
    pub(crate) fn operand(&self, i: usize) -> Operand {
        Operand::of_field(&self.fields[i])
    }

    /// Whether every argument is a scalar, so that the result is one too.
    pub(crate) fn is_scalar(&self) -> bool {
        self.args.iter().all(|arg| matches!(arg, ColumnarValue::Scalar(_)))
    }

    /// Argument `i` as an array of as many rows as the call computes: one, if all arguments are scalars.
    pub(crate) fn array(&self, i: usize) -> Result<ArrayRef> {
        let rows = if self.is_scalar() { 1 } else { self.rows };
        self.args[i].to_array(rows).map_err(|e| Error::internal(e.to_string()).with_source(e))
    }

    /// The result in the form of the arguments.
    pub(crate) fn finish(&self, array: ArrayRef) -> Result<ColumnarValue> {
        if !self.is_scalar() {
            return Ok(ColumnarValue::Array(array));
        }
        let value =
            ScalarValue::try_from_array(&array, 0).map_err(|e| Error::internal(e.to_string()).with_source(e))?;
        Ok(ColumnarValue::Scalar(value))
    }
}

/// A [`VectorFunction`] as DataFusion's kind of function.
#[derive(Debug)]
pub(crate) struct VectorUdf {
    function: Box<dyn VectorFunction>,
    aliases: Vec<String>,
    signature: Signature,
}

impl VectorUdf {
    pub(crate) fn udf(function: impl VectorFunction) -> Arc<ScalarUDF> {
        let aliases = function.aliases().iter().map(|&name| name.to_owned()).collect();
        let signature = Signature::user_defined(Volatility::Immutable);
        Arc::new(ScalarUDF::new_from_impl(Self { function: Box::new(function), aliases, signature }))
    }

    /// The vector function behind a UDF, if it is one of ours.
    pub(crate) fn of(udf: &ScalarUDF) -> Option<&dyn VectorFunction> {
        udf.inner().downcast_ref::<Self>().map(|udf| &*udf.function)
    }
}

/// Whether a call has only plain lists, of whatever, which DataFusion's own function serves.
pub(crate) fn is_plain<'a>(types: impl IntoIterator<Item = &'a DataType>) -> bool {
    let mut lists = 0;
    for data_type in types {
        match data_type {
            DataType::Null => {}
            DataType::List(_) | DataType::LargeList(_) => lists += 1,
            DataType::FixedSizeList(..) if !may_be_vector(data_type) => lists += 1,
            _ => return false,
        }
    }
    lists > 0
}

fn delegate<'a>(function: &'a dyn VectorFunction, fields: &[FieldRef]) -> Option<&'a Arc<ScalarUDF>> {
    function.original().filter(|_| is_plain(fields.iter().map(|field| field.data_type())))
}

impl PartialEq for VectorUdf {
    fn eq(&self, other: &Self) -> bool {
        let same_query = match (self.function.query(), other.function.query()) {
            (None, None) => true,
            (Some(a), Some(b)) => Arc::ptr_eq(a, b) || a == b,
            _ => false,
        };
        same_query && self.function.name() == other.function.name()
    }
}

impl Eq for VectorUdf {}

impl Hash for VectorUdf {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.function.name().hash(state);
    }
}

impl ScalarUDFImpl for VectorUdf {
    fn name(&self) -> &str {
        self.function.name()
    }

    fn aliases(&self) -> &[String] {
        &self.aliases
    }

    fn schema_name(&self, args: &[Expr]) -> DfResult<String> {
        name::call(self.function.name(), args)
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn is_strict(&self) -> bool {
        self.function.distance().is_some()
    }

    fn placement(&self, _: &[ExpressionPlacement]) -> ExpressionPlacement {
        ExpressionPlacement::KeepInPlace
    }

    fn coerce_types(&self, arg_types: &[DataType]) -> DfResult<Vec<DataType>> {
        // Anything wrong is said by `return_field_from_args`: an error from here would lose its kind and hint.
        match self.function.original() {
            Some(original) if is_plain(arg_types) => original.coerce_types(arg_types),
            _ => Ok(arg_types.to_vec()),
        }
    }

    fn return_type(&self, arg_types: &[DataType]) -> DfResult<DataType> {
        let fields: Vec<FieldRef> = arg_types.iter().map(|ty| Arc::new(Field::new("", ty.clone(), true))).collect();
        let literals = vec![None; fields.len()];
        let args = ReturnFieldArgs { arg_fields: &fields, scalar_arguments: &literals };
        Ok(self.return_field_from_args(args)?.data_type().clone())
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs) -> DfResult<FieldRef> {
        if let Some(original) = delegate(&*self.function, args.arg_fields) {
            return original.return_field_from_args(args);
        }
        let list: Vec<Arg> = args
            .arg_fields
            .iter()
            .zip(args.scalar_arguments)
            .map(|(field, literal)| Arg { operand: Operand::of_field(field), field, literal: *literal })
            .collect();
        let nullable = args.arg_fields.iter().any(|field| field.is_nullable());
        Ok(Arc::new(return_field(&*self.function, &list, nullable).map_err(to_df)?))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> DfResult<ColumnarValue> {
        if let Some(original) = delegate(&*self.function, &args.arg_fields) {
            return original.invoke_with_args(args);
        }
        let call = Call {
            args: &args.args,
            fields: &args.arg_fields,
            rows: args.number_rows,
            result: VectorType::of_field(&args.return_field),
        };
        self.function.invoke(&call).map_err(to_df)
    }
}

/// Checks the arguments and gives the field of the result.
pub(crate) fn return_field(function: &dyn VectorFunction, args: &[Arg], nullable: bool) -> Result<Field> {
    let (name, (fewest, most)) = (function.name(), function.arity());
    if args.len() < fewest || args.len() > most {
        let count = if fewest == most { fewest.to_string() } else { format!("{fewest} to {most}") };
        let noun = if most == 1 { "argument" } else { "arguments" };
        return Err(Error::invalid(format!("{name} takes {count} {noun}, got {}", args.len())));
    }
    for arg in &args[..function.vectors()] {
        if arg.operand == Operand::Other {
            let error = Error::invalid(format!("{name} needs vectors, got {}", arg.type_name()));
            return Err(match function.distance() {
                Some(_) if arg.field.data_type().is_numeric() => error
                    .with_hint("the distance operators bind weaker than + - * /: write 2 * (a <-> b), not 2 * a <-> b"),
                _ => error.with_hint("cast it, as in value::VECTOR(3)"),
            });
        }
    }
    Ok(match function.returns(args)? {
        Returns::Plain(data_type) => Field::new(name, data_type, nullable),
        Returns::Vector(ty) => ty.field(name, nullable),
    })
}
