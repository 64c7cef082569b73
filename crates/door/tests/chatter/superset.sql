-- Superset beside what SQLAlchemy sends: the forms of its queries, by its sources.
-- Above each statement stands the shape of the answer, as a MySQL 9.7 gave it.

-- rows 1: 1
SELECT 1;
-- rows 1: VERSION()
SELECT VERSION();
-- rows 1: Variable_name, Value
SHOW VARIABLES LIKE 'sql_mode';
-- rows 1: Variable_name, Value
SHOW VARIABLES LIKE 'lower_case_table_names';
-- rows 1: anon_1
SELECT CAST('test plain returns' AS CHAR(60)) AS anon_1;
-- ok
ROLLBACK;
-- rows 2: Tables_in_ods, Table_type
SHOW FULL TABLES FROM `ods`;
-- rows 1: Table, Create Table
SHOW CREATE TABLE `ods`.`orders`;
-- rows 13: Field, Type, Collation, Null, Key, Default, Extra, Privileges, Comment
SHOW FULL COLUMNS FROM `orders` FROM `ods`;
-- rows 3: customer, SUM(quantity)
SELECT customer AS customer, sum(quantity) AS `SUM(quantity)` FROM ods.orders GROUP BY customer ORDER BY `SUM(quantity)` DESC LIMIT 1000;
-- rows 2: __timestamp, count
SELECT DATE(made) AS __timestamp, count(*) AS count FROM ods.orders WHERE made >= STR_TO_DATE('1990-01-01 00:00:00.000000', '%Y-%m-%d %H:%i:%s.%f') GROUP BY DATE(made) ORDER BY count DESC LIMIT 10000;
-- rows 3: id, customer
SELECT * FROM (SELECT id, customer FROM ods.orders) AS virtual_table LIMIT 1001;
