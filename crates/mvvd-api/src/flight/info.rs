//! What the server says of itself: its abilities and its types.

use arrow_flight::error::Result as FlightResult;
use arrow_flight::sql::metadata::{
    SqlInfoData, SqlInfoDataBuilder, XdbcTypeInfo, XdbcTypeInfoData, XdbcTypeInfoDataBuilder,
};
use arrow_flight::sql::{
    Nullable, Searchable, SqlInfo, SqlNullOrdering, SqlSupportedCaseSensitivity, SqlSupportedTransaction,
    SqlTransactionIsolationLevel, XdbcDataType, XdbcDatetimeSubcode,
};
use mvvd_core::schema::COLUMNS_MAX;

/// Version of the Arrow format and libraries.
const ARROW_VERSION: &str = "59.3.2";

/// The server's abilities.
pub(crate) fn sql_info() -> FlightResult<SqlInfoData> {
    let mut info = SqlInfoDataBuilder::new();
    info.append(SqlInfo::FlightSqlServerName, "MVVD");
    info.append(SqlInfo::FlightSqlServerVersion, env!("CARGO_PKG_VERSION"));
    info.append(SqlInfo::FlightSqlServerArrowVersion, ARROW_VERSION);
    info.append(SqlInfo::FlightSqlServerReadOnly, false);
    info.append(SqlInfo::FlightSqlServerSql, true);
    info.append(SqlInfo::FlightSqlServerSubstrait, false);
    // Each statement is atomic by itself; there is nothing to begin or commit.
    info.append(SqlInfo::FlightSqlServerTransaction, SqlSupportedTransaction::None as i32);
    info.append(SqlInfo::FlightSqlServerCancel, true);
    info.append(SqlInfo::FlightSqlServerBulkIngestion, true);
    info.append(SqlInfo::FlightSqlServerIngestTransactionsSupported, false);
    info.append(SqlInfo::FlightSqlServerStatementTimeout, super::prepared::IDLE.as_millis() as i32);
    info.append(SqlInfo::FlightSqlServerTransactionTimeout, 0);
    info.append(SqlInfo::SqlDdlCatalog, false);
    info.append(SqlInfo::SqlDdlSchema, false);
    info.append(SqlInfo::SqlDdlTable, true);
    info.append(SqlInfo::SqlIdentifierCase, SqlSupportedCaseSensitivity::SqlCaseSensitivityLowercase as i32);
    info.append(SqlInfo::SqlIdentifierQuoteChar, "\"");
    info.append(SqlInfo::SqlQuotedIdentifierCase, SqlSupportedCaseSensitivity::SqlCaseSensitivityUnknown as i32);
    info.append(SqlInfo::SqlAllTablesAreSelectable, true);
    info.append(SqlInfo::SqlNullOrdering, SqlNullOrdering::SqlNullsSortedHigh as i32);
    info.append(SqlInfo::SqlSearchStringEscape, "\\");
    info.append(SqlInfo::SqlSupportsColumnAliasing, true);
    info.append(SqlInfo::SqlNullPlusNullIsNull, true);
    info.append(SqlInfo::SqlSupportsTableCorrelationNames, true);
    info.append(SqlInfo::SqlSupportsExpressionsInOrderBy, true);
    info.append(SqlInfo::SqlSupportsOrderByUnrelated, true);
    info.append(SqlInfo::SqlSupportsNonNullableColumns, true);
    info.append(SqlInfo::SqlSchemaTerm, "schema");
    info.append(SqlInfo::SqlCatalogTerm, "catalog");
    info.append(SqlInfo::SqlCatalogAtStart, true);
    info.append(SqlInfo::SqlSelectForUpdateSupported, false);
    info.append(SqlInfo::SqlStoredProceduresSupported, false);
    info.append(SqlInfo::SqlMaxColumnsInTable, COLUMNS_MAX as i64);
    info.append(SqlInfo::SqlDefaultTransactionIsolation, SqlTransactionIsolationLevel::SqlTransactionNone as i32);
    info.append(SqlInfo::SqlTransactionsSupported, false);
    info.append(SqlInfo::SqlSavepointsSupported, false);
    info.append(SqlInfo::SqlBatchUpdatesSupported, true);
    info.append(SqlInfo::SqlNamedParametersSupported, false);
    info.build()
}

/// The types of columns, as JDBC and ODBC know them. Vectors are lists to them, and BITVEC is binary.
pub(crate) fn type_info() -> FlightResult<XdbcTypeInfoData> {
    use XdbcDataType as X;
    let mut types = XdbcTypeInfoDataBuilder::new();
    let quoted = Some(("'", "'"));
    // Name, type, size, quotes, radix, and the code of times.
    let plain = [
        ("BOOLEAN", X::XdbcBit, 1, None, None, None),
        ("TINYINT", X::XdbcTinyint, 3, None, Some(10), None),
        ("SMALLINT", X::XdbcSmallint, 5, None, Some(10), None),
        ("INTEGER", X::XdbcInteger, 10, None, Some(10), None),
        ("BIGINT", X::XdbcBigint, 19, None, Some(10), None),
        ("DECIMAL", X::XdbcDecimal, 38, None, Some(10), None),
        ("REAL", X::XdbcReal, 24, None, Some(2), None),
        ("DOUBLE PRECISION", X::XdbcDouble, 53, None, Some(2), None),
        ("TEXT", X::XdbcVarchar, i32::MAX, quoted, None, None),
        ("BYTEA", X::XdbcVarbinary, i32::MAX, quoted, None, None),
        ("DATE", X::XdbcDate, 10, quoted, None, Some(XdbcDatetimeSubcode::XdbcSubcodeYear)),
        ("TIME", X::XdbcTime, 15, quoted, None, Some(XdbcDatetimeSubcode::XdbcSubcodeTime)),
        ("TIMESTAMP", X::XdbcTimestamp, 26, quoted, None, Some(XdbcDatetimeSubcode::XdbcSubcodeTimestamp)),
    ];
    for (name, data_type, size, quotes, radix, subcode) in plain {
        types.append(XdbcTypeInfo {
            type_name: name.to_owned(),
            data_type,
            column_size: Some(size),
            literal_prefix: quotes.map(|(left, _)| left.to_owned()),
            literal_suffix: quotes.map(|(_, right)| right.to_owned()),
            create_params: (name == "DECIMAL").then(|| vec!["precision".to_owned(), "scale".to_owned()]),
            nullable: Nullable::NullabilityNullable,
            case_sensitive: name == "TEXT",
            searchable: Searchable::Full,
            unsigned_attribute: radix.map(|_| false),
            fixed_prec_scale: false,
            auto_increment: radix.map(|_| false),
            local_type_name: Some(name.to_owned()),
            sql_data_type: if subcode.is_some() { X::XdbcDatetime } else { data_type },
            datetime_subcode: subcode,
            num_prec_radix: radix,
            ..Default::default()
        });
    }
    types.build()
}
