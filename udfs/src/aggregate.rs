//! `avg` and `sum` over vectors, element by element.
//!
//! The SQL planner asks for an aggregate before types are known, so every `avg` and `sum` is planned as [`AnySum`];
//! [`VectorLiterals`](crate::VectorLiterals) then puts DataFusion's own function back where the argument is no vector.

use std::mem::size_of;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, FixedSizeListArray, Float64Array, UInt64Array};
use arrow::buffer::NullBuffer;
use arrow::datatypes::{DataType, Field, FieldRef, Float64Type, UInt64Type};
use datafusion::common::{Result as DfResult, ScalarValue};
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::type_coercion::functions::fields_with_udf;
use datafusion::logical_expr::utils::{AggregateOrderSensitivity, format_state_name};
use datafusion::logical_expr::{
    Accumulator, AggregateUDF, AggregateUDFImpl, EmitTo, GroupsAccumulator, Signature, Volatility,
};
use half::f16;
use mvvd_core::convert::dense_column;
use mvvd_core::vector_type::fixed_list;
use mvvd_core::{Error, Result, VectorKind, VectorType};

use crate::error::to_df;
use crate::operand::Operand;
use crate::rows::{Row, Rows};

/// The stand-in for `avg` and `sum`, if `func` is one of them.
pub(crate) fn for_any(func: &Arc<AggregateUDF>) -> Option<Arc<AggregateUDF>> {
    let average = match func.name() {
        "avg" => true,
        "sum" => false,
        _ => return None,
    };
    if func.inner().downcast_ref::<AnySum>().is_some() {
        return None;
    }
    let signature = Signature::user_defined(Volatility::Immutable);
    Some(Arc::new(AggregateUDF::new_from_impl(AnySum { average, original: Arc::clone(func), signature })))
}

/// DataFusion's function behind a stand-in.
pub(crate) fn original(func: &AggregateUDF) -> Option<&Arc<AggregateUDF>> {
    func.inner().downcast_ref::<AnySum>().map(|any| &any.original)
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct AnySum {
    average: bool,
    original: Arc<AggregateUDF>,
    signature: Signature,
}

fn vector(fields: &[FieldRef]) -> Option<VectorType> {
    match fields {
        [field] => VectorType::of_field(field),
        _ => None,
    }
}

impl AnySum {
    fn sums(&self, args: &AccumulatorArgs) -> DfResult<Sums> {
        let ty = vector(args.expr_fields).ok_or_else(|| to_df(Error::internal("the sum of vectors has one vector")))?;
        if args.is_distinct {
            return Err(to_df(distinct_unsupported(&self.original)));
        }
        Ok(Sums { ty, average: self.average, counts: Vec::new(), sums: Vec::new() })
    }
}

/// The error for DISTINCT.
pub(crate) fn distinct_unsupported(func: &AggregateUDF) -> Error {
    let name = func.name();
    Error::unsupported(format!("{name}(DISTINCT ...) over vectors is not supported"))
        .with_hint(format!("write SELECT {name}(v) FROM (SELECT DISTINCT v FROM t)"))
}

impl AggregateUDFImpl for AnySum {
    fn name(&self) -> &str {
        self.original.name()
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, arg_types: &[DataType]) -> DfResult<Vec<DataType>> {
        if let [one] = arg_types
            && Operand::of(one, &Default::default()).is_vector()
        {
            return Ok(arg_types.to_vec());
        }
        let fields: Vec<FieldRef> = arg_types.iter().map(|ty| Arc::new(Field::new("", ty.clone(), true))).collect();
        let coerced = fields_with_udf(&fields, self.original.as_ref())?;
        Ok(coerced.iter().map(|field| field.data_type().clone()).collect())
    }

    fn return_type(&self, arg_types: &[DataType]) -> DfResult<DataType> {
        self.original.return_type(arg_types)
    }

    fn return_field(&self, fields: &[FieldRef]) -> DfResult<FieldRef> {
        match vector(fields) {
            Some(ty) if matches!(ty.kind, VectorKind::Dense | VectorKind::Half) => {
                Ok(Arc::new(ty.field(self.name(), true)))
            }
            Some(ty) => Err(to_df(Error::unsupported(format!("{} needs VECTOR or HALFVEC, got {ty}", self.name())))),
            None => self.original.return_field(fields),
        }
    }

    fn accumulator(&self, args: AccumulatorArgs) -> DfResult<Box<dyn Accumulator>> {
        match vector(args.expr_fields) {
            Some(_) => Ok(Box::new(One(self.sums(&args)?))),
            None => self.original.accumulator(args),
        }
    }

    fn state_fields(&self, args: StateFieldsArgs) -> DfResult<Vec<FieldRef>> {
        let Some(ty) = vector(args.input_fields) else {
            return self.original.state_fields(args);
        };
        Ok(vec![
            Arc::new(Field::new(format_state_name(args.name, "count"), DataType::UInt64, false)),
            Arc::new(Field::new(format_state_name(args.name, "sum"), fixed_list(DataType::Float64, ty.dims), false)),
        ])
    }

    fn groups_accumulator_supported(&self, args: AccumulatorArgs) -> bool {
        vector(args.expr_fields).is_some() && !args.is_distinct
    }

    fn create_groups_accumulator(&self, args: AccumulatorArgs) -> DfResult<Box<dyn GroupsAccumulator>> {
        Ok(Box::new(self.sums(&args)?))
    }

    fn order_sensitivity(&self) -> AggregateOrderSensitivity {
        AggregateOrderSensitivity::Insensitive
    }
}

/// Sums of vectors by group, in f64, and how many went in.
#[derive(Debug)]
struct Sums {
    ty: VectorType,
    average: bool,
    counts: Vec<u64>,
    /// `dims` values for each group.
    sums: Vec<f64>,
}

impl Sums {
    fn grow(&mut self, groups: usize) {
        if groups > self.counts.len() {
            self.counts.resize(groups, 0);
            self.sums.resize(groups * self.ty.dims, 0.0);
        }
    }

    /// Adds `sign` times each row that is not NULL and that `filter` lets through.
    fn add(
        &mut self,
        array: &ArrayRef,
        filter: Option<&BooleanArray>,
        group: impl Fn(usize) -> usize,
        sign: f64,
    ) -> Result<()> {
        let dims = self.ty.dims;
        let rows = Rows::of(array)?;
        for i in 0..array.len() {
            if array.is_null(i) || filter.is_some_and(|filter| filter.is_null(i) || !filter.value(i)) {
                continue;
            }
            let group = group(i);
            let sum = &mut self.sums[group * dims..(group + 1) * dims];
            match rows.get(i)? {
                Row::F32(row) => sum.iter_mut().zip(row).for_each(|(sum, &x)| *sum += sign * f64::from(x)),
                Row::F16(row) => sum.iter_mut().zip(row).for_each(|(sum, &x)| *sum += sign * x.to_f64()),
                Row::Bits(_) | Row::Sparse(_) => return Err(Error::internal("the sum of vectors has dense vectors")),
            }
            let count = &mut self.counts[group];
            *count = if sign > 0.0 { *count + 1 } else { count.saturating_sub(1) };
        }
        Ok(())
    }

    fn merge(&mut self, states: &[ArrayRef], group: impl Fn(usize) -> usize) -> Result<()> {
        let dims = self.ty.dims;
        let [counts, sums] = states else {
            return Err(Error::internal("the state of a sum of vectors is a count and a sum"));
        };
        let counts = counts.as_primitive::<UInt64Type>();
        let sums = sums.as_fixed_size_list();
        let values = sums.values().as_primitive::<Float64Type>().values();
        for i in (0..counts.len()).filter(|&i| counts.is_valid(i) && sums.is_valid(i)) {
            let group = group(i);
            self.counts[group] += counts.value(i);
            let sum = &mut self.sums[group * dims..(group + 1) * dims];
            sum.iter_mut().zip(&values[i * dims..(i + 1) * dims]).for_each(|(sum, x)| *sum += x);
        }
        Ok(())
    }

    /// The vectors of some groups; NULL where nothing went in.
    fn finish(&self, counts: &[u64], sums: &[f64]) -> Result<ArrayRef> {
        let mut values = Vec::with_capacity(sums.len());
        for (count, sum) in counts.iter().zip(sums.chunks_exact(self.ty.dims)) {
            let divisor = if self.average { (*count).max(1) as f64 } else { 1.0 };
            for x in sum {
                let value = (x / divisor) as f32;
                if value.is_infinite() || self.ty.kind == VectorKind::Half && f16::from_f32(value).is_infinite() {
                    return Err(Error::invalid("value out of range: overflow"));
                }
                values.push(value);
            }
        }
        let valid: NullBuffer = counts.iter().map(|&count| count > 0).collect();
        Ok(dense_column(values, self.ty, (valid.null_count() > 0).then_some(valid)))
    }

    fn state_arrays(&self, counts: Vec<u64>, sums: Vec<f64>) -> Result<Vec<ArrayRef>> {
        let item = Arc::new(Field::new_list_field(DataType::Float64, true));
        let sums: ArrayRef = Arc::new(Float64Array::from(sums));
        let sums = FixedSizeListArray::try_new(item, self.ty.dims as i32, sums, None)?;
        Ok(vec![Arc::new(UInt64Array::from(counts)), Arc::new(sums)])
    }

    fn take(&mut self, emit_to: EmitTo) -> (Vec<u64>, Vec<f64>) {
        let counts = emit_to.take_needed(&mut self.counts);
        let values = match emit_to {
            EmitTo::All => EmitTo::All,
            EmitTo::First(n) => EmitTo::First(n * self.ty.dims),
        };
        (counts, values.take_needed(&mut self.sums))
    }

    fn bytes(&self) -> usize {
        self.counts.capacity() * size_of::<u64>() + self.sums.capacity() * size_of::<f64>()
    }
}

impl GroupsAccumulator for Sums {
    fn update_batch(
        &mut self,
        values: &[ArrayRef],
        group_indices: &[usize],
        opt_filter: Option<&BooleanArray>,
        total_num_groups: usize,
    ) -> DfResult<()> {
        self.grow(total_num_groups);
        self.add(&values[0], opt_filter, |i| group_indices[i], 1.0).map_err(to_df)
    }

    fn merge_batch(&mut self, values: &[ArrayRef], group_indices: &[usize], total_num_groups: usize) -> DfResult<()> {
        self.grow(total_num_groups);
        self.merge(values, |i| group_indices[i]).map_err(to_df)
    }

    fn evaluate(&mut self, emit_to: EmitTo) -> DfResult<ArrayRef> {
        let (counts, sums) = self.take(emit_to);
        self.finish(&counts, &sums).map_err(to_df)
    }

    fn state(&mut self, emit_to: EmitTo) -> DfResult<Vec<ArrayRef>> {
        let (counts, sums) = self.take(emit_to);
        self.state_arrays(counts, sums).map_err(to_df)
    }

    fn convert_to_state(&self, values: &[ArrayRef], opt_filter: Option<&BooleanArray>) -> DfResult<Vec<ArrayRef>> {
        let mut each = Self { ty: self.ty, average: self.average, counts: Vec::new(), sums: Vec::new() };
        each.grow(values[0].len());
        each.add(&values[0], opt_filter, |i| i, 1.0).map_err(to_df)?;
        let Self { counts, sums, .. } = &mut each;
        let (counts, sums) = (std::mem::take(counts), std::mem::take(sums));
        self.state_arrays(counts, sums).map_err(to_df)
    }

    fn size(&self) -> usize {
        self.bytes()
    }
}

/// The one group of a query without GROUP BY, or of a window.
#[derive(Debug)]
struct One(Sums);

impl Accumulator for One {
    fn update_batch(&mut self, values: &[ArrayRef]) -> DfResult<()> {
        self.0.grow(1);
        self.0.add(&values[0], None, |_| 0, 1.0).map_err(to_df)
    }

    fn evaluate(&mut self) -> DfResult<ScalarValue> {
        self.0.grow(1);
        ScalarValue::try_from_array(&self.0.finish(&self.0.counts, &self.0.sums).map_err(to_df)?, 0)
    }

    fn size(&self) -> usize {
        size_of::<Self>() + self.0.bytes()
    }

    fn state(&mut self) -> DfResult<Vec<ScalarValue>> {
        self.0.grow(1);
        let arrays = self.0.state_arrays(self.0.counts.clone(), self.0.sums.clone()).map_err(to_df)?;
        arrays.iter().map(|array| ScalarValue::try_from_array(array, 0)).collect()
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> DfResult<()> {
        self.0.grow(1);
        self.0.merge(states, |_| 0).map_err(to_df)
    }

    fn retract_batch(&mut self, values: &[ArrayRef]) -> DfResult<()> {
        self.0.grow(1);
        self.0.add(&values[0], None, |_| 0, -1.0).map_err(to_df)
    }

    fn supports_retract_batch(&self) -> bool {
        true
    }
}
