-- Metabase beside its driver: the forms of its checks and questions, by its sources.
-- Above each statement stands the shape of the answer, as a MySQL 9.7 gave it.

-- rows 1: _
SELECT TRUE AS `_`;
-- ok
SET @@session.time_zone = '+00:00';
-- rows 1: global_tz, system_tz
SELECT @@GLOBAL.time_zone AS global_tz, @@system_time_zone AS system_tz;
-- rows 0: TRUE
SELECT TRUE FROM `ods`.`orders` WHERE 1 <> 1 LIMIT 0;
-- rows 1: count
SELECT count(*) AS `count` FROM `orders`;
-- rows 3: id, customer, made
SELECT `orders`.`id` AS `id`, `orders`.`customer` AS `customer`, `orders`.`made` AS `made` FROM `orders` LIMIT 2000;
-- rows 1: count
SELECT COUNT(DISTINCT `ods`.`orders`.`customer`) AS `count` FROM `ods`.`orders`;
-- rows 3: made, sum
SELECT DATE(`orders`.`made`) AS `made`, SUM(`orders`.`quantity`) AS `sum` FROM `orders` GROUP BY DATE(`orders`.`made`) ORDER BY DATE(`orders`.`made`) ASC;
-- rows 3: note
SELECT SUBSTRING(`orders`.`note`, 1, 1234) AS `note` FROM `orders` LIMIT 10;
