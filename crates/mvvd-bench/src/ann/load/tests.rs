use std::path::PathBuf;
use std::sync::Arc;

use ::parquet::arrow::ArrowWriter;
use arrow::array::{ArrayRef, FixedSizeListArray, Float32Array, Int32Array, Int64Array, ListArray, RecordBatch};
use arrow::datatypes::{DataType, Field, Float32Type, Int32Type};
use hdf5_pure::FileBuilder;

use super::*;

/// Three rows of two values.
const ROWS: [f32; 6] = [1.0, 2.0, 3.0, 4.0, 5.0, 250.0];

/// A file of ann-benchmarks, as h5py 3.16 writes it: train is `ROWS` in deflated chunks, the others lie in one piece.
///
/// ```python
/// f = h5py.File("ann_benchmarks.hdf5", "w")
/// f.attrs.update({"type": "dense", "distance": "euclidean", "dimension": 2, "point_type": "float"})
/// f.create_dataset("train", data=rows, chunks=(2, 1), compression="gzip", shuffle=True)
/// f.create_dataset("test", data=rows[:2] + 0.5)
/// f.create_dataset("neighbors", data=numpy.array([[0, 1], [1, 0]], "i4"))
/// f.create_dataset("distances", data=numpy.array([[0.7, 2.1], [0.7, 2.1]], "f4"))
/// ```
const ANN_BENCHMARKS: &[u8] = include_bytes!("ann_benchmarks.hdf5");

struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn file(&self, name: &str, parts: &[&[u8]]) -> PathBuf {
        let path = self.0.path().join(name);
        std::fs::write(&path, parts.concat()).unwrap();
        path
    }

    fn hdf5(&self, name: &str, fill: impl FnOnce(&mut FileBuilder)) -> PathBuf {
        let path = self.0.path().join(name);
        let mut builder = FileBuilder::new();
        fill(&mut builder);
        builder.write(&path).unwrap();
        path
    }

    fn parquet(&self, name: &str, columns: &[(&str, ArrayRef)]) -> PathBuf {
        let path = self.0.path().join(name);
        let batch = RecordBatch::try_from_iter(columns.iter().map(|(name, array)| (*name, Arc::clone(array)))).unwrap();
        let mut writer = ArrowWriter::try_new(File::create(&path).unwrap(), batch.schema(), None).unwrap();
        writer.write(&batch).unwrap();
        writer.close().unwrap();
        path
    }
}

fn le(numbers: &[i32]) -> Vec<u8> {
    numbers.to_byte_slice().to_vec()
}

/// A .npy as NumPy writes it.
fn npy(kind: &str, shape: &str, order: &str, bytes: &[u8]) -> Vec<u8> {
    let mut text = format!("{{'descr': '{kind}', 'fortran_order': {order}, 'shape': {shape}, }}");
    text.extend(std::iter::repeat_n(' ', 117 - text.len()));
    text.push('\n');
    [b"\x93NUMPY\x01\x00", &118u16.to_le_bytes()[..], text.as_bytes(), bytes].concat()
}

fn same(path: &Path) {
    let matrix = vectors(path, None, TRAIN).unwrap();
    assert_eq!((matrix.len(), matrix.dims(), matrix.values()), (3, 2, &ROWS[..]), "{}", path.display());
    assert_eq!(matrix.row(1), [3.0, 4.0]);
}

/// The message names the file and says `expected`.
fn fails(path: &Path, expected: &str) {
    let errors = [vectors(path, None, TRAIN).err(), neighbours(path, 100).err()];
    let messages: Vec<String> = errors.into_iter().flatten().map(|e| e.to_string()).collect();
    let name = path.display().to_string();
    assert!(!messages.is_empty() && messages.iter().all(|message| message.starts_with(&name)), "{messages:?}");
    assert!(messages.iter().any(|message| message.contains(expected)), "expected {expected}, got {messages:?}");
}

#[test]
fn each_format_gives_the_same_vectors() {
    let folder = Folder::new();
    let bytes = ROWS.map(|v| v as u8);
    let double: Vec<u8> = ROWS.iter().flat_map(|v| f64::from(*v).to_le_bytes()).collect();
    let half: Vec<u8> = ROWS.iter().flat_map(|v| half::f16::from_f32(*v).to_le_bytes()).collect();
    same(&folder.file("f4.npy", &[&npy("<f4", "(3, 2)", "False", ROWS.to_byte_slice())]));
    same(&folder.file("f8.npy", &[&npy("<f8", "(3, 2)", "False", &double)]));
    same(&folder.file("f2.npy", &[&npy("<f2", "(3, 2)", "False", &half)]));
    same(&folder.file("u1.NPY", &[&npy("|u1", "(3, 2)", "False", &bytes)]));
    let rows = ROWS.chunks(2).flat_map(|row| [&2i32.to_le_bytes()[..], row.to_byte_slice()].concat());
    same(&folder.file("x.fvecs", &[&rows.collect::<Vec<u8>>()]));
    let rows = bytes.chunks(2).flat_map(|row| [&2i32.to_le_bytes()[..], row].concat());
    same(&folder.file("x.bvecs", &[&rows.collect::<Vec<u8>>()]));
    same(&folder.file("x.fbin", &[&le(&[3, 2]), ROWS.to_byte_slice()]));
    same(&folder.file("x.u8bin", &[&le(&[3, 2]), &bytes]));
    let signed = vectors(&folder.file("x.i8bin", &[&le(&[1, 2]), &[255, 127]]), None, TRAIN).unwrap();
    assert_eq!(signed.values(), [-1.0, 127.0]);
}

#[test]
fn parquet_columns_are_chosen_by_name_or_because_there_is_one() {
    let folder = Folder::new();
    let item = Arc::new(Field::new("item", DataType::Float32, false));
    let fixed: ArrayRef =
        Arc::new(FixedSizeListArray::try_new(item, 2, Arc::new(Float32Array::from(ROWS.to_vec())), None).unwrap());
    let list = |rows: &[Option<Vec<Option<f32>>>]| -> ArrayRef {
        Arc::new(ListArray::from_iter_primitive::<Float32Type, _, _>(rows.to_vec()))
    };
    let lists = list(&ROWS.chunks(2).map(|row| Some(row.iter().copied().map(Some).collect())).collect::<Vec<_>>());
    let id: ArrayRef = Arc::new(Int64Array::from(vec![7, 8, 9]));
    same(&folder.parquet("fixed.parquet", &[("id", Arc::clone(&id)), ("v", Arc::clone(&fixed))]));
    same(&folder.parquet("list.parquet", &[("v", Arc::clone(&lists)), ("id", Arc::clone(&id))]));
    let two = folder.parquet("two.parquet", &[("a", Arc::clone(&fixed)), ("b", lists)]);
    assert_eq!(vectors(&two, Some("b"), TRAIN).unwrap().values(), ROWS);
    assert!(vectors(&two, Some("c"), TRAIN).unwrap_err().to_string().ends_with("there are: a, b"));
    fails(&two, "name one with --column: a, b");
    fails(&folder.parquet("none.parquet", &[("id", id)]), "it has no column of lists of numbers");
    let uneven = [Some(vec![Some(1.0), Some(2.0)]), Some(vec![Some(1.0)])];
    fails(&folder.parquet("uneven.parquet", &[("v", list(&uneven))]), "a vector has 1 dimensions, the first has 2");
    fails(&folder.parquet("null.parquet", &[("v", list(&[Some(vec![Some(1.0)]), None]))]), "row 1 is NULL");
    fails(&folder.parquet("hole.parquet", &[("v", list(&[Some(vec![Some(1.0), None])]))]), "a value of row 0 is NULL");
    let ids: ArrayRef = Arc::new(ListArray::from_iter_primitive::<Int32Type, _, _>(vec![Some(vec![Some(4), Some(2)])]));
    let path = folder.parquet("truth.parquet", &[("query", Arc::new(Int32Array::from(vec![1]))), ("ids", ids)]);
    assert_eq!(neighbours(&path, 5).unwrap(), [[4, 2]]);
}

#[test]
fn hdf5_holds_a_whole_set_and_datasets_have_names() {
    let folder = Folder::new();
    let set = folder.file("set.hdf5", &[ANN_BENCHMARKS]);
    same(&set);
    let queries = vectors(&set, None, TEST).unwrap();
    assert_eq!((queries.len(), queries.values()), (2, &[1.5, 2.5, 3.5, 4.5][..]));
    assert_eq!(vectors(&set, Some("test"), TRAIN).unwrap().values(), queries.values());
    assert_eq!(neighbours(&set, 3).unwrap(), [[0, 1], [1, 0]]);
    let missing = vectors(&set, Some("base"), TRAIN).unwrap_err().to_string();
    assert!(missing.ends_with("it has no dataset base; there are: distances, neighbors, test, train"), "{missing}");
    assert!(
        vectors(&set, Some("neighbors"), TRAIN).unwrap_err().to_string().contains("neighbors: its numbers are i32")
    );

    let doubles = ROWS.map(f64::from);
    same(&folder.hdf5("f8.h5", |to| {
        to.create_dataset("train").with_data(&doubles).with_shape(&[3, 2]).with_chunks(&[1, 2]).with_deflate(6);
    }));
    same(&folder.hdf5("u1.HDF5", |to| {
        to.create_dataset("train").with_data(&ROWS.map(|v| v as u8)).with_shape(&[3, 2]);
    }));
    let group = folder.hdf5("group.hdf5", |to| {
        let mut group = to.create_group("set");
        group.create_dataset("rows").with_data(&ROWS).with_shape(&[3, 2]);
        to.add_group(group.finish());
    });
    assert_eq!(vectors(&group, Some("set/rows"), TRAIN).unwrap().values(), ROWS);
    for ids in ["u4", "i8", "u8"] {
        let path = folder.hdf5("ids.hdf5", |to| {
            let ids = match ids {
                "u4" => to.create_dataset("neighbors").with_data(&[4u32, 2, 0, 1]),
                "i8" => to.create_dataset("neighbors").with_data(&[4i64, 2, 0, 1]),
                _ => to.create_dataset("neighbors").with_data(&[4u64, 2, 0, 1]),
            };
            ids.with_shape(&[2, 2]);
        });
        assert_eq!(neighbours(&path, 5).unwrap(), [[4, 2], [0, 1]]);
    }
}

#[test]
fn broken_hdf5_is_refused() {
    let folder = Folder::new();
    let broken = |shape: &'static [u64], values: &'static [f64]| {
        folder.hdf5("broken.hdf5", |to| {
            to.create_dataset("train").with_data(values).with_shape(shape);
        })
    };
    fails(&broken(&[2], &[1.0, 2.0]), "dataset train: its shape is [2], not rows and columns");
    fails(&broken(&[0, 2], &[]), "dataset train: it is empty");
    fails(&broken(&[1, 1], &[f64::NAN]), "a value is not finite");
    fails(&broken(&[1, 1], &[1.0]), "it has no dataset neighbors; there are: train");
    fails(&folder.file("text.hdf5", &[b"1.0, 2.0, 3.0"]), "HDF5");
    fails(&folder.0.path().join("missing.hdf5"), "No such file");

    let all = |bytes: &[u8]| {
        let path = folder.file("damaged.hdf5", &[bytes]);
        vectors(&path, None, TRAIN).and(vectors(&path, None, TEST)).and(neighbours(&path, 3))
    };
    for length in (0..ANN_BENCHMARKS.len() / 2).step_by(61) {
        assert!(all(&ANN_BENCHMARKS[..length]).is_err(), "{length} bytes");
    }
    // Whatever a changed byte does, it is no panic, and nothing that the file cannot hold is allocated.
    let mut bytes = ANN_BENCHMARKS.to_vec();
    for at in (0..bytes.len()).step_by(17) {
        let was = std::mem::replace(&mut bytes[at], 0xfe);
        _ = all(&bytes);
        bytes[at] = was;
    }
    // The rows of train, changed from 3 to about 2^40: no dataset can be that large in so small a file.
    let shape = [3u64.to_le_bytes(), 2u64.to_le_bytes()].concat();
    let at = bytes.windows(shape.len()).position(|part| part == shape).unwrap();
    bytes[at + 5] = 1;
    fails(&folder.file("huge.hdf5", &[&bytes]), "too large for a file of 11352 bytes");
    bytes[at + 5] = 0;
    bytes[at] = 5;
    fails(&folder.file("hole.hdf5", &[&bytes]), "some of its chunks are not in the file");
}

#[test]
fn each_format_gives_the_same_neighbours() {
    let folder = Folder::new();
    let ids = [4i32, 2, 0, 1];
    let long: Vec<u8> = ids.iter().flat_map(|&id| i64::from(id).to_le_bytes()).collect();
    for path in [
        folder.file("i4.npy", &[&npy("<i4", "(2, 2)", "False", &le(&ids))]),
        folder.file("u4.npy", &[&npy("<u4", "(2, 2)", "False", &le(&ids))]),
        folder.file("i8.npy", &[&npy("<i8", "(2, 2)", "False", &long)]),
        folder.file("x.ivecs", &[&le(&[2, 4, 2, 2, 0, 1])]),
        folder.file("x.ibin", &[&le(&[2, 2, 4, 2, 0, 1])]),
        folder.file("with_distances.ibin", &[&le(&[2, 2, 4, 2, 0, 1, 9, 9, 9, 9])]),
    ] {
        assert_eq!(neighbours(&path, 5).unwrap(), [[4, 2], [0, 1]], "{}", path.display());
        assert!(neighbours(&path, 4).unwrap_err().to_string().ends_with("neighbour 4 of 4 rows"));
    }
    fails(&folder.file("negative.ivecs", &[&le(&[1, -1])]), "neighbour -1 of 100 rows");
}

#[test]
fn what_is_saved_is_read_again() {
    let folder = Folder::new();
    let (rows, lists) = (folder.0.path().join("rows.npy"), folder.0.path().join("lists.npy"));
    save_vectors(&rows, &Matrix::new(ROWS.to_vec(), 2)).unwrap();
    same(&rows);
    save_neighbours(&lists, &[vec![1, 0], vec![2, 1]]).unwrap();
    assert_eq!(neighbours(&lists, 3).unwrap(), [[1, 0], [2, 1]]);
    assert!(save_neighbours(&lists, &[vec![1], vec![]]).is_err());
    let mut first = Matrix::new(ROWS.to_vec(), 2);
    first.truncate(1);
    assert_eq!((first.len(), first.values()), (1, &ROWS[..2]));
}

#[test]
fn broken_files_are_named_and_refused() {
    let folder = Folder::new();
    fails(&folder.0.path().join("missing.npy"), "No such file");
    fails(&folder.file("x.mat", &[]), "no format of vectors is named .mat; .npy, .parquet, .hdf5");
    fails(&folder.file("empty.npy", &[]), "8 numbers should follow, the file has 0 bytes left");
    fails(&folder.file("text.npy", &[b"1.0, 2.0, 3.0"]), "it does not start as .npy");
    fails(&folder.file("short.npy", &[&npy("<f4", "(3, 2)", "False", &[0; 20])]), "6 numbers should follow");
    fails(
        &folder.file("huge.npy", &[&npy("<f4", "(4611686018427387904, 8)", "False", &[0; 4])]),
        "its shape is too large",
    );
    fails(&folder.file("flat.npy", &[&npy("<f4", "(6,)", "False", ROWS.to_byte_slice())]), "not rows and columns");
    fails(&folder.file("columns.npy", &[&npy("<f4", "(3, 2)", "True", ROWS.to_byte_slice())]), "it is in column order");
    fails(&folder.file("big.npy", &[&npy(">f4", "(3, 2)", "False", ROWS.to_byte_slice())]), "its numbers are >f4");
    fails(&folder.file("rows.npy", &[&npy("<f4", "(0, 2)", "False", &[])]), "it holds no vectors");
    fails(&folder.file("nan.npy", &[&npy("<f4", "(1, 1)", "False", &f32::NAN.to_le_bytes())]), "a value is not finite");
    fails(&folder.file("version.npy", &[b"\x93NUMPY\x09\x00\x00\x00"]), "version 9");
    fails(&folder.file("uneven.fvecs", &[&le(&[2, 0, 0, 1, 0])]), "row 1 has 1 values, the first has 2");
    fails(&folder.file("cut.fvecs", &[&le(&[2, 0, 0, 2, 0])]), "row 1: 2 numbers should follow");
    fails(&folder.file("negative.fvecs", &[&le(&[-2, 0, 0])]), "a row of -2 values");
    fails(&folder.file("none.fvecs", &[]), "it holds no vectors");
    fails(&folder.file("cut.fbin", &[&le(&[1_000_000, 1_000, 0])]), "1000000000 numbers should follow");
    fails(&folder.file("bad.parquet", &[b"PAR1 and then nothing"]), "");
}
