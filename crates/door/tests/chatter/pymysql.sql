-- PyMySQL 1.2.4, as its log of a MySQL tells.
-- Above each statement stands the shape of the answer, as a MySQL 9.7 gave it.

-- ok
SET NAMES utf8mb4;
-- ok
SET AUTOCOMMIT = 0;
-- rows 3: id
SELECT id FROM orders;
-- rows 1: id
SELECT id FROM orders WHERE customer = 'Ann' AND price = '12.50';
-- ok
COMMIT;
-- ok
ROLLBACK;
-- ok
SET AUTOCOMMIT = 1;
-- rows 27: id
SELECT a.id FROM orders a, orders b, orders c ORDER BY a.id;
