//! The distance functions: `l2_distance`, `inner_product`, `cosine_distance` and the others.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, Float64Array};
use arrow::buffer::NullBuffer;
use arrow::datatypes::DataType;
use datafusion::functions_nested::cosine_distance::cosine_distance_udf;
use datafusion::functions_nested::inner_product::inner_product_udf;
use datafusion::logical_expr::{ColumnarValue, ScalarUDF};
use mvvd_core::kernels::{distance_bits, distance_f16, distance_f32, distance_f32_f16, distance_sparse};
use mvvd_core::literal::different_dims;
use mvvd_core::metric::Metric;
use mvvd_core::{Error, Result, VectorKind};

use crate::bound::{BoundDistance, Query};
use crate::function::{Arg, Call, Returns, VectorFunction, VectorUdf};
use crate::operand::{Operand, field_type_name, kind_of_text, text_of};
use crate::rows::{Row, Source};

/// What a distance function computes: a metric, and how its value is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Distance {
    /// The metric.
    pub metric: Metric,
    /// What becomes of the metric's value.
    pub form: Form,
}

/// How the value of a metric is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Form {
    /// As it is: smaller is nearer.
    Distance,
    /// One minus the distance: larger is nearer.
    Similarity,
    /// The distance negated: the inner product, for which larger is nearer.
    InnerProduct,
}

impl Distance {
    /// The value that the function returns for the metric's value `d`.
    pub fn finish(self, d: f64) -> f64 {
        match self.form {
            Form::Distance => d,
            Form::Similarity => 1.0 - d,
            // Not `-d`: a product of 0 must not become -0.
            Form::InnerProduct => 0.0 - d,
        }
    }

    /// Whether the nearest rows have the smallest values.
    pub fn ascending(self) -> bool {
        self.form == Form::Distance
    }

    /// The name of the function.
    pub fn name(self) -> &'static str {
        match (self.metric, self.form) {
            (Metric::L2, _) => "l2_distance",
            (Metric::L2Squared, _) => "l2_squared_distance",
            (Metric::Dot, Form::InnerProduct) => "inner_product",
            (Metric::Dot, _) => "negative_inner_product",
            (Metric::Cosine, Form::Similarity) => "cosine_similarity",
            (Metric::Cosine, _) => "cosine_distance",
            (Metric::L1, _) => "l1_distance",
            (Metric::Hamming, _) => "hamming_distance",
            (Metric::Jaccard, _) => "jaccard_distance",
        }
    }

    /// The function as DataFusion's.
    pub fn udf(self) -> Arc<ScalarUDF> {
        let original = match self.name() {
            "cosine_distance" => Some(cosine_distance_udf()),
            "inner_product" => Some(inner_product_udf()),
            _ => None,
        };
        VectorUdf::udf(DistanceFunction { distance: self, original, query: None })
    }

    /// The function with its query inside: the first argument is the column, the second is a short name of the query.
    ///
    /// A plan copies, compares and shows its literals dozens of times; a query of a thousand numbers that travels
    /// behind one pointer costs nothing there.
    pub(crate) fn udf_of(self, query: Arc<Query>) -> Arc<ScalarUDF> {
        VectorUdf::udf(DistanceFunction { distance: self, original: None, query: Some(query) })
    }

    /// Checks that two arguments can be compared, and says as what kind of vectors: `Dense`, `Sparse` or `Bit`.
    pub(crate) fn family(self, left: &Side, right: &Side) -> Result<VectorKind> {
        let family = |side: &Side| {
            side.operand.kind().map(|kind| if kind == VectorKind::Half { VectorKind::Dense } else { kind })
        };
        let name = self.name();
        let kind = match (family(left), family(right)) {
            (Some(a), Some(b)) if a != b => {
                return Err(Error::invalid(format!(
                    "{name} needs vectors of one kind, got {} and {}",
                    left.type_name, right.type_name
                ))
                .with_hint("cast one of them to the type of the other"));
            }
            (Some(kind), _) | (None, Some(kind)) => kind,
            (None, None) if self.metric.is_binary() => VectorKind::Bit,
            (None, None) => left.text.or(right.text).map_or(VectorKind::Dense, kind_of_text),
        };
        for side in [left, right] {
            let list_of_bits = kind == VectorKind::Bit && matches!(side.operand, Operand::List(_));
            if self.metric.is_binary() && kind != VectorKind::Bit && side.operand.is_vector() || list_of_bits {
                return Err(Error::invalid(format!("{name} needs bit vectors, got {}", side.type_name))
                    .with_hint("binary_quantize(v) makes bits of numbers"));
            }
            if !self.metric.is_binary() && side.operand.kind() == Some(VectorKind::Bit) {
                return Err(Error::invalid(format!("{name} needs vectors of numbers, got {}", side.type_name))
                    .with_hint("bit vectors are compared with hamming_distance (<~>) or jaccard_distance (<%>)"));
            }
        }
        match (left.operand, right.operand) {
            (Operand::Bytes(a), Operand::Bytes(b)) if a != b => return Err(different_dims(a * 8, b * 8)),
            (a, b) => {
                if let (Some(a), Some(b)) = (a.dims(), b.dims())
                    && a != b
                {
                    return Err(different_dims(a, b));
                }
            }
        }
        Ok(kind)
    }

    /// The distance of two vectors.
    pub(crate) fn of(self, a: Row, b: Row) -> Result<f64> {
        fn check<T, U>(a: &[T], b: &[U], unit: usize) -> Result<()> {
            if a.len() == b.len() { Ok(()) } else { Err(different_dims(a.len() * unit, b.len() * unit)) }
        }
        let metric = self.metric;
        Ok(self.finish(match (a, b) {
            (Row::F32(a), Row::F32(b)) => {
                check(a, b, 1)?;
                distance_f32(metric, a, b)
            }
            (Row::F32(wide), Row::F16(half)) | (Row::F16(half), Row::F32(wide)) => {
                check(wide, half, 1)?;
                distance_f32_f16(metric, wide, half)
            }
            (Row::F16(a), Row::F16(b)) => {
                check(a, b, 1)?;
                distance_f16(metric, a, b)
            }
            (Row::Bits(a), Row::Bits(b)) => {
                check(a, b, 8)?;
                distance_bits(metric, a, b)
            }
            (Row::Sparse(a), Row::Sparse(b)) => distance_sparse(metric, a, b),
            _ => return Err(Error::internal("vectors of two kinds got past the check of types")),
        }))
    }
}

/// One side of a comparison, as far as the types tell.
pub(crate) struct Side<'a> {
    pub(crate) operand: Operand,
    pub(crate) type_name: String,
    /// The text, where it is a text literal.
    pub(crate) text: Option<&'a str>,
}

/// The distance that a function computes, if it is one of the distance functions.
pub fn distance_of(udf: &ScalarUDF) -> Option<Distance> {
    VectorUdf::of(udf)?.distance()
}

/// The distance from the first argument to the query that a function carries, if it carries one.
pub fn bound_distance_of(udf: &ScalarUDF) -> Option<BoundDistance> {
    let function = VectorUdf::of(udf)?;
    Some(BoundDistance::new(function.distance()?, Arc::clone(function.query()?)))
}

/// Every distance function.
pub(crate) const ALL: [Distance; 9] = {
    use Form::{Distance as Plain, InnerProduct, Similarity};
    const fn new(metric: Metric, form: Form) -> Distance {
        Distance { metric, form }
    }
    [
        new(Metric::L2, Plain),
        new(Metric::L2Squared, Plain),
        new(Metric::Dot, InnerProduct),
        new(Metric::Dot, Plain),
        new(Metric::Cosine, Plain),
        new(Metric::Cosine, Similarity),
        new(Metric::L1, Plain),
        new(Metric::Hamming, Plain),
        new(Metric::Jaccard, Plain),
    ]
};

#[derive(Debug)]
struct DistanceFunction {
    distance: Distance,
    original: Option<Arc<ScalarUDF>>,
    /// See [`Distance::udf_of`].
    query: Option<Arc<Query>>,
}

impl VectorFunction for DistanceFunction {
    fn name(&self) -> &'static str {
        self.distance.name()
    }

    fn aliases(&self) -> &'static [&'static str] {
        // DataFusion's other name for it.
        if self.name() == "inner_product" { &["dot_product"] } else { &[] }
    }

    fn vectors(&self) -> usize {
        2
    }

    fn literal_kind(&self, beside: Option<VectorKind>, text: Option<&str>) -> VectorKind {
        match beside {
            // A query keeps its digits next to a column of f16.
            Some(VectorKind::Half) => VectorKind::Dense,
            Some(kind) => kind,
            None if self.distance.metric.is_binary() => VectorKind::Bit,
            None => text.map_or(VectorKind::Dense, kind_of_text),
        }
    }

    fn returns(&self, args: &[Arg]) -> Result<Returns> {
        let [left, right] = [0, 1].map(|i| Side {
            operand: args[i].operand,
            type_name: args[i].type_name(),
            text: args[i].literal.and_then(text_of),
        });
        self.distance.family(&left, &right)?;
        Ok(Returns::Plain(DataType::Float64))
    }

    fn invoke(&self, call: &Call) -> Result<ColumnarValue> {
        if let Some(query) = &self.query {
            let array = self.query_and_column(call, query, 0)?;
            return call.finish(array);
        }
        let scalar = |i: usize| match &call.args[i] {
            ColumnarValue::Scalar(value) => Some(value),
            ColumnarValue::Array(_) => None,
        };
        let side = |i: usize| Side {
            operand: call.operand(i),
            type_name: field_type_name(&call.fields[i]),
            text: scalar(i).and_then(text_of),
        };
        let kind = self.distance.family(&side(0), &side(1))?;
        // Of two scalars, the second is the query.
        let array = match (scalar(0), scalar(1)) {
            (_, Some(query)) => {
                self.query_and_column(call, &Arc::new(Query::read(query, kind, call.operand(0).dims())?), 0)?
            }
            (Some(query), None) => {
                self.query_and_column(call, &Arc::new(Query::read(query, kind, call.operand(1).dims())?), 1)?
            }
            (None, None) => self.row_by_row(call, kind)?,
        };
        call.finish(array)
    }

    fn distance(&self) -> Option<Distance> {
        Some(self.distance)
    }

    fn original(&self) -> Option<&Arc<ScalarUDF>> {
        self.original.as_ref()
    }

    fn query(&self) -> Option<&Arc<Query>> {
        self.query.as_ref()
    }
}

impl DistanceFunction {
    fn query_and_column(&self, call: &Call, query: &Arc<Query>, column: usize) -> Result<ArrayRef> {
        let (operand, array) = (call.operand(column), call.array(column)?);
        if operand.is_vector() {
            query.check_width(array.data_type(), operand.dims())?;
            let bound = BoundDistance::new(self.distance, Arc::clone(query));
            let mut values = Vec::new();
            let nulls = bound.evaluate(&array, None, &mut values)?;
            return Ok(Arc::new(Float64Array::new(values.into(), nulls)));
        }
        let Some(query_row) = query.row() else {
            return Ok(Arc::new(Float64Array::new_null(array.len())));
        };
        let kind = query.kind().expect("a query with a row has a kind");
        let source = Source::read(array, operand, kind, query.dims())?;
        let rows = source.rows()?;
        self.each_row(source.len(), source.nulls().cloned(), |i| self.distance.of(rows.get(i)?, query_row))
    }

    fn row_by_row(&self, call: &Call, kind: VectorKind) -> Result<ArrayRef> {
        let (a, b) = (call.operand(0), call.operand(1));
        let left = Source::read(call.array(0)?, a, kind, b.dims())?;
        let right = Source::read(call.array(1)?, b, kind, a.dims())?;
        let nulls = NullBuffer::union(left.nulls(), right.nulls());
        let (left_rows, right_rows) = (left.rows()?, right.rows()?);
        self.each_row(left.len(), nulls, |i| self.distance.of(left_rows.get(i)?, right_rows.get(i)?))
    }

    fn each_row(
        &self,
        rows: usize,
        nulls: Option<NullBuffer>,
        distance: impl Fn(usize) -> Result<f64>,
    ) -> Result<ArrayRef> {
        let is_null = |i: usize| nulls.as_ref().is_some_and(|nulls| nulls.is_null(i));
        let values = (0..rows).map(|i| if is_null(i) { Ok(0.0) } else { distance(i) }).collect::<Result<Vec<f64>>>()?;
        Ok(Arc::new(Float64Array::new(values.into(), nulls)))
    }
}
