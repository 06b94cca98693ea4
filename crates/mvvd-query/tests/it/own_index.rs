//! The example of an index type of one's own does what it says.

#[path = "../../examples/landmark.rs"]
#[expect(dead_code, reason = "its main is for those who run it")]
mod landmark;

#[tokio::test]
async fn an_index_type_of_ones_own_answers_through_sql() {
    let [plan, found, scanned] = landmark::nearest().await.unwrap();
    let plan = arrow::util::pretty::pretty_format_batches(&plan).unwrap().to_string();
    assert!(plan.contains("index=points_v_idx (landmark, l2), exact"), "{plan}");
    assert_eq!(found, scanned);
    assert_eq!(found.iter().map(|batch| batch.num_rows()).sum::<usize>(), 5);
}
