// Checks of two JDBC drivers: MySQL Connector/J and MariaDB Connector/J, each with several settings. `java -cp 'lib/*' Suite.java PORT
// USER PASSWORD SERVER [NAME…]` runs all or the named ones and prints `PASS: name` or `FAIL: name: why`, and `SKIP: name` for what the driver or server cannot do.
import java.io.*;
import java.math.*;
import java.nio.charset.StandardCharsets;
import java.sql.*;
import java.time.*;
import java.util.*;
import java.util.concurrent.*;

public class Suite {
    interface Check { void run(Connection c) throws Exception; }

    static String base, user, password, server, prefix, setting;
    static boolean mysqlDriver;
    static List<String> only;

    static Connection open(String database, String... more) throws SQLException {
        String url = base + database + "?" + setting + String.join("", more);
        return DriverManager.getConnection(url, user, password);
    }

    static void is(Object expected, Object seen) {
        if (!Objects.equals(String.valueOf(expected), String.valueOf(seen))) throw new AssertionError("expected " + expected + ", saw " + seen);
    }

    static void check(String name, Check check) {
        String full = prefix + name;
        if (!only.isEmpty() && !only.contains(full)) return;
        Future<?> work = pool.submit(() -> {
            try (Connection c = open("suite")) {
                check.run(c);
            }
            return null;
        });
        try {
            work.get(40, TimeUnit.SECONDS);
            System.out.println("PASS: " + full);
        } catch (Throwable thrown) {
            Throwable cause = thrown instanceof ExecutionException ? thrown.getCause() : thrown;
            System.out.println("FAIL: " + full);
            System.out.println("  " + full + ": " + cause);
        }
        System.out.flush();
    }

    static final ExecutorService pool = Executors.newCachedThreadPool(r -> { Thread t = new Thread(r); t.setDaemon(true); return t; });

    static Object one(Connection c, String sql, Object... args) throws SQLException {
        try (PreparedStatement s = c.prepareStatement(sql)) {
            for (int i = 0; i < args.length; i++) s.setObject(i + 1, args[i]);
            try (ResultSet r = s.executeQuery()) {
                return r.next() ? r.getObject(1) : null;
            }
        }
    }

    static void run(Connection c, String... statements) throws SQLException {
        try (Statement s = c.createStatement()) {
            for (String sql : statements) s.execute(sql);
        }
    }

    static void table(Connection c, String columns) throws SQLException {
        run(c, "DROP TABLE IF EXISTS t", "CREATE TABLE t (" + columns + ")");
    }

    static int fails(Callable<?> work) throws Exception {
        try {
            work.call();
        } catch (SQLException e) {
            return e.getErrorCode();
        }
        throw new AssertionError("no error came");
    }

    public static void main(String[] args) throws Exception {
        String port = args[0];
        user = args[1];
        password = args[2];
        server = args[3];
        only = Arrays.asList(args).subList(4, args.length);
        String[][] settings = {
            {"mysql", "text", "sslMode=DISABLED&allowPublicKeyRetrieval=true&allowLoadLocalInfile=true&allowMultiQueries=true"},
            {"mysql", "prepared", "sslMode=PREFERRED&allowPublicKeyRetrieval=true&useServerPrepStmts=true&cachePrepStmts=true&allowLoadLocalInfile=true&allowMultiQueries=true"},
            {"mysql", "rewrite", "sslMode=DISABLED&allowPublicKeyRetrieval=true&rewriteBatchedStatements=true&allowLoadLocalInfile=true&allowMultiQueries=true"},
            {"mysql", "cursor", "sslMode=DISABLED&allowPublicKeyRetrieval=true&useCursorFetch=true&defaultFetchSize=7&allowLoadLocalInfile=true&allowMultiQueries=true"},
            {"mysql", "compress", "sslMode=DISABLED&allowPublicKeyRetrieval=true&useCompression=true&allowLoadLocalInfile=true&allowMultiQueries=true"},
            {"mariadb", "text", "allowPublicKeyRetrieval=true&allowMultiQueries=true&allowLocalInfile=true"},
            {"mariadb", "prepared", "allowPublicKeyRetrieval=true&useServerPrepStmts=true&allowMultiQueries=true&allowLocalInfile=true"},
            {"mariadb", "bulk", "allowPublicKeyRetrieval=true&useBulkStmts=true&useServerPrepStmts=true&allowMultiQueries=true&allowLocalInfile=true"},
            {"mariadb", "pipeless", "allowPublicKeyRetrieval=true&disablePipeline=true&allowMultiQueries=true&allowLocalInfile=true"},
            {"mariadb", "compress", "allowPublicKeyRetrieval=true&useCompression=true&allowMultiQueries=true&allowLocalInfile=true"},
        };
        for (String[] one : settings) {
            mysqlDriver = one[0].equals("mysql");
            base = "jdbc:" + one[0] + "://127.0.0.1:" + port + "/";
            prefix = one[0] + " " + one[1] + ": ";
            setting = one[2];
            all();
        }
        System.exit(0);
    }

    static void all() {
        check("select 1", c -> is(1, one(c, "SELECT 1")));
        check("integers of all widths", c -> {
            table(c, "a TINYINT, b SMALLINT, c MEDIUMINT, d INT, e BIGINT, f BIGINT UNSIGNED");
            run(c, "INSERT INTO t VALUES (-128, -32768, -8388608, -2147483648, -9223372036854775808, 18446744073709551615)");
            try (PreparedStatement s = c.prepareStatement("SELECT * FROM t WHERE a < ?")) {
                s.setInt(1, 0);
                ResultSet r = s.executeQuery();
                is(true, r.next());
                is(-128, r.getInt(1)); is(-32768, r.getInt(2)); is(-8388608, r.getInt(3)); is(Integer.MIN_VALUE, r.getInt(4));
                is(Long.MIN_VALUE, r.getLong(5)); is("18446744073709551615", r.getString(6));
            }
        });
        check("decimals and floats", c -> {
            table(c, "a DECIMAL(30,10), b DOUBLE, c FLOAT");
            try (PreparedStatement s = c.prepareStatement("INSERT INTO t VALUES (?, ?, ?)")) {
                s.setBigDecimal(1, new BigDecimal("12345678901234567890.0123456789")); s.setDouble(2, 1.5e300); s.setFloat(3, 0.25f);
                is(1, s.executeUpdate());
            }
            is("12345678901234567890.0123456789", one(c, "SELECT a FROM t")); is(1.5e300, one(c, "SELECT b FROM t"));
        });
        check("dates and times", c -> {
            table(c, "a DATE, b DATETIME(6), c TIME(3), d YEAR");
            try (PreparedStatement s = c.prepareStatement("INSERT INTO t VALUES (?, ?, ?, ?)")) {
                s.setObject(1, LocalDate.of(2024, 2, 29)); s.setObject(2, LocalDateTime.of(2024, 2, 29, 23, 59, 59, 123456000));
                s.setString(3, "-12:34:56.789"); s.setInt(4, 1999);
                s.executeUpdate();
            }
            try (PreparedStatement s = c.prepareStatement("SELECT a, b, CAST(c AS CHAR), d + ? FROM t")) {
                s.setInt(1, 0);
                ResultSet r = s.executeQuery();
                r.next();
                is("2024-02-29", r.getString(1)); is(LocalDateTime.of(2024, 2, 29, 23, 59, 59, 123456000), r.getObject(2, LocalDateTime.class));
                is("-12:34:56.789", r.getString(3)); is(1999, r.getInt(4));
            }
        });
        check("text of four bytes", c -> {
            table(c, "a VARCHAR(20) CHARACTER SET utf8mb4");
            run(c, "INSERT INTO t VALUES ('\uD83C\uDF0A \u6c34')");
            is("\uD83C\uDF0A \u6c34", one(c, "SELECT a FROM t WHERE a = ?", "\uD83C\uDF0A \u6c34"));
        });
        check("bytes of all values", c -> {
            byte[] bytes = new byte[256];
            for (int i = 0; i < 256; i++) bytes[i] = (byte) i;
            table(c, "a VARBINARY(300)");
            try (PreparedStatement s = c.prepareStatement("INSERT INTO t VALUES (?)")) { s.setBytes(1, bytes); s.executeUpdate(); }
            is(true, Arrays.equals(bytes, (byte[]) one(c, "SELECT a FROM t")));
        });
        check("nulls", c -> {
            table(c, "a INT, b VARCHAR(5)");
            try (PreparedStatement s = c.prepareStatement("INSERT INTO t VALUES (?, ?)")) { s.setNull(1, Types.INTEGER); s.setNull(2, Types.VARCHAR); s.executeUpdate(); }
            is(null, one(c, "SELECT a FROM t")); is(null, one(c, "SELECT b FROM t"));
        });
        check("json", c -> {
            table(c, "a JSON");
            run(c, "INSERT INTO t VALUES ('{\"a\": [1, 2]}')");
            is("2", String.valueOf(one(c, "SELECT JSON_EXTRACT(a, '$.a[1]') FROM t")));
        });
        check("a blob of 5 MB by a stream", c -> {
            byte[] bytes = new byte[5 << 20];
            new Random(1).nextBytes(bytes);
            table(c, "a LONGBLOB");
            try (PreparedStatement s = c.prepareStatement("INSERT INTO t VALUES (?)")) { s.setBinaryStream(1, new ByteArrayInputStream(bytes)); s.executeUpdate(); }
            try (Statement s = c.createStatement(); ResultSet r = s.executeQuery("SELECT a FROM t")) { r.next(); is(true, Arrays.equals(bytes, r.getBytes(1))); }
        });
        check("generated keys", c -> {
            table(c, "id INT PRIMARY KEY AUTO_INCREMENT, a INT");
            try (PreparedStatement s = c.prepareStatement("INSERT INTO t (a) VALUES (?)", Statement.RETURN_GENERATED_KEYS)) {
                for (int i = 0; i < 3; i++) { s.setInt(1, i); s.executeUpdate(); try (ResultSet r = s.getGeneratedKeys()) { r.next(); if (!server.equals("tidb")) is(i + 1, r.getInt(1)); } }
            }
        });
        check("a batch of prepared statements", c -> {
            table(c, "a INT PRIMARY KEY, b VARCHAR(20)");
            try (PreparedStatement s = c.prepareStatement("INSERT INTO t VALUES (?, ?)")) {
                for (int i = 0; i < 500; i++) { s.setInt(1, i); s.setString(2, "row " + i); s.addBatch(); }
                is(500, s.executeBatch().length);
            }
            is(500, one(c, "SELECT COUNT(*) FROM t")); is("row 499", one(c, "SELECT b FROM t WHERE a = ?", 499));
        });
        check("a batch with a mistake in it", c -> {
            table(c, "a INT PRIMARY KEY");
            try (PreparedStatement s = c.prepareStatement("INSERT INTO t VALUES (?)")) {
                for (int i : new int[] {1, 2, 2, 3}) { s.setInt(1, i); s.addBatch(); }
                is(1062, fails(s::executeBatch));
            }
            is(1, one(c, "SELECT 1"));
        });
        check("a batch of statements", c -> {
            table(c, "a INT");
            try (Statement s = c.createStatement()) {
                for (int i = 0; i < 20; i++) s.addBatch("INSERT INTO t VALUES (" + i + ")");
                s.addBatch("UPDATE t SET a = a + 1");
                is(21, s.executeBatch().length);
            }
            is(20, one(c, "SELECT MAX(a) FROM t"));
        });
        check("several statements in one", c -> {
            table(c, "a INT");
            try (Statement s = c.createStatement()) {
                is(false, s.execute("INSERT INTO t VALUES (1); SELECT a FROM t; SELECT 2, 3; UPDATE t SET a = 5"));
                is(1, s.getUpdateCount()); is(true, s.getMoreResults());
                ResultSet r = s.getResultSet(); r.next(); is(1, r.getInt(1));
                is(true, s.getMoreResults()); r = s.getResultSet(); r.next(); is(3, r.getInt(2));
                is(false, s.getMoreResults()); is(1, s.getUpdateCount()); is(false, s.getMoreResults()); is(-1, s.getUpdateCount());
            }
        });
        check("rows as they come", c -> {
            table(c, "a INT");
            run(c, "INSERT INTO t VALUES (0),(1),(2),(3),(4),(5),(6),(7)", "INSERT INTO t SELECT x.a + 8 * y.a FROM t x, t y", "INSERT INTO t SELECT x.a FROM t x, t y");
            int rows = 0;
            try (Statement s = c.createStatement()) {
                s.setFetchSize(mysqlDriver ? Integer.MIN_VALUE : 10);
                ResultSet r = s.executeQuery("SELECT * FROM t");
                while (r.next()) rows++;
            }
            is(5256, rows);
        });
        check("rows by a cursor, and another statement meanwhile", c -> {
            table(c, "a INT");
            run(c, "INSERT INTO t VALUES (0),(1),(2),(3),(4),(5),(6),(7),(8),(9)", "INSERT INTO t SELECT x.a * 10 + y.a FROM t x, t y");
            c.setAutoCommit(false);
            int rows = 0;
            try (PreparedStatement s = c.prepareStatement("SELECT a FROM t WHERE a >= ?")) {
                s.setFetchSize(9); s.setInt(1, 0);
                ResultSet r = s.executeQuery();
                while (r.next()) if (rows++ == 3) is(1, one(c, "SELECT 1"));
            }
            is(110, rows);
            c.commit();
        });
        check("a cursor that is left early", c -> {
            table(c, "a INT");
            run(c, "INSERT INTO t VALUES (0),(1),(2),(3),(4),(5),(6),(7),(8),(9)");
            try (PreparedStatement s = c.prepareStatement("SELECT x.a FROM t x, t y WHERE x.a >= ?")) {
                s.setFetchSize(3); s.setInt(1, 0);
                ResultSet r = s.executeQuery(); r.next(); r.close();
                is(true, s.executeQuery().next());
            }
            is(7, one(c, "SELECT 7"));
        });
        check("a statement prepared once and run often", c -> {
            table(c, "a INT, b VARCHAR(50)");
            try (PreparedStatement s = c.prepareStatement("INSERT INTO t VALUES (?, ?)")) {
                for (int i = 0; i < 200; i++) { s.setInt(1, i); if (i % 3 == 0) s.setNull(2, Types.VARCHAR); else s.setString(2, "x".repeat(i % 50)); s.executeUpdate(); }
            }
            is(67, one(c, "SELECT COUNT(*) FROM t WHERE b IS NULL"));
        });
        check("two hundred prepared statements at once", c -> {
            List<PreparedStatement> all = new ArrayList<>();
            for (int i = 0; i < 200; i++) all.add(c.prepareStatement("SELECT ? + " + i));
            for (int i = 199; i >= 0; i--) { all.get(i).setInt(1, 1); ResultSet r = all.get(i).executeQuery(); r.next(); is(i + 1, r.getInt(1)); }
            for (PreparedStatement s : all) s.close();
        });
        check("what a prepared statement tells of itself", c -> {
            table(c, "a INT, b VARCHAR(7), c DECIMAL(10,2)");
            try (PreparedStatement s = c.prepareStatement("SELECT a, b, c FROM t WHERE a = ? AND b = ?")) {
                is(2, s.getParameterMetaData().getParameterCount()); is(3, s.getMetaData().getColumnCount()); is("b", s.getMetaData().getColumnName(2));
            }
        });
        check("rollback", c -> {
            table(c, "a INT");
            c.setAutoCommit(false); run(c, "INSERT INTO t VALUES (1)"); c.rollback(); c.setAutoCommit(true);
            is(0, one(c, "SELECT COUNT(*) FROM t"));
        });
        check("a commit is seen by another session", c -> {
            table(c, "a INT");
            try (Connection other = open("suite")) {
                c.setAutoCommit(false); run(c, "INSERT INTO t VALUES (1)");
                is(0, one(other, "SELECT COUNT(*) FROM t")); c.commit(); is(1, one(other, "SELECT COUNT(*) FROM t"));
            }
        });
        check("savepoints", c -> {
            table(c, "a INT");
            c.setAutoCommit(false); run(c, "INSERT INTO t VALUES (1)");
            Savepoint point = c.setSavepoint("p"); run(c, "INSERT INTO t VALUES (2)"); c.rollback(point); c.commit();
            is(1, one(c, "SELECT COUNT(*) FROM t"));
        });
        check("isolation levels", c -> {
            for (int level : new int[] {Connection.TRANSACTION_READ_COMMITTED, Connection.TRANSACTION_REPEATABLE_READ}) { c.setTransactionIsolation(level); is(level, c.getTransactionIsolation()); }
        });
        check("a read-only session refuses writes", c -> {
            table(c, "a INT");
            c.setReadOnly(true); c.setAutoCommit(false);
            is(true, fails(() -> { run(c, "INSERT INTO t VALUES (1)"); return null; }) >= 0);
            c.rollback(); c.setAutoCommit(true); c.setReadOnly(false); run(c, "INSERT INTO t VALUES (1)");
        });
        check("another database", c -> {
            c.setCatalog("suite2"); is("suite2", c.getCatalog()); is("suite2", one(c, "SELECT DATABASE()"));
            run(c, "DROP TABLE IF EXISTS only2", "CREATE TABLE only2 (a INT)"); c.setCatalog("suite"); is(1146, fails(() -> one(c, "SELECT * FROM only2")));
        });
        check("is valid", c -> is(true, c.isValid(5)));
        check("cancel", c -> {
            try (Statement s = c.createStatement()) {
                Future<Long> time = pool.submit(() -> { long start = System.nanoTime(); try { s.executeQuery("SELECT SLEEP(20)").next(); } catch (SQLException e) { } return (System.nanoTime() - start) / 1_000_000_000L; });
                Thread.sleep(700); s.cancel();
                is(true, time.get(30, TimeUnit.SECONDS) < 15);
            }
            is(1, one(c, "SELECT 1"));
        });
        check("a query that takes too long", c -> {
            try (Statement s = c.createStatement()) {
                s.setQueryTimeout(1);
                long start = System.nanoTime();
                try { s.executeQuery("SELECT SLEEP(20)").next(); } catch (SQLException e) { }
                is(true, System.nanoTime() - start < 15_000_000_000L);
            }
            is(1, one(c, "SELECT 1"));
        });
        check("abort", c -> {
            Connection other = open("suite");
            other.abort(Runnable::run);
            is(true, other.isClosed()); is(1, one(c, "SELECT 1"));
        });
        check("a session that another one kills", c -> {
            Connection victim = open("suite");
            Object id = one(victim, "SELECT CONNECTION_ID()");
            run(c, "KILL " + id);
            fails(() -> { for (int i = 0; i < 50; i++) { one(victim, "SELECT 1"); Thread.sleep(50); } return null; });
            is(1, one(c, "SELECT 1"));
        });
        check("the network timeout", c -> {
            Connection slow = open("suite");
            slow.setNetworkTimeout(pool, 1000);
            fails(() -> one(slow, "SELECT SLEEP(10)"));
        });
        check("load data local", c -> {
            table(c, "a INT, b VARCHAR(30)");
            File file = File.createTempFile("suite", ".csv");
            try (PrintWriter w = new PrintWriter(file, StandardCharsets.UTF_8)) { for (int i = 0; i < 20000; i++) w.print(i + "\trow " + i + "\n"); }
            try (Statement s = c.createStatement()) { is(20000, s.executeUpdate("LOAD DATA LOCAL INFILE '" + file.getPath() + "' INTO TABLE t")); }
            is("row 19999", one(c, "SELECT b FROM t WHERE a = 19999"));
        });
        check("load data local of a file that is missing", c -> {
            table(c, "a INT");
            try { run(c, "LOAD DATA LOCAL INFILE '/nowhere/at/all' INTO TABLE t"); throw new AssertionError("no error came"); } catch (SQLException e) { }
            is(1, one(c, "SELECT 1"));
        });
        check("a duplicate key", c -> { table(c, "a INT PRIMARY KEY"); run(c, "INSERT INTO t VALUES (1)"); is(1062, fails(() -> { run(c, "INSERT INTO t VALUES (1)"); return null; })); });
        check("a mistake in the syntax", c -> { is(1064, fails(() -> { run(c, "SELEKT 1"); return null; })); is(1, one(c, "SELECT 1")); });
        check("a table that is missing", c -> is(1146, fails(() -> one(c, "SELECT * FROM nothing_here"))));
        check("warnings", c -> { try (Statement s = c.createStatement()) { s.execute("SELECT 1/0, CAST('x' AS SIGNED)"); is(true, s.getWarnings() != null); } });
        check("affected and found rows", c -> {
            table(c, "a INT"); run(c, "INSERT INTO t VALUES (1),(1)");
            try (Statement s = c.createStatement()) { is(2, s.executeUpdate("UPDATE t SET a = 1")); }
            try (Connection other = open("suite", "&useAffectedRows=true"); Statement s = other.createStatement()) { is(0, s.executeUpdate("UPDATE t SET a = 1")); }
        });
        check("a temporary table", c -> { run(c, "CREATE TEMPORARY TABLE tmp (a INT)", "INSERT INTO tmp VALUES (4)"); is(4, one(c, "SELECT a FROM tmp")); });
        check("a variable of the session", c -> { run(c, "SET @a = 5"); is(6, one(c, "SELECT @a + 1")); });
        check("a lock by its name", c -> {
            is(1, one(c, "SELECT GET_LOCK('suite', 1)"));
            try (Connection other = open("suite")) { is(0, one(other, "SELECT GET_LOCK('suite', 0)")); }
            is(1, one(c, "SELECT RELEASE_LOCK('suite')"));
        });
        check("a procedure with results and an out parameter", c -> {
            run(c, "DROP PROCEDURE IF EXISTS p", "CREATE PROCEDURE p(IN a INT, OUT b INT) BEGIN SELECT a; SELECT a + 1, a + 2; SET b = a * 10; END");
            try (CallableStatement s = c.prepareCall("{CALL p(?, ?)}")) {
                s.setInt(1, 4); s.registerOutParameter(2, Types.INTEGER);
                is(true, s.execute()); ResultSet r = s.getResultSet(); r.next(); is(4, r.getInt(1));
                is(true, s.getMoreResults()); r = s.getResultSet(); r.next(); is(6, r.getInt(2));
                while (s.getMoreResults() || s.getUpdateCount() != -1) { }
                is(40, s.getInt(2));
            }
        });
        check("metadata of the database", c -> {
            table(c, "id INT PRIMARY KEY, b VARCHAR(9) NOT NULL");
            DatabaseMetaData m = c.getMetaData();
            try (ResultSet r = m.getColumns("suite", null, "t", null)) { r.next(); is("id", r.getString("COLUMN_NAME")); r.next(); is(9, r.getInt("COLUMN_SIZE")); }
            try (ResultSet r = m.getPrimaryKeys("suite", null, "t")) { r.next(); is("id", r.getString("COLUMN_NAME")); }
            is(true, m.getDatabaseProductVersion().length() > 3);
        });
        check("a result that is updated", c -> {
            table(c, "id INT PRIMARY KEY, b INT"); run(c, "INSERT INTO t VALUES (1, 1)");
            try (Statement s = c.createStatement(ResultSet.TYPE_SCROLL_INSENSITIVE, ResultSet.CONCUR_UPDATABLE); ResultSet r = s.executeQuery("SELECT id, b FROM t")) { r.next(); r.updateInt(2, 9); r.updateRow(); }
            is(9, one(c, "SELECT b FROM t"));
        });
        check("a thousand columns", c -> {
            StringBuilder sql = new StringBuilder("SELECT 0");
            for (int i = 1; i < 1000; i++) sql.append(", ").append(i);
            try (Statement s = c.createStatement(); ResultSet r = s.executeQuery(sql.toString())) { r.next(); is(999, r.getInt(1000)); }
        });
        check("a statement of 3 MB", c -> is(3000000, one(c, "SELECT LENGTH('" + "x".repeat(3000000) + "')")));
        check("a wrong password", c -> { try { DriverManager.getConnection(base + "suite?" + setting, user, "wrong").close(); throw new AssertionError("let in"); } catch (SQLException e) { is(1045, e.getErrorCode()); } });
        check("a database that is missing", c -> is(1049, fails(() -> open("nothing_here"))));
        check("fifty sessions at once", c -> {
            List<Connection> all = new ArrayList<>();
            for (int i = 0; i < 50; i++) all.add(open("suite"));
            for (int i = 0; i < 50; i++) is(i, one(all.get(i), "SELECT " + i));
            for (Connection o : all) o.close();
        });
        check("the time zone of the session", c -> { try (Connection other = open("suite", "&sessionVariables=time_zone='%2B05:00'")) { is("+05:00", one(other, "SELECT @@time_zone")); } });
    }
}
