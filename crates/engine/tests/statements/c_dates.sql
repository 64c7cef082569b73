select date '2026-01-02' as a, time '03:04:05' as b, timestamp '2026-01-02 03:04:05' as c, timestamp '2026-01-02 03:04:05.123' as d;
select year('2026-03-04') as a, month('2026-03-04') as b, day('2026-03-04') as c, quarter('2026-03-04') as d, dayofweek('2026-03-04') as e, weekday('2026-03-04') as f, dayofyear('2026-03-04') as g;
select hour(timestamp '2026-03-04 05:06:07') as a, minute(timestamp '2026-03-04 05:06:07') as b, second(timestamp '2026-03-04 05:06:07') as c;
select date('2026-03-04 05:06:07') as a, last_day('2026-02-10') as b, last_day('2024-02-10') as c, dayname('2026-03-04') as d, monthname('2026-03-04') as e;
select date_format('2026-03-04 05:06:07', '%Y-%m-%d %H:%i:%s') as a, date_format('2026-03-04', '%y/%c/%e %M %b %W %a %j %%') as b, date_format('2026-03-04 15:06:07', '%h:%i %p %r %T %k %l') as c;
-- refused
select date_format('2026-01-01', '%x-%v') as a;
select datediff('2026-03-04', '2026-02-01') as a, datediff('2026-01-01', '2026-12-31') as b, datediff('2026-01-01 23:59:59', '2026-01-02 00:00:00') as c;
select date '2026-01-31' + interval 1 month as a, date '2026-01-31' - interval 1 day as b, date '2024-02-29' + interval 1 year as c, date '2026-01-01' + interval 1 week as d, date '2026-01-01' + interval 1 quarter as e;
select date_add(date '2026-01-31', interval 1 month) as a, date_sub(date '2026-03-01', interval 1 day) as b, date '2026-01-01' + interval 90 minute as c, timestamp '2026-01-01 00:00:00' - interval 1 second as d;
select timestamp '2026-01-01 10:00:00' + interval 1 microsecond as a, timestamp '2026-01-01 10:00:00' + interval 36 hour as b;
-- refused
select date_add('2026-01-31', interval 1 month) as a;
select timestampdiff(day, '2026-01-01', '2026-03-01') as a, timestampdiff(month, '2026-01-31', '2026-02-28') as b, timestampdiff(year, '2000-02-29', '2026-02-28') as c, timestampdiff(hour, '2026-01-01', '2026-01-02 01:30:00') as d, timestampdiff(second, '2026-01-01', '2025-12-31') as e, timestampdiff(week, '2026-01-01', '2026-01-20') as f;
select week('2026-01-01') as a, week('2026-01-01', 1) as b, week('2026-01-01', 3) as c, week('2026-12-31', 3) as d, weekofyear('2026-01-01') as e, yearweek('2026-01-01') as f, yearweek('2026-01-01', 1) as g, yearweek('2026-12-31', 3) as h;
select week('2024-12-29', 0) as a, week('2024-12-29', 1) as b, week('2024-12-29', 2) as c, week('2024-12-29', 3) as d, week('2024-12-29', 4) as e, week('2024-12-29', 5) as f, week('2024-12-29', 6) as g, week('2024-12-29', 7) as h;
select week('2023-01-01', 0) as a, week('2023-01-01', 1) as b, week('2023-01-01', 2) as c, week('2023-01-01', 3) as d, week('2023-01-01', 4) as e, week('2023-01-01', 5) as f, week('2023-01-01', 6) as g, week('2023-01-01', 7) as h;
select week('2021-01-03', 0) as a, week('2021-01-03', 1) as b, week('2021-01-03', 2) as c, week('2021-01-03', 3) as d, week('2021-01-03', 4) as e, week('2021-01-03', 5) as f, week('2021-01-03', 6) as g, week('2021-01-03', 7) as h;
select str_to_date('04/03/2026', '%d/%m/%Y') as a, str_to_date('2026-03-04 05:06:07', '%Y-%m-%d %H:%i:%s') as b, str_to_date('March 4, 2026', '%M %d, %Y') as c;
select str_to_date('20260304', '%Y%m%d') as a, str_to_date('2026-3-4', '%Y-%m-%d') as b;
select to_days('2026-01-01') as a, to_days('1970-01-01') as b;
-- refused
select unix_timestamp('2026-01-01 00:00:00') as a;
select unix_timestamp(timestamp '2026-01-01 00:00:00') as a, from_unixtime(1767225600) as b, from_unixtime(0) as c;
select extract(year from date '2026-03-04') as a, extract(month from date '2026-03-04') as b, extract(day from date '2026-03-04') as c;
-- refused
select extract(year_month from date '2026-03-04') as a;
select cast('2026-03-04' as date) as a, cast('2026-03-04 05:06:07' as datetime) as b, cast('2026-03-04 05:06:07.5' as datetime(3)) as c, cast(timestamp '2026-03-04 05:06:07' as date) as d;
select cast('2026-02-30' as date) as a, cast('abc' as date) as b;
-- differs
select date '2026-02-30' as a;
select date '2026-01-02' < date '2026-01-03' as a, date '2026-01-02' = '2026-01-02' as b, timestamp '2026-01-02 00:00:00' = date '2026-01-02' as c, date '2026-01-02' between '2026-01-01' and '2026-01-31' as d;
select date '2026-01-02' + 0 as a, timestamp '2026-01-02 03:04:05' + 0 as b, time '03:04:05' + 0 as c;
-- refused
select makedate(2026, 60) as a;
select time_to_sec(time '01:02:03') as a;
-- refused
select sec_to_time(3723) as a;
select date_format(null, '%Y') as a, year(null) as b, datediff(null, '2026-01-01') as c;
select adddate(date '2026-01-01', interval 5 day) as a, subdate(date '2026-01-01', interval 5 day) as b;
select curdate() = current_date as a, now() >= curdate() as b, year(now()) > 2000 as c;
create table d (id int primary key, a date, t time, dt datetime, ts timestamp null, m datetime(3), y year);
insert into d values (1, '2026-01-15', '10:20:30', '2026-01-15 10:20:30', '2026-01-15 10:20:30', '2026-01-15 10:20:30.125', 2026), (2, '2024-02-29', '-01:00:00', '2024-02-29 23:59:59', '2024-02-29 23:59:59', '2024-02-29 23:59:59.999', 2024), (3, null, null, null, null, null, null), (4, '1999-12-31', '838:59:59', '1999-12-31 00:00:00', '1999-12-31 00:00:00', '1999-12-31 00:00:00', 1999);
select * from d order by id;
insert into d (id, a) values (10, '2026-02-30');
insert into d (id, a) values (11, '2026-13-01');
insert into d (id, a) values (12, '0000-00-00');
insert into d (id, a) values (13, 'hello');
insert into d (id, dt) values (14, '2026-01-01 25:00:00');
insert into d (id, dt) values (15, '2026-01-01');
insert into d (id, a) values (16, '2026-01-01 10:00:00');
insert into d (id, a) values (17, 20260203);
insert into d (id, a) values (18, '2026-1-5');
insert into d (id, m) values (19, '2026-01-01 00:00:00.123456');
insert into d (id, dt) values (20, '2026-01-01 00:00:00.6');
insert into d (id, y) values (21, 1800);
select * from d order by id;
select id from d where a = '2026-01-15' order by id;
select id from d where a > '2020-01-01' order by id;
select id from d where a >= date '2024-02-29' and a < date '2026-02-01' order by id;
select id from d where dt = '2026-01-15 10:20:30' order by id;
select id from d where dt >= '2024-02-29' order by id;
select id from d where dt between '2024-01-01' and '2026-12-31' order by id;
select id from d where a = dt order by id;
select id from d where a in ('2026-01-15', '2024-02-29') order by id;
select id from d where m > '2026-01-15 10:20:30' order by id;
select id from d where t > '09:00:00' order by id;
select id from d where y = 2026 order by id;
select id from d where year(a) = 2026 and month(a) = 1 order by id;
select id, a + interval 1 day as x, a - interval 1 month as y, dt + interval 1 hour as z, m + interval 1 second as w from d where id < 5 order by id;
select id, datediff(a, '2024-01-01') as x, last_day(a) as y, date(dt) as z, dayname(a) as w from d where id < 5 order by id;
select id, date_format(a, '%Y-%m') as x, date_format(dt, '%H:%i') as y from d where id < 5 order by id;
select date_format(a, '%Y-%m') as k, count(*) as n from d where a is not null group by date_format(a, '%Y-%m') order by k;
select year(a) as k, count(*) as n from d group by year(a) order by k;
select min(a) as a, max(a) as b, min(dt) as c, max(m) as e, count(a) as f from d;
select id, timestampdiff(day, a, dt) as x, timestampdiff(month, a, '2026-06-01') as y from d where id < 5 order by id;
select id, a < dt as x, a = date(dt) as y, coalesce(a, '2000-01-01') as z from d where id in (1, 2) order by id;
select id, ifnull(a, date '2000-01-01') as x, coalesce(dt, timestamp '2000-01-01 00:00:00') as y from d where id < 4 order by id;
select id, if(a > '2025-01-01', a, null) as x, case when y > 2000 then dt end as y from d where id < 5 order by id;
select id, hour(dt) as x, minute(t) as y, second(m) as z, microsecond(m) as w from d where id < 5 order by id;
select id, week(a, 3) as x, yearweek(a, 1) as y, dayofweek(a) as z, quarter(a) as w from d where id < 5 order by id;
select id, cast(a as char) as x, cast(dt as date) as y, cast(a as datetime) as z, concat(a, ' ', t) as w from d where id < 5 order by id;
select id, a from d where a is not null order by a desc, id;
select id, t from d where t is not null order by t;
select id, unix_timestamp(dt) as x from d where id < 5 order by id;
select id, cast(a as signed) as x, a + 0 as y, y + 1 as z from d where id < 3 order by id;
select distinct year(dt) as y from d where id < 5 order by y;
-- differs
select id from d where a > 'not a date' order by id;
-- differs
select count(*) as n from d where a < '2026-02-30';
