// Asks by Connector/J, in text and prepared on the server, and prints what comes; also what its metadata says.
import java.nio.file.Files;
import java.nio.file.Path;
import java.sql.Connection;
import java.sql.DriverManager;
import java.sql.ResultSet;
import java.sql.ResultSetMetaData;
import java.sql.SQLException;
import java.sql.Statement;

public class Ask {
    // Rows of a cursor lie in a table of MySQL's own, which computes short numbers as INT.
    static boolean cursor;

    public static void main(String[] args) throws Exception {
        String url = "jdbc:mysql://127.0.0.1:" + args[0] + "/ods?sslMode=DISABLED&allowPublicKeyRetrieval=true&connectionTimeZone=UTC&useServerPrepStmts=";
        for (String way : new String[] {"false", "true&useCursorFetch=true&defaultFetchSize=2"}) {
            cursor = way.startsWith("true");
            try (Connection connection = DriverManager.getConnection(url + way, "root", "")) {
                for (String sql : Files.readAllLines(Path.of(args[1]))) {
                    System.out.println(sql);
                    if (way.startsWith("true") && !sql.startsWith("SELECT")) {
                        continue;
                    }
                    try (var statement = connection.prepareStatement(sql)) {
                        print(statement.executeQuery());
                    } catch (SQLException error) {
                        System.out.println("error " + error.getErrorCode() + " " + error.getSQLState());
                    }
                }
                try (var statement = connection.prepareStatement("SELECT id, day FROM orders WHERE customer = ? AND price > ? AND made < ?")) {
                    statement.setString(1, "Ann");
                    statement.setBigDecimal(2, new java.math.BigDecimal("-1.5"));
                    statement.setTimestamp(3, java.sql.Timestamp.valueOf("2030-01-01 00:00:00"));
                    print(statement.executeQuery());
                }
                try (Statement statement = connection.createStatement()) {
                    statement.setMaxRows(2);
                    print(statement.executeQuery("SELECT id FROM orders ORDER BY id"));
                    statement.setMaxRows(0);
                    statement.setQueryTimeout(20);
                    print(statement.executeQuery("SELECT count(id) FROM orders"));
                }
                connection.setAutoCommit(false);
                connection.commit();
                connection.setReadOnly(true);
                connection.setAutoCommit(true);
                System.out.println(connection.isValid(5) + " " + connection.getCatalog() + " " + connection.getTransactionIsolation());
                connection.setCatalog("ods");
                var data = connection.getMetaData();
                names(data.getTables("ods", null, "%", new String[] {"TABLE"}), "TABLE_NAME", "TABLE_TYPE");
                names(data.getColumns("ods", null, "orders", "%"), "COLUMN_NAME", "DATA_TYPE", "TYPE_NAME", "COLUMN_SIZE", "DECIMAL_DIGITS", "NULLABLE", "COLUMN_DEF", "IS_AUTOINCREMENT");
                names(data.getPrimaryKeys("ods", null, "orders"), "COLUMN_NAME", "PK_NAME", "KEY_SEQ");
                names(data.getIndexInfo("ods", null, "orders", false, true), "INDEX_NAME", "COLUMN_NAME", "NON_UNIQUE", "ORDINAL_POSITION");
                names(data.getImportedKeys("ods", null, "orders"), "FK_NAME");
            }
        }
    }

    static void names(ResultSet rows, String... columns) throws SQLException {
        while (rows.next()) {
            StringBuilder line = new StringBuilder();
            for (String column : columns) {
                line.append(rows.getString(column)).append(" | ");
            }
            System.out.println(line);
        }
    }

    static void print(ResultSet rows) throws SQLException {
        ResultSetMetaData data = rows.getMetaData();
        StringBuilder head = new StringBuilder();
        for (int at = 1; at <= data.getColumnCount(); at++) {
            if (cursor) {
                head.append(data.getColumnLabel(at) + " | ");
                continue;
            }
            head.append(data.getColumnLabel(at) + " " + data.getColumnTypeName(at) + " " + data.getColumnClassName(at) + " " + data.getScale(at) + " | ");
        }
        System.out.println(head);
        while (rows.next()) {
            StringBuilder line = new StringBuilder();
            for (int at = 1; at <= data.getColumnCount(); at++) {
                line.append(data.getColumnTypeName(at).contains("BINARY") ? rows.getBytes(at) == null ? "null" : rows.getBytes(at).length : rows.getString(at)).append(" | ");
            }
            System.out.println(line);
        }
        rows.close();
    }
}
