"""The ADBC driver for Flight SQL against `mvvd serve`: ends with status 1 if anything is not as it should be."""

import signal
import subprocess
import sys
import traceback
from concurrent.futures import ThreadPoolExecutor

import adbc_driver_flightsql.dbapi as flightsql
import adbc_driver_manager
import pyarrow as pa

CHECKS = []


def check(function):
    CHECKS.append(function)
    return function


def fails(work, *kinds):
    """The error of `work`, which has to be of one of these kinds."""
    try:
        work()
    except kinds as e:
        return e
    raise AssertionError("no error")


def rows(connection, sql, parameters=None):
    with connection.cursor() as cursor:
        cursor.execute(sql, parameters)
        return cursor.fetchall()


def vectors(values):
    return pa.FixedSizeListArray.from_arrays(pa.array(sum(values, []), pa.float32()), len(values[0]))


def packages(keys):
    return pa.table({
        "id": pa.array(keys, pa.int64()),
        "name": [f"n{key}" for key in keys],
        "v": vectors([[float(key), 1.0] for key in keys]),
    })


@check
def tables_rows_and_counts(c):
    with c.cursor() as cursor:
        cursor.execute("CREATE TABLE items (id BIGINT PRIMARY KEY, name TEXT, v VECTOR(2))")
        cursor.execute("INSERT INTO items VALUES (1, 'a', '[1,0]'), (2, 'b', '[0,1]'), (3, 'c', NULL)")
        assert cursor.rowcount == 3, cursor.rowcount
        cursor.execute("SELECT id, v FROM items ORDER BY id")
        table = cursor.fetch_arrow_table()
    assert table.column("id").to_pylist() == [1, 2, 3]
    assert table.schema.field("v").type == pa.list_(pa.field("item", pa.float32()), 2), table.schema
    assert table.column("v").to_pylist() == [[1.0, 0.0], [0.0, 1.0], None]
    # A statement without rows has run when execute returns, fetched or not.
    with c.cursor() as cursor:
        cursor.execute("DELETE FROM items WHERE id = 3")
    assert rows(c, "SELECT count(*) FROM items") == [(2,)]
    with c.cursor() as cursor:
        cursor.adbc_statement.set_sql_query("UPDATE items SET name = 'z'")
        assert cursor.adbc_statement.execute_update() == 2


@check
def prepared_vectors(c):
    sql = "SELECT id FROM items ORDER BY v <-> $1 LIMIT 1"
    assert rows(c, sql, ([0.1, 0.9],)) == [(2,)]
    assert rows(c, sql, ("[0.9,0.1]",)) == [(1,)]
    with c.cursor() as cursor:
        cursor.adbc_prepare(sql)
        for vector, nearest in [([1.0, 0.0], 1), ([0.0, 1.0], 2)]:
            cursor.execute(sql, pa.record_batch({"q": vectors([vector])}))
            assert cursor.fetchall() == [(nearest,)]
    with c.cursor() as cursor:
        schema = cursor.adbc_prepare("SELECT id FROM items WHERE id = $1 ORDER BY v <=> $2 LIMIT 5")
        assert [f.name for f in schema] == ["$1", "$2"], schema
        assert schema.field(0).type == pa.int64() and pa.types.is_fixed_size_list(schema.field(1).type), schema


@check
def many_parameter_rows(c):
    with c.cursor() as cursor:
        cursor.executemany("INSERT INTO items VALUES ($1, $2, $3)", packages([20, 21, 22]).to_batches()[0])
        assert cursor.rowcount == 3, cursor.rowcount
        cursor.executemany("DELETE FROM items WHERE id = $1", [(20,), (21,), (22,), (23,)])
        assert cursor.rowcount == 3, cursor.rowcount


@check
def ingest(c):
    with c.cursor() as cursor:
        assert cursor.adbc_ingest("packages", packages(list(range(1000))), mode="create") == 1000
        fails(lambda: cursor.adbc_ingest("packages", packages([1]), mode="create"), c.ProgrammingError)
        assert cursor.adbc_ingest("packages", packages([1000, 1001]), mode="append") == 2
        assert cursor.adbc_ingest("packages", packages([1002]), mode="create_append") == 1
        fails(lambda: cursor.adbc_ingest("packages", packages([5000, 7]), mode="append"), c.Error)
    assert rows(c, "SELECT count(*) FROM packages") == [(1003,)]
    assert rows(c, "SELECT id FROM packages ORDER BY v <-> $1 LIMIT 2", ([500.2, 1.0],)) == [(500,), (501,)]
    with c.cursor() as cursor:
        assert cursor.adbc_ingest("packages", packages([7, 8]), mode="replace") == 2
        # Readers of many batches are streamed.
        reader = pa.RecordBatchReader.from_batches(
            packages([1]).schema, (packages([n]).to_batches()[0] for n in range(100, 200)))
        assert cursor.adbc_ingest("packages", reader, mode="append") == 100
        fails(lambda: cursor.adbc_ingest("nowhere", packages([1]), mode="append"), c.ProgrammingError)
        fails(lambda: cursor.adbc_ingest("t", packages([1]), mode="create", temporary=True), c.NotSupportedError)
    assert rows(c, "SELECT count(*) FROM packages") == [(102,)]


@check
def ingest_at_once(c):
    def make(name, key):
        with flightsql.connect(URI, autocommit=True) as own, own.cursor() as cursor:
            return cursor.adbc_ingest(name, packages([key]), mode="create_append")

    with ThreadPoolExecutor(4) as pool:
        for name in ["once0", "once1", "once2", "once3", "once4"]:
            assert list(pool.map(make, [name] * 4, range(4))) == [1] * 4
            assert rows(c, f"SELECT count(*) FROM {name}") == [(4,)]
            rows(c, f"DROP TABLE {name}")


@check
def what_is_not_fetched_locks_nobody_out(c):
    rows(c, "CREATE TABLE many (id BIGINT PRIMARY KEY)")
    with c.cursor() as cursor:
        for i in range(1_100):
            cursor.execute(f"INSERT INTO many VALUES ({i})")
    assert rows(c, "SELECT count(*) FROM many") == [(1_100,)]
    # Cursors that are never closed.
    cursors = [c.cursor() for _ in range(1_050)]
    for cursor in cursors:
        cursor.execute("SHOW mvvd.ef_search")
    assert rows(c, "SELECT 1") == [(1,)]
    # The oldest have made room for the others, which their owners need not know.
    for cursor in cursors:
        cursor.close()
    rows(c, "DROP TABLE many")


@check
def catalog(c):
    objects = c.adbc_get_objects(depth="all").read_all().to_pylist()
    assert [o["catalog_name"] for o in objects] == ["mvvd"], objects
    schemas = {s["db_schema_name"]: s for s in objects[0]["catalog_db_schemas"]}
    tables = {t["table_name"]: t for t in schemas["public"]["db_schema_tables"]}
    assert [col["column_name"] for col in tables["items"]["table_columns"]] == ["id", "name", "v"]
    assert tables["items"]["table_type"] == "TABLE"
    some = c.adbc_get_objects(depth="tables", table_name_filter="pack%").read_all().to_pylist()
    found = [t["table_name"] for s in some[0]["catalog_db_schemas"] for t in s["db_schema_tables"]]
    assert found == ["packages"], found
    assert set(c.adbc_get_table_types()) == {"TABLE", "SYSTEM TABLE"}
    schema = c.adbc_get_table_schema("items")
    with c.cursor() as cursor:
        cursor.execute("SELECT * FROM items")
        assert cursor.fetch_arrow_table().schema.equals(schema, check_metadata=True), schema
    assert not schema.field("id").nullable
    info = c.adbc_get_info()
    assert info["vendor_name"] == "MVVD", info


@check
def a_schema_without_running(c):
    with c.cursor() as cursor:
        schema = cursor.adbc_execute_schema("DELETE FROM items RETURNING id, name")
        assert schema.names == ["id", "name"]
    assert rows(c, "SELECT count(*) FROM items") == [(2,)]


@check
def errors(c):
    def run(sql):
        return lambda: rows(c, sql)

    def kind(sql):
        return fails(run(sql), c.Error).status_code.name

    assert kind("SELEC 1") == "INVALID_ARGUMENT"
    assert kind("SELECT * FROM nowhere") == "NOT_FOUND"
    assert kind("CREATE TABLE items (id BIGINT)") == "ALREADY_EXISTS"
    assert kind("CREATE VIEW w AS SELECT 1") == "NOT_IMPLEMENTED"
    text = str(fails(run("SELECT nothing FROM items"), c.Error))
    assert "the columns are id, name, v" in text and ".rs" not in text, text
    e = fails(run("INSERT INTO items VALUES (1, 'a', '[1,0]')"), c.Error)
    assert "duplicate key: id = 1 already exists" in str(e), e
    # There are no transactions over several statements, and the server says so.
    e = fails(lambda: c.adbc_connection.set_autocommit(False), c.Error)
    assert e.status_code.name == "NOT_IMPLEMENTED", e


@check
def large_results(c):
    with c.cursor() as cursor:
        cursor.execute("SELECT value, repeat('x', 2000) AS t FROM generate_series(1, 20000)")
        assert cursor.fetch_arrow_table().num_rows == 20000


@check
def an_unread_result_is_let_go(c):
    endless = """SELECT a.value * b.value % 7 AS s
                 FROM generate_series(1, 1000000) a CROSS JOIN generate_series(1, 1000000) b"""
    with c.cursor() as cursor:
        cursor.execute(endless)
        cursor.fetchone()
        cursor.adbc_cancel()
    assert rows(c, "SELECT 1") == [(1,)]


@check
def settings_with_cookies(c):
    rows(c, "SET mvvd.ef_search = 77")
    assert rows(c, "SHOW mvvd.ef_search") == [("auto",)]
    option = adbc_driver_flightsql_cookies()
    with flightsql.connect(URI, db_kwargs={option: "true"}, autocommit=True) as cookies:
        rows(cookies, "SELECT 1")
        rows(cookies, "SET mvvd.ef_search = 77")
        assert rows(cookies, "SHOW mvvd.ef_search") == [("77",)]


def adbc_driver_flightsql_cookies():
    import adbc_driver_flightsql
    return adbc_driver_flightsql.DatabaseOptions.WITH_COOKIE_MIDDLEWARE.value


def main(program):
    global URI
    server = subprocess.Popen([program, "serve", "--flight", "127.0.0.1:0"], stdout=subprocess.PIPE, text=True)
    failed = 0
    try:
        URI = server.stdout.readline().removeprefix("listening on ").strip()
        with flightsql.connect(URI, autocommit=True) as connection:
            for function in CHECKS:
                try:
                    function(connection)
                    print(f"ok      {function.__name__}")
                except Exception:
                    failed += 1
                    print(f"FAILED  {function.__name__}")
                    traceback.print_exc()
    finally:
        server.send_signal(signal.SIGTERM)
        status = server.wait(timeout=30)
    if status != 0:
        failed += 1
        print(f"FAILED  the server ended with status {status}")
    print(f"{len(CHECKS)} checks, {failed} failed, driver manager {adbc_driver_manager.__version__}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
