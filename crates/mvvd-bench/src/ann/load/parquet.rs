//! A column of lists in a Parquet file, of fixed or equal lengths.

use std::fs::File;

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float32Type, Int64Type, Schema};
use mvvd_bench::truth::Result;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

use super::{Matrix, matrix};

pub(super) fn vectors(file: File, column: Option<&str>) -> Result<Matrix> {
    let (mut values, mut dims): (Vec<f32>, usize) = (Vec::new(), 0);
    let is_vector = |item: &DataType| item.is_floating() || matches!(item, DataType::UInt8 | DataType::Int8);
    lists(file, column, is_vector, |item, width| {
        if dims != 0 && width != dims {
            return Err(format!("a vector has {width} dimensions, the first has {dims}").into());
        }
        dims = width;
        values.extend_from_slice(cast(&item, &DataType::Float32)?.as_primitive::<Float32Type>().values());
        Ok(())
    })?;
    matrix(values, dims)
}

pub(super) fn neighbours(file: File) -> Result<Vec<Vec<i64>>> {
    let mut all = Vec::new();
    lists(file, None, DataType::is_integer, |item, _| {
        all.push(cast(&item, &DataType::Int64)?.as_primitive::<Int64Type>().values().to_vec());
        Ok(())
    })?;
    Ok(all)
}

/// Gives each list of the column `name`, or of the only one whose items `fit`, to `row`.
fn lists(
    file: File,
    name: Option<&str>,
    fit: impl Fn(&DataType) -> bool,
    mut row: impl FnMut(ArrayRef, usize) -> Result<()>,
) -> Result<()> {
    let builder = ParquetRecordBatchReaderBuilder::try_new(file)?;
    let column = choose(builder.schema(), name, fit)?;
    let mask = ProjectionMask::roots(builder.parquet_schema(), [column]);
    let mut number = 0;
    for batch in builder.with_projection(mask).with_batch_size(8_192).build()? {
        let array = ArrayRef::clone(batch?.column(0));
        for i in 0..array.len() {
            let list = match array.data_type() {
                _ if array.is_null(i) => return Err(format!("row {number} is NULL").into()),
                DataType::FixedSizeList(..) => array.as_fixed_size_list().value(i),
                DataType::LargeList(_) => array.as_list::<i64>().value(i),
                _ => array.as_list::<i32>().value(i),
            };
            if list.null_count() > 0 {
                return Err(format!("a value of row {number} is NULL").into());
            }
            let width = list.len();
            row(list, width)?;
            number += 1;
        }
    }
    Ok(())
}

fn choose(schema: &Schema, name: Option<&str>, fit: impl Fn(&DataType) -> bool) -> Result<usize> {
    let lists: Vec<(usize, &str)> = schema
        .fields()
        .iter()
        .enumerate()
        .filter(|(_, field)| match field.data_type() {
            DataType::List(item) | DataType::LargeList(item) | DataType::FixedSizeList(item, _) => {
                fit(item.data_type())
            }
            _ => false,
        })
        .map(|(i, field)| (i, field.name().as_str()))
        .collect();
    let names = lists.iter().map(|(_, name)| *name).collect::<Vec<_>>().join(", ");
    match (name, &lists[..]) {
        (Some(name), lists) => match lists.iter().find(|(_, known)| *known == name) {
            Some((i, _)) => Ok(*i),
            None => Err(format!("no such column of lists of numbers: {name}; there are: {names}").into()),
        },
        (None, [(i, _)]) => Ok(*i),
        (None, []) => Err("it has no column of lists of numbers".into()),
        (None, _) => Err(format!("it has several columns of lists, name one with --column: {names}").into()),
    }
}
