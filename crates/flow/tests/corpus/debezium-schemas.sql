-- The same with `schemas: true`: one column of each type.
CREATE TABLE corpus.all_types (id INT PRIMARY KEY, b1 BOOLEAN NOT NULL, t TINYINT, tu TINYINT UNSIGNED, s SMALLINT, su SMALLINT UNSIGNED, m MEDIUMINT, iu INT UNSIGNED, b BIGINT, bu BIGINT UNSIGNED, y YEAR, bit1 BIT(1), bit17 BIT(17), f FLOAT, d DOUBLE, f72 FLOAT(7,2), n DECIMAL(20,5), dt DATE, ti TIME, ti3 TIME(3), d0 DATETIME, d6 DATETIME(6), t0 TIMESTAMP NULL, c CHAR(10), v VARCHAR(40) NOT NULL, x TEXT, e ENUM('red','it''s','绿'), st SET('a','b'), j JSON, bin BINARY(6), vb VARBINARY(20), bl BLOB, p POINT, g GEOMETRY, vec VECTOR(3))
CREATE TABLE corpus.keyless (a INT NOT NULL, b VARCHAR(10))
CREATE TABLE corpus.zz_end (id INT PRIMARY KEY)
INSERT INTO corpus.all_types (id, b1, n, v) VALUES (1, 1, 1.5, 'x')
INSERT INTO corpus.keyless VALUES (1, 'x')
INSERT INTO corpus.zz_end VALUES (1)
-- stream --
UPDATE corpus.all_types SET v = 'y' WHERE id = 1
DELETE FROM corpus.all_types WHERE id = 1
TRUNCATE TABLE corpus.keyless
INSERT INTO corpus.zz_end VALUES (2)
