use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Barrier};

use arrow::array::*;
use arrow::buffer::Buffer;
use arrow::datatypes::*;
use arrow::ipc::reader::FileReader;
use mvvd_core::vector_type::{TYPE_KEY, VectorKind, VectorType};
use mvvd_core::{ErrorKind, Result};

use super::*;
use crate::cache::Cache;
use crate::disk::StorageMode;
use crate::encrypt::{Keyring, MasterKey};
use crate::fs::{DiskFs, FileSystem, MemoryFs};
use crate::seal::{BLOCK_BYTES, Seal};

const PATH: &str = "tables/1/2.seg";

fn primitive<T: ArrowPrimitiveType>(rows: usize, value: impl Fn(usize) -> T::Native) -> PrimitiveArray<T> {
    (0..rows).map(|i| (i % 5 != 3).then(|| value(i))).collect()
}

fn texts<O: OffsetSizeTrait>(rows: usize) -> GenericStringArray<O> {
    (0..rows).map(|i| (i % 4 != 1).then(|| "é".repeat(i % 7))).collect()
}

fn lists<O: OffsetSizeTrait, T: ArrowPrimitiveType>(rows: usize, value: impl Fn(usize) -> T::Native) -> ArrayRef {
    let row = |i: usize| (i % 3 != 2).then(|| (0..i % 4).map(|j| Some(value(i + j))).collect::<Vec<_>>());
    Arc::new(GenericListArray::<O>::from_iter_primitive::<T, _, _>((0..rows).map(row)))
}

fn vectors<T: ArrowPrimitiveType>(rows: usize, dims: usize, value: impl Fn(usize) -> T::Native) -> ArrayRef {
    let row = |i: usize| (i % 6 != 5).then(|| (0..dims).map(|j| Some(value(i * dims + j))).collect::<Vec<_>>());
    Arc::new(FixedSizeListArray::from_iter_primitive::<T, _, _>((0..rows).map(row), dims as i32))
}

/// One column of each type that tables have.
fn columns(rows: usize) -> Vec<ArrayRef> {
    let mut names = ListBuilder::new(StringBuilder::new());
    for i in 0..rows {
        (0..i % 3).for_each(|j| names.values().append_option((j != 1).then_some("x")));
        names.append(i % 5 != 4);
    }
    let sparse = StructArray::new(
        mvvd_core::vector_type::sparse_fields(),
        vec![lists::<i32, UInt32Type>(rows, |i| i as u32), lists::<i32, Float32Type>(rows, |i| i as f32)],
        Some((0..rows).map(|i| i % 2 == 0).collect()),
    );
    let bits = (0..rows).map(|i| (i % 3 != 0).then_some([i as u8, 7, 9]));
    vec![
        Arc::new(primitive::<Int8Type>(rows, |i| i as i8)),
        Arc::new(primitive::<Int16Type>(rows, |i| i as i16)),
        Arc::new(primitive::<Int32Type>(rows, |i| i as i32)),
        Arc::new(primitive::<Int64Type>(rows, |i| i as i64)),
        Arc::new(primitive::<UInt8Type>(rows, |i| i as u8)),
        Arc::new(primitive::<UInt16Type>(rows, |i| i as u16)),
        Arc::new(primitive::<UInt32Type>(rows, |i| i as u32)),
        Arc::new(primitive::<UInt64Type>(rows, |i| i as u64)),
        Arc::new(primitive::<Float16Type>(rows, |i| <Float16Type as ArrowPrimitiveType>::Native::from_f32(i as f32))),
        Arc::new(primitive::<Float32Type>(rows, |i| i as f32)),
        Arc::new(primitive::<Float64Type>(rows, |i| i as f64)),
        Arc::new((0..rows).map(|i| (i % 3 > 0).then_some(i % 2 == 0)).collect::<BooleanArray>()),
        Arc::new(texts::<i32>(rows)),
        Arc::new(texts::<i64>(rows)),
        Arc::new((0..rows).map(|i| (i % 4 != 1).then(|| vec![i as u8; i % 5])).collect::<BinaryArray>()),
        Arc::new((0..rows).map(|i| (i % 4 != 1).then(|| vec![i as u8; i % 5])).collect::<LargeBinaryArray>()),
        Arc::new(primitive::<Date32Type>(rows, |i| i as i32)),
        Arc::new(primitive::<Date64Type>(rows, |i| i as i64 * 86_400_000)),
        Arc::new(primitive::<Time64MicrosecondType>(rows, |i| i as i64)),
        Arc::new(primitive::<TimestampMicrosecondType>(rows, |i| i as i64).with_timezone("Europe/Oslo")),
        Arc::new(primitive::<TimestampNanosecondType>(rows, |i| i as i64)),
        Arc::new(primitive::<DurationSecondType>(rows, |i| i as i64)),
        Arc::new(primitive::<IntervalMonthDayNanoType>(rows, |i| IntervalMonthDayNano::new(i as i32, 1, 2))),
        Arc::new(primitive::<Decimal128Type>(rows, |i| i as i128).with_precision_and_scale(20, 3).unwrap()),
        Arc::new(primitive::<Decimal256Type>(rows, |i| i256::from_i128(i as i128))),
        vectors::<Float32Type>(rows, 3, |i| i as f32),
        vectors::<Float16Type>(rows, 3, |i| <Float16Type as ArrowPrimitiveType>::Native::from_f32(i as f32)),
        Arc::new(FixedSizeBinaryArray::try_from_sparse_iter_with_size(bits, 3).unwrap()),
        Arc::new(sparse),
        Arc::new(names.finish()),
        lists::<i64, Int64Type>(rows, |i| i as i64),
        new_null_array(&DataType::Null, rows),
        new_null_array(&DataType::Utf8, rows),
    ]
}

fn batch_of(arrays: Vec<ArrayRef>) -> (Vec<(u32, FieldRef)>, RecordBatch) {
    let fields: Vec<(u32, FieldRef)> = arrays
        .iter()
        .enumerate()
        .map(|(i, a)| (10 + i as u32, Arc::new(Field::new(format!("c{i}"), a.data_type().clone(), true))))
        .collect();
    let schema = Arc::new(Schema::new(fields.iter().map(|(_, field)| Arc::clone(field)).collect::<Vec<_>>()));
    (fields, RecordBatch::try_new(schema, arrays).unwrap())
}

fn write(fs: &dyn FileSystem, arrays: Vec<ArrayRef>, seal: Option<Arc<dyn Seal>>) -> SegmentMeta {
    fs.create_folder("tables/1").unwrap();
    let (fields, batch) = batch_of(arrays);
    let meta = write_segment(fs, PATH, 2, &fields, &batch, seal).unwrap();
    assert_eq!(meta.bytes, fs.len(PATH).unwrap());
    serde_json::from_str(&serde_json::to_string(&meta).unwrap()).unwrap()
}

fn seal() -> Arc<dyn Seal> {
    let master = MasterKey::parse(&"ab".repeat(32), "a test").unwrap();
    Arc::new(Keyring::create(&MemoryFs::new(), "KEYS", master).unwrap())
}

/// The segment, with room for one column of the heap.
fn open(fs: &dyn FileSystem, meta: &SegmentMeta, seal: Option<Arc<dyn Seal>>) -> Result<Arc<Segment>> {
    let room = meta.columns.iter().map(|column| column.bytes as usize).max().unwrap_or(0);
    Segment::open(fs, PATH, meta.clone(), &access(seal, room).0)
}

/// Access in disk mode, and its cache.
fn access(seal: Option<Arc<dyn Seal>>, cache_bytes: usize) -> (Access, Arc<Cache>) {
    let cache = Arc::new(Cache::new(cache_bytes));
    (Access { seal, cache: Arc::clone(&cache), mode: StorageMode::Disk }, cache)
}

/// All columns, or the first error.
fn read(fs: &dyn FileSystem, meta: &SegmentMeta, seal: Option<Arc<dyn Seal>>) -> Result<Vec<ArrayRef>> {
    let segment = open(fs, meta, seal)?;
    meta.columns.iter().map(|column| Ok(segment.column(column.id)?.expect("it has the column"))).collect()
}

#[test]
fn every_type_comes_back() {
    for rows in [0, 1, 2, 97] {
        let whole = columns(rows);
        let middle = whole.iter().map(|a| a.slice(rows / 3, rows / 2)).collect::<Vec<_>>();
        for arrays in [whole, middle] {
            for seal in [None, Some(seal())] {
                let fs = MemoryFs::new();
                let meta = write(&fs, arrays.clone(), seal.clone());
                assert_eq!(meta.rows, arrays[0].len() as u64);
                let found = read(&fs, &meta, seal.clone()).unwrap();
                for (found, array) in found.iter().zip(&arrays) {
                    assert_eq!(found.data_type(), array.data_type());
                    assert_eq!(found, array);
                }
                let segment = open(&fs, &meta, seal).unwrap();
                segment.verify().unwrap();
                assert!(segment.column(9).unwrap().is_none());
            }
        }
    }
}

#[test]
fn the_file_is_plain_arrow() {
    let fs = MemoryFs::new();
    let arrays = columns(20);
    write(&fs, arrays.clone(), None);
    let mut reader = FileReader::try_new(std::io::Cursor::new(fs.read(PATH).unwrap()), None).unwrap();
    assert_eq!(reader.custom_metadata()[VERSION_KEY], "1");
    assert_eq!(reader.schema().field(3).metadata()[COLUMN_KEY], "13");
    assert_eq!(reader.next().unwrap().unwrap().columns(), arrays);
    assert!(reader.next().is_none());
}

#[test]
fn metadata_of_fields_stays() {
    let fs = MemoryFs::new();
    fs.create_folder("tables/1").unwrap();
    let vector = VectorType::new(VectorKind::Half, 3).unwrap();
    let array = new_null_array(&vector.data_type(), 2);
    let field = Arc::new(vector.field("v", true));
    let batch = RecordBatch::try_new(Arc::new(Schema::new(vec![Arc::clone(&field)])), vec![array]).unwrap();
    let meta = write_segment(&fs, PATH, 2, &[(5, field)], &batch, None).unwrap();
    let segment = open(&fs, &meta, None).unwrap();
    assert_eq!(segment.field(5).unwrap().metadata()[TYPE_KEY], "HALFVEC(3)");
}

fn is_within(array: &ArrayData, map: &Buffer) -> bool {
    let is_in = |buffer: &Buffer| buffer.is_empty() || map.as_slice().as_ptr_range().contains(&buffer.as_ptr());
    array.buffers().iter().all(is_in)
        && array.nulls().is_none_or(|nulls| is_in(nulls.buffer()))
        && array.child_data().iter().all(|child| is_within(child, map))
}

/// Maps a file once, so that a test can compare addresses.
#[derive(Debug)]
struct Mapped(MemoryFs, Buffer);

impl FileSystem for Mapped {
    fn create(&self, _: &str) -> Result<Box<dyn crate::fs::WriteFile>> {
        unreachable!("tests only read")
    }
    fn read(&self, path: &str) -> Result<Vec<u8>> {
        self.0.read(path)
    }
    fn map(&self, _: &str) -> Result<Buffer> {
        Ok(self.1.clone())
    }
    fn len(&self, path: &str) -> Result<u64> {
        self.0.len(path)
    }
    fn remove(&self, path: &str) -> Result<()> {
        self.0.remove(path)
    }
    fn rename(&self, from: &str, to: &str) -> Result<()> {
        self.0.rename(from, to)
    }
    fn sync_folder(&self, path: &str) -> Result<()> {
        self.0.sync_folder(path)
    }
    fn exists(&self, path: &str) -> Result<bool> {
        self.0.exists(path)
    }
    fn list(&self, folder: &str) -> Result<Vec<String>> {
        self.0.list(folder)
    }
    fn create_folder(&self, path: &str) -> Result<()> {
        self.0.create_folder(path)
    }
    fn lock(&self, path: &str) -> Result<Option<Box<dyn std::any::Any + Send + Sync>>> {
        self.0.lock(path)
    }
}

#[test]
fn columns_are_read_without_a_copy() {
    let fs = MemoryFs::new();
    let meta = write(&fs, columns(100), None);
    let map = fs.map(PATH).unwrap();
    for array in read(&Mapped(fs, map.clone()), &meta, None).unwrap() {
        assert!(is_within(&array.to_data(), &map), "{}", array.data_type());
    }
}

#[test]
fn in_hybrid_mode_all_but_vectors_and_what_has_no_room_is_copied_to_the_heap() {
    let fs = MemoryFs::new();
    fs.create_folder("tables/1").unwrap();
    let vector = VectorType::new(VectorKind::Dense, 3).unwrap();
    let fields: Vec<(u32, FieldRef)> = vec![
        (1, Arc::new(Field::new("id", DataType::Int64, false))),
        (2, Arc::new(vector.field("v", true))),
        (3, Arc::new(Field::new("text", DataType::Utf8, true))),
        (4, Arc::new(Field::new("long", DataType::Utf8, true))),
    ];
    let arrays: Vec<ArrayRef> = vec![
        Arc::new(Int64Array::from_iter_values(0..1_000)),
        vectors::<Float32Type>(1_000, 3, |i| i as f32),
        Arc::new(texts::<i32>(1_000)),
        Arc::new(StringArray::from_iter_values((0..1_000).map(|i| format!("{i:0100}")))),
    ];
    let schema = Schema::new(fields.iter().map(|(_, field)| Arc::clone(field)).collect::<Vec<_>>());
    let batch = RecordBatch::try_new(Arc::new(schema), arrays.clone()).unwrap();
    for seal in [None, Some(seal())] {
        let meta = write_segment(&fs, PATH, 2, &fields, &batch, seal.clone()).unwrap();
        let mapped = Mapped(fs.clone(), fs.map(PATH).unwrap());
        let small: usize = [0, 2].map(|i| meta.columns[i].bytes as usize).iter().sum();
        let is_sealed = seal.is_some();
        let (access, cache) = access(seal, small);
        let access = Access { mode: StorageMode::Hybrid, ..access };
        let segment = Segment::open(&mapped, PATH, meta, &access).unwrap();
        for _ in 0..2 {
            for (id, array) in (1..).zip(&arrays) {
                let found = segment.column(id).unwrap().unwrap();
                assert_eq!(&found, array);
                let is_mapped = is_within(&found.to_data(), &mapped.1);
                assert_eq!(is_mapped, !is_sealed && [2, 4].contains(&id), "column {id}, sealed {is_sealed}");
            }
        }
        assert!(cache.bytes() <= small);
        assert!(is_sealed || cache.bytes() == small);
        drop(segment);
        fs.remove(PATH).unwrap();
    }
}

fn few_columns() -> Vec<ArrayRef> {
    vec![
        Arc::new(Int64Array::from(vec![Some(1), None, Some(3)])),
        Arc::new(StringArray::from(vec!["a", "bc", ""])),
        vectors::<Float32Type>(3, 2, |i| i as f32),
    ]
}

fn put(fs: &MemoryFs, bytes: Vec<u8>) {
    fs.remove(PATH).unwrap();
    fs.put(PATH, bytes);
}

#[test]
fn no_flipped_byte_goes_unseen() {
    for seal in [None, Some(seal())] {
        let fs = MemoryFs::new();
        let meta = write(&fs, few_columns(), seal.clone());
        let good = fs.read(PATH).unwrap();
        for i in 0..good.len() {
            let mut bytes = good.clone();
            bytes[i] ^= 1 << (i % 8);
            put(&fs, bytes);
            let e = read(&fs, &meta, seal.clone()).unwrap_err();
            assert_eq!(e.kind(), ErrorKind::Corrupt, "byte {i}: {e}");
            assert!(e.message().contains(PATH), "byte {i}: {e}");
        }
        for len in 0..good.len() {
            put(&fs, good[..len].to_vec());
            let e = open(&fs, &meta, seal.clone()).unwrap_err();
            assert_eq!(e.kind(), ErrorKind::Corrupt);
            // Nor if the manifest is as wrong as the file.
            let meta = SegmentMeta { bytes: len as u64, ..meta.clone() };
            assert_eq!(open(&fs, &meta, seal.clone()).unwrap_err().kind(), ErrorKind::Corrupt);
        }
        put(&fs, good.iter().map(|b| b.wrapping_mul(31).wrapping_add(7)).collect());
        assert_eq!(read(&fs, &meta, seal).unwrap_err().kind(), ErrorKind::Corrupt);
    }
}

/// The meta that a file would have with these bytes.
fn fitting(meta: &SegmentMeta, bytes: &[u8]) -> SegmentMeta {
    let mut meta = meta.clone();
    let (head, mut rest) = bytes.split_at(meta.head_bytes as usize);
    for column in &mut meta.columns {
        let (own, others) = rest.split_at(column.bytes as usize);
        column.checksum = crc_fast::checksum(crc_fast::CrcAlgorithm::Crc64Nvme, own);
        rest = others;
    }
    meta.checksum = crc_fast::checksum(crc_fast::CrcAlgorithm::Crc64Nvme, &[head, rest].concat());
    meta
}

#[test]
fn columns_under_a_forged_checksum_are_valid_or_an_error() {
    let fs = MemoryFs::new();
    let nested =
        columns(6).into_iter().filter(|a| matches!(a.data_type(), DataType::Utf8 | DataType::Struct(_))).collect();
    let meta = write(&fs, nested, None);
    let good = fs.read(PATH).unwrap();
    assert_eq!(fitting(&meta, &good), meta);
    for i in meta.head_bytes as usize..good.len() - meta.tail_bytes as usize {
        for change in [1, 0xff] {
            let mut bytes = good.clone();
            bytes[i] ^= change;
            let meta = fitting(&meta, &bytes);
            put(&fs, bytes);
            for array in read(&fs, &meta, None).into_iter().flatten() {
                array.to_data().validate_full().unwrap();
            }
        }
    }
}

#[test]
fn a_damaged_column_is_an_error_each_time_and_the_others_are_read() {
    let fs = MemoryFs::new();
    let meta = write(&fs, few_columns(), None);
    let mut bytes = fs.read(PATH).unwrap();
    bytes[meta.head_bytes as usize] ^= 1;
    put(&fs, bytes);
    let segment = open(&fs, &meta, None).unwrap();
    for _ in 0..2 {
        let e = segment.column(10).unwrap_err();
        assert_eq!(e.message(), "file \"tables/1/2.seg\" is damaged: the checksum of column \"c0\" differs");
    }
    assert_eq!(segment.column(11).unwrap().unwrap().as_string::<i32>().value(1), "bc");
    assert_eq!(segment.verify().unwrap_err().kind(), ErrorKind::Corrupt);
}

#[test]
fn a_meta_of_another_segment_does_not_fit() {
    let fs = MemoryFs::new();
    let meta = write(&fs, few_columns(), None);
    let mut wrong = meta.clone();
    wrong.columns.swap(0, 1);
    let wrong = [
        wrong,
        SegmentMeta { rows: 4, ..meta.clone() },
        SegmentMeta { head_bytes: u64::MAX, ..meta.clone() },
        SegmentMeta { columns: Vec::new(), ..meta.clone() },
    ];
    for wrong in wrong {
        assert_eq!(open(&fs, &wrong, None).unwrap_err().kind(), ErrorKind::Corrupt);
    }
}

#[test]
fn a_sealed_segment_needs_its_key() {
    let fs = MemoryFs::new();
    let key = seal();
    // More than two blocks.
    let wide: ArrayRef = Arc::new(Int64Array::from_iter_values(0..300_000));
    let meta = write(&fs, vec![Arc::clone(&wide), Arc::clone(&wide)], Some(Arc::clone(&key)));
    let open = |seal| open(&fs, &meta, seal);
    assert_eq!(open(None).unwrap_err().kind(), ErrorKind::Invalid);
    assert_eq!(open(Some(seal())).unwrap_err().kind(), ErrorKind::Corrupt);
    let segment = open(Some(key)).unwrap();
    assert_eq!(&segment.column(11).unwrap().unwrap(), &wide);
    let clear = 77_777u64.to_le_bytes();
    assert!(!fs.read(PATH).unwrap().windows(8).any(|bytes| bytes == clear));
}

/// A seal that counts the blocks that are opened.
#[derive(Debug)]
struct Counting {
    seal: Arc<dyn Seal>,
    opened: AtomicUsize,
}

impl Seal for Counting {
    fn overhead(&self) -> usize {
        self.seal.overhead()
    }

    fn seal(&self, context: &[u8], plain: &[u8]) -> Result<Vec<u8>> {
        self.seal.seal(context, plain)
    }

    fn open(&self, context: &[u8], sealed: &[u8]) -> Result<Vec<u8>> {
        self.opened.fetch_add(1, Ordering::Relaxed);
        self.seal.open(context, sealed)
    }
}

/// A sealed segment of three columns of three blocks each, the columns, and what opens its blocks.
fn three_sealed_columns(fs: &MemoryFs) -> (SegmentMeta, Vec<ArrayRef>, Arc<Counting>) {
    let columns: Vec<ArrayRef> =
        (0..3).map(|i| Arc::new(Int64Array::from_iter_values(i..i + 300_000)) as ArrayRef).collect();
    let counting = Arc::new(Counting { seal: seal(), opened: AtomicUsize::new(0) });
    let meta = write(fs, columns.clone(), Some(Arc::<Counting>::clone(&counting)));
    (meta, columns, counting)
}

#[test]
fn decrypted_columns_stay_within_the_bound_and_come_back_right() {
    let fs = MemoryFs::new();
    let (meta, columns, counting) = three_sealed_columns(&fs);
    let column_bytes = meta.columns[0].bytes as usize;
    let (access, cache) = access(Some(Arc::<Counting>::clone(&counting)), 2 * column_bytes);
    let segment = Segment::open(&fs, PATH, meta, &access).unwrap();
    // How many blocks reading this column opens.
    let cost = |id: u32| {
        let before = counting.opened.load(Ordering::Relaxed);
        assert_eq!(&segment.column(id).unwrap().unwrap(), &columns[id as usize - 10]);
        assert!(cache.bytes() <= 2 * column_bytes);
        counting.opened.load(Ordering::Relaxed) - before
    };
    let held = segment.column(10).unwrap().unwrap();
    assert!(cost(11) > 0 && cost(12) > 0);
    assert_eq!((cost(11), cost(12)), (0, 0));
    assert!(cost(10) > 0, "it was the least recently used");
    assert_eq!(cost(12), 0);
    assert!(cost(11) > 0, "it was the least recently used");
    assert_eq!(&held, &columns[0]);
    drop(segment);
    assert_eq!(cache.bytes(), 0, "columns go with their segment");
    assert_eq!(&held, &columns[0]);
}

#[test]
fn a_column_that_is_larger_than_the_cache_is_served() {
    let fs = MemoryFs::new();
    let (meta, columns, counting) = three_sealed_columns(&fs);
    let (access, cache) = access(Some(counting), meta.columns[0].bytes as usize - 1);
    let segment = Segment::open(&fs, PATH, meta, &access).unwrap();
    for _ in 0..2 {
        assert_eq!(&segment.column(11).unwrap().unwrap(), &columns[1]);
        assert_eq!(cache.bytes(), 0);
    }
}

#[test]
fn readers_that_come_at_once_decrypt_a_column_once() {
    let fs = MemoryFs::new();
    let (meta, columns, counting) = three_sealed_columns(&fs);
    let segment = open(&fs, &meta, Some(Arc::<Counting>::clone(&counting))).unwrap();
    let before = counting.opened.load(Ordering::Relaxed);
    let start = Barrier::new(8);
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                start.wait();
                assert_eq!(&segment.column(11).unwrap().unwrap(), &columns[1]);
            });
        }
    });
    let blocks = meta.columns[0].bytes as usize / BLOCK_BYTES + 2;
    assert!(counting.opened.load(Ordering::Relaxed) - before <= blocks);
}

#[test]
fn a_damaged_sealed_column_is_an_error_each_time_and_the_others_are_read() {
    let fs = MemoryFs::new();
    let (meta, columns, counting) = three_sealed_columns(&fs);
    let mut bytes = fs.read(PATH).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    put(&fs, bytes);
    let segment = open(&fs, &meta, Some(counting)).unwrap();
    for _ in 0..2 {
        let e = segment.column(11).unwrap_err();
        assert_eq!(e.kind(), ErrorKind::Corrupt);
        assert!(e.message().starts_with("file \"tables/1/2.seg\" is damaged"), "{e}");
        assert_eq!(&segment.column(12).unwrap().unwrap(), &columns[2]);
    }
}

#[test]
fn zone_maps_are_in_the_file() {
    let fs = MemoryFs::new();
    let meta = write(&fs, vec![Arc::new(Int64Array::from_iter_values(0..10_000))], None);
    let segment = open(&fs, &meta, None).unwrap();
    let blocks = segment.stats().blocks(10).unwrap();
    assert_eq!(blocks.min.as_primitive::<Int64Type>().values(), &[0, BLOCK_ROWS as i64]);
    assert_eq!(blocks.max.as_primitive::<Int64Type>().values(), &[BLOCK_ROWS as i64 - 1, 9_999]);
}

#[test]
fn what_cannot_be_stored_is_named() {
    let fs = MemoryFs::new();
    let (fields, batch) = batch_of(vec![Arc::new(StringViewArray::from(vec!["a"]))]);
    let e = write_segment(&fs, PATH, 2, &fields, &batch, None).unwrap_err();
    assert_eq!(e.message(), "column \"c0\" of type TEXT (Utf8View) cannot be stored");
    assert!(fs.len(PATH).is_err());
}

/// Time that this thread ran, which other work on the machine does not lengthen.
fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    stat.split(' ').next().and_then(|ns| ns.parse().ok()).map_or(0.0, |ns: f64| ns / 1e9)
}

/// Prints speeds: `cargo test --release -p mvvd-storage speed -- --ignored --nocapture`.
#[test]
#[ignore = "a measurement, half a gigabyte"]
fn speed() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(folder.path().join("tables/1")).unwrap();
    let fs = DiskFs::new(folder.path());
    let (rows, dims) = (1_000_000, 128i32);
    let values = Float32Array::from_iter_values((0..rows * dims).map(|i| i as f32));
    let item = Arc::new(Field::new_list_field(DataType::Float32, true));
    let vectors: ArrayRef = Arc::new(FixedSizeListArray::new(item, dims, Arc::new(values), None));
    let keys: ArrayRef = Arc::new(Int64Array::from_iter_values(0..rows as i64));
    for seal in [None, Some(seal())] {
        let time = |what: &str, f: &mut dyn FnMut()| {
            let (start, cpu) = (std::time::Instant::now(), cpu_seconds());
            f();
            let (wall, cpu) = (start.elapsed().as_secs_f64(), cpu_seconds() - cpu);
            eprintln!(
                "sealed {}: {what}: wall {wall:.6} s, cpu {cpu:.6} s, {:.2} GB/s of cpu",
                seal.is_some(),
                0.52 / cpu
            );
        };
        let mut meta = None;
        time("write and sync", &mut || {
            meta = Some(write(&fs, vec![Arc::clone(&keys), Arc::clone(&vectors)], seal.clone()))
        });
        let meta = meta.unwrap();
        let mut segment = None;
        time("open", &mut || segment = Some(open(&fs, &meta, seal.clone()).unwrap()));
        let segment = segment.unwrap();
        time("first column", &mut || drop(segment.column(11).unwrap()));
        time("second time", &mut || drop(segment.column(11).unwrap()));
        time("verify", &mut || segment.verify().unwrap());
        fs.remove(PATH).unwrap();
    }
}
