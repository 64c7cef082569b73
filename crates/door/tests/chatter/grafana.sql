-- Grafana's MySQL data source: the forms of its lists and panels, by its sources.
-- Above each statement stands the shape of the answer, as a MySQL 9.7 gave it.

-- rows 1: TABLE_SCHEMA
SELECT DISTINCT TABLE_SCHEMA from information_schema.TABLES where TABLE_TYPE != 'SYSTEM VIEW' AND TABLE_SCHEMA = 'ods' ORDER BY TABLE_SCHEMA;
-- rows 2: TABLE_NAME
SELECT table_name FROM information_schema.tables WHERE table_schema = 'ods' ORDER BY table_name;
-- rows 2: TABLE_NAME
SELECT table_name FROM information_schema.tables WHERE table_schema = database() ORDER BY table_name;
-- rows 4: COLUMN_NAME, DATA_TYPE
SELECT column_name, data_type FROM information_schema.columns WHERE table_schema = 'ods' AND table_name = 'orders' AND data_type IN ('timestamp','datetime','bigint','int','double','float') ORDER BY column_name;
-- rows 12: COLUMN_NAME, DATA_TYPE
SELECT column_name, data_type FROM information_schema.columns WHERE table_schema = database() AND table_name = 'orders' AND column_name <> 'day' ORDER BY column_name;
-- rows 2: time, value
SELECT UNIX_TIMESTAMP(made) DIV 300 * 300 AS time, sum(quantity) AS value FROM orders WHERE made BETWEEN FROM_UNIXTIME(900000000) AND FROM_UNIXTIME(1900000000) GROUP BY 1 ORDER BY 1;
-- rows 1: 1
SELECT 1;
