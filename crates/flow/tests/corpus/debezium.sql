-- What the corpus beside this file is made of. One statement a line; the rows above the mark are read by the snapshot.
CREATE TABLE corpus.ints (id INT PRIMARY KEY, b1 BOOLEAN, t TINYINT, tu TINYINT UNSIGNED, s SMALLINT, su SMALLINT UNSIGNED, m MEDIUMINT, mu MEDIUMINT UNSIGNED, i INT, iu INT UNSIGNED, b BIGINT, bu BIGINT UNSIGNED, y YEAR, bit1 BIT(1), bit17 BIT(17), bit64 BIT(64))
CREATE TABLE corpus.numbers (id INT PRIMARY KEY, f FLOAT, d DOUBLE, f72 FLOAT(7,2), n DECIMAL(20,5), n0 DECIMAL(10,0), nn NUMERIC(65,30), u DECIMAL(5,2) UNSIGNED)
CREATE TABLE corpus.times (id INT PRIMARY KEY, dt DATE, ti TIME, ti3 TIME(3), ti6 TIME(6), d0 DATETIME, d3 DATETIME(3), d6 DATETIME(6), t0 TIMESTAMP NULL, t3 TIMESTAMP(3) NULL, t6 TIMESTAMP(6) NULL)
CREATE TABLE corpus.texts (id INT PRIMARY KEY, c CHAR(10), v VARCHAR(40), l VARCHAR(40) CHARACTER SET latin1, g VARCHAR(20) CHARACTER SET gbk, tt TINYTEXT, x TEXT, e ENUM('red','it''s','绿'), st SET('a','b','c','d'), j JSON, bin BINARY(6), vb VARBINARY(20), bl BLOB, vc VARCHAR(10) CHARACTER SET binary)
CREATE TABLE corpus.shapes (id INT PRIMARY KEY, p POINT, g GEOMETRY, l LINESTRING SRID 4326, vec VECTOR(3))
CREATE TABLE corpus.people (id INT, part VARCHAR(10), name VARCHAR(20) NOT NULL DEFAULT 'x', score INT, PRIMARY KEY (part, id))
CREATE TABLE corpus.keyless (a INT, b VARCHAR(10))
CREATE TABLE corpus.uniq (a INT NOT NULL, b VARCHAR(10), UNIQUE KEY (a))
CREATE TABLE corpus.zz_end (id INT PRIMARY KEY)
INSERT INTO corpus.ints VALUES (1, 0, -128, 255, -32768, 65535, -8388608, 16777215, -2147483648, 4294967295, -9223372036854775808, 18446744073709551615, 2155, b'1', b'10000000000000001', b'1000000000000000000000000000000000000000000000000000000000000010'), (2, 1, 127, 0, 32767, 0, 8388607, 0, 2147483647, 0, 9223372036854775807, 0, 1901, b'0', b'0', b'0'), (3, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL), (4, 2, -1, 1, -1, 1, -1, 1, -1, 1, -1, 1, 2026, b'1', b'1', b'1111111111111111111111111111111111111111111111111111111111111111')
INSERT INTO corpus.numbers VALUES (1, 1.5e-10, -1.7976931348623157e308, 12345.67, -12345.67890, 1234567890, 0.000000000000000000000000000001, 999.99), (2, -3.4028235e38, 2.2250738585072014e-308, -0.5, 0, -1, -12345678901234567890123456789012345.123456789012345678901234567890, 0), (3, NULL, NULL, NULL, NULL, NULL, NULL, NULL), (4, 0.1, 0.1, 3, 1.28, 127, 255, 1.28), (5, 100, 1e20, 100, 0.00128, 128, -256, 2.56), (6, 1e7, 1e7, 0, -1.28, -128, 1, 0.01), (7, 1234567, 123456.789, 0.01, -0.00129, -129, -1, 0.1), (8, 0.001, 0.0001, 1, 1, 1, 1, 1)
INSERT INTO corpus.times VALUES (1, '9999-12-31', '-838:59:59', '838:59:58.999', '-00:00:00.000001', '9999-12-31 23:59:59', '2026-01-02 03:04:05.120', '2026-01-02 03:04:05.123456', '2038-01-19 03:14:07', '2026-01-02 03:04:05.120', '2026-01-02 03:04:05.123456'), (2, '1000-01-01', '00:00:00', '12:34:56.789', '12:34:56.000001', '1000-01-01 00:00:00', '1970-01-01 00:00:00.001', '1969-12-31 23:59:59.999999', '1970-01-01 00:00:01', '1970-01-01 00:00:01.001', '1970-01-01 00:00:01.000001'), (3, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL), (4, '2024-02-29', '23:59:59', '00:00:00.100', '00:00:00.100000', '2024-02-29 12:00:00', '2024-02-29 12:00:00.000', '2024-02-29 12:00:00.000000', '2024-02-29 12:00:00', '2024-02-29 12:00:00.000', '2024-02-29 12:00:00.100000')
INSERT INTO corpus.times VALUES (5, '0000-00-00', '-00:00:01', '-00:00:01.500', '100:00:00', '0000-00-00 00:00:00', '0000-00-00 00:00:00', '0000-00-00 00:00:00', '0000-00-00 00:00:00', '0000-00-00 00:00:00', '0000-00-00 00:00:00')
INSERT INTO corpus.texts VALUES (1, 'padded   ', '绿 "q" \\', 'café', '中文', 'tiny', 'long', 'it''s', 'a,d', '{"b": [1, 2.5, -0.0, null, true, "绿"], "a": {"deep": 1e20}}', X'0102', X'00FF00', X'FFFE', 'raw'), (2, '', '', '', '', '', '', 'red', '', '[]', X'', X'', X'', ''), (3, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL), (4, 'x', '</a>\t\n\r\b ''', 'é', '一', 'a/b', '😀', '绿', 'a,b,c,d', '"text"', X'010203040506', X'00', X'00', X'FF'), (5, 'x', 'x', 'x', 'x', 'x', 'x', 'red', 'b', '{"n": 12345678901234567890, "d": 0.1, "e": {}, "s": "a\\"b/c\\\\", "m": -5}', X'FF', X'FF', X'FF', 'x')
INSERT INTO corpus.texts (id, j) VALUES (6, JSON_OBJECT('dec', CAST(1.50 AS DECIMAL(5,2)), 'date', CAST('2026-01-02' AS DATE), 'dt', CAST('2026-01-02 03:04:05.5' AS DATETIME(6)), 'time', CAST('-10:11:12.5' AS TIME(6)), 'dbl', 1e0, 'big', 1e100, 'true', true))
INSERT INTO corpus.shapes VALUES (1, ST_GeomFromText('POINT(1 2.5)'), ST_GeomFromText('POLYGON((0 0,0 1,1 1,0 0))'), ST_GeomFromText('LINESTRING(1 2,3 4)', 4326), STRING_TO_VECTOR('[1,-2.5,3e20]')), (2, NULL, NULL, NULL, NULL), (3, ST_GeomFromText('POINT(-0.1 100)'), ST_GeomFromText('POINT(1 2)', 4326), NULL, STRING_TO_VECTOR('[0.1,0,1e-7]'))
INSERT INTO corpus.people VALUES (1, 'a', 'Anne', 1), (2, 'a', 'Bob', NULL)
INSERT INTO corpus.keyless VALUES (1, 'x')
INSERT INTO corpus.uniq VALUES (1, 'x')
INSERT INTO corpus.zz_end VALUES (1)
-- stream --
INSERT INTO corpus.ints SELECT id+10, b1, t, tu, s, su, m, mu, i, iu, b, bu, y, bit1, bit17, bit64 FROM corpus.ints ORDER BY id
INSERT INTO corpus.numbers SELECT id+10, f, d, f72, n, n0, nn, u FROM corpus.numbers ORDER BY id
INSERT INTO corpus.times SELECT id+10, dt, ti, ti3, ti6, d0, d3, d6, t0, t3, t6 FROM corpus.times ORDER BY id
INSERT INTO corpus.texts SELECT id+10, c, v, l, g, tt, x, e, st, j, bin, vb, bl, vc FROM corpus.texts ORDER BY id
INSERT INTO corpus.shapes SELECT id+10, p, g, l, vec FROM corpus.shapes ORDER BY id
INSERT INTO corpus.people VALUES (3, 'b', 'Cid', 3), (4, 'b', 'Dan', 4)
UPDATE corpus.people SET score = 30 WHERE id = 3
UPDATE corpus.people SET id = 40, name = 'Dora' WHERE id = 4
BEGIN
INSERT INTO corpus.people VALUES (5, 'c', 'Eve', 5)
UPDATE corpus.people SET score = score + 1 WHERE part = 'a'
DELETE FROM corpus.people WHERE id = 5
COMMIT
DELETE FROM corpus.people WHERE id = 2
INSERT INTO corpus.keyless VALUES (1, 'x'), (2, 'y')
UPDATE corpus.keyless SET b = 'z' WHERE a = 2
DELETE FROM corpus.keyless WHERE a = 1
INSERT INTO corpus.uniq VALUES (2, 'y')
UPDATE corpus.uniq SET a = 3 WHERE a = 2
ALTER TABLE corpus.people ADD COLUMN city VARCHAR(20) AFTER name, DROP COLUMN score
INSERT INTO corpus.people VALUES (6, 'd', 'Fay', 'Oslo')
TRUNCATE TABLE corpus.keyless
INSERT INTO corpus.keyless VALUES (9, 'n')
CREATE TABLE corpus.later (id BIGINT UNSIGNED PRIMARY KEY, n DECIMAL(12,2))
INSERT INTO corpus.later VALUES (18446744073709551615, 12.50), (7, -0.05)
DROP TABLE corpus.later
INSERT INTO corpus.zz_end VALUES (2)
