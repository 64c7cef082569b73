-- DataEase beside Connector/J: the forms of its lists and charts.
-- Above each statement stands the shape of the answer, as a MySQL 9.7 gave it.

-- rows 2: TABLE_NAME, TABLE_COMMENT
SELECT TABLE_NAME,TABLE_COMMENT FROM information_schema.TABLES WHERE TABLE_SCHEMA = 'ods';
-- rows 13: COLUMN_NAME, DATA_TYPE, COLUMN_COMMENT, IF(COLUMN_KEY='PRI'\,1\,0)
SELECT COLUMN_NAME,DATA_TYPE,COLUMN_COMMENT,IF(COLUMN_KEY='PRI',1,0) FROM INFORMATION_SCHEMA.COLUMNS WHERE TABLE_SCHEMA = 'ods' AND TABLE_NAME = 'orders';
-- rows 0: id, customer, price, quantity, ratio, paid, day, made, took, note, photo, small, kind
select * from `orders` limit 0;
-- rows 3: f_ax_0, f_ay_0
SELECT t_a_0.`customer` AS `f_ax_0`, SUM(t_a_0.`quantity`) AS `f_ay_0` FROM `ods`.`orders` t_a_0 GROUP BY t_a_0.`customer` LIMIT 0,1000;
-- rows 2: Tables_in_ods
show tables;
