-- SQLAlchemy 2.1.9: a look around and a query, as the log of a MySQL tells.
-- Above each statement stands the shape of the answer, as a MySQL 9.7 gave it.

-- ok
SET NAMES utf8mb4;
-- ok
SET AUTOCOMMIT = 0;
-- rows 1: VERSION()
SELECT VERSION();
-- rows 1: DATABASE()
SELECT DATABASE();
-- rows 1: @@transaction_isolation
SELECT @@transaction_isolation;
-- rows 1: @@sql_mode
SELECT @@sql_mode;
-- rows 1: @@lower_case_table_names
SELECT @@lower_case_table_names;
-- ok
ROLLBACK;
-- rows some: Database
SHOW schemas;
-- rows 13: Field, Type, Null, Key, Default, Extra
DESCRIBE `ods`.`orders`;
-- error 1146
DESCRIBE `ods`.`nothing`;
-- rows 2: Tables_in_ods, Table_type
SHOW FULL TABLES FROM `ods`;
-- rows 1: Table, Create Table
SHOW CREATE TABLE `customers`;
-- rows 1: Table, Create Table
SHOW CREATE TABLE `orders`;
-- rows 2: id, city, n
SELECT orders.id, customers.city, count(*) AS n FROM orders LEFT OUTER JOIN customers ON orders.customer = customers.name WHERE orders.quantity > 0 GROUP BY orders.id, customers.city ORDER BY orders.id LIMIT 2;
-- rows 1: id, customer, price, quantity, ratio, paid, day, made, took, note, photo, small, kind
SELECT * FROM orders WHERE id = 2;
